//! The folders that data files are in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::StorageError;

/// The folders that were made for a server. Dropping it removes those that are empty, so that a
/// failed start leaves nothing behind.
#[derive(Debug, Default)]
#[must_use = "dropping it removes what is empty"]
pub struct MadeFolders {
    /// From the outermost.
    paths: Vec<PathBuf>,
}

impl MadeFolders {
    /// Makes a folder, and those it is in, where they do not exist, so that a power cut leaves them.
    ///
    /// # Errors
    /// [`StorageError::Folder`] if one cannot be made or synced.
    pub fn make(path: &Path) -> Result<Self, StorageError> {
        let mut made = Self::default();
        match made.make_all(path) {
            Ok(()) => Ok(made),
            Err(cause) => Err(StorageError::Folder {
                path: path.to_owned(),
                cause,
            }),
        }
    }

    fn make_all(&mut self, path: &Path) -> io::Result<()> {
        if path == Path::new("") || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_all(parent)?;
        }
        match fs::create_dir(path) {
            Ok(()) => self.paths.push(path.to_owned()),
            // Somebody else may have been faster.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(error),
        }
        sync_folder(path)
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // One with something in it cannot be removed, and need not be.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Syncs the folder a file is in, so that the file's name is on the disk too.
///
/// # Errors
/// Those of the folder.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_stay_empty_are_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        let made = MadeFolders::make(&deep).unwrap();
        assert!(deep.is_dir());
        drop(made);
        assert!(!dir.path().join("a").exists());
        let made = MadeFolders::make(&deep).unwrap();
        fs::write(dir.path().join("a/data"), "").unwrap();
        drop(made);
        assert!(dir.path().join("a/data").exists());
        assert!(!dir.path().join("a/b").exists());
        // What was there before stays.
        drop(MadeFolders::make(&dir.path().join("a")).unwrap());
        assert!(dir.path().join("a").is_dir());
        let error = MadeFolders::make(&dir.path().join("a/new/data")).map(drop);
        error.unwrap();
        fs::write(dir.path().join("a/file"), "").unwrap();
        MadeFolders::make(&dir.path().join("a/file/x")).unwrap_err();
    }
}
