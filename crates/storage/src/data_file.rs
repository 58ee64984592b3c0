//! A file that a server keeps its data in: a regular one, which is that server's alone, and is
//! watched for what others do to its name.
//!
//! The lock is on the file itself (flock(2)), so it does not matter by which name it was opened: a
//! symbolic link, another hard link, another mount. SQLite's own locks are of another kind and do
//! not meet it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::{Look, StorageError};

/// The permissions of a file that is made here: it is its owner's alone.
pub(crate) const MODE: u32 = 0o600;

/// How often a file is opened again because another has come into its place meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// What a path names now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file, which has so many bytes.
    Here(u64),
    /// Nothing.
    Nothing,
    /// Another file.
    Another,
}

/// A path and the file it named when the watch began. It holds nothing open, so it can watch the
/// files of a database that nobody else may open.
#[derive(Debug)]
pub struct Watch {
    /// Absolute, so that a working directory that is moved is noticed.
    path: PathBuf,
    identity: (u32, u32, u64),
}

impl Watch {
    /// Watches what is at a path now.
    ///
    /// # Errors
    /// If there is nothing, or it cannot be looked at.
    pub fn new(path: &Path) -> io::Result<Self> {
        Self::of(path, Look::at(path)?)
    }

    fn of(path: &Path, look: Look) -> io::Result<Self> {
        Ok(Self {
            path: path::absolute(path)?,
            identity: look.identity,
        })
    }

    /// The path, made absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the path names now.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn place(&self) -> io::Result<Place> {
        match Look::at(&self.path) {
            Ok(there) if there.identity == self.identity => Ok(Place::Here(there.bytes)),
            Ok(_) => Ok(Place::Another),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Place::Nothing),
                kind => {
                    let sentence = format!("cannot look at {}: {error}", self.path.display());
                    Err(io::Error::new(kind, sentence))
                }
            },
        }
    }

    /// Checks that the path still names the file: to be called after a sync and before anybody is
    /// told about it.
    ///
    /// # Errors
    /// A sentence that says what became of the file.
    pub fn check(&self) -> io::Result<()> {
        let path = self.path.display();
        let what = match self.place()? {
            Place::Here(_) => return Ok(()),
            Place::Nothing => "was moved or removed",
            Place::Another => "was replaced by another file",
        };
        Err(io::Error::other(format!(
            "{path} {what} while the server used it"
        )))
    }
}

/// A data file: open, locked and watched. Dropping it gives up the lock; a file that was made here
/// and is still empty is removed, so that a failed start leaves nothing behind.
#[derive(Debug)]
#[must_use = "the lock is held as long as this lives"]
pub struct DataFile {
    file: Arc<File>,
    watch: Watch,
    is_made: bool,
}

impl DataFile {
    /// Opens a file to read and write, making it if it does not exist, and locks it.
    ///
    /// # Errors
    /// If it is no regular file, another server has it, or it cannot be opened. Then nothing was
    /// made.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let failed = StorageError::open(path);
        for _ in 0..ATTEMPTS_MAX {
            let is_made = match fs::metadata(path) {
                Ok(there) if there.is_file() => false,
                Ok(_) => return Err(StorageError::NotRegular(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(failed(error)),
            };
            let mut options = OpenOptions::new();
            options.read(true).write(true).mode(MODE);
            // Whatever has come into its place meanwhile, opening it does not wait.
            options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
            let file = match options.create(is_made).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_made => continue,
                Err(error) => return Err(failed(error)),
            };
            let metadata = file.metadata().map_err(&failed)?;
            if !metadata.is_file() {
                return Err(StorageError::NotRegular(path.to_owned()));
            }
            lock(&file, path)?;
            let look = Look::of(&file).map_err(&failed)?;
            let file = Self {
                file: Arc::new(file),
                watch: Watch::of(path, look).map_err(&failed)?,
                is_made,
            };
            // Whoever had the lock may have removed or replaced the file before it gave it up.
            if let Place::Here(_) = file.watch.place().map_err(&failed)? {
                return Ok(file);
            }
        }
        Err(StorageError::InUse(path.to_owned()))
    }

