//! The file client: [`Client`] talks to a file server; [`run`] is what the program does with it.
//!
//! `connection` is requests and replies, and `unread` looks at a reply before it is read; `download`
//! and `upload` are files there and back over it, `arrived` what has come of a download, `partial` and
//! `resumed` one that has not arrived whole yet, `source` a file that is sent, `resumable` an upload
//! that another try can go on with, `location` where, `state` what it needs for that, `beside` what all of
//! that is called, and `rights` what a file gets that has arrived.
//! `leftovers` is what clients have left that were killed.
//! `transfer` is one file there or back, as the command line, the prompt and the lines of a `batch`
//! all ask for it; `quoting` tells the words of such a line, `list` reads what stands in a folder,
//! `show` writes what there is, and `progress` how far it is.

pub mod args;
mod arrived;
mod auth;
mod batch;
mod beside;
mod client;
mod connection;
mod download;
mod error;
mod leftovers;
mod list;
mod location;
mod partial;
mod progress;
mod prompt;
mod quoting;
mod resumable;
mod resumed;
mod rights;
mod show;
mod source;
mod state;
mod transfer;
mod unread;
mod upload;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;

use cli::Endpoint;

pub use auth::Credentials;
pub use client::{Client, Options};
pub use error::{Error, Kept};
pub use list::Entry;
pub use source::Input;
pub use transfer::{Output, Transfer};
pub use upload::Uploaded;

/// What the program is to do, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// Whether to say nothing but errors.
    pub is_quiet: bool,
    /// Whether transfers go on where earlier ones were cut off.
    pub resume: bool,
    /// The file with the user and the password, if the server is to know who asks.
    pub auth_file: Option<Input>,
    /// What is to be done.
    pub action: Action,
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One file, there or back.
    Transfer(Transfer),
    /// What the server says of a file.
    Head(OsString),
    /// What stands in a folder.
    List(OsString),
    /// The requests in a file, each with its server.
    Batch {
        /// The file.
        file: Input,
        /// How many requests are made at once.
        jobs: NonZeroUsize,
    },
    /// The requests a person types.
    Prompt,
}

impl Action {
    /// Whether it is standard input that says what is to be done, or is to be sent.
    fn reads_stdin(&self) -> bool {
        match self {
            Self::Transfer(Transfer::Post { file, .. }) | Self::Batch { file, .. } => {
                *file == Input::Stdin
            }
            Self::Prompt => true,
            Self::Transfer(Transfer::Get { .. }) | Self::Head(_) | Self::List(_) => false,
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    let credentials = config.auth_file.as_ref().map(Credentials::read);
    // The file itself and a bar do not go together on one terminal.
    let has_terminal = io::stdout().is_terminal()
        && matches!(
            config.action,
            Action::Transfer(Transfer::Get {
                output: Output::Stdout,
                ..
            })
        );
    let options = Options {
        resume: config.resume,
        show_progress: !(config.is_quiet || has_terminal),
        credentials: credentials.transpose()?,
    };
    let client = || Client::new(config.endpoint.clone(), options.clone());
    match &config.action {
        Action::Transfer(transfer) => transfer.run(&mut client()),
        Action::Head(path) => show::head(&mut client(), path),
        Action::List(path) => show::list(&mut client(), path),
        Action::Batch { file, jobs } => batch::run(file, *jobs, &config.endpoint, &options),
        Action::Prompt => prompt::run(&mut client(), config.is_quiet),
    }
}
