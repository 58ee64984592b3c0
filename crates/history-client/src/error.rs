//! What can go wrong for a history client.

use std::fmt;
use std::io;

use cli::exit::of_output_error;
use cli::{ConnectError, Exit, Failure, is_timeout};
use proto::ErrorCode;
use proto::frame::FrameError;
use proto::text::HistoryLineError;

/// Why a client did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// What was to be sent is not a request.
    Line(HistoryLineError),
    /// Standard input could not be read.
    Input(io::Error),
    /// The server refused.
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        sentence: String,
    },
    /// Standard output could not be written.
    Output(io::Error),
    /// The server could not be reached.
    Connect(ConnectError),
    /// The connection broke, or waiting took too long.
    Lost(io::Error),
    /// What the server answered makes no sense.
    NotUnderstood(FrameError),
    /// The server answered something else than what was asked.
    Unexpected,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => error.fmt(f),
            Self::Input(_) => f.write_str("cannot read standard input"),
            Self::Refused { sentence, .. } => f.write_str(sentence),
            Self::Output(_) => f.write_str("cannot write to standard output"),
            Self::Connect(error) => error.fmt(f),
            Self::Lost(error) if is_timeout(error) => {
                f.write_str("the server did not answer in time")
            }
            Self::Lost(_) => f.write_str("the connection to the server was lost"),
            Self::NotUnderstood(error) => write!(f, "the server's answer makes no sense: {error}"),
            Self::Unexpected => f.write_str("the server's answer is not to what was asked"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Input(cause) | Self::Output(cause) => Some(cause),
            Self::Lost(cause) if !is_timeout(cause) => Some(cause),
            Self::Connect(error) => error.source(),
            _ => None,
        }
    }
}

impl Error {
    /// Whether the server did not do what it was asked, but may do so soon: it cannot be reached, has
    /// as many connections as it accepts, or is shutting down and may be back.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Refused { code, .. } => {
                matches!(code, ErrorCode::Busy | ErrorCode::ShuttingDown)
            }
            _ => false,
        }
    }
}

impl From<HistoryLineError> for Error {
    fn from(error: HistoryLineError) -> Self {
        Self::Line(error)
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
            Self::Refused {
                code: ErrorCode::ShuttingDown,
                ..
            } => Exit::Network,
            Self::Refused { .. } => Exit::Refused,
            Self::Line(_) | Self::Input(_) => Exit::Local,
            Self::Output(error) => of_output_error(error),
            Self::Connect(_) | Self::Lost(_) | Self::NotUnderstood(_) | Self::Unexpected => {
                Exit::Network
            }
        }
    }
}
