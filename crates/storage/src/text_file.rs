//! A file of lines that is only ever appended to, or replaced as a whole.

mod place;
mod start;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_setfl};

use crate::folder::sync_folder;
use crate::replacement::Replacement;
use crate::room::RESERVED_BYTES;
use crate::{CommitError, DataFile, Fsync, Limits, NotStored, Reopening, Room, mark};

pub use start::{Line, ReadFile};

/// An append-only file of lines. What was committed ends at a known length; whatever a failed
/// write or a crash leaves behind it is cut off.
///
/// After each commit, and before anybody is told, the file's path is looked at. If it does not name
/// this file any more, or the file has another length, the commit is lost: another program has taken
/// away what was acknowledged.
#[derive(Debug)]
pub struct TextFile {
    data: DataFile,
    fsync: Fsync,
    committed_bytes: u64,
    /// How many bytes are noted as synced.
    marked_bytes: u64,
    pending: Vec<u8>,
    limits: Limits,
    /// How long it was when it was opened.
    opened_bytes: u64,
    /// How many bytes the disk has for the next commit, once that was looked up.
    free_bytes: Option<u64>,
    /// If it may be moved away and made anew.
    reopening: Option<Reopening>,
    is_reopened: bool,
    is_full: bool,
    is_lost: bool,
}

/// How many bytes one commit takes, but for the last change in it: as many as are worth one sync.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How often a file may be moved away during one commit.
const MOVES_MAX: usize = 16;

/// After how many more bytes it is noted that they are synced. A start writes no more than these
/// again.
const MARK_BYTES: u64 = 16 << 20;