    /// Makes and locks a file that does not exist yet.
    ///
    /// # Errors
    /// If it exists, or cannot be made.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(MODE);
        let file = options.open(path)?;
        file.try_lock()?;
        Ok(Self {
            watch: Watch::of(path, Look::of(&file)?)?,
            file: Arc::new(file),
            is_made: true,
        })
    }

    /// Puts it into the place of another file, whose path it has from then on; `real_path` is the
    /// same path without symbolic links, which are left as they are.
    ///
    /// # Errors
    /// Those of the renaming.
    pub(crate) fn rename(&mut self, real_path: &Path, path: &Path) -> io::Result<()> {
        fs::rename(&self.watch.path, real_path)?;
        path.clone_into(&mut self.watch.path);
        self.is_made = false;
        Ok(())
    }

    /// Whether it was made here.
    pub(crate) fn is_made(&self) -> bool {
        self.is_made
    }

    /// The descriptor. Whoever syncs the file or looks at it uses this one, and opens no other: to
    /// close another one would take SQLite its locks.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The path it was opened by, made absolute.
    pub fn path(&self) -> &Path {
        &self.watch.path
    }

    /// The watch over its path.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// How many names (hard links) the file has.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    /// Refuses a file that has more than one name.
    ///
    /// # Errors
    /// [`StorageError::Links`], or if it cannot be looked at.
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
        let is_empty = || matches!(self.watch.place(), Ok(Place::Here(0)));
        if self.is_made && is_empty() {
            // An empty file that cannot be removed does no harm.
            let _ = fs::canonicalize(self.path()).and_then(fs::remove_file);
        }
        // Readers may keep the descriptor, and the lock would stay with it. It fails for no file
        // that was locked.
        let _ = self.file.unlock();
    }
}

fn lock(file: &File, path: &Path) -> Result<(), StorageError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(StorageError::open(path)(cause)),
    }
}

/// The lock that an earlier version of the server had, on a file beside the data. It is taken where
/// the file is still there, so that a server of that version is noticed, and never made.
#[derive(Debug)]
#[must_use = "the lock is held as long as this lives"]
pub struct OldLock {
    _file: Option<File>,
}

impl OldLock {
    /// Takes the lock if there is a file for it.
    ///
    /// # Errors
    /// If another server has it, or the file cannot be opened.
    pub fn take(path: &Path) -> Result<Self, StorageError> {
        let failed = StorageError::open(path);
        match fs::metadata(path) {
            Ok(there) if there.is_file() => {}
            Ok(_) => return Ok(Self { _file: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { _file: None });
            }
            Err(error) => return Err(failed(error)),
        }
        let file = File::open(path).map_err(failed)?;
        lock(&file, path)?;
        Ok(Self { _file: Some(file) })
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
    fn there_is_one_holder_at_a_time_by_whatever_name() {
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
    fn what_was_made_for_nothing_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        drop(DataFile::open(&path).unwrap());
        assert!(names(dir.path()).is_empty());
        // What a link points to is removed, and the link stays.
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
        // One that was there before is left.
        fs::write(&path, "").unwrap();
        drop(DataFile::open(&path).unwrap());
        assert_eq!(names(dir.path()), ["data", "link"]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_untouched() {
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
        // Looked at, never opened.
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
    fn what_becomes_of_its_name_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("data"), dir.path().join("other"));
        let file = DataFile::open(&path).unwrap();
        file.watch().check().unwrap();
        fs::write(&path, "four").unwrap();
        assert_eq!(file.watch().place().unwrap(), Place::Here(4));
        fs::rename(&path, &other).unwrap();
        assert_eq!(file.watch().place().unwrap(), Place::Nothing);
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

    #[test]
    fn an_older_servers_lock_is_respected_and_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        drop(OldLock::take(&path).unwrap());
        assert!(names(dir.path()).is_empty());
        let older = File::create(&path).unwrap();
        older.try_lock().unwrap();
        assert!(matches!(OldLock::take(&path), Err(StorageError::InUse(_))));
        drop(older);
        let _ours = OldLock::take(&path).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
    }
}
