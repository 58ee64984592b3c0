//! Deletions that are requested and not yet done: the lines, and the threads that wait.

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::mpsc::{SendError, Sender};

use storage::NotStored;

use super::copy::CopyJob;
use crate::HistoryError;

/// What the writer thread sends to a thread that requested a deletion.
pub(super) enum Notice {
    /// Make this copy, for yourself and for the others that wait.
    MakeCopy(CopyJob),
    /// The deletion is done, of this many lines, or is refused.
    Done(Result<u64, HistoryError>),
}

/// Lines of the history, by their numbers from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The first one.
    pub first: u64,
    /// The last one, which is not before the first.
    pub last: u64,
}

impl Lines {
    /// One line.
    pub fn one(line: u64) -> Self {
        Self {
            first: line,
            last: line,
        }
    }

    pub(super) fn count(self) -> u64 {
        self.last - self.first + 1
    }

    /// Checks that a history of `lines` lines has them.
    ///
    /// # Errors
    /// [`HistoryError::NoSuchLine`].
    pub(super) fn check(self, lines: u64) -> Result<(), HistoryError> {
        for line in [self.first, self.last] {
            if !(1..=lines).contains(&line) {
                return Err(HistoryError::NoSuchLine { line, lines });
            }
        }
        Ok(())
    }
}

/// A thread that requested a deletion, and waits.
struct Requester {
    /// What it is told when its deletion and those before it are on the disk.
    outcome: Result<u64, HistoryError>,
    is_pruner: bool,
    notices: Sender<Notice>,
}

/// Deletions that one copy of the file does together.
#[derive(Default)]
pub(super) struct Deletions {
    /// The lines in the order of the requests: the number that the first has when those before it are
    /// deleted, and how many there are.
    ranges: Vec<(u64, u64)>,
    requesters: Vec<Requester>,
}

impl Deletions {
    /// The number of lines that are deleted.
    pub(super) fn lines(&self) -> u64 {
        self.ranges.iter().map(|(_, lines)| lines).sum()
    }

    /// Whether only the pruner waits for them.
    pub(super) fn are_pruners(&self) -> bool {
        self.requesters.iter().all(|requester| requester.is_pruner)
    }

    /// Adds the deletion of a range of lines from a history that has `lines` lines by then.
    pub(super) fn add(
        &mut self,
        range: Lines,
        lines: u64,
        is_pruner: bool,
        notices: Sender<Notice>,
    ) {
        let outcome = range.check(lines).map(|()| range.count());
        if outcome.is_ok() {
            self.ranges.push((range.first, range.count()));
        }
        self.requesters.push(Requester {
            outcome,
            is_pruner,
            notices,
        });
    }

    /// The numbers that lines have after these deletions; `None` if all of them are deleted.
    pub(super) fn moved(&self, mut lines: Lines) -> Option<Lines> {
        for &(start, count) in &self.ranges {
            let last = start + count - 1;
            lines = Lines {
                first: match lines.first > last {
                    true => lines.first - count,
                    false => lines.first.min(start),
                },
                last: match lines.last > last {
                    true => lines.last - count,
                    false => lines.last.min(start - 1),
                },
            };
            if lines.first > lines.last {
                return None;
            }
        }
        Some(lines)
    }

    /// Adds the deletions that were requested after these.
    pub(super) fn append(&mut self, mut later: Self) {
        self.ranges.append(&mut later.ranges);
        self.requesters.append(&mut later.requesters);
    }

    /// Drops the lines, because the history was cleared. The requesters still wait.
    pub(super) fn clear_lines(&mut self) {
        self.ranges.clear();
    }

    /// The lines by their numbers in the file, in ascending order.
    pub(super) fn in_file(&self) -> Vec<Range<u64>> {
        let mut in_file: Vec<Range<u64>> = Vec::with_capacity(self.ranges.len());
        for &(mut number, mut left) in &self.ranges {
            let mut at = 0;
            // Each deleted line before this one has moved its number down by one.
            while let Some(deleted) = in_file.get(at).filter(|there| there.start <= number) {
                number += deleted.end - deleted.start;
                at += 1;
            }
            while left > 0 {
                let end = in_file.get(at).map_or(u64::MAX, |deleted| deleted.start);
                let lines = left.min(end - number);
                if lines > 0 {
                    in_file.insert(at, number..number + lines);
                    at += 1;
                    left -= lines;
                }
                if let Some(deleted) = in_file.get(at) {
                    number = deleted.end;
                    at += 1;
                }
            }
        }
        in_file
    }

    /// Hands the copy to one of the requesters; returns whether there is one.
    pub(super) fn hand_out(&self, mut copy: CopyJob) -> bool {
        for requester in &self.requesters {
            match requester.notices.send(Notice::MakeCopy(copy)) {
                Ok(()) => return true,
                Err(SendError(Notice::MakeCopy(back))) => copy = back,
                Err(SendError(Notice::Done(_))) => unreachable!("it was a copy"),
            }
        }
        false
    }

    /// Tells all requesters that their deletions are on the disk.
    pub(super) fn complete(&mut self) {
        for requester in mem::take(self).requesters {
            // It fails if the requester does not wait any more.
            let _ = requester.notices.send(Notice::Done(requester.outcome));
        }
    }

    /// Tells all requesters that nothing was deleted.
    pub(super) fn refuse(&mut self, cause: &io::Error) {
        let refused = mem::take(self).requesters;
        if !refused.is_empty() {
            log::error!("{} changes refused: cannot write: {cause}", refused.len());
        }
        for requester in refused {
            let refused = HistoryError::NotStored(NotStored::Refused(cause.to_string()));
            let _ = requester.notices.send(Notice::Done(Err(refused)));
        }
    }

    /// Tells them that the lines are not there any more.
    pub(super) fn refuse_meanwhile(&mut self) {
        for requester in mem::take(self).requesters {
            let _ = (requester.notices).send(Notice::Done(Err(HistoryError::Meanwhile)));
        }
    }
}
