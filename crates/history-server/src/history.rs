//! The history: a text file, `history.txt`, with one record a line.
//!
//! One writer thread appends to it. What deletes lines writes a new file beside the old one and
//! renames it over that, so a crash leaves the old history or the new one. A reader keeps the file
//! that its [`Snapshot`] was taken from: reading delays no other request, and nothing changes under
//! the reader.

mod copy;
mod deletions;
mod file;
mod file_range;
mod number;
mod own;
mod snapshot;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};

use cli::escape::Escaped;
use storage::{
    CommitFigures, Committer, DataFolder, Fsync, LegacyLock, Limits, Line, NotStored, Pending,
    ReopenSignal, Space, StorageError, TextFile, lock,
};

pub use snapshot::Snapshot;

use crate::HistoryError;
use deletions::Notice;
use file::{Change, HistoryFile};
use file_range::{Committed, FileRange};

/// The file in the data folder.
const FILE_NAME: &str = "history.txt";

/// The lock file of earlier versions in the data folder.
const LEGACY_LOCK_NAME: &str = ".history-server.lock";

/// A history that any number of threads may use at once.
pub struct History {
    committed: Committed,
    /// How many lines are committed.
    lines: Arc<AtomicU64>,
    writer: Committer<HistoryFile>,
    reopen_signal: ReopenSignal,
    /// Held alone by who looks whose lines they are before it deletes them, and by others that delete
    /// together, so that no number changes in between.
    numbers: RwLock<()>,
    _legacy_lock: LegacyLock,
    // Last, so that it is dropped after the file in it.
    _folder: DataFolder,
}

impl History {
    /// Opens the history in a folder, and creates what is missing. A last line without a line feed was
    /// never acknowledged: it is cut off, with a warning. If a commit is lost, the writer thread calls
    /// `on_failure`.
    ///
    /// # Errors
    /// If another server uses the folder, or the folder or the file cannot be opened.
    pub fn open(
        dir: &Path,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let folder = DataFolder::create(dir)?;
        let legacy_lock = LegacyLock::acquire(&dir.join(LEGACY_LOCK_NAME))?;
        let mut lines = 0;
        let count = |_: &[u8], is_whole| {
            lines += u64::from(is_whole);
            Line::Sound
        };
        let file = TextFile::open(&dir.join(FILE_NAME), fsync, count)?;
        let mut file = file.with_limits(limits);
        if file.links() > 1 {
            log::warn!(
                "{} has other names (hard links): what is deleted stays under those",
                file.path().display()
            );
        }
        let reopen_signal = file.allow_rotation();
        let committed = Arc::new(Mutex::new(FileRange::committed(&file)));
        let committed_lines = Arc::new(AtomicU64::new(lines));
        let store = HistoryFile::new(
            file,
            lines,
            Arc::clone(&committed),
            Arc::clone(&committed_lines),
        );
        Ok(Self {
            committed,
            lines: committed_lines,
            writer: Committer::start(FILE_NAME, store, on_failure)?,
            reopen_signal,
            numbers: RwLock::new(()),
            _legacy_lock: legacy_lock,
            _folder: folder,
        })
    }

    /// Opens the file again by its name, because a program that rotates logs has renamed it. The file
    /// of that name is the history from then on.
    pub fn reopen(&self) {
        self.reopen_signal.raise();
        self.writer.wake();
    }

    /// Appends a record as one line, with its line breaks escaped. It is on the disk when this
    /// returns.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`].
    pub fn append(&self, record: &str, space: Space) -> Result<(), HistoryError> {
        let appended = self.submit(record, space).wait();
        appended.map_err(HistoryError::NotStored)
    }

    /// Appends a record as [`History::append`] does, but does not wait for the disk.
    pub fn submit(&self, record: &str, space: Space) -> Pending<()> {
        let line = line_of(record);
        self.writer.submit(Change::Append { line, space })
    }

    /// Deletes a line, by its number from 1. It is gone from the disk when this returns. The calling
    /// thread may have to copy the history, for itself and for others. If the server is stopping, the
    /// copy is given up after a while.
    ///
    /// # Errors
    /// [`HistoryError::NoSuchLine`], [`HistoryError::NotStored`].
    pub fn delete(&self, line: u64, is_stopping: impl Fn() -> bool) -> Result<(), HistoryError> {
        let _shared = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        self.delete_of(None, line, is_stopping)
    }

    /// Deletes a line as [`History::delete`] does, if it is a record of this user.
    ///
    /// # Errors
    /// Also [`HistoryError::NotOwn`], [`HistoryError::Read`].
    pub fn delete_own(
        &self,
        line: u64,
        user: &str,
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), HistoryError> {
        let _alone = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        let there = lock(&self.committed).clone();
        own::check_line(there.clone(), line, user)?;
        self.delete_of(Some(&there.file), line, is_stopping)
    }

    fn delete_of(
        &self,
        file: Option<&Arc<File>>,
        line: u64,
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), HistoryError> {
        let (sender, notices) = mpsc::channel();
        self.commit(Change::Delete {
            line,
            of: file.cloned(),
            notices: sender,
        })?;
        // The last thread that drops a long file waits until the disk has freed it. That must not be
        // the writer thread, so this one keeps the old file until the end.
        let mut copied = None;
        loop {
            match notices.recv() {
                Ok(Notice::MakeCopy(copy)) => {
                    let copy = copied.insert(copy);
                    let finished = copy.run(&self.committed, &is_stopping);
                    // The outcome arrives as a notice.
                    drop(self.writer.submit(Change::Copied(finished)));
                }
                Ok(Notice::Done(outcome)) => return outcome,
                // The writer thread has ended.
                Err(mpsc::RecvError) => return Err(HistoryError::NotStored(NotStored::Unknown)),
            }
        }
    }

    /// Deletes everything and leaves one record. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`].
    pub fn clear(&self, record: &str) -> Result<(), HistoryError> {
        let _shared = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let line = line_of(record);
        // This thread drops the old file last, as in a deletion.
        let _old = lock(&self.committed).clone();
        self.commit(Change::Clear { line, only: None })
    }

    /// Clears the history as [`History::clear`] does, if every line is a record of this user.
    ///
    /// # Errors
    /// Also [`HistoryError::NotOwn`], [`HistoryError::Read`].
    pub fn clear_own(&self, record: &str, user: &str) -> Result<(), HistoryError> {
        let _alone = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        let line = line_of(record);
        let old = lock(&self.committed).clone();
        own::check_all(old.clone(), user)?;
        let only = Some(old.clone());
        self.commit(Change::Clear { line, only })
    }

    fn commit(&self, change: Change) -> Result<(), HistoryError> {
        let committed = self.writer.submit(change).wait();
        committed.map_err(HistoryError::NotStored)
    }

    /// The history as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(lock(&self.committed).clone())
    }

    /// How many lines it has.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.committed).range.end
    }

    /// What was measured of its commits.
    pub(crate) fn commit_figures(&self) -> &CommitFigures {
        self.writer.figures()
    }

    /// [`StorageError::Lost`] if a commit was lost. It is returned once.
    pub fn failure(&self) -> Option<StorageError> {
        self.writer.failure()
    }
}

/// A record as one line.
fn line_of(record: &str) -> String {
    format!("{}\n", Escaped(record))
}

#[cfg(test)]
mod tests;
