//! The append-only text file: the write-ahead log of a service whose records are lines.
//!
//! Lines are only ever appended, or all of them are replaced at once by an atomic rename. What is
//! committed ends at a known length, so a failed write is undone by cutting the file back to it.
//!
//! After each commit, and before anyone is told, the file's path and length are checked. If another
//! program has moved or changed the file, the commit is lost.

mod rotation;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_setfl};

use crate::data_folder::sync_folder;
use crate::limits::Quota;
use crate::recovery::{Line, Scanned};
use crate::{
    CommitError, DataFile, Fsync, Limits, NotStored, ReopenSignal, Replacement, Space,
    StorageError, watermark,
};

/// An append-only text file that one thread writes.
#[derive(Debug)]
pub struct TextFile {
    data: DataFile,
    fsync: Fsync,
    committed_bytes: u64,
    /// The watermark that is stored with the file.
    synced_mark: u64,
    pending: Vec<u8>,
    quota: Quota,
    /// Set if it may be rotated.
    reopen_signal: Option<ReopenSignal>,
    is_reopened: bool,
    is_lost: bool,
}

/// The most bytes of one batch, the last change of it apart: enough to be worth a sync.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The most times that a file may be renamed during one commit.
const RENAMES_MAX: usize = 16;

/// The watermark is stored each time this many bytes more are synced. It bounds what a start writes
/// again.
const WATERMARK_STEP_BYTES: u64 = 16 << 20;

impl TextFile {
    /// Checks every line of a data file, and recovers it: see [`Scanned::lines`].
    ///
    /// # Errors
    /// Those of [`Scanned::lines`] and [`TextFile::recover`].
    pub fn open(
        data: DataFile,
        fsync: Fsync,
        check: impl FnMut(&[u8], bool) -> Line,
    ) -> Result<Self, StorageError> {
        Self::recover(Scanned::lines(data, check)?, fsync)
    }

    /// Recovers a text file that was scanned: cuts off a torn last line, and brings to the disk what
    /// may be in the page cache alone. So nothing is served that a power cut can still take.
    ///
    /// # Errors
    /// [`StorageError::Open`].
    pub fn recover(scanned: Scanned, fsync: Fsync) -> Result<Self, StorageError> {
        let (data, bytes) = scanned.recover()?;
        Ok(Self {
            data,
            fsync,
            committed_bytes: bytes,
            synced_mark: bytes,
            pending: Vec::new(),
            quota: Quota::new(Limits::default(), bytes),
            reopen_signal: None,
            is_reopened: false,
            is_lost: false,
        })
    }

    /// Looks only for the end of the last line of a data file, and recovers it.
    ///
    /// # Errors
    /// Those of [`Scanned::end`] and [`TextFile::recover`].
    pub fn open_at_end(data: DataFile, fsync: Fsync) -> Result<Self, StorageError> {
        Self::recover(Scanned::end(data)?, fsync)
    }

