//! The file client: [`Client`] talks to a file server; [`run`] does what the command line says.
//!
//! - `transfer` is one file, there or back, as the command line, the `prompt` and the lines of a `batch`
//!   ask for it; `shell_words` splits such a line. `print` is the verbs that transfer nothing.
//! - `client` makes requests over a `connection`; `peek` looks at a reply before it is read, `location`
//!   at where it leads, and `list` reads the list of a folder. `manage` deletes, renames and creates folders.
//! - `download` gets a file. `received` is how far it is, `replacement` the file that it becomes, with the
//!   `ownership` of the one that it replaces, and `resumable_download` one that a later try can resume.
//! - `upload` sends a `source` in one request, and `resumable_upload` in several.
//! - `folder_download` gets a folder, or what matches a `name_pattern`, and `folder_upload` sends one.
//!   `folder_transfer` is what both have in common: a walk, whose findings wait in a `spool`, and `jobs`,
//!   several threads with the same work. `place` is a name in an open folder, and `update` tells what
//!   needs no transfer.
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
mod folder_download;
mod folder_transfer;
mod folder_upload;
mod jobs;
mod list;
mod location;
mod manage;
mod name_pattern;
mod ownership;
mod peek;
mod place;
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
mod spool;
mod transfer;
mod update;
mod upload;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use cli::Endpoint;

use folder_download::FolderDownload;
use folder_upload::FolderUpload;

pub use client::{Client, Options, Update};
pub use error::{Error, Kept};
pub use list::Entry;
pub use manage::Change;
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
    /// Whether files that the other side has already are not transferred.
    pub update: Option<Update>,
    /// Transfers at once, of a folder, a pattern or a batch; one, unless it is said.
    pub jobs: Option<NonZeroUsize>,
    /// The verb.
    pub action: Action,
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One file, there or back; or a folder, if that is what is to be sent.
    Transfer(Transfer),
    /// A folder of the server.
    GetFolder {
        /// Where it is on the server. It ends in a slash.
        path: OsString,
        /// Where it goes.
        into: PathBuf,
    },
    /// The files of a folder of the server whose names match a pattern.
    GetMatching {
        /// Where they are on the server. The last name is the pattern.
        path: OsString,
        /// Where they go; the current folder, unless it is said.
        output: Option<Output>,
    },
    /// The fields that the server gives for a file.
    Head(OsString),
    /// The list of a folder.
    List(OsString),
    /// A change on the server.
    Change(Change),
    /// The requests in a file, each with its server.
    Batch(Input),
    /// The requests a person types.
    Prompt,
}

impl Action {
    /// Whether it reads standard input.
    fn reads_stdin(&self) -> bool {
        match self {
            Self::Transfer(Transfer::Post { file, .. }) | Self::Batch(file) => {
                *file == Input::Stdin
            }
            Self::Prompt => true,
            Self::Transfer(Transfer::Get { .. })
            | Self::GetFolder { .. }
            | Self::GetMatching { .. }
            | Self::Head(_)
            | Self::List(_)
            | Self::Change(_) => false,
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
            }) | Action::GetMatching {
                output: Some(Output::Stdout),
                ..
            }
        );
    let options = Options {
        resume: config.resume,
        update: config.update,
        show_progress: !(config.is_quiet || prints_file),
    };
    let client = || Client::new(config.endpoint.clone(), options.clone());
    let server = &config.endpoint;
    let jobs = config.jobs.unwrap_or(NonZeroUsize::MIN);
    match &config.action {
        Action::Transfer(Transfer::Post {
            file: Input::File(from),
            path,
            is_new,
        }) if from.is_dir() => {
            let what = FolderUpload {
                from,
                path,
                is_new: *is_new,
            };
            folder_upload::run(what, server, &options, jobs)
        }
        Action::Transfer(Transfer::Post {
            file: Input::File(file),
            ..
        }) if config.jobs.is_some() => Err(Error::JobsOfOneFile(file.clone())),
        Action::Transfer(transfer) => transfer.run(&mut client()),
        Action::GetFolder { path, into } => {
            let what = FolderDownload {
                path,
                pattern: None,
                into,
            };
            folder_download::run(what, server, &options, jobs)
        }
        Action::GetMatching { path, output } => {
            folder_download::run_matching(path, output.as_ref(), server, &options, jobs)
        }
        Action::Head(path) => print::head(&mut client(), path),
        Action::List(path) => print::list(&mut client(), path),
        Action::Change(change) => change.run(&mut client()),
        Action::Batch(file) => batch::run(file, jobs, server, &options),
        Action::Prompt => prompt::run(&mut client(), config.is_quiet),
    }
}
