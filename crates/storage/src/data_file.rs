//! A file that a server keeps its data in: a regular file, locked, and watched for what other
//! programs do to its name.
//!
//! The lock is on the file itself (flock(2)), so it holds by whatever name another server opens the
//! file: a symbolic link, a hard link, another mount. SQLite's own locks are of another kind and do
//! not conflict with it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::standby::WhenInUse;
use crate::{PathState, Stat, StorageError, Watch};

/// The permissions of a new data file: only its owner may use it.
const MODE: u32 = 0o600;

/// The most attempts to open a file that other programs replace meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// A data file: open, locked and watched. Dropping it releases the lock. A file that was created here
/// and is still empty is removed, so that a failed start leaves nothing behind.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct DataFile {
    file: Arc<File>,
    watch: Watch,
    is_created: bool,
}

impl DataFile {
    /// Opens a file to read and write, creates it if it does not exist, and locks it.
    ///
    /// # Errors
    /// [`StorageError::NotRegular`], [`StorageError::InUse`], [`StorageError::Open`]. Then no file
    /// was created.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_when(path, WhenInUse::Refuse)
    }

    /// Opens a file as [`DataFile::open`] does, and stands by if it is told to.
    ///
    /// # Errors
    /// Those of [`DataFile::open`].
    pub(crate) fn open_when(path: &Path, in_use: WhenInUse<'_>) -> Result<Self, StorageError> {
        let failed = StorageError::open(path);
        // Who stands by is woken each time that the file is replaced, for as long as it has to wait.
        let attempts_max = if in_use.stands_by() {
            usize::MAX
        } else {
            ATTEMPTS_MAX
        };
        for _ in 0..attempts_max {
            let is_created = match fs::metadata(path) {
                Ok(there) if there.is_file() => false,
                Ok(_) => return Err(StorageError::NotRegular(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(failed(error)),
            };
            let mut options = OpenOptions::new();
            options.read(true).write(true).mode(MODE);
            // Should the path name a pipe by now, opening it must not wait.
            options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
            let file = match options.create(is_created).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_created => continue,
                Err(error) => return Err(failed(error)),
            };
            let metadata = file.metadata().map_err(&failed)?;
            if !metadata.is_file() {
                return Err(StorageError::NotRegular(path.to_owned()));
            }
            in_use.lock(&file, path)?;
            let stat = Stat::of(&file).map_err(&failed)?;
            let file = Self {
                file: Arc::new(file),
                watch: Watch::of(path, stat).map_err(&failed)?,
                is_created,
            };
            // The last holder of the lock may have removed or replaced the file before it let go.
            if let PathState::Same(_) = file.watch.state().map_err(&failed)? {
                return Ok(file);
            }
        }
        Err(StorageError::InUse(path.to_owned()))
    }

    /// Creates and locks a file that does not exist yet.
    ///
    /// # Errors
    /// If it exists, or cannot be created.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(MODE);
        let file = options.open(path)?;
        file.try_lock()?;
        Ok(Self {
            watch: Watch::of(path, Stat::of(&file)?)?,
            file: Arc::new(file),
            is_created: true,
        })
    }

    /// Renames it over the file at `path`, and keeps that path. `real_path` is the same path without
    /// symbolic links, so that these stay as they are.
    ///
    /// # Errors
    /// Those of rename(2).
    pub(crate) fn rename(&mut self, real_path: &Path, path: &Path) -> io::Result<()> {
        fs::rename(self.watch.path(), real_path)?;
        self.watch.renamed(path);
        self.is_created = false;
        Ok(())
    }

    /// Whether it was created here.
    pub(crate) fn is_created(&self) -> bool {
        self.is_created
    }

    /// The descriptor. Use it for every sync and every look at the file, and open no other one: when
    /// a process closes a second descriptor of a database, SQLite loses its locks.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The absolute path by which it was opened.
    pub fn path(&self) -> &Path {
        self.watch.path()
    }

    /// The watch over its path.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The number of names (hard links) of the file.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    /// Refuses a file that has more than one name.
    ///
    /// # Errors
    /// [`StorageError::Links`], or if its metadata cannot be read.
    pub fn refuse_links(&self) -> Result<(), StorageError> {
        match self.links().map_err(StorageError::open(self.path()))? {
            0 | 1 => Ok(()),
            links => Err(StorageError::Links {
                path: self.path().to_owned(),
                links,
            }),
        }
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        let is_empty = || matches!(self.watch.state(), Ok(PathState::Same(0)));
        if self.is_created && is_empty() {
            // An empty file that cannot be removed does no harm.
            let _ = fs::canonicalize(self.path()).and_then(fs::remove_file);
        }
        // Readers may keep the descriptor, and the lock would stay with it. To unlock a file that is
        // locked cannot fail.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;
    use std::thread;

    use super::*;

    #[track_caller]
    fn check_in_use(path: &Path) {
        let error = DataFile::open(path).unwrap_err();
        let want = format!(
            "another server is using these files (it holds {})",
            path.display()
        );
        assert_eq!(error.to_string(), want);
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn there_is_one_holder_at_a_time_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataFile::open(&path).unwrap();
        let (link, hard) = (dir.path().join("link"), dir.path().join("hard"));
        symlink(&path, &link).unwrap();
        fs::hard_link(&path, &hard).unwrap();
        check_in_use(&path);
        check_in_use(&link);
        check_in_use(&hard);
        // A reader that keeps the descriptor does not keep the lock.
        let reader = Arc::clone(first.file());
        drop(first);
        let _second = DataFile::open(&link).unwrap();
        drop(reader);
        check_in_use(&path);
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_an_old_one_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        let file = DataFile::open(&path).unwrap();
        assert_eq!(mode(), 0o600);
        drop(file);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        drop(DataFile::open(&path).unwrap());
        assert_eq!(mode(), 0o644);
    }

    #[test]
    fn a_file_that_is_created_and_stays_empty_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        drop(DataFile::open(&path).unwrap());
        assert!(names(dir.path()).is_empty());
        // The file behind a link is removed, and the link stays.
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        let file = DataFile::open(&link).unwrap();
        assert_eq!(names(dir.path()), ["data", "link"]);
        drop(file);
        assert_eq!(names(dir.path()), ["link"]);
        let file = DataFile::open(&path).unwrap();
        fs::write(&path, "something").unwrap();
        drop(file);
        assert_eq!(names(dir.path()), ["data", "link"]);
        // A file that existed before stays.
        fs::write(&path, "").unwrap();
        drop(DataFile::open(&path).unwrap());
        assert_eq!(names(dir.path()), ["data", "link"]);
    }

    #[test]
    fn a_path_that_is_no_regular_file_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let check = |path: &Path| {
            let error = DataFile::open(path).unwrap_err();
            let want = format!("{} is not a regular file", path.display());
            assert_eq!(error.to_string(), want);
        };
        check(dir.path());
        // A pipe without a reader or writer: to open one the usual way waits.
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        check(&path);
        // A device is refused before it is opened.
        check(Path::new("/dev/null"));
        assert_eq!(names(dir.path()), ["data"]);
    }

    #[test]
    fn other_names_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let file = DataFile::open(&path).unwrap();
        file.refuse_links().unwrap();
        fs::hard_link(&path, dir.path().join("hard")).unwrap();
        let error = file.refuse_links().unwrap_err();
        let want = format!(
            "{} has 2 names (hard links); it may have one",
            path.display()
        );
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn a_name_that_is_moved_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("data"), dir.path().join("other"));
        let file = DataFile::open(&path).unwrap();
        file.watch().check().unwrap();
        fs::write(&path, "four").unwrap();
        assert_eq!(file.watch().state().unwrap(), PathState::Same(4));
        fs::rename(&path, &other).unwrap();
        assert_eq!(file.watch().state().unwrap(), PathState::Missing);
        let sentence = |error: io::Error| error.to_string();
        let was = |what| format!("{} {what} while the server used it", path.display());
        let error = file.watch().check().map_err(sentence);
        assert_eq!(error, Err(was("was moved or removed")));
        fs::write(&path, "four").unwrap();
        let error = file.watch().check().map_err(sentence);
        assert_eq!(error, Err(was("was replaced by another file")));
        fs::rename(&other, &path).unwrap();
        file.watch().check().unwrap();
        let watch = Watch::new(&path).unwrap();
        watch.check().unwrap();
        assert!(Watch::new(&other).is_err());
    }

    #[test]
    fn a_file_that_is_replaced_meanwhile_is_opened_again() {
        const ROUNDS: usize = 300;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let temporary = dir.path().join("new");
                    fs::write(&temporary, "x").unwrap();
                    fs::rename(&temporary, &path).unwrap();
                }
            });
            for _ in 0..ROUNDS {
                match DataFile::open(&path) {
                    Ok(file) => assert!(file.links().unwrap() <= 1),
                    Err(StorageError::InUse(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
}
