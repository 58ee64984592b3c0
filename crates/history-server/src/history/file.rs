//! The file of the history, which the writer thread owns, and what happens to it.
//!
//! Appends and clearing are done by the commit that they are in. A deletion is taken on by its
//! commit, and done by a later one, when the copy that it takes is made: readers see the line until
//! then, but the numbers of the deletions behind it do not count it any more.

use std::io::{self, BufRead, BufReader};
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use storage::{CommitError, NotStored, Replacement, Space, Store, TextFile, lock};

use super::Current;
use super::copy::{Copied, Copy};
use super::deletions::{Deletions, Told};
use super::snapshot::{BLOCK_BYTES, Part};

/// What can happen to the file. A line here has its end.
pub(super) enum Change {
    Append {
        line: String,
        space: Space,
    },
    /// Whoever asks is told more than once.
    Delete {
        line: u64,
        tell: Sender<Told>,
    },
    Clear {
        line: String,
    },
    /// The copy that somebody was told to make.
    Copied(Copied),
}

/// What the writer thread owns.
pub(super) struct HistoryFile {
    file: TextFile,
    current: Current,
    /// How many lines the file has.
    lines: u64,
    batch: Batch,
    /// What is taken on for the next copy.
    next: Deletions,
    copying: Option<Copying>,
}

/// The changes since the last commit.
#[derive(Default)]
struct Batch {
    /// Whether none of the lines in the file stays.
    cleared: bool,
    /// How many lines are to come behind those that stay.
    appended: u64,
    deletions: Deletions,
    copied: Option<Copied>,
}

/// A copy that somebody makes.
struct Copying {
    replacement: Replacement,
    deletions: Deletions,
}

impl Copying {
    fn is_of(&self, copied: &Copied) -> bool {
        Arc::ptr_eq(self.replacement.file(), &copied.new)
    }
}

impl HistoryFile {
    pub(super) fn new(file: TextFile, lines: u64, current: Current) -> Self {
        Self {
            file,
            current,
            lines,
            batch: Batch::default(),
            next: Deletions::default(),
            copying: None,
        }
    }

    /// How many lines there are behind all changes so far, those that are not committed and not done
    /// among them.
    fn lines_now(&self) -> u64 {
        let copying = self.copying.as_ref();
        let going = self.next.lines() + copying.map_or(0, |copying| copying.deletions.lines());
        let staying = match self.batch.cleared {
            true => 0,
            false => self.lines - going,
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
            Change::Delete { line, tell } => {
                let lines = self.lines_now();
                self.batch.deletions.add(line, lines, tell);
            }
            Change::Clear { line } => {
                let pending = self.file.pending();
                pending.clear();
                pending.extend_from_slice(line.as_bytes());
                self.batch.cleared = true;
                self.batch.appended = 1;
                self.batch.deletions.clear_lines();
            }
            Change::Copied(copied) => {
                let copying = self.copying.as_ref();
                // One that was given up may be told of in the same batch.
                if copying.is_some_and(|copying| copying.is_of(&copied)) {
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
        let committed = self.commit_all(batch);
        if let Err(CommitError::Lost(_)) = committed {
            // Nobody tells those who wait any more.
            self.next = Deletions::default();
            self.copying = None;
        }
        committed
    }
}

impl HistoryFile {
    fn commit_all(&mut self, mut batch: Batch) -> Result<(), CommitError> {
        let copied = batch.copied.take();
        let committed = self.commit_lines(batch);
        if let Err(CommitError::Lost(_)) = committed {
            return committed;
        }
        self.look_again_if_reopened()?;
        if let Some(copied) = copied {
            self.replace(copied)?;
        }
        if self.copying.is_none() {
            self.start_copy()?;
        }
        self.look_again_if_reopened()?;
        committed
    }

    /// Appends, or replaces all, and takes on what is to be deleted.
    fn commit_lines(&mut self, batch: Batch) -> Result<(), CommitError> {
        if batch.cleared {
            self.give_up_copy();
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

    fn publish(&self) {
        *lock(&self.current) = Part::whole(&self.file);
    }

    /// Has somebody copy what stays, or tells all who wait if there is nothing to do.
    fn start_copy(&mut self) -> Result<(), CommitError> {
        if self.next.lines() == 0 {
            self.next.tell_done();
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
        let copy = Copy {
            old: Part::whole(&self.file),
            new: Arc::clone(replacement.file()),
            deleted: self.next.in_file(),
        };
        let deletions = mem::take(&mut self.next);
        if deletions.hand_out(copy) {
            self.copying = Some(Copying {
                replacement,
                deletions,
            });
        }
        Ok(())
    }

    /// Takes the copy away from whoever makes it: what it was to do is still to be done.
    fn give_up_copy(&mut self) {
        if let Some(Copying { mut deletions, .. }) = self.copying.take() {
            deletions.append(mem::take(&mut self.next));
            self.next = deletions;
        }
    }

    /// Puts a copy in the file's place, with what was appended since.
    fn replace(&mut self, copied: Copied) -> Result<(), CommitError> {
        let Some(copying) = self.copying.take_if(|copying| copying.is_of(&copied)) else {
            // It was given up in the same batch.
            return Ok(());
        };
        let Copying {
            replacement,
            mut deletions,
        } = copying;
        let replaced = copied.end.and_then(|end| {
            let mut rest = Part::whole(&self.file);
            rest.range.start = end;
            let added = io::copy(&mut rest, &mut &**replacement.file());
            added.map_err(CommitError::Refused)?;
            self.file.replace(replacement)
        });
        match replaced {
            Ok(()) => {
                self.lines -= deletions.lines();
                self.publish();
                deletions.tell_done();
            }
            Err(CommitError::Refused(cause)) => {
                // Those behind were counted as if it were done.
                deletions.append(mem::take(&mut self.next));
                deletions.refuse(&cause.to_string());
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    /// What is to be deleted were lines of another file, if this one was opened anew.
    fn look_again_if_reopened(&mut self) -> Result<(), CommitError> {
        if !self.file.was_reopened() {
            return Ok(());
        }
        self.give_up_copy();
        self.next.refuse("the history was opened anew; try again");
        self.lines = count_lines(Part::whole(&self.file)).map_err(CommitError::Lost)?;
        log::info!("The history has {} lines now", self.lines);
        self.publish();
        Ok(())
    }
}

fn count_lines(file: Part) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut lines = 0;
    while input.skip_until(b'\n')? > 0 {
        lines += 1;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
