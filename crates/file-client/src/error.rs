//! What can go wrong for a file client.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cli::exit::with_causes;
use cli::{ClientError, Exit, Failure, is_timeout};
use proto::http::response::ResponseError;

use crate::transfer::shown;

/// Why a client did not do what it was asked. Where a `path` is a `String`, it is one on the
/// server, safe to stand in a line.
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
        /// Whether the server was not told who asks.
        is_anonymous: bool,
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
    /// What is to be written is a device or a pipe, which cannot be gone on with.
    NotResumable(PathBuf),
    /// A name leaves no room for the longer ones of the files beside it that hold what is needed
    /// to go on.
    NameTooLong {
        /// The file.
        path: PathBuf,
        /// The longest name, in bytes.
        bytes_max: usize,
    },
    /// Somebody else is writing this part of a download.
    InUse(PathBuf),
    /// Another user has put something where a part of a download would stand, or its state.
    NotOurs(PathBuf),
    /// On a disk without modes, others could open this part of a download.
    NotPrivate(PathBuf),
    /// What is at a path on the server is a folder.
    IsFolder(String),
    /// The server no longer has what it has been sent of a file.
    UploadGone(String),
    /// A transfer was cut off that can be gone on with.
    CutOff {
        /// Why.
        cause: Box<Error>,
        /// How much of the file need not be sent again, in bytes.
        bytes: u64,
        /// Which side has it.
        kept: Kept,
    },
    /// The server has no list of that folder.
    NoList(String),
    /// The list of a folder is longer than is read, or an entry of it is.
    ListTooLong(String),
    /// The server says that its list of a folder lacks some of what stands there.
    ListIncomplete(String),
    /// What has arrived is not what the server says it has sent.
    WrongDigest(String),
    /// Others can read the file with the password.
    AuthFileIsOpen(PathBuf),
    /// The file with the password is something else.
    AuthFileIsMalformed(PathBuf),
    /// What comes from standard input could not be kept in a temporary file.
    Temporary(io::Error),
    /// Requests of a batch failed. Each has said why.
    Failed {
        /// How many.
        failed: usize,
        /// Of how many.
        requests: usize,
        /// The highest exit code of them.
        worst: Exit,
    },
    /// What every client can meet.
    Client(ClientError),
    /// The connection broke, or waiting took too long.
    Lost {
        /// What was asked for.
        path: String,
        /// How it broke.
        cause: io::Error,
    },
    /// What the server answered is not HTTP.
    NotHttp {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        cause: ResponseError,
    },
    /// The server's answer does not go with the request.
    Unexpected {
        /// What was asked for.
        path: String,
        /// The status of the answer.
        status: u16,
    },
}

/// Which side has the part of a file that was transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// This one.
    Here,
    /// The server, and perhaps more of it.
    OnServer,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                path,
                status,
                phrase,
                sentence,
                is_anonymous,
            } => {
                write!(f, "{path}: the server refused: {status} {phrase}")?;
                if !sentence.is_empty() {
                    write!(f, ", {sentence}")?;
                }
                match (status, is_anonymous) {
                    (401, true) => f.write_str("; --auth-file FILE says who asks"),
                    _ => Ok(()),
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
            Self::NotResumable(path) => {
                let path = shown(path);
                write!(f, "{path} is not a regular file, as --resume needs it")
            }
            Self::NameTooLong { path, bytes_max } => write!(
                f,
                "the name of {} is too long: with --resume it may have {bytes_max} bytes",
                shown(path)
            ),
            Self::InUse(path) => write!(f, "another client is writing {}", shown(path)),
            Self::NotOurs(path) => write!(f, "{} belongs to another user", shown(path)),
            Self::NotPrivate(path) => {
                let path = shown(path);
                write!(f, "others can open {path}, on a disk that keeps no modes")
            }
            Self::IsFolder(path) => {
                write!(
                    f,
                    "{path} is a folder on the server; list shows what is in it"
                )
            }
            Self::CutOff { cause, bytes, kept } => {
                f.write_str(&with_causes(cause))?;
                match (kept, bytes) {
                    (Kept::OnServer, 0) => {
                        return f.write_str("; --resume goes on with what the server has of it");
                    }
                    (Kept::OnServer, _) => write!(f, "; at least {bytes} bytes are on the server")?,
                    (Kept::Here, _) => write!(f, "; {bytes} bytes are kept")?,
                }
                f.write_str(", and --resume goes on from there")
            }
            Self::UploadGone(path) => {
                write!(
                    f,
                    "{path}: the server has dropped what it had of the upload"
                )
            }
            Self::NoList(path) => write!(f, "{path}: the server gives no list of that folder"),
            Self::ListTooLong(path) => write!(f, "{path}: the server's list is too long"),
            Self::ListIncomplete(path) => write!(
                f,
                "{path}: the list is not complete: there is more in that folder than the server lists"
            ),
            Self::WrongDigest(path) => {
                write!(
                    f,
                    "{path}: what arrived does not have the digest that the server gave"
                )
            }
            Self::AuthFileIsOpen(path) => {
                let path = shown(path);
                write!(
                    f,
                    "{path} holds a password and others can read it; chmod 600 {path} ends that"
                )
            }
            Self::AuthFileIsMalformed(path) => {
                write!(f, "the first line of {} is not USER:PASSWORD", shown(path))
            }
            Self::Temporary(_) => f.write_str("cannot keep standard input in a temporary file"),
            Self::Failed {
                failed, requests, ..
            } => write!(f, "{failed} of {requests} requests failed"),
            Self::Client(error) => error.fmt(f),
            Self::Lost { path, cause } if is_timeout(cause) => {
                write!(f, "{path}: the server did not answer in time")
            }
            Self::Lost { path, .. } => {
                write!(f, "{path}: the connection to the server was lost")
            }
            Self::NotHttp { path, cause } => write!(f, "{path}: {cause}"),
            Self::Unexpected { path, status } => write!(
                f,
                "{path}: the server's answer, {status}, is not to what was asked"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { cause, .. } | Self::Write { cause, .. } | Self::Temporary(cause) => {
                Some(cause)
            }
            Self::Lost { cause, .. } if !is_timeout(cause) => Some(cause),
            Self::Client(error) => error.source(),
            _ => None,
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Error {
    /// For what was asked for, its stream failed.
    pub(crate) fn lost(path: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Lost {
            path: path.to_string(),
            cause,
        }
    }

    /// For what was asked for, no reply could be read.
    pub(crate) fn no_reply(path: impl fmt::Display) -> impl FnOnce(ResponseError) -> Self {
        move |error| match error {
            ResponseError::Io(cause) => Self::lost(path)(cause),
            closed @ ResponseError::Closed => {
                Self::lost(path)(io::Error::new(io::ErrorKind::UnexpectedEof, closed))
            }
            cause => Self::NotHttp {
                path: path.to_string(),
                cause,
            },
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused { .. }
            | Self::UploadGone(_)
            | Self::NoList(_)
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
            | Self::AuthFileIsOpen(_)
            | Self::AuthFileIsMalformed(_)
            | Self::Temporary(_) => Exit::Local,
            Self::Client(error) => error.exit(),
            Self::Failed { worst, .. } => *worst,
            Self::CutOff { cause, .. } => cause.exit(),
            Self::Lost { .. }
            | Self::NotHttp { .. }
            | Self::ChangedThere(_)
            | Self::WrongDigest(_)
            | Self::Unexpected { .. } => Exit::Network,
        }
    }
}