impl TextFile {
    /// Sets how much room it may take, and warns if it takes more already.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        if self.committed_bytes > limits.file_bytes_max {
            log::warn!(
                "{} has {} bytes, more than the {} that it may have: nothing is added to it",
                self.path().display(),
                self.committed_bytes,
                limits.file_bytes_max
            );
        }
        self
    }

    /// Lets it be moved away while it is used: a commit that finds nothing under its path then waits
    /// for the request to reopen it, which makes it anew. Returns what to make that request with.
    pub fn let_be_moved(&mut self) -> Reopening {
        self.reopening.get_or_insert_default().clone()
    }

    /// Whether it was opened again since the last call: then it is another file, with other lines.
    pub fn take_reopened(&mut self) -> bool {
        std::mem::take(&mut self.is_reopened)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// How many names (hard links) it has; 1 if that cannot be seen.
    pub fn links(&self) -> u64 {
        self.data.links().unwrap_or(1)
    }

    /// The file and how many bytes of it are committed: a snapshot that stays as it is, whatever
    /// is appended behind it or put in the file's place.
    pub fn snapshot(&self) -> (Arc<File>, u64) {
        (Arc::clone(self.data.file()), self.committed_bytes)
    }

    /// Where to put the lines that the next commit is to append, each with its line feed.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Whether what is pending is enough for one commit.
    pub fn is_batch_full(&self) -> bool {
        self.pending.len() >= BATCH_BYTES_MAX
    }

    /// Checks that the next commit may append so many bytes.
    ///
    /// # Errors
    /// [`NotStored::Refused`], with the limit that is in the way.
    pub fn check_room(&mut self, pending_bytes: usize, room: Room) -> Result<(), NotStored> {
        let refusal = match room {
            Room::Reserved => self.refusal_beyond_limits(pending_bytes as u64),
            Room::Usual => {
                let refusal = self.refusal(pending_bytes as u64);
                let was_full = std::mem::replace(&mut self.is_full, refusal.is_some());
                if let Some(cause) = refusal.as_ref().filter(|_| !was_full) {
                    let path = self.path().display();
                    log::error!("New lines of {path} are refused: {cause}");
                }
                refusal
            }
        };
        refusal.map_or(Ok(()), |cause| Err(NotStored::Refused(cause)))
    }

    fn refusal(&mut self, pending_bytes: u64) -> Option<String> {
        let left = self
            .limits
            .file_bytes_max
            .saturating_sub(self.committed_bytes);
        if pending_bytes > left {
            return Some(self.too_long(self.limits.file_bytes_max));
        }
        // To look at the disk once a commit is often enough.
        let free = match self.free_bytes {
            Some(free) => free,
            None => match self.limits.free_bytes(self.data.file()) {
                Ok(free) => *self.free_bytes.insert(free),
                Err(error) => return Some(error.to_string()),
            },
        };
        (pending_bytes > free).then(|| {
            let name = self.name();
            format!("the disk of {name} has no more room than what is kept free")
        })
    }

    fn refusal_beyond_limits(&self, pending_bytes: u64) -> Option<String> {
        let max = self.limits.file_bytes_max.max(self.opened_bytes);
        let max = max.saturating_add(RESERVED_BYTES);
        (self.committed_bytes + pending_bytes > max).then(|| self.too_long(max))
    }

    fn too_long(&self, max: u64) -> String {
        format!("{} may have {max} bytes and is full", self.name())
    }

    /// What peers are told about it: in which folder it is, is no concern of theirs.
    fn name(&self) -> impl fmt::Display {
        self.path().file_name().unwrap_or_default().display()
    }

    /// Appends what is pending and waits until it is on the disk.
    ///
    /// # Errors
    /// [`CommitError::Refused`] after a failed write: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync, if the file could not be cut back, or if its path
    /// does not name it any more.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.with_pending(|file, pending| {
            file.reopen_if_asked()?;
            if pending.is_empty() {
                return Ok(());
            }
            for _ in 0..MOVES_MAX {
                let committed_bytes = file.committed_bytes;
                file.append(pending)?;
                if file.is_in_place()? {
                    return Ok(());
                }
                let moved = Arc::clone(file.data.file());
                file.wait_for_reopening()?;
                if Arc::ptr_eq(&moved, file.data.file()) {
                    return file.check_in_place();
                }
                // If anyone has read the one that was moved, it is about to be removed; so these
                // lines go to the new one.
                let cut_back = moved.set_len(committed_bytes);
                cut_back.map_err(|cause| file.cannot("cut back what was moved from", &cause))?;
            }
            let cause = io::Error::other("it is moved again and again");
            Err(file.cannot("write", &cause))
        })
    }

    /// Makes an empty file beside this one, whose place it can take when it is written.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if it cannot be made, or if this file was opened anew just now, so
    /// that nothing is known about its contents. [`CommitError::Lost`] if it is gone.
    pub fn replacement(&mut self) -> Result<Replacement, CommitError> {
        let settled = self.settle();
        let made =
            settled.and_then(|()| Replacement::beside(&self.data).map_err(CommitError::Refused));
        self.forget_if_failed(made)
    }

    /// Appends what is pending to a replacement that is written, syncs it, and gives it the place of
    /// this file: a crash at any moment leaves the old contents or the new. What was written before
    /// may have been synced before, by another thread, so that this takes less time.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if the new contents could not be written, or are those of a file that
    /// was moved away since: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync or rename, or if the path does not name the file any
    /// more.
    pub fn replace(&mut self, new: Replacement) -> Result<(), CommitError> {
        self.with_pending(|file, pending| {
            (&**new.file())
                .write_all(pending)
                .map_err(CommitError::Refused)?;
            // Even without --fsync: after a power cut, a file that was renamed before it was written
            // could be empty.
            let synced = new.file().sync_all();
            synced.map_err(|cause| file.cannot("sync the replacement of", &cause))?;
            let append = fcntl_setfl(new.file(), OFlags::APPEND).map_err(io::Error::from);
            let prepared = append.and_then(|()| {
                let bytes = new.file().metadata()?.len();
                mark::write(new.file(), bytes)?;
                Ok(bytes)
            });
            let committed_bytes = prepared.map_err(CommitError::Refused)?;
            let real_path = new.real_path().to_owned();
            // As late as can be: a file that was moved before the renaming would be there twice.
            file.settle()?;
            if !new.is_of(file.data.file()) {
                return Err(file.opened_anew());
            }
            // From here on it is not known which of the two files has the name.
            let renamed = new.rename_to(file.path());
            file.data = renamed.map_err(|cause| file.cannot("replace", &cause))?;
            file.committed_bytes = committed_bytes;
            file.marked_bytes = committed_bytes;
            if file.fsync == Fsync::Always {
                let synced = sync_folder(&real_path);
                synced.map_err(|cause| file.cannot("sync the folder of", &cause))?;
            }
            // Whoever has moved it since has moved all of the new contents.
            if !file.is_in_place()? {
                file.wait_for_reopening()?;
            }
            file.check_in_place()
        })
    }

    /// Runs a commit with what is pending, which is gone then, whatever comes of it.
    fn with_pending(
        &mut self,
        commit: impl FnOnce(&mut Self, &[u8]) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let mut pending = std::mem::take(&mut self.pending);
        let committed = commit(self, &pending);
        pending.clear();
        pending.shrink_to(BATCH_BYTES_MAX);
        self.pending = pending;
        self.free_bytes = None;
        self.forget_if_failed(committed)
    }

    /// After a failure nothing is pending any more; if it was a loss, nothing is synced any more.
    fn forget_if_failed<T>(&mut self, done: Result<T, CommitError>) -> Result<T, CommitError> {
        if let Err(error) = &done {
            self.pending.clear();
            self.is_lost |= matches!(error, CommitError::Lost(_));
        }
        done
    }

    /// Writes at the end of the file, and syncs.
    fn append(&mut self, pending: &[u8]) -> Result<(), CommitError> {
        let file = self.data.file();
        if let Err(cause) = (&**file).write_all(pending) {
            let cut_back = file.metadata().and_then(|metadata| {
                // To cut a file that another program has made shorter would fill it up with zeros.
                match metadata.len() >= self.committed_bytes {
                    true => file.set_len(self.committed_bytes),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            });
            cut_back.map_err(|cause| self.cannot("cut back", &cause))?;
            return Err(CommitError::Refused(cause));
        }
        if self.fsync == Fsync::Always {
            let synced = file.sync_data();
            synced.map_err(|cause| self.cannot("sync", &cause))?;
        }
        self.committed_bytes += pending.len() as u64;
        if self.fsync == Fsync::Always && self.committed_bytes - self.marked_bytes >= MARK_BYTES {
            self.mark();
        }
        Ok(())
    }

    /// Notes that all is synced.
    fn mark(&mut self) {
        match mark::write(self.data.file(), self.committed_bytes) {
            Ok(()) => self.marked_bytes = self.committed_bytes,
            // The old mark stands, and is true.
            Err(error) => log::debug!("{} cannot be marked: {error}", self.path().display()),
        }
    }

    fn cannot(&self, what: &str, cause: &io::Error) -> CommitError {
        let sentence = format!("cannot {what} {}: {cause}", self.path().display());
        CommitError::Lost(io::Error::new(cause.kind(), sentence))
    }
}

impl Drop for TextFile {
    /// Notes that all is synced, so that the next start has nothing to write again.
    fn drop(&mut self) {
        if self.is_lost || self.marked_bytes == self.committed_bytes {
            return;
        }
        if self.fsync == Fsync::Always || self.data.file().sync_data().is_ok() {
            self.mark();
        }
    }
}

#[cfg(test)]
mod tests;
