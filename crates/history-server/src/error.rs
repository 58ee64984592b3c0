//! What can go wrong in the history server.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cli::escape::EscapedBytes;
use cli::{Exit, Failure};
use daemon::StartError;
use proto::text::AUTHENTICATION_ERROR;
use storage::{NotStored, StorageError};

/// How much of a wrong line in the file of users the error shows, in bytes.
const SHOWN_BYTES_MAX: usize = 100;

/// Why the server cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Other machines can reach it, and there is no file of users.
    #[error(
        "{0} can be reached from other machines: --auth-file or --users must say who may use the history"
    )]
    Exposed(String),
    /// The file of users cannot be read.
    #[error("cannot read the users in {}", path.display())]
    ReadUsers {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// A line of the file of users is not a user name.
    #[error(
        "{}, line {line}: a user name is 1 to 64 of A-Z a-z 0-9 . _ -, not '{}'",
        path.display(),
        EscapedBytes { bytes: text, bytes_max: SHOWN_BYTES_MAX }
    )]
    NotAName {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The line, without its comment.
        text: Vec<u8>,
    },
    /// The file of users is the one in which the server stores the names that it gives.
    #[error(
        "{} is where this server stores the names that it gives: --users must name another file, or \
         --data-dir another folder",
        .0.display()
    )]
    OwnUsers(PathBuf),
    /// The thread that prunes cannot be started.
    #[error("cannot start the pruner")]
    Pruner(#[source] io::Error),
    /// It cannot use its files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It cannot listen.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(error) if error.is_of_network() => Exit::Network,
            Self::Exposed(_)
            | Self::ReadUsers { .. }
            | Self::NotAName { .. }
            | Self::OwnUsers(_)
            | Self::Pruner(_)
            | Self::Storage(_)
            | Self::Start(_) => Exit::Local,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The user is not in the file of users, and the server has not given the name.
    #[error("{AUTHENTICATION_ERROR}")]
    NotAUser,
    /// The request is made in the name of somebody else.
    #[error("You have logged in as '{user}', and cannot ask as '{name}'.")]
    OtherName {
        /// Who has logged in.
        user: Arc<str>,
        /// The name in the request.
        name: String,
    },
    /// Names are logins, so the server gives none.
    #[error("A name is a login here; the administrator adds one to the file of --auth-file.")]
    NamesAreLogins,
    /// The server gives no names.
    #[error("This server gives no names; it needs --register to do that.")]
    NoRegister,
    /// The client's address has asked for too many names.
    #[error("Too many names were asked for from there; try again in 10 seconds.")]
    TooManyNames,
    /// What is to be deleted is not the user's own.
    #[error("Others have written that; '{0}' needs the role admin to delete it.")]
    NotOwn(String),
    /// A line that is to be deleted does not contain the text that it must.
    #[error("Line {line} does not contain '{text}'; nothing was deleted.")]
    NoMatch {
        /// The number of the line.
        line: u64,
        /// The text.
        text: String,
    },
    /// The line that was seen is not there any more.
    #[error("Line #{0} is not what it was any more; nothing was deleted.")]
    Changed(u64),
    /// Others have deleted the line, or all lines, since it was looked at.
    #[error("The history has changed meanwhile; try again.")]
    Meanwhile,
    /// As many follow as may.
    #[error("Nobody else can follow now: {0}.")]
    Busy(io::Error),
    /// The server is shutting down, and a follower with it.
    #[error("The server is shutting down.")]
    Stopping,
    /// There is no line with this number.
    #[error(
        "There is no line {line}; the history has {lines} line{}.",
        if *lines == 1 { "" } else { "s" }
    )]
    NoSuchLine {
        /// The number in the request.
        line: u64,
        /// The number of lines.
        lines: u64,
    },
    /// The change is not stored, or not known to be.
    #[error("The request is {0}.")]
    NotStored(NotStored),
    /// The file cannot be read.
    #[error("The history cannot be read.")]
    Read(#[source] io::Error),
}
