//! What can go wrong between a server and its files.
//!
//! [`StorageError`] ends a start or a server; each server's own error holds it as one variant.
//! [`CommitError`] is what a store tells the writer thread about a batch, [`NotStored`] what the
//! writer thread tells the submitter of one change.

use std::io;
use std::path::{Path, PathBuf};

/// Why a server cannot use its files, or cannot continue to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The data folder cannot be created.
    #[error("cannot make {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// A file cannot be opened, locked, read, cut or synced.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// The path names a folder, a device or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Another server holds the lock of this file.
    #[error("another server is using these files (it holds {})", .0.display())]
    InUse(PathBuf),
    /// The file has this many names (hard links).
    #[error("{} has {links} names (hard links); it may have one", path.display())]
    Links {
        /// The file.
        path: PathBuf,
        /// The number of names.
        links: u64,
    },
    /// A line that is not the last is damaged. The file is left untouched.
    #[error(
        "line {line} of {} is damaged; restore the file, or remove the line to continue without it",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: u64,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the writer thread")]
    Thread(#[source] io::Error),
    /// A commit was lost: it is not known what is on the disk, so the server stops.
    #[error("stopping")]
    Lost(#[source] io::Error),
}

impl StorageError {
    /// Makes an error of the system the error of opening this file.
    pub(crate) fn open(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Open {
            path: path.to_owned(),
            cause,
        }
    }
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The write failed and was undone. The next batch may succeed.
    #[error("cannot write: {0}")]
    Refused(io::Error),
    /// A sync failed, or undoing a write did: it is not known what is on the disk. Nothing more may
    /// be committed.
    #[error("cannot sync: {0}")]
    Lost(io::Error),
}

/// Why a change is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// It is not stored, because the disk is full for example. It may succeed later. Holds the
    /// cause.
    #[error("not stored: {0}")]
    Refused(String),
    /// It may or may not be there after a restart, or for the next server.
    #[error("not known to be stored: its commit had no certain answer")]
    Unknown,
}
