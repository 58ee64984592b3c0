//! Finds the uploads that nobody goes on with.
//!
//! What other runs of a server have left is found in one pass over the tree, in the background; when
//! another folder has come to the root's path, in one pass over that. What
//! that pass finds but is still kept, and what this server's own clients break off, is remembered by
//! its path, so that nothing else has to be looked at again.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::Dir;
use cli::escape::Escaped;

use super::root::Root;
use super::{Files, record};

/// How many entries of folders a pass looks at.
const ENTRIES_MAX: usize = 10_000_000;

/// How many folders a pass has yet to look at.
const FOLDERS_MAX: usize = 250_000;

/// How many unfinished uploads are remembered. What comes beyond is left to the next start.
const PATHS_MAX: usize = 65_536;

/// What became of a file that a pass has found.
pub(super) enum Swept {
    /// It is none of ours.
    Other,
    /// It is still kept for so long.
    Kept(Duration),
    Removed,
}

/// The unfinished uploads that are known, by their paths below the root, and when each is to be
/// looked at.
#[derive(Default)]
pub(super) struct UnfinishedPaths(Mutex<HashMap<PathBuf, Instant>>);

impl UnfinishedPaths {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an upload looked at when it was kept for so long.
    pub(super) fn add(&self, path: PathBuf, keep: Duration) {
        let mut paths = self.lock();
        if paths.len() < PATHS_MAX || paths.contains_key(&path) {
            paths.insert(path, Instant::now() + keep);
        }
    }

    fn take_due(&self) -> Vec<PathBuf> {
        let now = Instant::now();
        let due = self
            .lock()
            .extract_if(|_, due| *due <= now)
            .collect::<Vec<_>>();
        due.into_iter().map(|(path, _)| path).collect()
    }
}

impl Files {
    /// Removes what is left of uploads that nobody can, or will, go on with, as long as it `goes_on`:
    /// in all folders of a root that is new to this server, and later of those that are known and due.
    pub fn remove_unfinished(&self, goes_on: &dyn Fn() -> bool) {
        let Ok(root) = self.root() else {
            return;
        };
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = swept.replace(root.id);
        drop(swept);
        match before == Some(root.id) {
            true => self.remove_expired(&root, goes_on),
            false => self.remove_leftovers(&root, goes_on),
        }
    }

    /// Looks in all folders, but not behind links.
    pub(super) fn remove_leftovers(&self, root: &Root, goes_on: &dyn Fn() -> bool) {
        let (mut removed, mut entries, mut is_whole) = (0, 0, true);
        // A stack and not a recursion, because a tree can be deep; and of paths, because it can be
        // wide, and an open folder takes a descriptor.
        let mut folders = vec![PathBuf::new()];
        'pass: while goes_on()
            && let Some(path) = folders.pop()
        {
            // What cannot be read is not ours.
            let Ok(folder) = root.open_dir(&path) else {
                continue;
            };
            for entry in folder.entries().into_iter().flatten().flatten() {
                entries += 1;
                if !goes_on() || entries > ENTRIES_MAX {
                    is_whole = false;
                    break 'pass;
                }
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() && folders.len() < FOLDERS_MAX {
                    folders.push(path.join(entry.file_name()));
                } else if kind.is_dir() {
                    is_whole = false;
                } else if kind.is_file() {
                    removed += self.sweep(&folder, &path, &entry.file_name());
                }
            }
        }
        report(removed);
        if !is_whole && goes_on() {
            log::warn!("the root is too large to look for unfinished uploads in all of it");
        }
    }

    fn remove_expired(&self, root: &Root, goes_on: &dyn Fn() -> bool) {
        let mut removed = 0;
        for path in self.unfinished.take_due() {
            if !goes_on() {
                break;
            }
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let Ok(folder) = root.open_dir(parent) else {
                continue;
            };
            removed += self.sweep(&folder, parent, name);
            // What is in its place has left its record.
            if let (Some(name), false) = (name.to_str(), folder.exists(name)) {
                let record = record::file_name(name);
                removed += self.sweep(&folder, parent, OsStr::new(&record));
            }
        }
        report(removed);
    }

    /// Returns how many were removed.
    fn sweep(&self, folder: &Dir, folder_path: &Path, name: &OsStr) -> usize {
        let path = || folder_path.join(name);
        match self.sweep_file(folder, name) {
            Ok(Swept::Removed) => return 1,
            Ok(Swept::Kept(keep)) => self.unfinished.add(path(), keep),
            Ok(Swept::Other) => {}
            // It was removed together with another, or by another server.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path();
                let path = path.to_string_lossy();
                log::warn!("{} stays behind: {error}", Escaped(&path));
            }
        }
        0
    }
}

fn report(removed: usize) {
    if removed > 0 {
        log::info!("Removed {removed} unfinished uploads");
    }
}
