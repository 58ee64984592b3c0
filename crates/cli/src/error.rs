//! What every client can fail with, whichever service it speaks to.
//!
//! Each client's own error enum holds this one as a variant, so the sentences and the exit codes of
//! the edge stand here once.

use std::error::Error;
use std::io;

use crate::{Exit, Failure, is_timeout};

/// Why a client could not reach its server, understand its reply, or use a standard stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address of the server accepted the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The host and the port, as in a URL: `[::1]:80`.
        address: String,
        /// Why the last address did not.
        #[source]
        cause: io::Error,
    },
    /// The server sent nothing, or too little, before the timeout.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection to the server was lost")]
    Lost(#[source] io::Error),
    /// The reply violates its protocol.
    #[error("the server's answer makes no sense")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// The reply is a valid one, but not to this request.
    #[error("the server's answer is not to what was asked")]
    Unexpected,
    /// Standard input could not be read.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl ClientError {
    /// What an error of the connection means: [`ClientError::TimedOut`] or [`ClientError::Lost`].
    pub fn lost(cause: io::Error) -> Self {
        match is_timeout(&cause) {
            true => Self::TimedOut,
            false => Self::Lost(cause),
        }
    }

    /// Whether a request was on its way: the server may have done what it was asked, or not.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TimedOut)
    }

    /// A reply that violates its protocol.
    pub fn malformed(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::Malformed(Box::new(cause))
    }
}

impl Failure for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Connect { .. }
            | Self::TimedOut
            | Self::Lost(_)
            | Self::Malformed(_)
            | Self::Unexpected => Exit::Network,
            Self::Input(_) => Exit::Local,
            // The reader has seen enough and is gone. That is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Local,
        }
    }
}
