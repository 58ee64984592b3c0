//! The history: a text file, `history.txt`, with one record a line.
//!
//! One writer thread appends to it. What deletes lines writes a new file beside the old one and
//! renames it over that, so a crash leaves the old history or the new one. A reader keeps the file
//! that its [`Snapshot`] was taken from: reading delays no other request, and nothing changes under
//! the reader.

mod condition;
mod copy;
mod deletions;
mod file;
mod file_range;
mod find;
mod follower;
mod followers;
mod keep;
mod line;
mod newest;
mod number;
mod record;
mod seek;
mod sequence;
mod snapshot;

use std::fs::File;
use std::io;
use std::sync::{Arc, mpsc};

use cli::escape::Escaped;
use jiff::Timestamp;
use proto::history::Filter;
use storage::{
    CommitError, CommitFigures, Committer, DataFolder, Fsync, LegacyLock, Limits, Line, NotStored,
    Pending, ReopenSignal, Space, StorageError, TextFile, lock,
};

pub use condition::{Condition, Exact};
pub use deletions::Lines;
pub use file_range::Removed;
pub use find::Finder;
pub use follower::{Event, Follower};
pub(crate) use followers::Following;
pub use keep::Keep;
pub use newest::Newest;
pub use record::Record;
pub use snapshot::{Pieces, Snapshot};

use crate::HistoryError;
use deletions::Notice;
use file::{Change, HistoryFile};
use file_range::{Committed, State};
use find::Found;
use followers::{Announcer, Followers};
use keep::Excess;
use line::Numbering;
use sequence::Sequence;

/// The file in the data folder.
const FILE_NAME: &str = "history.txt";

/// The lock file of earlier versions in the data folder.
const LEGACY_LOCK_NAME: &str = ".history-server.lock";

/// How often lines are looked for before a deletion, because the file was replaced meanwhile.
const LOOKS_MAX: usize = 16;

/// A history that any number of threads may use at once.
pub struct History {
    committed: Committed,
    writer: Committer<HistoryFile>,
    reopen_signal: ReopenSignal,
    followers: Followers,
    _announcer: Announcer,
    _legacy_lock: LegacyLock,
}

