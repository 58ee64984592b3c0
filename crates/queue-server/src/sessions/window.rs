//! The last numbers of a session, and what is known of each.

use std::collections::VecDeque;

use proto::ErrorCode;
use proto::queue::{MessageId, REMEMBERED_MAX, Token};
use uuid::Uuid;

use crate::error::QueueError;

/// The highest number that a request may have, so that those behind it are numbers too.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 2;

/// Checks that there are numbers behind this one.
pub(super) fn check(number: u64) -> Result<(), QueueError> {
    if number > NUMBER_MAX {
        return Err(QueueError::NumberTooHigh(number));
    }
    Ok(())
}

/// What is remembered of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A message was stored.
    Stored(MessageId),
    /// It was stored before.
    StoredBefore(MessageId),
    /// It was done, to this many messages.
    Done(u64),
    /// A message was handed out at most once.
    Delivered(MessageId),
    /// A message was leased, from which of the queues that were asked.
    Leased(Token, u8),
}

/// The answer to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) session: Uuid,
    pub(crate) number: u64,
    pub(crate) answer: Answer,
}

/// What is known of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing was changed by it.
    Free,
    /// Over UDP it found nothing, or was refused for this reason: if it comes late, it must not act.
    Refused(Option<ErrorCode>),
    /// It is being carried out.
    Pending,
    Answered(Answer),
}

/// The slots of the last numbers.
#[derive(Default)]
pub(super) struct Window {
    /// The number of the first slot.
    first: u64,
    pub(super) slots: VecDeque<Slot>,
}

impl Window {
    /// The number behind the last slot.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn is_remembered(&self, number: u64) -> bool {
        number.saturating_add(REMEMBERED_MAX as u64) >= self.end()
    }

    /// The slot of a number, made if there is none; `None` if the number is too old.
    pub(super) fn slot(&mut self, number: u64) -> Option<usize> {
        if !self.is_remembered(number) {
            return None;
        }
        if self.slots.is_empty() || number - self.first.min(number) >= 2 * REMEMBERED_MAX as u64 {
            self.slots.clear();
            self.first = number;
        }
        // What was found at the start comes in any order.
        while number < self.first {
            self.first -= 1;
            self.slots.push_front(Slot::Free);
        }
        while self.end() <= number {
            // First, or one more than it can have would double its memory.
            if self.slots.len() == REMEMBERED_MAX {
                self.slots.pop_front();
                self.first += 1;
            }
            self.slots.push_back(Slot::Free);
        }
        usize::try_from(number - self.first).ok()
    }

    pub(super) fn set(&mut self, number: u64, slot: Slot) {
        let at = number.checked_sub(self.first).map(usize::try_from);
        // It may be older by now than what is remembered.
        if let Some(Ok(at)) = at
            && let Some(found) = self.slots.get_mut(at)
        {
            *found = slot;
        }
    }
}
