//! The folder that a server keeps its files in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::StorageError;

/// A data folder that exists. Dropping it removes those folders that were created for it and are
/// empty, so that a failed start leaves nothing behind.
#[derive(Debug)]
#[must_use = "dropping it removes the folders that are empty"]
pub struct DataFolder {
    /// The folders that were created, from the outermost.
    created: Vec<PathBuf>,
}

impl DataFolder {
    /// Creates a folder and its parents where they do not exist, and syncs their names.
    ///
    /// # Errors
    /// [`StorageError::Folder`].
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        let mut folder = Self {
            created: Vec::new(),
        };
        match folder.create_all(path) {
            Ok(()) => Ok(folder),
            Err(cause) => Err(StorageError::Folder {
                path: path.to_owned(),
                cause,
            }),
        }
    }

    fn create_all(&mut self, path: &Path) -> io::Result<()> {
        if path == Path::new("") || path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.create_all(parent)?;
        }
        match fs::create_dir(path) {
            Ok(()) => self.created.push(path.to_owned()),
            // Another program has just created it.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(error),
        }
        sync_folder(path)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        for path in self.created.iter().rev() {
            // A folder that is not empty cannot be removed, and stays.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Syncs the folder that a file is in, so that the file's name is on the disk too.
///
/// # Errors
/// Those of opening or syncing the folder.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file is in.
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
    fn created_folders_that_stay_empty_are_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        let folder = DataFolder::create(&deep).unwrap();
        assert!(deep.is_dir());
        drop(folder);
        assert!(!dir.path().join("a").exists());
        let folder = DataFolder::create(&deep).unwrap();
        fs::write(dir.path().join("a/data"), "").unwrap();
        drop(folder);
        assert!(dir.path().join("a/data").exists());
        assert!(!dir.path().join("a/b").exists());
        // A folder that existed before stays.
        drop(DataFolder::create(&dir.path().join("a")).unwrap());
        assert!(dir.path().join("a").is_dir());
        let error = DataFolder::create(&dir.path().join("a/new/data")).map(drop);
        error.unwrap();
        fs::write(dir.path().join("a/file"), "").unwrap();
        DataFolder::create(&dir.path().join("a/file/x")).unwrap_err();
    }
}
