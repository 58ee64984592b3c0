//! Why a database could not be opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use storage::StorageError;

use super::schema::SCHEMA_VERSION;

/// Why a database could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// It is no file that this server alone may use.
    File(StorageError),
    /// SQLite could not open, check or read it.
    Sqlite(PathBuf, rusqlite::Error),
    /// Another program, no server, has locked it for too long.
    Locked(PathBuf),
    /// It is a SQLite database, but of another program.
    NotOurs(PathBuf),
    /// It was made by a later version of this program.
    UnknownVersion(PathBuf, i64),
    /// SQLite's own check says that the file is damaged; with the first thing it found.
    Damaged(PathBuf, String),
    /// Its header says that this program may only read it, or the file's permissions do.
    ReadOnly(PathBuf),
    /// It cannot have a write-ahead log; it is no file on a disk, then.
    NoLog(PathBuf),
    /// It could not be synced.
    Sync(PathBuf, io::Error),
}

impl JournalError {
    /// What an error of SQLite means for this database.
    pub(super) fn at(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        move |cause| match cause.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => Self::Locked(path.to_owned()),
            _ => Self::Sqlite(path.to_owned(), cause),
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Sqlite(path, _) => write!(f, "cannot open {}", path.display()),
            Self::Locked(path) => write!(f, "{} is locked by another program", path.display()),
            Self::NotOurs(path) => write!(f, "{} is not a queue's database", path.display()),
            Self::UnknownVersion(path, version) => write!(
                f,
                "{} has the schema version {version}, this program knows 1 to {SCHEMA_VERSION}",
                path.display()
            ),
            Self::Damaged(path, what) => write!(
                f,
                "{} is damaged ({what}); restore it, or recover what can be with sqlite3 .recover",
                path.display()
            ),
            Self::ReadOnly(path) => write!(f, "{} can only be read", path.display()),
            Self::NoLog(path) => {
                write!(f, "{} cannot have a write-ahead log", path.display())
            }
            Self::Sync(path, _) => write!(f, "cannot open or sync {}", path.display()),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => error.source(),
            Self::Sqlite(_, cause) => Some(cause),
            Self::Sync(_, cause) => Some(cause),
            Self::Locked(_)
            | Self::NotOurs(_)
            | Self::UnknownVersion(..)
            | Self::Damaged(..)
            | Self::ReadOnly(_)
            | Self::NoLog(_) => None,
        }
    }
}
