//! What can go wrong for a code client.

use cli::{ClientError, Exit, Failure};
use proto::code::BODY_BYTES_MAX;

/// Why a client did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused; with its sentence.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server has accounts, and the client none, or one that is wrong; with its sentence.
    #[error("the server refused: {0}; --auth-file FILE says who asks")]
    Unauthorized(String),
    /// The first line of standard input is not a UUID and a code.
    #[error("the first line of standard input must be UUID CODE, as request prints it")]
    NotASender,
    /// The text on standard input is longer than a message can be.
    #[error("the text on standard input exceeds {BODY_BYTES_MAX} bytes")]
    TooLong,
    /// What every client can fail with.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) | Self::Unauthorized(_) => Exit::Refused,
            Self::NotASender | Self::TooLong => Exit::Local,
            Self::Client(error) => error.exit(),
        }
    }
}
