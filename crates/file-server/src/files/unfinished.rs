//! Uploads that were broken off and can be gone on with.
//!
//! What has come of one stands where it stood while it came, in a hidden temporary file; beside it
//! is its [`Record`], so that a server that was killed meanwhile knows where it belongs, on which
//! conditions, and how much of it is on the disk. Whatever is behind that is cut off when somebody
//! goes on. The record stays when the upload is in its place, for a client that has not heard of it.
//! All of it is removed when nobody has gone on with it for as long as was said. A temporary file
//! without a record is what a killed server has left of an upload that cannot be gone on with; it is
//! removed at the next start. Whoever works on one has locked it, in this server or another.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use daemon::AbortHandle;
use proto::http::RequestHead;
use rustix::fs::OFlags;

use super::record::{self, Progress, Record, Stage};
use super::sweep::Swept;
use super::upload::{Kept, is_temporary};
use super::{Files, FilesError, Upload};
use crate::path::TreePath;

/// How long a client that goes on waits for the request it was cut off from to end: it may be
/// syncing a large file.
const TURN_WAIT: Duration = Duration::from_secs(20);

/// What stands at the path of an upload that was begun.
pub enum Begun<'f> {
    /// It was broken off.
    Unfinished(Box<Unfinished<'f>>),
    /// It is in its place, and that was so many bytes.
    Finished {
        /// How long the file is that it became.
        bytes: u64,
        /// How long this is still known.
        keep: Duration,
    },
}

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

    /// Takes up the upload that was begun at a path ([`Upload::resource`]). Whoever is still at it is
    /// cut off; `abort_handle` does that to whoever takes it up now.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if there is none any more, [`FilesError::InUse`] if whoever is at it
    /// stays, and those of the disk.
    pub fn take_up(
        &self,
        path: &TreePath,
        abort_handle: AbortHandle,
    ) -> Result<Begun<'_>, FilesError> {
        let name = path.as_path().file_name();
        let name = name
            .filter(|name| is_temporary(name))
            .and_then(OsStr::to_str);
        let (Some(name), Some(folder_path), false) =
            (name, path.as_path().parent(), path.has_final_slash())
        else {
            return Err(FilesError::NotFound);
        };
        let turn = self.turns.take(name, abort_handle)?;
        let folder = self.root()?.open_dir(folder_path)?;
        let (mut record, head) = Record::open(&folder, name)?;
        record.lock()?;
        let progress = record.progress();
        let keep = left(&folder, name, progress.keep);
        if keep.is_zero() {
            self.remove(&folder, name)?;
            return Err(FilesError::NotFound);
        }
        let finished = Begun::Finished {
            bytes: progress.synced_bytes,
            keep,
        };
        if progress.stage == Stage::Finished {
            return Ok(finished);
        }
        // It was a request of ours, and it was checked when it came.
        let target = RequestHead::parse(&head).map_err(|_| FilesError::NotFound)?;
        let target = TreePath::decode(target.path).map_err(|_| FilesError::NotFound)?;
        let file = match folder.open_with(name, &to_append()) {
            Err(error)
                if progress.stage == Stage::Placing && error.kind() == io::ErrorKind::NotFound =>
            {
                // A server was killed when it had been put in its place.
                let folder = self.folder_of(&target, progress.synced_bytes)?;
                self.disk.sync_folder(&folder)?;
                record.note(Progress {
                    stage: Stage::Finished,
                    ..progress
                })?;
                return Ok(finished);
            }
            opened => opened?.into_std(),
        };
        if !file.metadata()?.is_file() {
            return Err(FilesError::NotFound);
        }
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(FilesError::InUse);
        }
        // It may have been removed before it was locked.
        if !folder.try_exists(name)? {
            return Err(FilesError::NotFound);
        }
        let there = file.metadata()?.len();
        if there < progress.synced_bytes {
            log::warn!(
                "{name}: the disk has lost {} bytes of it",
                progress.synced_bytes - there
            );
            self.remove(&folder, name)?;
            return Err(FilesError::NotFound);
        }
        if there > progress.synced_bytes {
            file.set_len(progress.synced_bytes)?;
        }
        if progress.stage == Stage::Placing {
            // It did not come to that. Should it be missing one day, it is not in its place.
            record.note(Progress {
                stage: Stage::Arriving,
                ..progress
            })?;
        }
        let place = (folder, folder_path.to_owned());
        let kept = Kept {
            record,
            _turn: turn,
        };
        let upload = Upload::broken_off(self, target, file, name.to_owned(), place, kept)?;
        let unfinished = Unfinished { upload, head, keep };
        Ok(Begun::Unfinished(Box::new(unfinished)))
    }

    /// Removes a temporary file that nobody works on, in any server, or goes on with.
    pub(super) fn sweep_file(&self, folder: &Dir, name: &OsStr) -> io::Result<Swept> {
        let Some(name) = name.to_str() else {
            return Ok(Swept::Other);
        };
        let record_of = name.strip_suffix(record::NEW_SUFFIX);
        let record_of = record_of.or_else(|| name.strip_suffix(record::SUFFIX));
        // Whatever else is called so is not ours, but the client's perhaps.
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
            // A server of another user's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Swept::Other);
            }
            opened => opened?.into_std(),
        };
        // Held until it is removed: whoever comes in between finds it locked, or not at all.
        if file.try_lock().is_err() {
            return Ok(Swept::Kept(self.resume_keep));
        }
        let left = left(folder, upload, self.kept_for(folder, upload));
        if !left.is_zero() {
            return Ok(Swept::Kept(left));
        }
        self.hashers.forget(upload);
        match record_of {
            // What is left of an upload that is in its place is not counted.
            Some(_) => folder.remove_file(name).map(|()| Swept::Other),
            None => self.remove(folder, name).map(|()| Swept::Removed),
        }
    }

    /// How long an upload is kept if nobody goes on with it; not at all if nobody can.
    fn kept_for(&self, folder: &Dir, name: &str) -> Duration {
        match Record::open(folder, name) {
            Ok((record, _)) => record.progress().keep,
            Err(FilesError::NotFound) => Duration::ZERO,
            Err(_) => self.resume_keep,
        }
    }

    /// Removes an upload. Its record goes first: what has none cannot be taken for anything.
    fn remove(&self, folder: &Dir, name: &str) -> io::Result<()> {
        self.hashers.forget(name);
        record::remove(folder, name);
        folder.remove_file(name)
    }
}

