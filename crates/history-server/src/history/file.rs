//! The history file, which the writer thread owns.
//!
//! A commit appends lines, or clears the history, by itself. A deletion takes two commits: the first
//! accepts it and has a connection's thread copy the lines that stay, the second puts that copy in
//! the file's place. Readers see the line until then, and name the others by the numbers in that file.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use storage::{CommitError, NotStored, Replacement, Space, Store, TextFile, lock};

use super::copy::{Copied, CopyJob, FinishedCopy, STOPPING_WAIT};
use super::deletions::{Deletions, Lines, Notice};
use super::file_range::{Committed, FileRange, Removals, Removed, State};
use super::followers::Followers;
use super::line::{self, NUMBER_BYTES_MAX, Numbering};
use super::sequence::Sequence;
use crate::HistoryError;

/// A change of the history. A record has its line feed, and gets its sequence number here.
pub(super) enum Change {
    Append {
        record: String,
        space: Space,
    },
    /// The requester gets notices until its deletion is done.
    Delete {
        lines: Lines,
        /// The file in which the lines have these numbers; the deletion is refused if another has taken
        /// its place. Without one the numbers are those behind all changes before this one.
        of: Option<Arc<File>>,
        /// The pruner deletes no line that would leave fewer than this many; `None` for a user, who may.
        staying_min: Option<u64>,
        notices: Sender<Notice>,
    },
    /// Leaves this record alone. The requester is told if it is refused because the file in `only` is not
    /// all there is any more.
    Clear {
        record: String,
        only: Option<(FileRange, Sender<Notice>)>,
    },
    /// The copy that a requester was told to make.
    Copied(FinishedCopy),
}

/// What the writer thread owns.
pub(super) struct HistoryFile {
    file: TextFile,
    committed: Committed,
    followers: Followers,
    sequence: Sequence,
    /// How often the file was replaced.
    generation: u64,
    removals: Removals,
    /// The number of lines in the file.
    lines: u64,
    batch: Batch,
    /// The deletions for the next copy.
    next: Deletions,
    copying: Option<RunningCopy>,
}

/// The changes since the last commit.
#[derive(Default)]
struct Batch {
    /// Whether the lines that are in the file go.
    cleared: bool,
    /// The number of lines to append.
    appended: u64,
    /// The number of sequence numbers that are given out.
    numbered: u64,
    deletions: Deletions,
    copied: Option<FinishedCopy>,
}

/// A copy that a requester is making.
struct RunningCopy {
    replacement: Replacement,
    deletions: Deletions,
}

impl RunningCopy {
    fn is(&self, copied: &FinishedCopy) -> bool {
        Arc::ptr_eq(self.replacement.file(), &copied.target)
    }
}

impl HistoryFile {
    /// `numbering` is what was found in the file. If a line has no number, all get new ones.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn new(
        file: TextFile,
        numbering: &Numbering,
        sequence: Sequence,
        followers: Followers,
    ) -> Result<Self, CommitError> {
        let state = State {
            file: FileRange::committed(&file),
            lines: numbering.lines,
            next: sequence.next(),
            generation: 0,
            removals: Removals::default(),
        };
        let mut store = Self {
            file,
            committed: Arc::new(Mutex::new(state)),
            followers,
            sequence,
            generation: 0,
            removals: Removals::default(),
            lines: 0,
            batch: Batch::default(),
            next: Deletions::default(),
            copying: None,
        };
        store.take_over(numbering)?;
        Ok(store)
    }

    /// What is committed, for other threads.
    pub(super) fn committed(&self) -> Committed {
        Arc::clone(&self.committed)
    }

    /// Makes the file's lines those of the history. If they have no growing numbers, they get some.
    fn take_over(&mut self, numbering: &Numbering) -> Result<(), CommitError> {
        self.sequence
            .continue_from(numbering.last.saturating_add(1));
        let renumbered = match numbering.is_broken {
            true => self.renumber(numbering),
            false => Ok(()),
        };
        self.lines = numbering.lines;
        self.publish();
        renumbered
    }

    fn renumber(&mut self, numbering: &Numbering) -> Result<(), CommitError> {
        log::info!("The {} lines of the history get numbers", numbering.lines);
        self.sequence.reserve(numbering.lines)?;
        let new = self.file.replacement()?;
        let source = FileRange::committed(&self.file);
        let has_numbers = numbering.has_numbers();
        let renumbered = line::renumber(source, new.file(), has_numbers, self.sequence.next());
        self.sequence
            .continue_from(renumbered.map_err(CommitError::Refused)?);
        self.file.replace(new)?;
        self.replaced(None);
        Ok(())
    }

    /// Adds a record to the pending lines, with the next sequence number.
    fn put(&mut self, record: &str) {
        let number = self.sequence.next() + self.batch.numbered;
        let pending = self.file.pending();
        let _ = write!(pending, "#{number} {record}");
        self.batch.numbered += 1;
        self.batch.appended += 1;
    }

    /// Whether a range is all of the history, also with the changes that are pending.
    fn is_all(&mut self, range: &FileRange) -> bool {
        let committed = lock(&self.committed).clone();
        Arc::ptr_eq(&committed.file.file, &range.file)
            && committed.file.range == range.range
            && self.file.pending().is_empty()
    }

    /// The numbers that lines of a file have after all changes so far. `None` if that is not the file
    /// any more, or all of the lines are deleted.
    fn moved(&self, lines: Lines, file: &Arc<File>) -> Option<Lines> {
        let is_there = Arc::ptr_eq(file, &lock(&self.committed).file.file) && !self.batch.cleared;
        let copying = self.copying.iter().map(|copying| &copying.deletions);
        copying
            .chain([&self.next, &self.batch.deletions])
            .try_fold(lines, |lines, earlier| earlier.moved(lines))
            .filter(|_| is_there)
    }

    /// The number of lines after all changes so far, also those that are pending.
    fn lines_after_changes(&self) -> u64 {
        let copying = self.copying.as_ref();
        let deleted = self.next.lines() + copying.map_or(0, |copying| copying.deletions.lines());
        let staying = match self.batch.cleared {
            true => 0,
            false => self.lines - deleted,
        };
        staying + self.batch.appended - self.batch.deletions.lines()
    }
}

