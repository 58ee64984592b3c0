//! What can go wrong for a file client, and with which exit code.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cli::exit::with_causes;
use cli::{ClientError, Exit, Failure};
use proto::http::response::ResponseError;

use crate::escaped::escaped;

/// Why a request failed. A `path` that is a `String` is one on the server, escaped so that it can
/// stand in a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused.
    #[error(
        "{path}: the server refused: {status} {phrase}{}{sentence}{}",
        if sentence.is_empty() { "" } else { ", " },
        if *status == 401 && *is_anonymous { "; --auth-file FILE says who asks" } else { "" }
    )]
    Refused {
        /// What was asked for.
        path: String,
        /// The status code.
        status: u16,
        /// The phrase behind the code.
        phrase: String,
        /// The first line of the reply's body, which says why.
        sentence: String,
        /// Whether the request had no credentials.
        is_anonymous: bool,
    },
    /// A local file could not be read.
    #[error("cannot read {}", escaped(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A local file could not be written.
    #[error("cannot write {}", escaped(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file to send is not a regular file.
    #[error("{} is not a regular file", escaped(.0))]
    NotAFile(PathBuf),
    /// A file grew or shrank while it was sent. The server did not get the end of it, and so keeps
    /// nothing.
    #[error("{} changed while it was sent", escaped(.0))]
    Changed(PathBuf),
    /// The file on the server changed while it was received.
    #[error("{0}: the file changed on the server while it was received")]
    ChangedOnServer(String),
    /// The file to save is a device or a pipe, which cannot be resumed.
    #[error("{} is not a regular file, as --resume needs it", escaped(.0))]
    NotResumable(PathBuf),
    /// The name of a file leaves no room for the prefix of its sidecar files.
    #[error(
        "the name of {} is too long: with --resume it may have {bytes_max} bytes",
        escaped(path)
    )]
    NameTooLong {
        /// The file.
        path: PathBuf,
        /// The longest name, in bytes.
        bytes_max: usize,
    },
    /// Another client has locked this part of a download.
    #[error("another client is writing {}", escaped(.0))]
    InUse(PathBuf),
    /// The part of a download, or its state, belongs to another user.
    #[error("{} belongs to another user", escaped(.0))]
    NotOurs(PathBuf),
    /// On a disk without modes, other users could open this part of a download.
    #[error("others can open {}, on a disk that keeps no modes", escaped(.0))]
    NotPrivate(PathBuf),
    /// The server cannot delete, rename or create folders.
    #[error(
        "{path}: the server deletes nothing, renames nothing and creates no folders: {status}; \
         file-server does with --manage"
    )]
    NotManaged {
        /// What was to be changed.
        path: String,
        /// The status of the answer.
        status: u16,
    },
    /// The path on the server is a folder.
    #[error(
        "{0} is a folder on the server; 'file-client get {name}/' gets all of it, list shows what \
         is in it",
        name = .0.trim_end_matches('/')
    )]
    IsFolder(String),
    /// The connection was lost after a change was asked for, which is not asked for again.
    #[error("{path}: it is not known whether this was carried out")]
    NotKnown {
        /// What was to be changed.
        path: String,
        /// How the connection was lost.
        #[source]
        cause: ClientError,
    },
    /// Several transfers at once were asked for, of one file.
    #[error("{}: --jobs needs a folder to send, and that is none", escaped(.0))]
    JobsOfOneFile(PathBuf),
    /// No name in the folder matches the pattern.
    #[error("{0}: there is no such file, and no name matches that")]
    NoMatch(String),
    /// Standard output takes one file, and the path is a pattern.
    #[error("{0}: standard output takes one file, and there is none of that name")]
    OneFile(String),
    /// A server lists a name that no file here can have.
    #[error("{path}: the server lists '{name}', which is not the name of a file")]
    UnsafeName {
        /// The folder.
        path: String,
        /// The name, escaped.
        name: String,
    },
    /// A folder lies deeper than the limit, or its path is too long.
    #[error("{path}: this exceeds {levels_max} levels or {bytes_max} bytes below the folder")]
    TooDeep {
        /// The folder, escaped.
        path: String,
        /// The deepest that a folder may be.
        levels_max: usize,
        /// The longest path, in bytes.
        bytes_max: usize,
    },
    /// The path is longer than a request may have it.
    #[error("{path}: the path exceeds {bytes_max} bytes when it is percent-encoded")]
    PathTooLong {
        /// The path, escaped.
        path: String,
        /// The longest request target, in bytes.
        bytes_max: usize,
    },
    /// The names of a folder could not be kept in a temporary file.
    #[error("cannot keep the names of the folder in a temporary file")]
    Spool(#[source] io::Error),
    /// Parts of a folder failed. Each has said why.
    #[error("{folder}: {failed} failed")]
    Incomplete {
        /// The folder, escaped.
        folder: String,
        /// How many files and folders.
        failed: u64,
        /// The highest exit code of them.
        worst: Exit,
    },
    /// The server no longer has what it was sent of a file.
    #[error("{0}: the server has dropped what it had of the upload")]
    UploadGone(String),
    /// A transfer was cut off, and can be resumed.
    #[error("{}; {kept}", with_causes(cause))]
    CutOff {
        /// Why.
        cause: Box<Error>,
        /// What need not be sent again.
        kept: Kept,
    },
    /// The server has no list of that folder.
    #[error("{0}: the server gives no list of that folder")]
    NoList(String),
    /// The list of a folder, or an entry of it, is longer than the limit.
    #[error("{0}: the server's list is too long")]
    ListTooLong(String),
    /// The server says that its list of a folder lacks some entries.
    #[error("{0}: the list is not complete: there is more in that folder than the server lists")]
    ListIncomplete(String),
    /// The server sends a file compressed, though the client says that it takes it only as it is.
    #[error("{path}: the server sends it encoded as {encoding}, which was not asked for")]
    Encoded {
        /// The file.
        path: String,
        /// The value of `Content-Encoding`, escaped.
        encoding: String,
    },
    /// What was received does not have the digest that the server gave.
    #[error("{0}: the file does not match the server's digest")]
    WrongDigest(String),
    /// Standard input could not be stored in a temporary file.
    #[error("cannot store standard input in a temporary file")]
    Temporary(#[source] io::Error),
    /// Some of several requests failed. Each has said why.
    #[error("{failed} of {requests} requests failed")]
    Failed {
        /// How many.
        failed: usize,
        /// Of how many.
        requests: usize,
        /// The highest exit code of them.
        worst: Exit,
    },
    /// A standard stream failed, or the server cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server was lost, or its reply is malformed.
    #[error("{path}")]
    Server {
        /// What was asked for.
        path: String,
        /// How.
        #[source]
        cause: ClientError,
    },
    /// The server's answer does not fit the request.
    #[error("{path}: the server's reply, {status}, does not match the request")]
    Unexpected {
        /// What was asked for.
        path: String,
        /// The status of the answer.
        status: u16,
    },
}

/// What is left of a transfer that was cut off, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Received, and kept beside the file.
    Here(u64),
    /// Sent, and kept by the server, which may have more of it.
    OnServer(u64),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnServer(0) => {
                return f.write_str("--resume continues with what the server has of it");
            }
            Self::OnServer(bytes) => write!(f, "at least {bytes} bytes are on the server")?,
            Self::Here(bytes) => write!(f, "{bytes} bytes are kept")?,
        }
        f.write_str(", and --resume continues from there")
    }
}

