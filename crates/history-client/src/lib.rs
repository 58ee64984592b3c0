//! The history client: [`Client`] talks to a history server, and [`run`] is the program, which gives each
//! larger verb a file of its own.

pub mod args;
mod batch;
mod client;
mod error;
mod follow;
mod get;
mod note;
mod text;

use std::cell::Cell;
use std::io::{self, BufReader, IsTerminal, Write};

use cli::escape;
use cli::stream::{Input, Output, input, output};
use cli::{ClientError, Endpoint};
use proto::history::{Operation, Request};
use proto::text::{parse_history_line, read_history_line};

pub use batch::Batch;
pub use client::{Begin, Client, Event, Part};
pub use error::{Error, NotANote};
pub use follow::Follow;
pub use get::Get;
pub use note::{Note, Source};

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
    /// Greet the server, as this user.
    Hello(String),
    /// Add notes.
    Note(Note),
    /// Show lines.
    Get(Get),
    /// Show lines as they come.
    Follow(Follow),
    /// Delete lines.
    Delete {
        /// Who deletes them.
        user: String,
        /// The first line, counted from 1.
        first: u64,
        /// The last one.
        last: u64,
        /// What each must contain; empty for anything.
        contains: String,
    },
    /// Delete everything, as this user.
    Clear(String),
    /// Ask for a user name that begins with this, which may be empty.
    Register(String),
}

impl Action {
    /// Whether it reads standard input.
    fn reads_stdin(&self) -> bool {
        match self {
            Self::Prompt | Self::Stdin => true,
            Self::Note(note) => !matches!(note.source, Source::Text(_)),
            Self::Line(_)
            | Self::Hello(_)
            | Self::Get(_)
            | Self::Follow(_)
            | Self::Delete { .. }
            | Self::Clear(_)
            | Self::Register(_) => false,
        }
    }
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
            config.prompt("Enter authentication: ");
            config.ask_line(input)
        }
        Action::Stdin => config.ask_line(input()?),
        Action::Line(line) => config.ask_and_print(&parse_history_line(line.as_bytes())?),
        Action::Hello(user) => config.ask_and_print(&Request {
            user,
            operation: Operation::Hello,
        }),
        Action::Note(note) => note.run(&config),
        Action::Get(get) => get.run(&config),
        Action::Follow(follow) => follow.run(&config),
        Action::Delete {
            user,
            first,
            last,
            contains,
        } => config.ask_and_print(&Request {
            user,
            operation: Operation::Delete {
                first: *first,
                last: *last,
                contains,
            },
        }),
        Action::Clear(user) => config.ask_and_print(&Request {
            user,
            operation: Operation::Clear,
        }),
        Action::Register(prefix) => {
            let out = output()?;
            let name = config.ask(|client, _| client.register(prefix), |_| Ok(()))?;
            print_line(out, &name)
        }
    }
}

impl Config {
    /// Sends the first line of an input.
    fn ask_line(&self, input: Input) -> Result<(), Error> {
        let line = read_history_line(BufReader::new(input)).map_err(ClientError::Input)?;
        self.ask_and_print(&parse_history_line(&line)?)
    }

    /// Sends a request, and prints the reply.
    fn ask_and_print(&self, request: &Request) -> Result<(), Error> {
        // A greeting is for a person, so it goes to standard error.
        if request.operation == Operation::Hello {
            self.ask(|client, on_part| client.ask(request, on_part), |_| Ok(()))?;
            return Ok(());
        }
        let mut out = output()?;
        let sentence = self.ask(
            |client, on_part| client.ask(request, on_part),
            |piece| out.write_all(piece),
        )?;
        print_line(out, &sentence)
    }

    /// Connects, has `ask` send a request, and passes the pieces of the history in the reply to `on_text`.
    /// Returns the sentence at its end. While it is certain that the server has not done what it was asked,
    /// tries again for as long as `--wait-for-server` says.
    fn ask(
        &self,
        ask: impl Fn(&mut Client, &mut dyn FnMut(Part) -> io::Result<()>) -> Result<String, Error>,
        mut on_text: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<String, Error> {
        // After a part has been shown, the request is not repeated: it would be shown twice.
        let has_begun = Cell::new(false);
        let may_pass = |error: &Error| !has_begun.get() && error.may_pass();
        self.endpoint.retry(may_pass, cli::pause, |server| {
            ask(&mut Client::connect(server)?, &mut |part| {
                has_begun.set(true);
                match part {
                    Part::About(text) => {
                        self.tell(text);
                        Ok(())
                    }
                    Part::Text(bytes) => on_text(bytes),
                }
            })
        })
    }

    /// Asks a person for something.
    fn prompt(&self, text: &str) {
        if !self.is_quiet {
            show(text);
        }
    }

    /// Tells a person what no script needs: a greeting, that all went well. Nobody is told where standard
    /// error goes into a file, or into the mail of a cron job, unless `-v` asks for it.
    fn tell(&self, text: &str) {
        let is_verbose = log::log_enabled!(log::Level::Debug);
        if !self.is_quiet && (is_verbose || io::stderr().is_terminal()) {
            show(text);
        }
    }
}

/// Writes to standard error. It ignores a failure: the data is not concerned.
fn show(text: &str) {
    let mut shown = String::new();
    escape::show_text(&mut shown, text);
    let _ = io::stderr().write_all(shown.as_bytes());
}

/// Prints a sentence, if there is one.
fn print_line(mut out: Output, sentence: &str) -> Result<(), Error> {
    let line = match sentence {
        "" => String::new(),
        sentence => format!("{sentence}\n"),
    };
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    Ok(written.map_err(ClientError::Output)?)
}
