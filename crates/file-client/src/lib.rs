//! The file client: [`Client`] talks to a file server; [`run`] does what the command line says.
//!
//! - `transfer` is one file, there or back, as the command line, the `prompt` and the lines of a `batch`
//!   ask for it; `shell_words` splits such a line. `print` is the verbs that transfer nothing.
//! - `client` makes requests over a `connection`; `peek` looks at a reply before it is read, `location`
//!   at where it leads, and `list` reads the list of a folder.
//! - `download` gets a file. `received` is how far it is, `replacement` the file that it becomes, with the
//!   `ownership` of the one that it replaces, and `resumable_download` one that a later try can resume.
//! - `upload` sends a `source` in one request, and `resumable_upload` in several.
//! - `sidecar` is the files that resuming needs, and `cleanup` removes stale ones. `progress` shows bars, and
//!   `escaped` names.

pub mod args;
mod batch;
mod cleanup;
mod client;
mod connection;
mod download;
mod error;
mod escaped;
mod list;
mod location;
mod ownership;
mod peek;
mod print;
mod progress;
mod prompt;
mod received;
mod replacement;
mod resumable_download;
mod resumable_upload;
mod shell_words;
mod sidecar;
mod source;
mod transfer;
mod upload;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;

use cli::Endpoint;

pub use client::{Client, Options};
pub use error::{Error, Kept};
pub use list::Entry;
pub use source::Input;
pub use transfer::{Output, Transfer};
pub use upload::Uploaded;

/// What the program does, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// Whether to print errors alone.
    pub is_quiet: bool,
    /// Whether transfers continue where earlier ones were cut off.
    pub resume: bool,
    /// The verb.
    pub action: Action,
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One file, there or back.
    Transfer(Transfer),
    /// The fields that the server gives for a file.
    Head(OsString),
    /// The list of a folder.
    List(OsString),
    /// The requests in a file, each with its server.
    Batch {
        /// The file.
        file: Input,
        /// Requests at once.
        jobs: NonZeroUsize,
    },
    /// The requests a person types.
    Prompt,
}

impl Action {
    /// Whether it reads standard input.
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
/// Each has its exit code.
pub fn run(config: Config) -> Result<(), Error> {
    config.endpoint.security.read().map_err(Error::from)?;
    // A terminal cannot show both the file and a progress bar.
    let prints_file = io::stdout().is_terminal()
        && matches!(
            config.action,
            Action::Transfer(Transfer::Get {
                output: Output::Stdout,
                ..
            })
        );
    let options = Options {
        resume: config.resume,
        show_progress: !(config.is_quiet || prints_file),
    };
    let client = || Client::new(config.endpoint.clone(), options.clone());
    match &config.action {
        Action::Transfer(transfer) => transfer.run(&mut client()),
        Action::Head(path) => print::head(&mut client(), path),
        Action::List(path) => print::list(&mut client(), path),
        Action::Batch { file, jobs } => batch::run(file, *jobs, &config.endpoint, &options),
        Action::Prompt => prompt::run(&mut client(), config.is_quiet),
    }
}
