//! What can go wrong for a queue client.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cli::exit::of_output_error;
use cli::{ConnectError, Exit, Failure, is_timeout};
use proto::ErrorCode;
use proto::frame::FrameError;
use proto::plain::QUEUE_EMPTY;
use proto::queue::DATAGRAM_BYTES_MAX;

/// Why a client did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no message in the queue.
    Empty,
    /// The server refused.
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        sentence: String,
    },
    /// A message is longer than may be sent.
    TooLong {
        /// Where it is.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        bytes_max: usize,
    },
    /// A request is longer than a datagram can be; with its length in bytes.
    TooLongForUdp(usize),
    /// The message to send could not be read.
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Standard output could not be written.
    Output(io::Error),
    /// The server could not be reached.
    Connect(ConnectError),
    /// The connection broke, or waiting took too long.
    Lost(io::Error),
    /// The server did not answer over UDP; with the number of tries.
    NoAnswer(u32),
    /// What the server answered makes no sense.
    NotUnderstood(FrameError),
    /// The server answered something else than what was asked.
    Unexpected,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(QUEUE_EMPTY),
            Self::Refused { sentence, .. } => write!(f, "the server refused: {sentence}"),
            Self::TooLong {
                path,
                bytes,
                bytes_max,
            } => write!(
                f,
                "{} has {bytes} bytes, a message may have {bytes_max} (--truncate sends the first \
                 {bytes_max})",
                path.display()
            ),
            Self::TooLongForUdp(bytes) => write!(
                f,
                "a datagram of {bytes} bytes is over the {DATAGRAM_BYTES_MAX} that UDP can carry; \
                 send it over TCP"
            ),
            Self::Read { path, .. } => write!(f, "cannot read {}", path.display()),
            Self::Output(_) => f.write_str("cannot write to standard output"),
            Self::Connect(error) => error.fmt(f),
            Self::Lost(error) if is_timeout(error) => {
                f.write_str("the server did not answer in time")
            }
            Self::Lost(_) => f.write_str("the connection to the server was lost"),
            Self::NoAnswer(tries) => write!(f, "no answer after {tries} tries"),
            Self::NotUnderstood(error) => write!(f, "the server's answer makes no sense: {error}"),
            Self::Unexpected => f.write_str("the server's answer is not to what was asked"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { cause, .. } | Self::Output(cause) => Some(cause),
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

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Lost(error),
            other => Self::NotUnderstood(other),
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Empty | Self::Refused { .. } => Exit::Refused,
            Self::TooLong { .. } | Self::TooLongForUdp(_) | Self::Read { .. } => Exit::Usage,
            Self::Output(error) => of_output_error(error),
            Self::Connect(_)
            | Self::Lost(_)
            | Self::NoAnswer(_)
            | Self::NotUnderstood(_)
            | Self::Unexpected => Exit::Network,
        }
    }
}
