//! What can go wrong for a history client.

use cli::{ClientError, Exit, Failure};
use proto::ErrorCode;
use proto::text::HistoryLineError;

/// Why a client did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The line to send is not a request.
    #[error(transparent)]
    Line(#[from] HistoryLineError),
    /// The server refused.
    #[error(
        "{sentence}{}",
        if *code == ErrorCode::Unauthorized { "; --auth-file FILE says who asks" } else { "" }
    )]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        sentence: String,
    },
    /// What every client can fail with.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Error {
    /// Whether the same request may succeed soon: the server did not carry it out, because it cannot be
    /// reached, has as many connections as it accepts, or is shutting down.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Client(error) => matches!(error, ClientError::Connect { .. }),
            Self::Refused { code, .. } => {
                matches!(code, ErrorCode::Busy | ErrorCode::ShuttingDown)
            }
            Self::Line(_) => false,
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
            Self::Line(_) => Exit::Local,
            Self::Client(error) => error.exit(),
        }
    }
}
