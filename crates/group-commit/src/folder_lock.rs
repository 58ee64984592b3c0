//! One server a data folder: an exclusive lock on a file in it.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// An exclusive lock, held until it is dropped or the process ends, however it ends (flock(2)).
#[derive(Debug)]
#[must_use = "the lock is held as long as this lives"]
pub struct FolderLock {
    _file: File,
}

/// Why a lock could not be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds it.
    Taken(PathBuf),
    /// The lock's file could not be opened or locked.
    Io(PathBuf, io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(path) => write!(
                f,
                "another server is using these files (it holds {})",
                path.display()
            ),
            Self::Io(path, _) => write!(f, "cannot lock {}", path.display()),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Taken(_) => None,
            Self::Io(_, cause) => Some(cause),
        }
    }
}

impl FolderLock {
    /// Locks a file, which is made if it does not exist and stays when the lock is gone.
    ///
    /// # Errors
    /// If another process holds the lock, or the file cannot be opened.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |cause| LockError::Io(path.to_owned(), cause);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken(path.to_owned())),
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let first = FolderLock::acquire(&path).unwrap();
        let error = FolderLock::acquire(&path).unwrap_err();
        assert!(error.to_string().starts_with("another server is using"));
        drop(first);
        let _second = FolderLock::acquire(&path).unwrap();
        FolderLock::acquire(&dir.path().join("none/.lock")).unwrap_err();
    }
}
