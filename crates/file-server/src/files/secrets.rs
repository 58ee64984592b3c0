//! The server's own secrets, which nobody may download and no list names.
//!
//! A secret is the file that is at its path now, and each file that was there when the server read it. A
//! key that is renewed, or moved into the root, is at its path no longer. So these files are remembered,
//! by any name that they have. A copy of one is another file, and is served.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::root::FileId;

/// The most files that are remembered: the last ones. They come out of the descriptors that the daemon
/// leaves to everything but its connections.
const REMEMBERED_MAX: usize = 32;

/// The secrets of one server.
#[derive(Default)]
pub(super) struct Secrets {
    paths: Vec<PathBuf>,
    /// The files are held open, so that no other file gets the id of one that is removed.
    remembered: Mutex<Vec<(FileId, OwnedFd)>>,
}

impl Secrets {
    /// The secrets at these paths.
    pub(super) fn at(paths: Vec<PathBuf>) -> Self {
        let secrets = Self {
            paths,
            remembered: Mutex::default(),
        };
        secrets.remember();
        secrets
    }

    /// Remembers the files that are at the paths now, and forgets those that have no name any more.
    pub(super) fn remember(&self) {
        let mut remembered = self.lock();
        remembered.retain(|(_, file)| fstat(file).is_ok_and(|there| there.st_nlink > 0));
        for path in &self.paths {
            // O_PATH neither reads a file nor waits for the writer of a pipe.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            if let Ok(file) = openat(CWD, path, flags, Mode::empty())
                && let Ok(id) = FileId::of(&file)
            {
                remembered.retain(|(known, _)| *known != id);
                remembered.push((id, file));
            }
        }
        let surplus = remembered.len().saturating_sub(REMEMBERED_MAX);
        remembered.drain(..surplus);
    }

    /// The files that are secret now.
    pub(super) fn ids(&self) -> Vec<FileId> {
        let there = self.paths.iter().filter_map(|path| FileId::at(path).ok());
        there.chain(self.lock().iter().map(|(id, _)| *id)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(FileId, OwnedFd)>> {
        let remembered = self.remembered.lock();
        remembered.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_file_that_was_at_the_path_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let [key, old, moved] = ["key", "old", "moved"].map(|name| dir.path().join(name));
        fs::write(&key, "a key").unwrap();
        let secrets = Secrets::at(vec![key.clone(), dir.path().join("nothing")]);
        let is_secret = |path: &Path| secrets.ids().contains(&FileId::at(path).unwrap());
        let looked_at = FileId::at(&key).unwrap();
        fs::hard_link(&key, &old).unwrap();
        fs::write(&key, "a key that is changed").unwrap();
        assert!(secrets.ids().contains(&looked_at) && is_secret(&old));
        fs::write(&moved, "another key").unwrap();
        fs::rename(&moved, &key).unwrap();
        assert!(is_secret(&old) && is_secret(&key));
        secrets.remember();
        fs::rename(&key, &moved).unwrap();
        assert!(is_secret(&old) && is_secret(&moved));
        fs::write(&key, "a third one").unwrap();
        assert!(is_secret(&key));
        assert!(!is_secret(dir.path()));
    }

    #[test]
    fn only_the_last_files_that_have_a_name_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let [key, other] = ["key", "other"].map(|name| dir.path().join(name));
        fs::write(&other, "accounts").unwrap();
        fs::write(&key, "a key").unwrap();
        let secrets = Secrets::at(vec![other.clone(), key.clone()]);
        let count = || secrets.lock().len();
        fs::remove_file(&key).unwrap();
        secrets.remember();
        assert_eq!(count(), 1);
        for renewal in 0..2 * REMEMBERED_MAX {
            fs::write(&key, "a key").unwrap();
            secrets.remember();
            fs::rename(&key, dir.path().join(renewal.to_string())).unwrap();
        }
        assert_eq!(count(), REMEMBERED_MAX);
        let is_secret = |name: &str| {
            let id = FileId::at(&dir.path().join(name)).unwrap();
            secrets.ids().contains(&id)
        };
        fs::rename(other, dir.path().join("moved")).unwrap();
        assert!(is_secret("moved") && is_secret("63") && !is_secret("0"));
    }
}
