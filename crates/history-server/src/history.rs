//! The history and its rules, with no socket in sight.
//!
//! It is a text file, `history.txt`, one record a line, owned by one writer thread. Records are
//! appended; what deletes lines writes a new file beside the old one and renames it into place, so
//! a crash at any moment leaves the old history or the new one. Whoever reads a [`Snapshot`] keeps
//! the file it was taken from, so reading holds up nobody and nothing changes under the reader.
//!
//! `file` is what the writer owns, `deletions` and `copy` how lines are deleted while others are
//! appended; `snapshot` and `number` are for those who read.

mod copy;
mod deletions;
mod file;
mod number;
mod snapshot;

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};

use cli::escape::Escaped;
use storage::{
    Committer, DataFolder, Fsync, LegacyLock, Limits, Line, NotStored, ReopenSignal, Space,
    StorageError, TextFile, lock,
};

pub use snapshot::Snapshot;

use crate::HistoryError;
use deletions::Told;
use file::{Change, HistoryFile};
use snapshot::Part;

/// The file, in the data folder.
const FILE_NAME: &str = "history.txt";

/// The file in the data folder by which earlier versions kept a second server away.
const LEGACY_LOCK_NAME: &str = ".history-server.lock";

/// A history that any number of threads may use at once.
pub struct History {
    current: Current,
    writer: Committer<HistoryFile>,
    reopen_signal: ReopenSignal,
    _legacy_lock: LegacyLock,
    // Last, for it goes when the file in it is gone.
    _folders: DataFolder,
}

/// The history as it was last committed.
type Current = Arc<Mutex<Part>>;

impl History {
    /// Opens the history in a folder; makes what is missing. A last line without its end is half
    /// of a record that nobody was told is there: it is cut off, with a warning. `on_failure` is
    /// called when the disk fails in a way that leaves open what is on it.
    ///
    /// # Errors
    /// If the folder is in use, or it or the file cannot be opened.
    pub fn open(
        dir: &Path,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let folders = DataFolder::create(dir)?;
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
        let current = Arc::new(Mutex::new(Part::whole(&file)));
        let store = HistoryFile::new(file, lines, Arc::clone(&current));
        let writer = Committer::start(FILE_NAME, store, on_failure);
        Ok(Self {
            current,
            writer: writer?,
            reopen_signal,
            _legacy_lock: legacy_lock,
            _folders: folders,
        })
    }

    /// Opens the history again by its name, from where a program that rotates logs has moved it.
    /// The one that is found or made there is served from then on.
    pub fn reopen(&self) {
        self.reopen_signal.raise();
        self.writer.wake();
    }

    /// Appends a record. It becomes exactly one line, whatever is in it. When this returns, it is
    /// on the disk.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`].
    pub fn append(&self, record: &str, space: Space) -> Result<(), HistoryError> {
        let line = line_of(record);
        self.make(Change::Append { line, space })
    }

    /// The same, but does not wait: what became of it is handed to `then` by the thread that writes.
    pub fn append_later(
        &self,
        record: &str,
        then: impl FnOnce(Result<(), HistoryError>) + Send + 'static,
    ) {
        let line = line_of(record);
        let space = Space::Usual;
        let pending = self.writer.submit(Change::Append { line, space });
        pending.on_complete(|made| then(made.map_err(HistoryError::NotStored)));
    }

    /// Deletes one line, counted from 1. When this returns, that is on disk. It may copy the whole
    /// history meanwhile, for itself and for others; a server that is stopping waits for that only
    /// for a while.
    ///
    /// # Errors
    /// [`HistoryError::NoSuchLine`], [`HistoryError::NotStored`].
    pub fn delete(&self, line: u64, is_stopping: impl Fn() -> bool) -> Result<(), HistoryError> {
        let (tell, told) = mpsc::channel();
        self.make(Change::Delete { line, tell })?;
        // Whoever lets go of a long file last waits until the disk has its room back: not the writer.
        let mut copied = None;
        loop {
            match told.recv() {
                Ok(Told::Copy(copy)) => {
                    let copy = copied.insert(copy);
                    let made = copy.make(&self.current, &is_stopping);
                    // What comes of it is told like to everybody who waits.
                    drop(self.writer.submit(Change::Copied(made)));
                }
                Ok(Told::Done(done)) => return done,
                // The writer has ended.
                Err(mpsc::RecvError) => return Err(HistoryError::NotStored(NotStored::Unknown)),
            }
        }
    }

    /// Deletes everything and leaves one record. When this returns, that is on disk.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`].
    pub fn clear(&self, record: &str) -> Result<(), HistoryError> {
        let line = line_of(record);
        // As in a deletion.
        let _old = lock(&self.current).clone();
        self.make(Change::Clear { line })
    }

    fn make(&self, change: Change) -> Result<(), HistoryError> {
        let made = self.writer.submit(change).wait();
        made.map_err(HistoryError::NotStored)
    }

    /// The history as it is now, and stays for this reader.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(lock(&self.current).clone())
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<StorageError> {
        self.writer.failure()
    }
}

/// One record as one line.
fn line_of(record: &str) -> String {
    format!("{}\n", Escaped(record))
}

#[cfg(test)]
mod tests;