impl Error {
    /// The end of several requests, from the exit codes of those that failed.
    pub(crate) fn of_requests(failures: &[Exit], requests: usize) -> Result<(), Self> {
        match failures.iter().max() {
            None => Ok(()),
            Some(worst) => Err(Self::Failed {
                failed: failures.len(),
                requests,
                worst: *worst,
            }),
        }
    }

    /// A local file could not be read.
    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Read {
            path: path.to_owned(),
            cause,
        }
    }

    /// A local file could not be written.
    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Write {
            path: path.to_owned(),
            cause,
        }
    }

    /// The stream failed while `path` was asked for.
    pub(crate) fn lost(path: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Server {
            path: path.to_string(),
            cause: ClientError::lost(cause),
        }
    }

    /// No reply could be read when `path` was asked for.
    pub(crate) fn no_reply(path: impl fmt::Display) -> impl FnOnce(ResponseError) -> Self {
        move |error| match error {
            ResponseError::Io(cause) => Self::lost(path)(cause),
            ResponseError::Closed => {
                Self::lost(path)(io::Error::new(io::ErrorKind::UnexpectedEof, error))
            }
            cause => Self::Server {
                path: path.to_string(),
                cause: ClientError::malformed(cause),
            },
        }
    }

    /// Whether the server was lost, or cannot be reached: another try may succeed.
    pub(crate) fn is_loss(&self) -> bool {
        self.is_lost_reply() || matches!(self, Self::Client(ClientError::Connect { .. }))
    }

    /// Whether the connection was lost while a reply came: another try may succeed at once.
    pub(crate) fn is_lost_reply(&self) -> bool {
        matches!(self, Self::Server { cause, .. } if cause.is_loss())
    }

    /// Whether the server did not answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Server {
                cause: ClientError::TimedOut,
                ..
            }
        )
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. }
            | Self::UploadGone(_)
            | Self::NoList(_)
            | Self::NoMatch(_)
            | Self::TooDeep { .. }
            | Self::PathTooLong { .. }
            | Self::NotManaged { .. }
            | Self::IsFolder(_)
            | Self::ListTooLong(_)
            | Self::ListIncomplete(_) => Exit::Refused,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::NotAFile(_)
            | Self::Changed(_)
            | Self::NotResumable(_)
            | Self::NameTooLong { .. }
            | Self::InUse(_)
            | Self::NotOurs(_)
            | Self::NotPrivate(_)
            | Self::OneFile(_)
            | Self::JobsOfOneFile(_)
            | Self::Spool(_)
            | Self::Temporary(_) => Exit::Local,
            Self::Client(cause) | Self::Server { cause, .. } | Self::NotKnown { cause, .. } => {
                cause.exit()
            }
            Self::Failed { worst, .. } | Self::Incomplete { worst, .. } => *worst,
            Self::CutOff { cause, .. } => cause.exit(),
            Self::ChangedOnServer(_)
            | Self::WrongDigest(_)
            | Self::Encoded { .. }
            | Self::UnsafeName { .. }
            | Self::Unexpected { .. } => Exit::Network,
        }
    }
}
