//! Small files that are asked for again and again.
//!
//! To open a file, look at it and close it costs more than to send it, if it is small. So what a
//! reply needs of it is kept, and before each use the file that stands at the path is compared with
//! the one that was kept: a change is seen at once. A file that was changed in the last moments is
//! not kept, because it may be changed again within the same tick of the file system's clock. (A
//! network file system may know of a change later, and a program that writes through a shared mapping
//! may change a file without touching its time.)

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::http::{Ready, ReadyBody};
use hashbrown::HashMap;
use rustix::fs::{AtFlags, CWD, Stat, statat};

use super::Files;

/// So many files are kept at the most; one more drives out another.
const FILES_MAX: usize = 256;

/// So many of them are kept open at the most: out of the descriptors that the daemon leaves to
/// everything but its connections.
const OPEN_MAX: usize = 32;

/// The largest file that is kept, in bytes: one that was removed meanwhile takes room on the disk
/// until that is noticed.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file is kept when it was last changed so long ago.
const AGE_MIN: Duration = Duration::from_secs(2);

/// The files that are kept, by the paths of the requests for them.
#[derive(Default)]
pub(super) struct HotFiles(RwLock<HashMap<String, Arc<HotFile>>>);

struct HotFile {
    /// Where it is, from the root's own path on: if another folder comes to be there, it has no such
    /// file, or another.
    path: PathBuf,
    identity: Identity,
    ready: Arc<Ready>,
}

impl HotFile {
    fn is_open(&self) -> bool {
        matches!(self.ready.body, ReadyBody::File(..))
    }
}

/// What tells a file from any other, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// That of a file as it is now.
    pub(crate) fn of(there: &Metadata) -> Self {
        Self {
            device: there.dev(),
            inode: there.ino(),
            bytes: there.len(),
            modified: (there.mtime(), there.mtime_nsec()),
            changed: (there.ctime(), there.ctime_nsec()),
        }
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a file that still has this identity has the same contents: not if it was changed in the
    /// last moments, because it may be changed again within the same tick of the file system's clock.
    pub(crate) fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let last = u64::try_from(self.modified.0.max(self.changed.0));
        let (Ok(now), Ok(last)) = (now, last) else {
            return false;
        };
        Duration::from_secs(last) + AGE_MIN < now
    }

    /// Whether the contents are those of this identity, too, as far as a file tells that is read for a
    /// moment.
    pub(crate) fn has_contents_of(&self, other: &Self) -> bool {
        let changed = self.changed;
        *self == Self { changed, ..*other }
    }

    fn is_of(&self, there: &Stat) -> bool {
        *self
            == Self {
                device: there.st_dev,
                inode: there.st_ino,
                bytes: there.st_size as u64,
                modified: (there.st_mtime, there.st_mtime_nsec as i64),
                changed: (there.st_ctime, there.st_ctime_nsec as i64),
            }
    }
}

impl Files {
    /// What was kept for requests with this path, if the file is still the same.
    pub(crate) fn hot(&self, target: &str) -> Option<Arc<Ready>> {
        let kept = self.hot.0.read().unwrap_or_else(PoisonError::into_inner);
        let hot = Arc::clone(kept.get(target)?);
        drop(kept);
        match self.is_same(&hot) {
            true => Some(Arc::clone(&hot.ready)),
            false => {
                self.cool(target, &hot);
                None
            }
        }
    }

    /// Keeps what replies to requests with this path need of the file at `path`.
    pub(crate) fn heat(&self, target: &str, path: &Path, identity: Identity, ready: Arc<Ready>) {
        let hot = HotFile {
            path: self.root.join(path),
            identity,
            ready,
        };
        let mut kept = self.hot.0.write().unwrap_or_else(PoisonError::into_inner);
        let open = || kept.iter().filter(|(_, other)| other.is_open());
        let other = match hot.is_open() && open().count() >= OPEN_MAX {
            true => open().next(),
            false if kept.len() >= FILES_MAX => kept.iter().next(),
            false => None,
        };
        let other = other.map(|(target, _)| target.clone());
        let other = other.and_then(|target| kept.remove(&target));
        let before = kept.insert(target.to_owned(), Arc::new(hot));
        // To close a file takes a system call, and longer if it was removed.
        drop(kept);
        drop((other, before));
    }

    /// Forgets the files that are not there any more, or not the same.
    pub(crate) fn forget_changed(&self) {
        let kept = self.hot.0.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = kept
            .iter()
            .map(|(target, hot)| (target.clone(), Arc::clone(hot)))
            .collect();
        drop(kept);
        for (target, hot) in all {
            if !self.is_same(&hot) {
                self.cool(&target, &hot);
            }
        }
    }

    /// Forgets a file, unless another is kept in its place by now.
    fn cool(&self, target: &str, hot: &Arc<HotFile>) {
        let mut kept = self.hot.0.write().unwrap_or_else(PoisonError::into_inner);
        if kept.get(target).is_some_and(|now| Arc::ptr_eq(now, hot)) {
            kept.remove(target);
        }
    }

    /// Whether the file at the path is the one that was kept. The path is not resolved beneath the
    /// root, which would take three system calls: a way out of the root leads to another file.
    fn is_same(&self, hot: &HotFile) -> bool {
        let there = statat(CWD, &hot.path, AtFlags::empty());
        there.is_ok_and(|there| hot.identity.is_of(&there))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// This crate's own folder: what is in it was not changed in the last moments.
    fn files() -> Files {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Files::open(root, 0, Duration::ZERO).unwrap()
    }

    fn heat(files: &Files, target: &str, path: &str, body: ReadyBody) -> Arc<Ready> {
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let identity = Identity::of(&fs::metadata(there).unwrap());
        let fields = Vec::new();
        let ready = Arc::new(Ready { fields, body });
        files.heat(target, Path::new(path), identity, Arc::clone(&ready));
        ready
    }

    fn open() -> ReadyBody {
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        ReadyBody::File(File::open(there).unwrap(), 1)
    }

    #[test]
    fn so_many_are_kept_and_fewer_are_kept_open() {
        let files = files();
        let kept = |all: &[Arc<Ready>]| {
            let kept = all.iter().filter(|ready| Arc::strong_count(ready) > 1);
            kept.count()
        };
        let target = |number| format!("/{number}");
        let opened: Vec<_> = (0..OPEN_MAX + 9)
            .map(|number| heat(&files, &target(number), "Cargo.toml", open()))
            .collect();
        assert_eq!(kept(&opened), OPEN_MAX);
        let read: Vec<_> = (1000..1000 + FILES_MAX)
            .map(|number| {
                let bytes = ReadyBody::Bytes(Vec::new());
                heat(&files, &target(number), "Cargo.toml", bytes)
            })
            .collect();
        assert_eq!(kept(&opened) + kept(&read), FILES_MAX);
    }

    #[test]
    fn what_is_another_file_is_forgotten() {
        let files = files();
        let same = heat(&files, "/same", "Cargo.toml", open());
        let other = heat(&files, "/other", "src/lib.rs", open());
        let gone = heat(&files, "/gone", "gone", open());
        files.forget_changed();
        assert_eq!([&same, &other, &gone].map(Arc::strong_count), [2, 1, 1]);
        assert!(files.hot("/same").is_some());
        heat(&files, "/other", "src/lib.rs", open());
        assert!(files.hot("/other").is_none());
    }
}
