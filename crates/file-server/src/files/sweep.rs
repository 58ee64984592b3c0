//! The sweeper: it removes the uploads that nobody continues, what a killed server has left of a folder
//! that it deleted, and what a request had no time to remove.
//!
//! What earlier servers left is found by one search of the tree, in the background, and by another if a
//! new folder comes to the root's path. What that search finds but keeps, and what this server's own
//! clients interrupt, is remembered by its path (`expirations`), so that nothing else is searched again.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cap_std::fs::Dir;
use cli::escape::Escaped;
use crossbeam_channel::Receiver;
use rustix::io::Errno;
use storage::lock;

use super::manage::Deleted;
use super::record::{self, Record};
use super::removal::remove_tree;
use super::root::Root;
use super::temporary::{is_deleted, is_temporary};
use super::tree::Files;
use super::unfinished::to_append;
use crate::error::FilesError;

/// The most names that a search looks at.
const ENTRIES_MAX: usize = 10_000_000;

/// The most folders that a search has yet to look at.
const FOLDERS_MAX: usize = 250_000;

/// What the sweeper did with a file.
enum Swept {
    /// Nothing: the file is not a temporary one.
    Other,
    /// It expires after this time.
    Kept(Duration),
    Removed,
}

impl Files {
    /// Removes the expired uploads, as long as `must_continue` says so: from a root that is new to
    /// this server by a search of all folders, later from the paths that are remembered.
    pub(crate) fn sweep(&self, must_continue: &dyn Fn() -> bool) {
        let Ok(root) = self.root() else {
            return;
        };
        let before = lock(&self.swept).replace(root.id);
        let removed = match before == Some(root.id) {
            true => self.sweep_expired(&root, must_continue),
            false => self.sweep_all(&root, must_continue),
        };
        if removed > 0 {
            log::info!("Removed {removed} unfinished uploads");
        }
    }

    /// The deleted folders that the requests have not removed in time.
    pub(crate) fn removals(&self) -> &Receiver<Deleted> {
        &self.removals.1
    }

    /// Removes what is left of a deleted folder, as long as `must_continue` says so.
    pub(crate) fn finish_removal(&self, deleted: &Deleted, must_continue: &dyn Fn() -> bool) {
        let Deleted { folder, name } = deleted;
        self.sweep_deleted(folder, OsStr::new(name), must_continue);
    }

    /// Searches all folders, but follows no links. Returns the number of uploads removed.
    pub(super) fn sweep_all(&self, root: &Root, must_continue: &dyn Fn() -> bool) -> usize {
        let (mut removed, mut entries, mut is_whole) = (0, 0, true);
        // A stack and not a recursion, because a tree can be deep; and of paths, because a tree can be
        // wide, and an open folder takes a descriptor.
        let mut folders = vec![PathBuf::new()];
        'search: while must_continue()
            && let Some(path) = folders.pop()
        {
            // A folder that cannot be read has none of this server's files.
            let Ok(folder) = root.open_dir(&path) else {
                continue;
            };
            for entry in folder.entries().into_iter().flatten().flatten() {
                entries += 1;
                if !must_continue() || entries > ENTRIES_MAX {
                    is_whole = false;
                    break 'search;
                }
                let name = entry.file_name();
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if is_deleted(&name) {
                    self.sweep_deleted(&folder, &name, must_continue);
                } else if kind.is_dir() && folders.len() < FOLDERS_MAX {
                    folders.push(path.join(name));
                } else if kind.is_dir() {
                    is_whole = false;
                } else if kind.is_file() {
                    removed += self.sweep_file(&folder, &path, &name);
                }
            }
        }
        if !is_whole && must_continue() {
            log::warn!("the root is too large to look for unfinished uploads in all of it");
        }
        removed
    }

    /// Removes what is left of a deleted folder. Another server may be removing it, too.
    fn sweep_deleted(&self, folder: &Dir, name: &OsStr, must_continue: &dyn Fn() -> bool) {
        let name = name.to_string_lossy();
        match remove_tree(folder, &name, &self.secrets.ids(), must_continue) {
            Err(Errno::NOENT) => {}
            Err(_) if !must_continue() => {}
            Err(error) => log::warn!("{name} stays behind: {}", io::Error::from(error)),
            Ok(()) => log::info!("Removed what was left of a deleted folder"),
        }
    }

    fn sweep_expired(&self, root: &Root, must_continue: &dyn Fn() -> bool) -> usize {
        let mut removed = 0;
        for path in self.expirations.remove_expired() {
            if !must_continue() {
                break;
            }
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let Ok(folder) = root.open_dir(parent) else {
                continue;
            };
            removed += self.sweep_file(&folder, parent, name);
            // A finished upload has left its record.
            if let (Some(name), false) = (name.to_str(), folder.exists(name)) {
                let record = record::file_name(name);
                removed += self.sweep_file(&folder, parent, OsStr::new(&record));
            }
        }
        removed
    }

    /// Returns the number of uploads removed.
    fn sweep_file(&self, folder: &Dir, folder_path: &Path, name: &OsStr) -> usize {
        let path = || folder_path.join(name);
        match self.try_sweep(folder, name) {
            Ok(Swept::Removed) => return 1,
            Ok(Swept::Kept(keep)) => self.expirations.insert(path(), keep),
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

    /// Removes a temporary file that has expired and that no server works on.
    fn try_sweep(&self, folder: &Dir, name: &OsStr) -> io::Result<Swept> {
        let Some(name) = name.to_str() else {
            return Ok(Swept::Other);
        };
        let record_of = name.strip_suffix(record::NEW_SUFFIX);
        let record_of = record_of.or_else(|| name.strip_suffix(record::SUFFIX));
        let upload = record_of.unwrap_or(name);
        if !is_temporary(OsStr::new(upload)) {
            return Ok(Swept::Other);
        }
        // A record is removed together with its upload.
        if record_of.is_some() && folder.try_exists(upload)? {
            return Ok(Swept::Other);
        }
        // For writing, because some network file systems lock nothing else.
        let file = match folder.open_with(name, &to_append()) {
            // It belongs to another user's server.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Swept::Other);
            }
            opened => opened?.into_std(),
        };
        // Locked until it is removed, so that nobody continues it meanwhile.
        if file.try_lock().is_err() {
            return Ok(Swept::Kept(self.resume_keep));
        }
        let left = record::time_left(folder, upload, self.keep_time_of(folder, upload));
        if !left.is_zero() {
            return Ok(Swept::Kept(left));
        }
        match record_of {
            // The record of a finished upload is not counted.
            Some(_) => folder.remove_file(name).map(|()| Swept::Other),
            None => self.remove(folder, name).map(|()| Swept::Removed),
        }
    }

    /// How long an upload is kept if nobody continues it; zero if nobody can.
    fn keep_time_of(&self, folder: &Dir, name: &str) -> Duration {
        match Record::open(folder, name) {
            Ok((record, _)) => record.progress().keep,
            Err(FilesError::NotFound) => Duration::ZERO,
            Err(_) => self.resume_keep,
        }
    }
}
