//! The queue client: [`Client`] talks to a queue server over TCP or UDP; [`run`] is what the
//! program does with it.

pub mod args;
mod client;
mod error;
mod udp;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::str::FromStr;

use cli::Endpoint;

pub use client::{Client, Received};
pub use error::Error;

/// What the program is to do, and with which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The server.
    pub endpoint: Endpoint,
    /// How it is reached.
    pub transport: Transport,
    /// What is to be done.
    pub action: Action,
}

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP.
    Tcp,
    /// Over UDP.
    Udp,
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            _ => Err(()),
        }
    }
}

/// The program's verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put one message into the queue.
    Send {
        /// Where the message is.
        source: Source,
        /// How long it may be, in bytes.
        body_bytes_max: usize,
        /// Whether to send the beginning of a longer one.
        truncate: bool,
    },
    /// Take the oldest message out.
    Receive,
}

/// Where a message is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// Does what the command line says.
///
/// # Errors
/// With the exit code that belongs to it.
pub fn run(config: Config) -> Result<(), Error> {
    match &config.action {
        Action::Send {
            source,
            body_bytes_max,
            truncate,
        } => {
            let body = read_message(source, *body_bytes_max, *truncate)?;
            let mut client = Client::connect(&config.endpoint, config.transport)?;
            client.send(&body)?;
            log::info!("Sent: {} bytes", body.len());
        }
        Action::Receive => {
            let mut client = Client::connect(&config.endpoint, config.transport)?;
            let message = client.receive()?.ok_or(Error::Empty)?;
            let mut out = io::stdout().lock();
            out.write_all(&message.body)
                .and_then(|()| out.flush())
                .map_err(Error::Output)?;
            log::info!("Received: {} bytes", message.body.len());
            client.ack(&message)?;
        }
    }
    Ok(())
}

/// Reads the message to send, but never more than one byte over the limit.
fn read_message(source: &Source, bytes_max: usize, truncate: bool) -> Result<Vec<u8>, Error> {
    let (name, input): (_, Box<dyn Read>) = match source {
        Source::Stdin => (PathBuf::from("standard input"), Box::new(io::stdin())),
        Source::File(path) => {
            let file = File::open(path).map_err(|cause| Error::Read {
                path: path.clone(),
                cause,
            })?;
            (path.clone(), Box::new(file))
        }
    };
    let failed = |cause| Error::Read {
        path: name.clone(),
        cause,
    };
    let mut body = Vec::new();
    let mut input = input.take(bytes_max as u64 + 1);
    input.read_to_end(&mut body).map_err(failed)?;
    if body.len() <= bytes_max {
        return Ok(body);
    }
    if truncate {
        log::warn!("Sending the first {bytes_max} bytes of {}", name.display());
        body.truncate(bytes_max);
        return Ok(body);
    }
    // Count what is left, for the sentence.
    let rest = io::copy(input.get_mut(), &mut io::sink()).map_err(failed)?;
    Err(Error::TooLong {
        path: name,
        bytes: body.len() as u64 + rest,
        bytes_max,
    })
}
