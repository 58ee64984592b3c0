//! What is written in one transaction.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use super::change::Written;
use crate::message::Arriving;
use crate::sessions::Answered;

/// What was submitted since the last commit.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) inserted: Vec<Arriving>,
    pub(super) inserted_bytes: usize,
    /// The answers to those who have sent them.
    pub(super) sent: Vec<Answered>,
    pub(super) changed: Vec<Written>,
    /// The answers to those who have asked for the changes, by their numbers.
    pub(super) asked: BTreeMap<usize, Answered>,
    /// When the first of it was submitted.
    pub(super) since: Option<Instant>,
}

/// Some changes of a batch, one behind the other.
#[derive(Clone, Copy)]
pub(super) struct Part<'b> {
    pub(super) changed: &'b [Written],
    /// The number of the first of them.
    pub(super) first: usize,
    pub(super) asked: &'b BTreeMap<usize, Answered>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.changed.is_empty() && self.sent.is_empty()
    }

    pub(super) fn part(&self, numbers: Range<usize>) -> Part<'_> {
        Part {
            first: numbers.start,
            changed: self.changed.get(numbers).unwrap_or_default(),
            asked: &self.asked,
        }
    }

    pub(super) fn changes(&self) -> Part<'_> {
        self.part(0..self.changed.len())
    }
}

impl Part<'_> {
    pub(super) fn asked(&self) -> impl Iterator<Item = &Answered> {
        let numbers = self.first..self.first + self.changed.len();
        self.asked.range(numbers).map(|(_, answered)| answered)
    }
}
