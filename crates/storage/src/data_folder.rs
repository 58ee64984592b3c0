//! The folder that a server keeps its files in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::standby::{OnWait, WhenInUse};
use crate::{DataFile, LegacyLock, StorageError};

/// The most attempts to open a file of a folder that other servers remove meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// A data folder that exists. Dropping it removes those folders that were created for it and are
/// empty, so that a failed start leaves nothing behind.
#[must_use = "dropping it removes the folders that are empty"]
pub struct DataFolder {
    path: PathBuf,
    /// Set if a start waits for the files that another server has locked.
    on_wait: Option<OnWait>,
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
            path: path.to_owned(),
            on_wait: None,
            created: Vec::new(),
        };
        folder.create_missing()?;
        Ok(folder)
    }

    /// From now on, files that another server has locked are waited for. `on_wait` is called with the
    /// path of such a file before each wait.
    pub fn stand_by(&mut self, on_wait: impl Fn(&Path) + Send + 'static) {
        self.on_wait = Some(Box::new(on_wait));
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens and locks the file of this name, as [`DataFile::open`] does, or waits for it.
    ///
    /// # Errors
    /// Those of [`DataFile::open`], [`StorageError::Folder`].
    pub fn open(&mut self, name: &str) -> Result<DataFile, StorageError> {
        let path = self.path.join(name);
        let mut attempts = if self.on_wait.is_some() {
            1..ATTEMPTS_MAX
        } else {
            0..0
        };
        loop {
            match DataFile::open_when(&path, self.when_in_use()) {
                // The server that used it had created the folder, and removed it when it ended with
                // nothing stored.
                Err(StorageError::Open { cause, .. })
                    if cause.kind() == io::ErrorKind::NotFound && attempts.next().is_some() =>
                {
                    self.create_missing()?;
                }
                opened => return opened,
            }
        }
    }

    /// Locks the lock file of earlier versions of this name if it exists, as [`LegacyLock::acquire`]
    /// does, or waits for it.
    ///
    /// # Errors
    /// Those of [`LegacyLock::acquire`].
    pub fn legacy_lock(&self, name: &str) -> Result<LegacyLock, StorageError> {
        LegacyLock::acquire_when(&self.path.join(name), self.when_in_use())
    }

    fn when_in_use(&self) -> WhenInUse<'_> {
        let on_wait = self.on_wait.as_deref();
        on_wait.map_or(WhenInUse::Refuse, |on_wait| WhenInUse::StandBy(on_wait))
    }

    fn create_missing(&mut self) -> Result<(), StorageError> {
        let path = self.path.clone();
        let created = self.create_all(&path);
        created.map_err(|cause| StorageError::Folder { path, cause })
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
    use std::sync::{Mutex, mpsc};
    use std::thread;

    use super::*;
    use crate::PathState;

    #[test]
    fn a_start_that_stands_by_gets_the_file_that_the_path_names_when_the_holder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let (waits, waited) = mpsc::channel();
        let open = |name: &str| {
            let mut folder = DataFolder::create(&path).unwrap();
            let waits = waits.clone();
            folder.stand_by(move |path| waits.send(path.to_owned()).unwrap());
            let file = folder.open(name).unwrap();
            assert!(matches!(file.watch().state(), Ok(PathState::Same(_))));
            (file, folder)
        };
        let wait_ends_by = |act: &dyn Fn(DataFile, DataFolder)| {
            let (file, folder) = open("file");
            thread::scope(|scope| {
                let other = scope.spawn(|| open("file"));
                assert_eq!(waited.recv().unwrap(), path.join("file"));
                act(file, folder);
                drop(other.join().unwrap());
            });
            assert!(waited.try_recv().is_err(), "it has waited again");
            // Who creates the folder removes it, unless the other already has its file in it.
            let left = fs::read_dir(&path).map_or(0, Iterator::count);
            assert_eq!(left, 0, "files are left");
            let _ = fs::remove_dir(&path);
        };
        wait_ends_by(&|file, _folder| drop(file));
        // The holder takes the empty file and the folder with it.
        wait_ends_by(&|file, folder| drop((file, folder)));
        wait_ends_by(&|file, _folder| {
            fs::remove_file(file.path()).unwrap();
        });
        // The file is replaced by another, which is locked too, and this one is renamed.
        wait_ends_by(&|file, _folder| {
            let mut new = DataFile::create_new(&path.join("new")).unwrap();
            new.rename(file.path(), file.path()).unwrap();
            drop(file);
            assert_eq!(waited.recv().unwrap(), path.join("file"));
            fs::rename(path.join("file"), path.join("old")).unwrap();
            drop(new);
            fs::remove_file(path.join("old")).unwrap();
        });
    }

    #[test]
    fn a_start_that_stands_by_waits_for_an_older_servers_lock() {
        let dir = tempfile::tempdir().unwrap();
        let older = File::create(dir.path().join(".lock")).unwrap();
        older.lock().unwrap();
        let mut folder = DataFolder::create(dir.path()).unwrap();
        assert!(matches!(
            folder.legacy_lock(".lock"),
            Err(StorageError::InUse(_))
        ));
        let older = Mutex::new(Some(older));
        folder.stand_by(move |_| drop(older.lock().unwrap().take()));
        drop(folder.legacy_lock(".lock").unwrap());
    }

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
        DataFolder::create(&dir.path().join("a/file/x"))
            .map(drop)
            .unwrap_err();
    }
}
