//! The code client: [`Client`] talks to a code server, and [`run`] is the program.

pub mod args;
mod client;
mod error;
mod input;

use cli::stream::output;
use cli::{Address, Endpoint};
use uuid::Uuid;

pub use client::Client;
pub use error::Error;

/// What the program does, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server, at its port or socket for codes.
    pub endpoint: Endpoint,
    /// Where the server is for messages.
    pub messages: Address,
    /// What it does.
    pub action: Action,
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Act as several clients, one after the other.
    Run {
        /// How many.
        clients: u64,
    },
    /// Request one code.
    Request {
        /// Whose; `None` is a new UUID.
        uuid: Option<Uuid>,
    },
    /// Leave one message.
    Send {
        /// From whom.
        sender: Sender,
        /// The message.
        text: Text,
    },
}

impl Action {
    /// Whether it reads standard input.
    fn reads_stdin(&self) -> bool {
        match self {
            Self::Run { .. } | Self::Request { .. } => false,
            Self::Send { sender, text } => *sender == Sender::Stdin || *text == Text::Stdin,
        }
    }
}

/// Who sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// Given on the command line, where other users of the machine can see it.
    Given {
        /// The UUID.
        uuid: Uuid,
        /// The code that was handed out to it.
        code: String,
    },
    /// The first line of standard input is the UUID and the code.
    Stdin,
}

/// The text of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// Given on the command line.
    Given(String),
    /// Standard input, after the line with the sender if that line is there, too.
    Stdin,
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    config.endpoint.security.read().map_err(Error::from)?;
    let message_server = config.endpoint.at(config.messages);
    let mut client = Client::new(config.endpoint, message_server);
    match config.action {
        Action::Run { clients } => {
            let mut out = output()?;
            for index in 0..clients {
                let uuid = Uuid::new_v4();
                let code = client.request(uuid)?;
                out.print(&format!("Client {index}: {uuid} has the code {code}\n"))?;
                let text = format!("Text insertion for index {index}");
                client.send(uuid, &code.to_string(), &text)?;
                out.print(&format!("Client {index}: the message is stored\n"))?;
            }
        }
        Action::Request { uuid } => {
            let mut out = output()?;
            let uuid = uuid.unwrap_or_else(Uuid::new_v4);
            let code = client.request(uuid)?;
            out.print(&format!("{uuid} {code}\n"))?;
        }
        Action::Send { sender, text } => {
            let (uuid, code, text) = input::read(sender, text)?;
            client.send(uuid, &code, &text)?;
            log::info!("Message stored");
        }
    }
    Ok(())
}
