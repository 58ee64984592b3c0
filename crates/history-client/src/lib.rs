//! The history client: [`Client`] talks to a history server, and [`run`] is the program.

pub mod args;
mod client;
mod error;

use std::cell::Cell;
use std::io::{self, BufReader, Write};

use cli::escape;
use cli::stream::{Input, input, output};
use cli::{ClientError, Endpoint};
use proto::history::{Operation, Request};
use proto::text::{parse_history_line, read_history_line};

pub use client::{Client, Part};
pub use error::Error;

/// What the program does, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// Whether to say nothing but errors.
    pub is_quiet: bool,
    /// What it does.
    pub action: Action,
}

/// The program's verbs, and what it does without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a person for a line, and send it.
    Prompt,
    /// Send the first line of standard input.
    Stdin,
    /// Send a line of the text protocol.
    Line(String),
    /// Send a request.
    Ask {
        /// Who asks.
        user: String,
        /// What for.
        operation: Operation<'static>,
    },
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    config.endpoint.security.read()?;
    match &config.action {
        Action::Prompt => {
            // Before the prompt: a person must not be asked for a line that cannot be read.
            let input = input()?;
            config.tell("Enter authentication: ");
            config.ask_line(input)
        }
        Action::Stdin => config.ask_line(input()?),
        Action::Line(line) => config.ask(&parse_history_line(line.as_bytes())?),
        Action::Ask { user, operation } => {
            let operation = *operation;
            config.ask(&Request { user, operation })
        }
    }
}

impl Config {
    /// Sends the first line of an input.
    fn ask_line(&self, input: Input) -> Result<(), Error> {
        let line = read_history_line(BufReader::new(input)).map_err(ClientError::Input)?;
        self.ask(&parse_history_line(&line)?)
    }

    fn ask(&self, request: &Request) -> Result<(), Error> {
        let out = match request.operation {
            // A greeting is for a person, so it goes to standard error.
            Operation::Hello => None,
            Operation::Delete { .. }
            | Operation::Get(_)
            | Operation::Clear
            | Operation::Note(_)
            | Operation::Follow { .. } => Some(output()),
        };
        let mut out = out.transpose()?;
        // After a part has been shown, the request is not repeated: it would be shown twice.
        let has_begun = Cell::new(false);
        let may_pass = |error: &Error| !has_begun.get() && error.may_pass();
        let sentence = self.endpoint.retry(may_pass, cli::pause, |server| {
            Client::connect(server)?.ask(request, |part| {
                has_begun.set(true);
                match part {
                    Part::About(text) => {
                        self.tell(text);
                        Ok(())
                    }
                    Part::Text(bytes) => out.as_mut().map_or(Ok(()), |out| out.write_all(bytes)),
                }
            })
        })?;
        let line = match sentence.as_str() {
            "" => String::new(),
            sentence => format!("{sentence}\n"),
        };
        match out {
            Some(mut out) => {
                let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                written.map_err(ClientError::Output)?;
            }
            None => self.tell(&line),
        }
        Ok(())
    }

    /// Writes to standard error, for a person. It ignores a failure: the data is not concerned.
    fn tell(&self, text: &str) {
        if self.is_quiet {
            return;
        }
        let mut shown = String::new();
        escape::show_text(&mut shown, text);
        let _ = io::stderr().write_all(shown.as_bytes());
    }
}
