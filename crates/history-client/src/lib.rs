//! The history client: [`Client`] talks to a history server; [`run`] is what the program does with
//! it.

pub mod args;
mod client;
mod error;

use std::io::{self, BufReader, Write};

use cli::Endpoint;
use cli::stream::{input, output};
use proto::escape;
use proto::history::{Operation, Request};
use proto::plain::{parse_history_line, read_history_line};

pub use client::{Client, Part};
pub use error::Error;

/// What the program is to do, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// What is to be done.
    pub action: Action,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a person for a line, and send it.
    Prompt,
    /// Send a line, as in the plain dialect.
    Line(String),
    /// Send a request.
    Ask {
        /// Who asks.
        user: String,
        /// What for.
        operation: Operation,
    },
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    match &config.action {
        Action::Prompt => ask(&config.endpoint, &parse_history_line(&prompt()?)?),
        Action::Line(line) => ask(&config.endpoint, &parse_history_line(line.as_bytes())?),
        Action::Ask { user, operation } => {
            let operation = *operation;
            ask(&config.endpoint, &Request { user, operation })
        }
    }
}

/// Asks the person at the terminal for a line.
fn prompt() -> Result<Vec<u8>, Error> {
    let input = input().map_err(Error::Input)?;
    to_person("Enter authentication: ");
    read_history_line(BufReader::new(input)).map_err(Error::Input)
}

fn ask(server: &Endpoint, request: &Request) -> Result<(), Error> {
    let mut out = output().map_err(Error::Output)?;
    let mut client = Client::connect(server)?;
    let sentence = client.ask(request, |part| match part {
        Part::About(text) => {
            to_person(text);
            Ok(())
        }
        Part::Text(bytes) => out.write_all(bytes),
    })?;
    let written = match sentence.as_str() {
        "" => Ok(()),
        sentence => out.write_all(format!("{sentence}\n").as_bytes()),
    };
    written.and_then(|()| out.flush()).map_err(Error::Output)
}

/// Writes to standard error. That nobody reads it is no reason to fail.
fn to_person(text: &str) {
    let mut shown = String::new();
    escape::show_text(&mut shown, text);
    let _ = io::stderr().write_all(shown.as_bytes());
}
