//! The history file, which the writer thread owns.
//!
//! A commit appends lines, or clears the history, by itself. A deletion takes two commits: the first
//! accepts it and has a connection's thread copy the lines that stay, the second puts that copy in
//! the file's place. Readers see the line until then, but the line numbers of later requests do not
//! count it any more.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use storage::{CommitError, NotStored, Replacement, Space, Store, TextFile, lock};

use super::copy::{CopyJob, FinishedCopy};
use super::deletions::{Deletions, Notice};
use super::file_range::{BLOCK_BYTES, Committed, FileRange};

/// A change of the history. A line has its line feed.
pub(super) enum Change {
    Append {
        line: String,
        space: Space,
    },
    /// The requester gets notices until its deletion is done. It is refused if `of` is not the file any
    /// more.
    Delete {
        line: u64,
        of: Option<Arc<File>>,
        notices: Sender<Notice>,
    },
    /// Leaves this line alone. It is refused if `only` is not all there is any more.
    Clear {
        line: String,
        only: Option<FileRange>,
    },
    /// The copy that a requester was told to make.
    Copied(FinishedCopy),
}

/// What the writer thread owns.
pub(super) struct HistoryFile {
    file: TextFile,
    committed: Committed,
    /// The number of lines that are committed, for others to see.
    committed_lines: Arc<AtomicU64>,
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
    pub(super) fn new(
        file: TextFile,
        lines: u64,
        committed: Committed,
        committed_lines: Arc<AtomicU64>,
    ) -> Self {
        Self {
            file,
            committed,
            committed_lines,
            lines,
            batch: Batch::default(),
            next: Deletions::default(),
            copying: None,
        }
    }

    /// Whether a range is all of the history, also with the changes that are pending.
    fn is_all(&mut self, range: &FileRange) -> bool {
        let committed = lock(&self.committed).clone();
        Arc::ptr_eq(&committed.file, &range.file)
            && committed.range == range.range
            && self.file.pending().is_empty()
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
            Change::Append { line, space } => {
                let pending_bytes = self.file.pending().len() + line.len();
                self.file.check_space(pending_bytes, space)?;
                self.file.pending().extend_from_slice(line.as_bytes());
                self.batch.appended += 1;
            }
            Change::Delete { line, of, notices } => {
                if of.is_some_and(|file| !Arc::ptr_eq(&file, &lock(&self.committed).file)) {
                    return Err(meanwhile());
                }
                let lines = self.lines_after_changes();
                self.batch.deletions.add(line, lines, notices);
            }
            Change::Clear { line, only } => {
                if only.is_some_and(|only| !self.is_all(&only)) {
                    return Err(meanwhile());
                }
                let pending = self.file.pending();
                pending.clear();
                pending.extend_from_slice(line.as_bytes());
                self.batch.cleared = true;
                self.batch.appended = 1;
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
        self.recount_if_reopened()?;
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
        if batch.cleared {
            self.cancel_copy();
            let empty = self.file.replacement()?;
            self.file.replace(empty)?;
            self.next.clear_lines();
            self.lines = 0;
        } else {
            self.file.commit()?;
        }
        self.lines += batch.appended;
        self.next.append(batch.deletions);
        self.publish();
        Ok(())
    }

    /// Lets readers see what is committed.
    fn publish(&self) {
        *lock(&self.committed) = FileRange::committed(&self.file);
        self.committed_lines.store(self.lines, Ordering::Relaxed);
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
                self.next.refuse(&cause.to_string());
                return Ok(());
            }
            Err(lost) => return Err(lost),
        };
        let copy = CopyJob {
            source: FileRange::committed(&self.file),
            target: Arc::clone(replacement.file()),
            deleted: self.next.in_file(),
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
        let replaced = copied.end.and_then(|end| {
            let mut rest = FileRange::committed(&self.file);
            rest.range.start = end;
            let added = io::copy(&mut rest, &mut &**replacement.file());
            added.map_err(CommitError::Refused)?;
            self.file.replace(replacement)
        });
        match replaced {
            Ok(()) => {
                self.lines -= deletions.lines();
                self.publish();
                deletions.complete();
            }
            Err(CommitError::Refused(cause)) => {
                // The line numbers of the later deletions count on these.
                deletions.append(mem::take(&mut self.next));
                deletions.refuse(&cause.to_string());
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
        self.cancel_copy();
        self.next.refuse("the history was reopened; try again");
        let lines = count_lines(FileRange::committed(&self.file));
        self.lines = lines.map_err(CommitError::Lost)?;
        log::info!("The history has {} lines now", self.lines);
        self.publish();
        Ok(())
    }
}

fn meanwhile() -> NotStored {
    NotStored::Refused("the history has changed meanwhile; try again".to_owned())
}

fn count_lines(file: FileRange) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut lines = 0;
    while input.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