    /// Sets its limits, and warns if it exceeds them already.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.quota = Quota::new(limits, self.committed_bytes);
        if self.committed_bytes > limits.file_bytes_max {
            log::warn!(
                "{} has {} bytes and exceeds its limit of {}: nothing is added to it",
                self.path().display(),
                self.committed_bytes,
                limits.file_bytes_max
            );
        }
        self
    }

    /// Allows log rotation: a commit that finds nothing under the path waits for the signal, and then
    /// creates a new file. Returns the signal.
    pub fn allow_rotation(&mut self) -> ReopenSignal {
        self.reopen_signal.get_or_insert_default().clone()
    }

    /// Whether it was reopened since the last call. Then it is another file, with other lines.
    pub fn was_reopened(&mut self) -> bool {
        std::mem::take(&mut self.is_reopened)
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        self.data.path()
    }

    /// The number of its names (hard links); 1 if that cannot be read.
    pub fn links(&self) -> u64 {
        self.data.links().unwrap_or(1)
    }

    /// The file and its committed length: a snapshot that does not change when lines are appended
    /// or the file is replaced.
    pub fn snapshot(&self) -> (Arc<File>, u64) {
        (Arc::clone(self.data.file()), self.committed_bytes)
    }

    /// The lines that the next commit appends, each with its line feed. Add yours at the end.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Whether the pending lines are enough for one batch.
    pub fn is_batch_full(&self) -> bool {
        self.pending.len() >= BATCH_BYTES_MAX
    }

    /// Checks that the next commit may append this many bytes.
    ///
    /// # Errors
    /// [`NotStored::Refused`], with the limit that would be exceeded.
    pub fn check_space(&mut self, pending_bytes: usize, space: Space) -> Result<(), NotStored> {
        let (file_bytes, added_bytes) = (self.committed_bytes, pending_bytes as u64);
        let checked = self.quota.check(&self.data, file_bytes, added_bytes, space);
        checked.map_err(NotStored::Refused)
    }

    /// Appends the pending lines and waits until they are on the disk.
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
            for _ in 0..RENAMES_MAX {
                let committed_bytes = file.committed_bytes;
                file.append(pending)?;
                if file.is_in_place()? {
                    return Ok(());
                }
                let renamed = Arc::clone(file.data.file());
                file.wait_for_reopen()?;
                if Arc::ptr_eq(&renamed, file.data.file()) {
                    return file.check_in_place();
                }
                // The program that rotates may have copied the renamed file already and remove it
                // next. So these lines go to the new file.
                let cut_back = renamed.set_len(committed_bytes);
                cut_back.map_err(|cause| file.cannot("cut back what was moved from", &cause))?;
            }
            let cause = io::Error::other("it is moved again and again");
            Err(file.cannot("write", &cause))
        })
    }

    /// Creates an empty file beside this one. [`TextFile::replace`] puts it in this one's place when
    /// it is written.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if it cannot be created, or if this file has just been reopened and
    /// has other lines. [`CommitError::Lost`] if this file is gone.
    pub fn replacement(&mut self) -> Result<Replacement, CommitError> {
        let checked = self.check_not_reopened();
        let created =
            checked.and_then(|()| Replacement::beside(&self.data).map_err(CommitError::Refused));
        self.note_failure(created)
    }

    /// Appends the pending lines to a replacement, syncs it, and renames it over this file. The thread
    /// that wrote the replacement may have synced it already, which makes this faster.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if the new contents could not be written, or if this file has been
    /// reopened since the replacement was created: the file is as it was.
    /// [`CommitError::Lost`] after a failed sync or rename, or if the path does not name the file any
    /// more.
    pub fn replace(&mut self, new: Replacement) -> Result<(), CommitError> {
        self.with_pending(|file, pending| {
            (&**new.file())
                .write_all(pending)
                .map_err(CommitError::Refused)?;
            // Also without --fsync: a file that is renamed before it is synced may be empty after a
            // power cut.
            let synced = new.file().sync_all();
            synced.map_err(|cause| file.cannot("sync the replacement of", &cause))?;
            let append = fcntl_setfl(new.file(), OFlags::APPEND).map_err(io::Error::from);
            let prepared = append.and_then(|()| {
                let bytes = new.file().metadata()?.len();
                watermark::write(new.file(), bytes)?;
                Ok(bytes)
            });
            let committed_bytes = prepared.map_err(CommitError::Refused)?;
            let real_path = new.real_path().to_owned();
            // Right before the rename: if the old file was moved, its lines would be there twice.
            file.check_not_reopened()?;
            if !new.is_of(file.data.file()) {
                return Err(file.reopened());
            }
            // From here on it is not known which of the two files has the name.
            let renamed = new.rename(file.path());
            file.data = renamed.map_err(|cause| file.cannot("replace", &cause))?;
            file.committed_bytes = committed_bytes;
            file.synced_mark = committed_bytes;
            if file.fsync == Fsync::Always {
                let synced = sync_folder(&real_path);
                synced.map_err(|cause| file.cannot("sync the folder of", &cause))?;
            }
            if file.is_in_place()? {
                return Ok(());
            }
            // It was moved since, with all of the new contents.
            file.wait_for_reopen()?;
            file.check_in_place()
        })
    }

    /// Runs a commit with the pending lines. They are dropped even if it fails.
    fn with_pending(
        &mut self,
        commit: impl FnOnce(&mut Self, &[u8]) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let mut pending = std::mem::take(&mut self.pending);
        let committed = commit(self, &pending);
        pending.clear();
        pending.shrink_to(BATCH_BYTES_MAX);
        self.pending = pending;
        self.quota.committed();
        self.note_failure(committed)
    }

    /// Drops the pending lines after a failure. After a loss, the watermark is not moved any more.
    fn note_failure<T>(&mut self, done: Result<T, CommitError>) -> Result<T, CommitError> {
        if let Err(error) = &done {
            self.pending.clear();
            self.is_lost |= matches!(error, CommitError::Lost(_));
        }
        done
    }

    /// Writes at the end of the file and syncs it.
    fn append(&mut self, pending: &[u8]) -> Result<(), CommitError> {
        let file = self.data.file();
        if let Err(cause) = (&**file).write_all(pending) {
            let cut_back = file.metadata().and_then(|metadata| {
                // If another program has made the file shorter, set_len would fill it with zeros.
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
        if self.fsync == Fsync::Always
            && self.committed_bytes - self.synced_mark >= WATERMARK_STEP_BYTES
        {
            self.store_watermark();
        }
        Ok(())
    }

    /// Stores that all committed bytes are synced.
    fn store_watermark(&mut self) {
        match watermark::write(self.data.file(), self.committed_bytes) {
            Ok(()) => self.synced_mark = self.committed_bytes,
            // The old watermark is still true.
            Err(error) => log::debug!("{} cannot be marked: {error}", self.path().display()),
        }
    }

    fn cannot(&self, what: &str, cause: &io::Error) -> CommitError {
        let sentence = format!("cannot {what} {}: {cause}", self.path().display());
        CommitError::Lost(io::Error::new(cause.kind(), sentence))
    }
}

impl Drop for TextFile {
    /// Stores the watermark, so that the next start has nothing to write again.
    fn drop(&mut self) {
        if self.is_lost || self.synced_mark == self.committed_bytes {
            return;
        }
        if self.fsync == Fsync::Always || self.data.file().sync_data().is_ok() {
            self.store_watermark();
        }
    }
}

#[cfg(test)]
mod tests;
