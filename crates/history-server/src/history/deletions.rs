//! Deletions that are requested and not yet done: the lines, and the threads that wait.

use std::mem;
use std::sync::mpsc::{SendError, Sender};

use storage::NotStored;

use super::copy::CopyJob;
use crate::HistoryError;

/// What the writer thread sends to a thread that requested a deletion.
pub(super) enum Notice {
    /// Make this copy, for yourself and for the others that wait.
    MakeCopy(CopyJob),
    /// The deletion is done, or is refused.
    Done(Result<(), HistoryError>),
}

/// A thread that requested a deletion, and waits.
struct Requester {
    /// What it is told when its deletion and those before it are on the disk.
    outcome: Result<(), HistoryError>,
    notices: Sender<Notice>,
}

/// Deletions that one copy of the file does together.
#[derive(Default)]
pub(super) struct Deletions {
    /// The lines in the order of the requests: each by the number that it has when those before it
    /// are deleted.
    lines: Vec<u64>,
    requesters: Vec<Requester>,
}

impl Deletions {
    /// The number of lines that are deleted.
    pub(super) fn lines(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Adds the deletion of a line from a history that has `lines` lines by then.
    pub(super) fn add(&mut self, line: u64, lines: u64, notices: Sender<Notice>) {
        let exists = (1..=lines).contains(&line);
        if exists {
            self.lines.push(line);
        }
        let no_such_line = HistoryError::NoSuchLine { line, lines };
        let outcome = exists.then_some(()).ok_or(no_such_line);
        self.requesters.push(Requester { outcome, notices });
    }

    /// Adds the deletions that were requested after these.
    pub(super) fn append(&mut self, mut later: Self) {
        self.lines.append(&mut later.lines);
        self.requesters.append(&mut later.requesters);
    }

    /// Drops the lines, because the history was cleared. The requesters still wait.
    pub(super) fn clear_lines(&mut self) {
        self.lines.clear();
    }

    /// The lines by their numbers in the file, in ascending order.
    pub(super) fn in_file(&self) -> Vec<u64> {
        let mut in_file = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            // Each deleted line before this one has moved its number down by one.
            let mut number = *line;
            let mut at = 0;
            while in_file.get(at).is_some_and(|deleted| *deleted <= number) {
                number += 1;
                at += 1;
            }
            in_file.insert(at, number);
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
        for Requester { outcome, notices } in mem::take(self).requesters {
            // It fails if the requester does not wait any more.
            let _ = notices.send(Notice::Done(outcome));
        }
    }

    /// Tells all requesters that nothing was deleted.
    pub(super) fn refuse(&mut self, cause: &str) {
        let refused = mem::take(self).requesters;
        if !refused.is_empty() {
            log::error!("{} changes refused: cannot write: {cause}", refused.len());
        }
        for requester in refused {
            let refused = HistoryError::NotStored(NotStored::Refused(cause.to_owned()));
            let _ = requester.notices.send(Notice::Done(Err(refused)));
        }
    }
}
