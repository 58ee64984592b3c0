//! What can go wrong for a file client.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cli::exit::of_output_error;
use cli::{ConnectError, Exit, Failure, is_timeout};
use proto::http::response::ResponseError;

use crate::batch::LineError;
use crate::transfer::shown;

/// Why a client did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server refused.
    Refused {
        /// What was asked for.
        path: String,
        /// The status code.
        status: u16,
        /// The phrase behind the code.
        phrase: String,
        /// The first line of the reply's body, which says why.
        sentence: String,
    },
    /// A file here could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file here could not be written.
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// What is to be sent is not a regular file.
    NotAFile(PathBuf),
    /// A file grew or shrank while it was sent. The server was not given the end of it, and so
    /// keeps nothing.
    Changed(PathBuf),
    /// The file on the server changed while it was on its way here.
    ChangedThere(String),
    /// The server has no list of that folder.
    NoList(String),
    /// What has arrived is not what the server says it has sent.
    WrongDigest(String),
    /// Standard input could not be read.
    Input(io::Error),
    /// Standard output could not be written.
    Output(io::Error),
    /// A line of a batch file is malformed.
    BadLine {
        /// The file.
        path: PathBuf,
        /// Which line, and what is wrong with it.
        error: LineError,
    },
    /// Requests of a batch failed. Each has said why.
    Failed {
        /// How many.
        failed: usize,
        /// Of how many.
        requests: usize,
        /// The highest exit code of them.
        worst: Exit,
    },
    /// The server could not be reached.
    Connect(ConnectError),
    /// The connection broke, or waiting took too long.
    Lost(io::Error),
    /// What the server answered is not HTTP.
    NotHttp(ResponseError),
    /// The server answered with a status that does not go with the request.
    Unexpected(u16),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                path,
                status,
                phrase,
                sentence,
            } => {
                write!(f, "{path}: the server refused: {status} {phrase}")?;
                match sentence.as_str() {
                    "" => Ok(()),
                    sentence => write!(f, ", {sentence}"),
                }
            }
            Self::Read { path, .. } => write!(f, "cannot read {}", shown(path)),
            Self::Write { path, .. } => write!(f, "cannot write {}", shown(path)),
            Self::NotAFile(path) => write!(f, "{} is not a regular file", shown(path)),
            Self::Changed(path) => write!(f, "{} changed while it was sent", shown(path)),
            Self::ChangedThere(path) => {
                write!(
                    f,
                    "{path}: the file changed on the server while it was on its way"
                )
            }
            Self::NoList(path) => write!(f, "{path}: the server gives no list of that folder"),
            Self::WrongDigest(path) => {
                write!(
                    f,
                    "{path}: what arrived does not have the digest that the server gave"
                )
            }
            Self::Input(_) => f.write_str("cannot read standard input"),
            Self::Output(_) => f.write_str("cannot write to standard output"),
            Self::BadLine { path, error } => write!(f, "{}, {error}", shown(path)),
            Self::Failed {
                failed, requests, ..
            } => write!(f, "{failed} of {requests} requests failed"),
            Self::Connect(error) => error.fmt(f),
            Self::Lost(error) if is_timeout(error) => {
                f.write_str("the server did not answer in time")
            }
            Self::Lost(_) => f.write_str("the connection to the server was lost"),
            Self::NotHttp(error) => error.fmt(f),
            Self::Unexpected(status) => {
                write!(f, "the server's answer, {status}, is not to what was asked")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::Input(cause)
            | Self::Output(cause) => Some(cause),
            Self::Lost(cause) if !is_timeout(cause) => Some(cause),
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
            closed @ ResponseError::Closed => {
                Self::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, closed))
            }
            other => Self::NotHttp(other),
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. } | Self::NoList(_) => Exit::Refused,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::NotAFile(_)
            | Self::Changed(_)
            | Self::Input(_)
            | Self::BadLine { .. } => Exit::Usage,
            Self::Output(error) => of_output_error(error),
            Self::Failed { worst, .. } => *worst,
            Self::Connect(_)
            | Self::Lost(_)
            | Self::NotHttp(_)
            | Self::ChangedThere(_)
            | Self::WrongDigest(_)
            | Self::Unexpected(_) => Exit::Network,
        }
    }
}
