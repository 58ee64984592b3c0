//! Deletions that are on their way: the lines, and whoever waits to hear that they are gone.

use std::mem;
use std::sync::mpsc::{SendError, Sender};

use storage::NotStored;

use super::copy::Copy;
use crate::HistoryError;

/// What whoever asked for a deletion is told.
pub(super) enum Told {
    /// To make this copy: for all who wait, and now.
    Copy(Copy),
    /// What became of his deletion.
    Done(Result<(), HistoryError>),
}

/// Whoever asked for a deletion, and waits.
struct Asker {
    /// What he is told when the deletions before his own, and it, are on the disk.
    outcome: Result<(), HistoryError>,
    tell: Sender<Told>,
}

/// Deletions that one copy of the file does together.
#[derive(Default)]
pub(super) struct Deletions {
    /// The lines that go, in the order in which that was asked for: each by the number that it had
    /// when those before it were gone.
    lines: Vec<u64>,
    askers: Vec<Asker>,
}

impl Deletions {
    /// How many lines go.
    pub(super) fn lines(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Takes one more, of a line of so many that there are then.
    pub(super) fn add(&mut self, line: u64, lines: u64, tell: Sender<Told>) {
        let is_there = (1..=lines).contains(&line);
        if is_there {
            self.lines.push(line);
        }
        let no_such_line = HistoryError::NoSuchLine { line, lines };
        let outcome = is_there.then_some(()).ok_or(no_such_line);
        self.askers.push(Asker { outcome, tell });
    }

    /// Takes those that came after these.
    pub(super) fn append(&mut self, mut later: Self) {
        self.lines.append(&mut later.lines);
        self.askers.append(&mut later.askers);
    }

    /// Forgets the lines, which are gone with all the others, but nobody who waits.
    pub(super) fn clear_lines(&mut self) {
        self.lines.clear();
    }

    /// The lines by their numbers in the file, in order.
    pub(super) fn in_file(&self) -> Vec<u64> {
        let mut in_file = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            // Every line that went before this one has shifted its number down by one.
            let mut number = *line;
            let mut at = 0;
            while in_file.get(at).is_some_and(|gone| *gone <= number) {
                number += 1;
                at += 1;
            }
            in_file.insert(at, number);
        }
        in_file
    }

    /// Has one of those who wait make the copy; returns whether there is one.
    pub(super) fn hand_out(&self, mut copy: Copy) -> bool {
        for asker in &self.askers {
            match asker.tell.send(Told::Copy(copy)) {
                Ok(()) => return true,
                Err(SendError(Told::Copy(back))) => copy = back,
                Err(SendError(Told::Done(_))) => unreachable!("it was a copy"),
            }
        }
        false
    }

    /// Tells all who wait that it is done.
    pub(super) fn tell_done(&mut self) {
        for Asker { outcome, tell } in mem::take(self).askers {
            // It fails when nobody waits any more.
            let _ = tell.send(Told::Done(outcome));
        }
    }

    /// Tells all who wait that nothing was done.
    pub(super) fn refuse(&mut self, cause: &str) {
        let refused = mem::take(self).askers;
        if !refused.is_empty() {
            log::error!(
                "{} changes were refused, cannot write: {cause}",
                refused.len()
            );
        }
        for asker in refused {
            let refused = NotStored::Refused(cause.to_owned());
            let _ = asker
                .tell
                .send(Told::Done(Err(HistoryError::NotStored(refused))));
        }
    }
}