/// How a temporary file is opened. Others who may write in the folder may have put something else there.
fn to_append() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    options.custom_flags(flags.bits() as i32);
    options
}

/// How long is left of the time that an upload, or the record of one that is in its place, is kept.
fn left(folder: &Dir, name: &str, keep: Duration) -> Duration {
    let there = folder
        .metadata(name)
        .or_else(|_| folder.metadata(record::file_name(name)));
    let age = match there.and_then(|there| there.modified()) {
        Ok(modified) => modified.into_std().elapsed().unwrap_or_default(),
        Err(_) => Duration::ZERO,
    };
    keep.saturating_sub(age)
}

/// Who works on which unfinished upload: one request at a time. A client that comes back has given
/// up its last request, even if the server has not noticed yet; so that one is cut off.
#[derive(Default)]
pub(super) struct Turns {
    holders: Mutex<HashMap<String, AbortHandle>>,
    changed: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else works on this upload.
    pub(super) fn take(
        &self,
        name: &str,
        abort_handle: AbortHandle,
    ) -> Result<Turn<'_>, FilesError> {
        let deadline = Instant::now() + TURN_WAIT;
        let mut holders = self.lock();
        while let Some(holder) = holders.get(name) {
            holder.abort();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FilesError::InUse);
            }
            let waited = self.changed.wait_timeout(holders, left);
            holders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        holders.insert(name.to_owned(), abort_handle);
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

#[cfg(test)]
mod tests;
