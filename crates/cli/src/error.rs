//! The errors of the edge: a wrong command line, and what every client can fail with, whichever
//! service it speaks to.
//!
//! Each client's own error enum holds [`ClientError`] as one variant, so its sentences and exit codes
//! stand here once.

use std::error::Error;
use std::ffi::OsStr;
use std::io;

use crate::exit::{Exit, Failure};
use crate::server_stream::is_timeout;

/// What is wrong with a command line. All of them end the program with [`Exit::Local`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// An option lacks its value, or has one that it does not take.
    #[error(transparent)]
    Option(#[from] lexopt::Error),
    /// There is no such option.
    #[error("unknown option '{}'{}", option.escape_debug(), did_you_mean(*nearest))]
    UnknownOption {
        /// What was given, with its dashes.
        option: String,
        /// The one that is nearly the same.
        nearest: Option<&'static str>,
    },
    /// There is no such verb.
    #[error("unknown verb '{}', {}", verb.escape_debug(), right_verbs(verbs, server.as_deref()))]
    UnknownVerb {
        /// What was given.
        verb: String,
        /// The one that is nearly the same, or all of them.
        verbs: Vec<&'static str>,
        /// How a server is named, if that is what the word may have been meant for.
        server: Option<String>,
    },
    /// An option has two values.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A value is not what its place wants.
    #[error("{what} must be {want}, not '{}'", value.escape_debug())]
    Value {
        /// The option or argument.
        what: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        want: String,
    },
    /// An argument is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// There is an argument too many.
    #[error("there is one argument too many: '{}'", .0.escape_debug())]
    Unexpected(String),
    /// The verb does not use this option.
    #[error("{option} {}", misplaced(*verb))]
    Misplaced {
        /// The option, with its dashes.
        option: &'static str,
        /// The verb; `None` if there is none.
        verb: Option<&'static str>,
    },
    /// Two things do not go together, or one needs another; the sentence says which.
    #[error("{0}")]
    Conflict(&'static str),
}

impl UsageError {
    /// A value that is not what its place wants.
    pub fn value(what: &'static str, value: &OsStr, want: impl Into<String>) -> Self {
        Self::Value {
            what,
            value: value.to_string_lossy().into_owned(),
            want: want.into(),
        }
    }
}

fn misplaced(verb: Option<&str>) -> String {
    verb.map_or("needs a verb".to_owned(), |verb| {
        format!("does not go with {verb}")
    })
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |nearest| {
        format!(", did you mean {nearest}?")
    })
}

fn right_verbs(verbs: &[&str], server: Option<&str>) -> String {
    match (verbs, server) {
        ([nearest], _) => format!("did you mean {nearest}?"),
        (all, None) => format!("the verbs are {}", all.join(", ")),
        (all, Some(server)) => {
            format!("the verbs are {}; a server is {server}", all.join(", "))
        }
    }
}

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
    #[error("the server's reply is malformed")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// The reply is a valid one, but not to this request.
    #[error("the server's reply does not match the request")]
    Unexpected,
    /// Standard input could not be read.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl ClientError {
    /// What an error of the connection means: [`ClientError::TimedOut`], [`ClientError::Malformed`] or
    /// [`ClientError::Lost`].
    pub fn lost(cause: io::Error) -> Self {
        match cause.kind() {
            _ if is_timeout(&cause) => Self::TimedOut,
            io::ErrorKind::InvalidData => Self::Malformed(Box::new(cause)),
            _ => Self::Lost(cause),
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
