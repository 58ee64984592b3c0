//! Why a data file could not be opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data file could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// It could not be opened, locked, read, cut or synced.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is a folder, a device, a pipe.
    NotRegular(PathBuf),
    /// Another server has it, or the lock of an earlier version.
    InUse(PathBuf),
    /// It has more than one name; with how many.
    Links(PathBuf, u64),
    /// A line that is not the last is damaged. The file was left untouched.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: u64,
    },
}

impl OpenError {
    /// What an error of the system means for this file.
    pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::Io {
            path: path.to_owned(),
            cause,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, .. } => write!(f, "cannot open {}", path.display()),
            Self::NotRegular(path) => write!(f, "{} is not a regular file", path.display()),
            Self::InUse(path) => write!(
                f,
                "another server is using these files (it holds {})",
                path.display()
            ),
            Self::Links(path, links) => write!(
                f,
                "{} has {links} names (hard links); it may have one",
                path.display()
            ),
            Self::Damaged { path, line } => write!(
                f,
                "line {line} of {} is damaged; restore the file, or remove the line to go on \
                 without it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::NotRegular(_) | Self::InUse(_) | Self::Links(..) | Self::Damaged { .. } => None,
        }
    }
}