impl Store for HistoryFile {
    type Change = Change;
    type Outcome = ();

    fn apply(&mut self, change: Change) -> Result<(), NotStored> {
        match change {
            Change::Append { record, space } => {
                let pending_bytes = self.file.pending().len() + NUMBER_BYTES_MAX + record.len();
                self.file.check_space(pending_bytes, space)?;
                self.put(&record);
            }
            Change::Delete {
                lines,
                of,
                staying_min,
                notices,
            } => {
                let lines = match of {
                    Some(file) => self.moved(lines, &file),
                    None => Some(lines),
                };
                let Some(mut lines) = lines else {
                    refuse_meanwhile(&notices);
                    return Ok(());
                };
                let all = self.lines_after_changes();
                if let Some(staying_min) = staying_min {
                    lines.last = lines.last.min(all.saturating_sub(staying_min));
                    if lines.last < lines.first {
                        // It fails if the requester does not wait any more.
                        let _ = notices.send(Notice::Done(Ok(0)));
                        return Ok(());
                    }
                }
                let deletions = &mut self.batch.deletions;
                deletions.add(lines, all, staying_min.is_some(), notices);
            }
            Change::Clear { record, only } => {
                if let Some((only, notices)) = only
                    && !self.is_all(&only)
                {
                    refuse_meanwhile(&notices);
                    return Ok(());
                }
                self.file.pending().clear();
                self.batch.cleared = true;
                self.batch.appended = 0;
                self.put(&record);
                self.batch.deletions.clear_lines();
            }
            Change::Copied(copied) => {
                // A batch may also contain a copy that was cancelled.
                if self.copying.as_ref().is_some_and(|copy| copy.is(&copied)) {
                    self.batch.copied = Some(copied);
                }
            }
        }
        Ok(())
    }

    fn is_batch_full(&self) -> bool {
        self.file.is_batch_full()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let batch = mem::take(&mut self.batch);
        let committed = self.commit_batch(batch);
        if let Err(CommitError::Lost(_)) = committed {
            // The requesters get no notice any more, and see their channels close.
            self.next = Deletions::default();
            self.copying = None;
        }
        committed
    }
}

impl HistoryFile {
    fn commit_batch(&mut self, mut batch: Batch) -> Result<(), CommitError> {
        let copied = batch.copied.take();
        let committed = self.commit_lines(batch);
        if let Err(CommitError::Lost(_)) = committed {
            return committed;
        }
        // Before readers see the lines: those of a reopened file may have no numbers yet.
        self.recount_if_reopened()?;
        self.publish();
        if let Some(copied) = copied {
            self.replace(copied)?;
        }
        if self.copying.is_none() {
            self.start_copy()?;
        }
        self.recount_if_reopened()?;
        committed
    }

