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

/// A part of a batch: its messages or none of them, and some of its changes, one behind the other.
#[derive(Clone)]
pub(super) struct Part<'b> {
    batch: &'b Batch,
    /// Whether its messages are in it, and what was answered to those who have sent them.
    pub(super) has_messages: bool,
    /// The numbers of the changes.
    pub(super) numbers: Range<usize>,
}

impl Batch {
    /// All of it.
    pub(super) fn whole(&self) -> Part<'_> {
        Part {
            batch: self,
            has_messages: !self.inserted.is_empty() || !self.sent.is_empty(),
            numbers: 0..self.changed.len(),
        }
    }
}

impl<'b> Part<'b> {
    /// Its messages.
    pub(super) fn inserted(&self) -> &'b [Arriving] {
        if self.has_messages {
            &self.batch.inserted
        } else {
            &[]
        }
    }

    /// Its changes.
    pub(super) fn changed(&self) -> &'b [Written] {
        let changed = self.batch.changed.get(self.numbers.clone());
        changed.unwrap_or_default()
    }

    /// What is answered to those who have asked for it.
    pub(super) fn answers(&self) -> Vec<Answered> {
        let sent = self.batch.sent.iter().filter(|_| self.has_messages);
        let asked = self.batch.asked.range(self.numbers.clone());
        sent.chain(asked.map(|(_, answered)| answered))
            .copied()
            .collect()
    }

    /// When the first of its batch was submitted.
    pub(super) fn since(&self) -> Option<Instant> {
        self.batch.since
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_messages && self.numbers.is_empty()
    }

    /// Its messages, and its changes.
    pub(super) fn apart(&self) -> [Self; 2] {
        let numbers = self.numbers.start..self.numbers.start;
        [
            Self {
                numbers,
                ..self.clone()
            },
            Self {
                has_messages: false,
                ..self.clone()
            },
        ]
    }

    /// The two halves of its changes. It has no messages.
    pub(super) fn halves(&self) -> [Self; 2] {
        let Range { start, end } = self.numbers;
        let half = start + self.numbers.len() / 2;
        [start..half, half..end].map(|numbers| Self {
            numbers,
            ..self.clone()
        })
    }
}
