//! Uploads that were broken off and can be gone on with.
//!
//! What has come of one stands where it stood while it came, in a hidden temporary file; beside it
//! is the head of the request that began it, so that a server that was killed meanwhile knows where
//! it belongs, and on which conditions. Both are removed when nobody has gone on with it for
//! `--resume-keep`. A temporary file without a head is what a killed server has left of an upload
//! that cannot be gone on with; it is removed at the next start.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, DirEntry, OpenOptions};
use cli::escape::Escaped;
use daemon::Cutter;
use proto::http::RequestHead;

use super::upload::{is_temporary, sync};
use super::{Files, FilesError, Upload, or_dot};
use crate::path::TreePath;

/// What the head of the request that began an upload is called, behind the name of the upload.
const HEAD_SUFFIX: &str = ".head";

/// What it is called until it is whole.
const HEAD_NEW_SUFFIX: &str = ".head.new";

/// The longest head that is read, in bytes; twice of what a request's may have.
const HEAD_BYTES_MAX: u64 = 32 * 1024;

/// How long a client that goes on waits for the request it was cut off from to end: it may be
/// syncing a large file.
const TURN_WAIT: Duration = Duration::from_secs(20);

/// An upload that was broken off.
pub struct Unfinished<'f> {
    /// What has come of it; goes on where it stopped.
    pub upload: Upload<'f>,
    /// The head of the request that began it.
    pub head: Vec<u8>,
    /// How long it stays if nobody goes on with it.
    pub keep: Duration,
}

impl Files {
    /// Whether a path can be that of an upload that was broken off.
    pub fn is_resource(&self, path: &TreePath) -> bool {
        path.as_path().file_name().is_some_and(is_temporary)
    }

    /// Takes up the upload that stands at a path ([`Upload::resource`]). Whoever is still at it is
    /// cut off; `cutter` does that to whoever takes it up now.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if there is none any more, and those of the disk.
    pub fn take_up(&self, path: &TreePath, cutter: Cutter) -> Result<Unfinished<'_>, FilesError> {
        let name = path.as_path().file_name();
        let name = name
            .filter(|name| is_temporary(name))
            .and_then(OsStr::to_str);
        let (Some(name), Some(folder_path), false) =
            (name, path.as_path().parent(), path.has_final_slash())
        else {
            return Err(FilesError::NotFound);
        };
        let turn = self.turns.take(name, cutter)?;
        let folder = self.root.open_dir(or_dot(folder_path))?;
        let head = read_head(&folder, name)?;
        let keep = left(&folder, name, self.resume_keep);
        if keep.is_zero() {
            remove(&folder, name)?;
            return Err(FilesError::NotFound);
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        let file = folder.open_with(name, &options)?.into_std();
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(FilesError::InUse);
        }
        // It was a request of ours, and it was checked when it came.
        let target = RequestHead::parse(&head).map_err(|_| FilesError::NotFound)?;
        let target = TreePath::decode(target.path).map_err(|_| FilesError::NotFound)?;
        let place = (folder, folder_path.to_owned());
        let upload = Upload::broken_off(self, target, file, name.to_owned(), place, turn)?;
        Ok(Unfinished { upload, head, keep })
    }

    /// Removes what is left of uploads that nobody can, or will, go on with.
    pub fn remove_leftovers(&self) {
        match self.sweep() {
            0 => {}
            files => log::info!("Removed {files} unfinished uploads"),
        }
    }

    /// Removes the temporary files that nobody writes to any more, in all folders, but not behind
    /// links. Returns how many there were.
    fn sweep(&self) -> usize {
        let mut removed = 0;
        // A stack and not a recursion, for a tree can be deep; and of paths, for it can be wide, and
        // an open folder takes a descriptor.
        let mut folders = vec![PathBuf::new()];
        while let Some(path) = folders.pop() {
            // What cannot be read is not ours.
            let Ok(folder) = self.root.open_dir(or_dot(&path)) else {
                continue;
            };
            for entry in folder.entries().into_iter().flatten().flatten() {
                let kind = entry.file_type();
                if kind.as_ref().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path.join(entry.file_name()));
                } else if kind.is_ok_and(|kind| kind.is_file()) {
                    removed += match self.sweep_file(&folder, &entry) {
                        Ok(is_removed) => usize::from(is_removed),
                        // It was removed together with another, or by another server.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                        Err(error) => {
                            let file = path.join(entry.file_name());
                            log::warn!(
                                "{} stays behind: {error}",
                                Escaped(&file.to_string_lossy())
                            );
                            0
                        }
                    };
                }
            }
        }
        removed
    }

    fn sweep_file(&self, folder: &Dir, entry: &DirEntry) -> io::Result<bool> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Ok(false);
        };
        let head_of = name.strip_suffix(HEAD_NEW_SUFFIX);
        let head_of = head_of.or_else(|| name.strip_suffix(HEAD_SUFFIX));
        // Whatever else is called so is not ours, but the client's perhaps.
        if !is_temporary(OsStr::new(head_of.unwrap_or(name))) {
            return Ok(false);
        }
        if let Some(upload) = head_of {
            // Without its upload it is of no use.
            return match folder.try_exists(upload)? {
                true => Ok(false),
                false => entry.remove_file().map(|()| true),
            };
        }
        // Nobody takes it up while it is looked at.
        let turns = self.turns.lock();
        let file = entry.open().map(cap_std::fs::File::into_std);
        let is_left = file.is_ok_and(|file| file.try_lock().is_ok());
        if turns.contains_key(name) || !is_left || !left(folder, name, self.resume_keep).is_zero() {
            return Ok(false);
        }
        remove(folder, name)?;
        Ok(true)
    }
}

