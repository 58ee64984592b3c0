//! The file cache: small files that are downloaded again and again.
//!
//! To open, examine and close a small file costs more than to send it. So the cache keeps what a reply
//! needs ([`Representations`]): the fields of its head as they are written, the contents or the open file,
//! and of a text the compressed contents. Before each use the file that now stands at the path is compared
//! with the cached one, which takes one system call; so a change is seen at once. A file that has just
//! changed is not cached ([`Identity`]).

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashMap;

use crate::files::Identity;
use crate::representations::Representations;

/// The most files in the cache.
const FILES_MAX: usize = 256;

/// The most open files in the cache. They come out of the descriptors that the daemon leaves to
/// everything but its connections.
const OPEN_MAX: usize = 32;

/// The largest file in the cache, in bytes. If it is removed, it takes room on the disk until it is
/// evicted.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The cached files, by the paths of the requests for them.
#[derive(Default)]
pub(crate) struct FileCache(RwLock<HashMap<String, Arc<Representations>>>);

impl FileCache {
    /// The file for requests with this path, if it is cached and has not changed.
    pub(crate) fn get(&self, target: &str) -> Option<Arc<Representations>> {
        let file = Arc::clone(self.read().get(target)?);
        if is_current(&file) {
            return Some(file);
        }
        self.remove(target, &file);
        None
    }

    /// Caches the file for requests with this path. If the cache is full, another file is evicted.
    pub(crate) fn insert(&self, target: &str, file: Arc<Representations>) {
        let mut files = self.write();
        let open = || files.iter().filter(|(_, other)| other.is_open());
        let other = match file.is_open() && open().count() >= OPEN_MAX {
            true => open().next(),
            false if files.len() >= FILES_MAX => files.iter().next(),
            false => None,
        };
        let other = other.map(|(target, _)| target.clone());
        let evicted = other.and_then(|target| files.remove(&target));
        let replaced = files.insert(target.to_owned(), file);
        // To close a file takes a system call, so the lock is released first.
        drop(files);
        drop((evicted, replaced));
    }

    /// How many files it has, and how many bytes their contents have in memory.
    pub(crate) fn size(&self) -> (u64, u64) {
        let files = self.read();
        let bytes = files.values().map(|file| file.memory_bytes());
        (files.len() as u64, bytes.sum())
    }

    /// Evicts the files that have changed or are gone.
    pub(crate) fn evict_changed(&self) {
        let files = self.read();
        let all: Vec<_> = files
            .iter()
            .map(|(target, file)| (target.clone(), Arc::clone(file)))
            .collect();
        drop(files);
        for (target, file) in all {
            if !is_current(&file) {
                self.remove(&target, &file);
            }
        }
    }

    /// Removes a file, unless another one has replaced it in the cache.
    fn remove(&self, target: &str, file: &Arc<Representations>) {
        let mut files = self.write();
        if files.get(target).is_some_and(|now| Arc::ptr_eq(now, file)) {
            files.remove(target);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Representations>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Representations>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the file at the path is still the cached one. The path is not resolved beneath the root, which
/// would take three system calls: outside the root there is only another file.
fn is_current(file: &Representations) -> bool {
    Identity::at(&file.path).is_ok_and(|there| there == file.identity)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    /// Caches Cargo.toml, as if it stood at another path of this crate. It was not changed in the last
    /// moments.
    fn insert(cache: &FileCache, target: &str, path: &str, is_open: bool) -> Arc<Representations> {
        let of_crate = |path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let file = is_open.then(|| File::open(of_crate("Cargo.toml")).unwrap());
        let identity = Identity::at(&of_crate("Cargo.toml")).unwrap();
        let file = Arc::new(Representations::stub(of_crate(path), identity, file));
        cache.insert(target, Arc::clone(&file));
        file
    }

    #[test]
    fn the_cache_has_a_limit_and_a_lower_one_for_open_files() {
        let cache = FileCache::default();
        let kept = |all: &[Arc<Representations>]| {
            let kept = all.iter().filter(|file| Arc::strong_count(file) > 1);
            kept.count()
        };
        let target = |number| format!("/{number}");
        let opened: Vec<_> = (0..OPEN_MAX + 9)
            .map(|number| insert(&cache, &target(number), "Cargo.toml", true))
            .collect();
        assert_eq!(kept(&opened), OPEN_MAX);
        let read: Vec<_> = (1000..1000 + FILES_MAX)
            .map(|number| insert(&cache, &target(number), "Cargo.toml", false))
            .collect();
        assert_eq!(kept(&opened) + kept(&read), FILES_MAX);
    }

    #[test]
    fn what_is_another_file_is_evicted() {
        let cache = FileCache::default();
        let same = insert(&cache, "/same", "Cargo.toml", true);
        let other = insert(&cache, "/other", "src/lib.rs", true);
        let gone = insert(&cache, "/gone", "gone", true);
        cache.evict_changed();
        assert_eq!([&same, &other, &gone].map(Arc::strong_count), [2, 1, 1]);
        assert!(cache.get("/same").is_some());
        insert(&cache, "/other", "src/lib.rs", true);
        assert!(cache.get("/other").is_none());
    }
}
