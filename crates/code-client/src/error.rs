//! What can go wrong for a code client.

use std::fmt;
use std::io;

use cli::exit::of_output_error;
use cli::{ConnectError, Exit, Failure};
use proto::code::{BODY_BYTES_MAX, BodyError};
use proto::http::response::ResponseError;

/// Why a client did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server refused; with its sentence.
    Refused(String),
    /// Standard input could not be read.
    Input(io::Error),
    /// The first line of standard input is not a UUID and a code.
    NotASender,
    /// The text on standard input is longer than a message can be.
    TooLong,
    /// Standard output could not be written.
    Output(io::Error),
    /// The server could not be reached.
    Connect(ConnectError),
    /// The connection broke, or waiting took too long.
    Lost(io::Error),
    /// What the server answered is not HTTP.
    NotHttp(ResponseError),
    /// What the server answered is HTTP, but no reply of a code server.
    NotUnderstood(BodyError),
    /// The server answered something else than what was asked.
    Unexpected,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(sentence) => write!(f, "the server refused: {sentence}"),
            Self::Input(_) => f.write_str("cannot read standard input"),
            Self::NotASender => f.write_str(
                "the first line of standard input must be UUID CODE, as request prints it",
            ),
            Self::TooLong => write!(
                f,
                "the text on standard input is over {BODY_BYTES_MAX} bytes"
            ),
            Self::Output(_) => f.write_str("cannot write to standard output"),
            Self::Connect(error) => error.fmt(f),
            Self::Lost(error) if cli::is_timeout(error) => {
                f.write_str("the server did not answer in time")
            }
            Self::Lost(_) => f.write_str("the connection to the server was lost"),
            Self::NotHttp(error) => error.fmt(f),
            Self::NotUnderstood(error) => write!(f, "the server's answer makes no sense: {error}"),
            Self::Unexpected => f.write_str("the server's answer is not to what was asked"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Input(cause) | Self::Output(cause) => Some(cause),
            Self::Lost(cause) if !cli::is_timeout(cause) => Some(cause),
            Self::Connect(error) => error.source(),
            _ => None,
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl From<ResponseError> for Error {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::Io(error) => Self::Lost(error),
            other => Self::NotHttp(other),
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::Refused,
            Self::Input(_) | Self::NotASender | Self::TooLong => Exit::Local,
            Self::Output(error) => of_output_error(error),
            Self::Connect(_)
            | Self::Lost(_)
            | Self::NotHttp(_)
            | Self::NotUnderstood(_)
            | Self::Unexpected => Exit::Network,
        }
    }
}