/// How long an upload that was broken off is still kept; not at all if it cannot be gone on with.
fn left(folder: &Dir, name: &str, resume_keep: Duration) -> Duration {
    let can_go_on = folder.try_exists(head_name(name)).unwrap_or(true);
    let modified = folder.metadata(name).and_then(|there| there.modified());
    let age = match modified {
        Ok(modified) => modified.into_std().elapsed().unwrap_or_default(),
        Err(_) => Duration::ZERO,
    };
    match can_go_on {
        true => resume_keep.saturating_sub(age),
        false => Duration::ZERO,
    }
}

fn remove(folder: &Dir, name: &str) -> io::Result<()> {
    folder.remove_file(name)?;
    remove_head(folder, name);
    Ok(())
}

fn head_name(name: &str) -> String {
    format!("{name}{HEAD_SUFFIX}")
}

/// Writes the head of the request that began an upload beside it. When this returns, both are on
/// disk.
pub(super) fn write_head(folder: &Dir, name: &str, head: &[u8]) -> io::Result<()> {
    let new = format!("{name}{HEAD_NEW_SUFFIX}");
    let mut file = folder.create(&new)?.into_std();
    file.write_all(head)?;
    file.sync_all()?;
    folder.rename(&new, folder, head_name(name))?;
    sync(folder)
}

fn read_head(folder: &Dir, name: &str) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = folder.open(head_name(name))?;
    file.take(HEAD_BYTES_MAX).read_to_end(&mut head)?;
    Ok(head)
}

pub(super) fn remove_head(folder: &Dir, name: &str) {
    match folder.remove_file(head_name(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("{name}{HEAD_SUFFIX} stays behind: {error}");
        }
        _ => {}
    }
}

/// Who works on which unfinished upload: one request at a time. A client that comes back has given
/// up its last request, even if the server has not noticed yet; so that one is cut off.
#[derive(Default)]
pub(super) struct Turns {
    holders: Mutex<HashMap<String, Cutter>>,
    changed: Condvar,
}

impl Turns {
    /// While this is held, nothing is swept away.
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Cutter>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on this upload.
    pub(super) fn take(&self, name: &str, cutter: Cutter) -> Result<Turn<'_>, FilesError> {
        let deadline = Instant::now() + TURN_WAIT;
        let mut holders = self.lock();
        while let Some(holder) = holders.get(name) {
            holder.cut();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FilesError::InUse);
            }
            let waited = self.changed.wait_timeout(holders, left);
            holders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        holders.insert(name.to_owned(), cutter);
        Ok(Turn {
            turns: self,
            name: name.to_owned(),
        })
    }
}

/// The right to work on an unfinished upload. Dropping it gives it to the next.
#[must_use = "the turn is over when this is dropped"]
pub(super) struct Turn<'f> {
    turns: &'f Turns,
    name: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.name);
        self.turns.changed.notify_all();
    }
}