impl History {
    /// Opens the history in a folder, and creates the files that are missing. A last line without a line feed was
    /// never acknowledged: it is cut off, with a warning. If a commit is lost, the writer thread calls
    /// `on_failure`.
    ///
    /// # Errors
    /// If another server uses the folder, or a file cannot be opened.
    pub fn open(
        folder: &mut DataFolder,
        fsync: Fsync,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let legacy_lock = folder.legacy_lock(LEGACY_LOCK_NAME)?;
        let mut numbering = Numbering::default();
        let count = |line: &[u8], is_whole| {
            if is_whole {
                numbering.add(line);
            }
            Line::Sound
        };
        let file = TextFile::open(folder.open(FILE_NAME)?, fsync, count)?;
        let mut file = file.with_limits(limits);
        if file.links() > 1 {
            log::warn!(
                "{} has other names (hard links): what is deleted stays under those",
                file.path().display()
            );
        }
        let reopen_signal = file.allow_rotation();
        let path = file.path().to_owned();
        let sequence = Sequence::open(folder, fsync)?;
        let followers = Followers::default();
        let announcer = Announcer::start(followers.clone()).map_err(StorageError::Thread)?;
        let store = HistoryFile::new(file, &numbering, sequence, followers.clone());
        let store = store.map_err(|error| match error {
            CommitError::Refused(cause) => StorageError::Open { path, cause },
            CommitError::Lost(cause) => StorageError::Lost(cause),
        })?;
        Ok(Self {
            committed: store.committed(),
            writer: Committer::start(FILE_NAME, store, on_failure)?,
            reopen_signal,
            followers,
            _announcer: announcer,
            _legacy_lock: legacy_lock,
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
        let record = line_of(record);
        self.writer.submit(Change::Append { record, space })
    }

    /// Deletes lines, by their numbers from 1, if each meets a condition. The numbers are those that readers
    /// see. Lines that others are about to delete are not deleted again: without a condition, if those are
    /// all, it is as if this was asked when they are gone. They are gone from the disk when
    /// this returns. The calling thread may have to copy the history, for itself and for others. If the
    /// server is stopping, the copy is given up after a while.
    ///
    /// # Errors
    /// [`HistoryError::NoSuchLine`], [`HistoryError::Meanwhile`], [`HistoryError::NotStored`]; those of the condition:
    /// [`HistoryError::NotOwn`], [`HistoryError::NoMatch`], [`HistoryError::Read`].
    pub fn delete(
        &self,
        lines: Lines,
        condition: &Condition,
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), HistoryError> {
        let check = |there: State| {
            match condition.is_none() {
                true => lines.check(there.lines)?,
                false => condition::check_lines(there, lines, condition)?,
            }
            Ok(Some((lines, None)))
        };
        match self.delete_found(check, &is_stopping) {
            Err(HistoryError::Meanwhile) if condition.is_none() => {
                self.delete_of(None, lines, None, &is_stopping)?;
            }
            deleted => {
                deleted?;
            }
        }
        Ok(())
    }

    /// Deletes the oldest lines, those that need not stay; returns how many. If the server is stopping,
    /// it gives up at once. `now` is what their age is told by.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`], [`HistoryError::Read`].
    pub(crate) fn prune(
        &self,
        keep: &Keep,
        now: Timestamp,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<u64, HistoryError> {
        let oldest = |there| {
            let excess = keep.excess(there, now, is_stopping);
            let Excess { lines, staying_min } = excess.map_err(HistoryError::Read)?;
            let oldest = Lines {
                first: 1,
                last: lines,
            };
            Ok((lines > 0).then_some((oldest, Some(staying_min))))
        };
        self.delete_found(oldest, is_stopping)
    }

    /// Has `wake` called, as for [`History::follow`], when there are too many lines. `None` if no number
    /// is too many.
    pub(crate) fn wake_to_prune(
        &self,
        keep: &Keep,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Option<Following> {
        let lines_max = keep.lines_max()?;
        let committed = Arc::clone(&self.committed);
        let wake = move || {
            if lock(&committed).lines > lines_max {
                wake();
            }
        };
        Some(self.followers.add(Arc::new(wake)))
    }

    /// Deletes the line with a sequence number if it is still what it was, as [`History::delete`] does.
    ///
    /// # Errors
    /// [`HistoryError::Changed`]; those of [`History::delete`].
    pub fn delete_exact(
        &self,
        exact: &Exact,
        is_stopping: impl Fn() -> bool,
    ) -> Result<(), HistoryError> {
        let find = |there| {
            let before = exact.sequence.saturating_add(1);
            let mut newest = Newest::of(there, before).map_err(HistoryError::Read)?;
            let line = exact.check(newest.next()?)?;
            Ok(Some((Lines::one(line), None)))
        };
        self.delete_found(find, &is_stopping)?;
        Ok(())
    }

    /// Deletes the lines that `find` finds in the history as it is. If the file is replaced before the
    /// deletion is accepted, they are looked for in the new one. What it returns with them is how many lines
    /// the pruner must leave. Returns how many were deleted.
    fn delete_found(
        &self,
        find: impl Fn(State) -> Result<Option<(Lines, Option<u64>)>, HistoryError>,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<u64, HistoryError> {
        let mut looks = 1;
        loop {
            let there = lock(&self.committed).clone();
            // Until the end, because the last thread that drops it may wait for the disk.
            let file = Arc::clone(&there.file.file);
            let Some((lines, staying_min)) = find(there)? else {
                return Ok(0);
            };
            let deleted = self.delete_of(Some(Arc::clone(&file)), lines, staying_min, is_stopping);
            let is_replaced = !Arc::ptr_eq(&file, &lock(&self.committed).file.file);
            match deleted {
                Ok(deleted) => return Ok(deleted),
                Err(HistoryError::Meanwhile) if is_replaced && looks < LOOKS_MAX => looks += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn delete_of(
        &self,
        of: Option<Arc<File>>,
        lines: Lines,
        staying_min: Option<u64>,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<u64, HistoryError> {
        let (sender, notices) = mpsc::channel();
        self.commit(Change::Delete {
            lines,
            of,
            staying_min,
            notices: sender,
        })?;
        // The last thread that drops a long file waits until the disk has freed it. That must not be
        // the writer thread, so this one keeps the old file until the end.
        let mut copied = None;
        loop {
            match notices.recv() {
                Ok(Notice::MakeCopy(copy)) => {
                    let copy = copied.insert(copy);
                    let finished = copy.run(&self.committed, is_stopping);
                    // The outcome arrives as a notice.
                    drop(self.writer.submit(Change::Copied(finished)));
                }
                Ok(Notice::Done(outcome)) => return outcome,
                // The writer thread has ended.
                Err(mpsc::RecvError) => return Err(HistoryError::NotStored(NotStored::Unknown)),
            }
        }
    }

    /// Deletes everything and leaves one record, if each line meets a condition. It is on the disk when
    /// this returns.
    ///
    /// # Errors
    /// [`HistoryError::NotStored`]; with a condition, also [`HistoryError::Meanwhile`] and those of it, as in
    /// [`History::delete`].
    pub fn clear(&self, record: &str, condition: &Condition) -> Result<(), HistoryError> {
        let record = line_of(record);
        if condition.is_none() {
            // This thread drops the old file last, as in a deletion.
            let _old = lock(&self.committed).clone();
            return self.commit(Change::Clear { record, only: None });
        }
        let old = lock(&self.committed).file.clone();
        condition::check_all(old.clone(), condition)?;
        let (sender, refusals) = mpsc::channel();
        let only = Some((old.clone(), sender));
        self.commit(Change::Clear { record, only })?;
        match refusals.try_recv() {
            Ok(Notice::Done(Err(refusal))) => Err(refusal),
            Ok(Notice::Done(Ok(_)) | Notice::MakeCopy(_)) | Err(_) => Ok(()),
        }
    }

    fn commit(&self, change: Change) -> Result<(), HistoryError> {
        let committed = self.writer.submit(change).wait();
        committed.map_err(HistoryError::NotStored)
    }

    /// Follows the history, from behind the line with a sequence number on. `wake` is called when there may
    /// be new lines, by a thread that wakes all others too, so it must not block.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn follow(
        &self,
        behind: u64,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Follower, HistoryError> {
        // Before it looks what is there, so that it misses nothing.
        let following = self.followers.add(Arc::new(wake));
        let follower = Follower::new(&self.committed, behind, following);
        follower.map_err(HistoryError::Read)
    }

    /// The history as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(lock(&self.committed).file.clone())
    }

    /// The history as it is now, to be read later.
    pub fn now(&self) -> Moment {
        Moment(lock(&self.committed).clone())
    }

    /// The lines of the history as it is now, from the last to the first, as far as their sequence number
    /// is below `before`.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn newest(&self, before: u64) -> Result<Newest, HistoryError> {
        let state = lock(&self.committed).clone();
        Newest::of(state, before).map_err(HistoryError::Read)
    }

    /// How many lines it has.
    pub(crate) fn lines(&self) -> u64 {
        lock(&self.committed).lines
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        lock(&self.committed).file.range.end
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

/// The history as it was at one moment.
pub struct Moment(State);

impl Moment {
    /// The lines that meet a filter.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn find<'f>(self, filter: Filter<'f>) -> Result<Box<dyn Pieces + 'f>, HistoryError> {
        let State { file, lines, .. } = self.0;
        let found: io::Result<Box<dyn Pieces + 'f>> = if filter.is_search() {
            Found::of(filter, file, lines).map(|found| Box::new(found) as _)
        } else if filter.last > 0 {
            Snapshot::of_last(filter.last, file, lines).map(|snapshot| Box::new(snapshot) as _)
        } else {
            Ok(Box::new(Snapshot::of(file)))
        };
        found.map_err(HistoryError::Read)
    }

    /// The sequence number behind which the last lines are, this many.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn before_last(self, lines: u64) -> Result<u64, HistoryError> {
        let State { mut file, next, .. } = self.0;
        let first = seek::start_of_last(&file, lines).and_then(|start| {
            file.range.start = start;
            seek::number_at_start(&file)
        });
        Ok(first.map_err(HistoryError::Read)?.unwrap_or(next) - 1)
    }
}

/// A record as one line.
fn line_of(record: &str) -> String {
    format!("{}\n", Escaped(record))
}

#[cfg(test)]
mod tests;