    /// Appends lines, or clears the history, and accepts deletions.
    fn commit_lines(&mut self, batch: Batch) -> Result<(), CommitError> {
        if let Err(error) = self.sequence.reserve(batch.numbered) {
            self.file.pending().clear();
            return Err(error);
        }
        if batch.cleared {
            self.cancel_copy();
            let empty = self.file.replacement()?;
            self.file.replace(empty)?;
            let last = self.sequence.next() - 1;
            self.replaced(Some(Removed { first: 1, last }));
            self.next.clear_lines();
            self.lines = 0;
        } else {
            let bytes = self.file.pending().len();
            self.file.commit()?;
            self.followers.appended(bytes);
        }
        self.sequence
            .continue_from(self.sequence.next() + batch.numbered);
        self.lines += batch.appended;
        self.next.append(batch.deletions);
        let is_pruning = |copying: &RunningCopy| copying.deletions.are_pruners();
        if self.copying.as_ref().is_some_and(is_pruning) && !self.next.are_pruners() {
            // A user does not wait for two copies: the next one does both.
            self.cancel_copy();
        }
        Ok(())
    }

    /// Notes that the file is another one, without these lines.
    fn replaced(&mut self, removed: impl IntoIterator<Item = Removed>) {
        self.generation += 1;
        for removed in removed {
            self.removals.add(self.generation, removed);
        }
    }

    /// Lets readers see what is committed.
    fn publish(&self) {
        *lock(&self.committed) = State {
            file: FileRange::committed(&self.file),
            lines: self.lines,
            next: self.sequence.next(),
            generation: self.generation,
            removals: self.removals.clone(),
        };
        self.followers.announce();
    }

    /// Has a requester copy the lines that stay. If no line is to be deleted, the requesters are done.
    fn start_copy(&mut self) -> Result<(), CommitError> {
        if self.next.lines() == 0 {
            self.next.complete();
            return Ok(());
        }
        let replacement = match self.file.replacement() {
            Ok(replacement) => replacement,
            Err(CommitError::Refused(cause)) => {
                self.next.refuse(&cause);
                return Ok(());
            }
            Err(lost) => return Err(lost),
        };
        let copy = CopyJob {
            source: FileRange::committed(&self.file),
            target: Arc::clone(replacement.file()),
            deleted: self.next.in_file(),
            stopping_wait: match self.next.are_pruners() {
                true => Duration::ZERO,
                false => STOPPING_WAIT,
            },
        };
        let deletions = mem::take(&mut self.next);
        if deletions.hand_out(copy) {
            self.copying = Some(RunningCopy {
                replacement,
                deletions,
            });
        }
        Ok(())
    }

    /// Removes the copy that is being made. Its deletions are left for the next one.
    fn cancel_copy(&mut self) {
        if let Some(RunningCopy { mut deletions, .. }) = self.copying.take() {
            deletions.append(mem::take(&mut self.next));
            self.next = deletions;
        }
    }

    /// Appends to a copy what was appended to the file since, and puts it in the file's place.
    fn replace(&mut self, copied: FinishedCopy) -> Result<(), CommitError> {
        let Some(copying) = self.copying.take_if(|copying| copying.is(&copied)) else {
            // It was cancelled in the same batch.
            return Ok(());
        };
        let RunningCopy {
            replacement,
            mut deletions,
        } = copying;
        let replaced = copied.copied.and_then(|Copied { end, removed }| {
            let mut rest = FileRange::committed(&self.file);
            rest.range.start = end;
            let added = io::copy(&mut rest, &mut &**replacement.file());
            added.map_err(CommitError::Refused)?;
            self.file.replace(replacement)?;
            Ok(removed)
        });
        match replaced {
            Ok(removed) => {
                self.replaced(removed);
                self.lines -= deletions.lines();
                self.publish();
                deletions.complete();
            }
            Err(CommitError::Refused(cause)) => {
                // The line numbers of the later deletions count on these.
                deletions.append(mem::take(&mut self.next));
                deletions.refuse(&cause);
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    /// If the file was reopened, it is another file: the deletions are refused, and its lines counted.
    fn recount_if_reopened(&mut self) -> Result<(), CommitError> {
        if !self.file.was_reopened() {
            return Ok(());
        }
        self.replaced(None);
        self.cancel_copy();
        self.next.refuse_meanwhile();
        let numbering = Numbering::of(FileRange::committed(&self.file));
        match self.take_over(&numbering.map_err(CommitError::Lost)?) {
            Err(CommitError::Refused(cause)) => log::error!(
                "Lines of the history have no numbers, and followers miss them, until it is opened \
                 again: cannot write: {cause}"
            ),
            taken_over => taken_over?,
        }
        log::info!("The history has {} lines now", self.lines);
        Ok(())
    }
}

fn refuse_meanwhile(notices: &Sender<Notice>) {
    // It fails if the requester does not wait any more.
    let _ = notices.send(Notice::Done(Err(HistoryError::Meanwhile)));
}

#[cfg(test)]
mod tests;
