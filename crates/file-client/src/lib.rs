//! The file client: [`Client`] talks to a file server; [`run`] is what the program does with it.
//!
//! `transfer` is one file there or back, as the command line, the prompt and the lines of a batch
//! file all ask for it; `partial` is a download that has not arrived whole yet; `show` writes what there is.

pub mod args;
mod batch;
mod client;
mod error;
mod partial;
mod prompt;
mod show;
mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;

use cli::Endpoint;

pub use client::{Client, Entry, Uploaded};
pub use error::Error;
pub use transfer::{Output, Transfer};

/// What the program is to do, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// Whether to say nothing when all is well.
    pub is_quiet: bool,
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
    Batch(PathBuf),
    /// The requests a person types.
    Prompt,
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    if config.is_quiet {
        log::set_max_level(log::LevelFilter::Warn);
    }
    match &config.action {
        Action::Transfer(transfer) => transfer.run(&mut Client::new(config.endpoint)),
        Action::Head(path) => show::head(&mut Client::new(config.endpoint), path),
        Action::List(path) => show::list(&mut Client::new(config.endpoint), path),
        Action::Batch(path) => batch::run(path, &config.endpoint),
        Action::Prompt => prompt::run(&mut Client::new(config.endpoint)),
    }
}
