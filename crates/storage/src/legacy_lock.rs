//! The lock of earlier versions: a file beside the data.
//!
//! Where that file still exists it is locked too, so that a server of such a version and one of this
//! version do not use the same data. It is never created.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::StorageError;
use crate::standby::WhenInUse;

/// The lock of earlier versions, if its file exists. Dropping it releases the lock.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct LegacyLock {
    _file: Option<File>,
}

impl LegacyLock {
    /// Locks the file if it exists.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another server holds the lock, [`StorageError::Open`].
    pub fn acquire(path: &Path) -> Result<Self, StorageError> {
        Self::acquire_when(path, WhenInUse::Refuse)
    }

    /// Locks the file if it exists, and stands by if it is told to.
    ///
    /// # Errors
    /// Those of [`LegacyLock::acquire`].
    pub(crate) fn acquire_when(path: &Path, in_use: WhenInUse<'_>) -> Result<Self, StorageError> {
        let failed = StorageError::open(path);
        match fs::metadata(path) {
            Ok(there) if there.is_file() => {
                let file = File::open(path).map_err(failed)?;
                in_use.lock(&file, path)?;
                Ok(Self { _file: Some(file) })
            }
            Ok(_) => Ok(Self { _file: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { _file: None }),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_servers_lock_is_respected_and_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        drop(LegacyLock::acquire(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let older = File::create(&path).unwrap();
        older.try_lock().unwrap();
        let refused = LegacyLock::acquire(&path);
        assert!(matches!(refused, Err(StorageError::InUse(_))));
        drop(older);
        let _ours = LegacyLock::acquire(&path).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
    }
}
