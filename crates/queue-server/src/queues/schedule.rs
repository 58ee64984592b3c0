//! What is due at which moment: delays, leases and expiries, in one order.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::queue::{MessageId, Token};

use crate::clock::Micros;
use crate::position::Position;

/// What can be due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The delay of a message in this queue is over.
    Delay(MessageId, Arc<str>),
    /// A lease expires.
    Lease(Token),
    /// A message at this position in this queue expires, which nobody has received.
    Expiry(Position, MessageId, Arc<str>),
}

/// All that is due, and when the timer wakes for it.
#[derive(Default)]
pub(super) struct Schedule {
    due: BTreeSet<(Micros, Due)>,
    /// When the timer wakes by itself.
    next: Option<Micros>,
    /// Whether it must wake earlier than that.
    is_earlier: bool,
}

impl Schedule {
    pub(super) fn insert(&mut self, at: Micros, due: Due) {
        self.due.insert((at, due));
        if self.next.is_none_or(|next| at < next) {
            self.next = Some(at);
            self.is_earlier = true;
        }
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, at: Micros, due: Due) -> bool {
        self.due.remove(&(at, due))
    }

    /// Takes the first that is due by now, and when it was.
    pub(super) fn pop(&mut self, now: Micros) -> Option<(Micros, Due)> {
        match self.due.first() {
            Some((at, _)) if *at <= now => self.due.pop_first(),
            Some(_) | None => None,
        }
    }

    /// When the next is due. The timer sleeps until then.
    pub(super) fn sleep(&mut self) -> Option<Micros> {
        self.next = self.due.first().map(|(at, _)| *at);
        self.next
    }

    /// Makes the timer look, though nothing may be due.
    pub(super) fn wake(&mut self) {
        self.is_earlier = true;
    }

    /// Whether the timer must wake earlier than it would by itself. It is asked once.
    pub(super) fn must_wake(&mut self) -> bool {
        std::mem::take(&mut self.is_earlier)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_wakes_only_for_what_is_due_earlier() {
        let lease = || Due::Lease(Token::nil());
        let mut schedule = Schedule::default();
        assert_eq!(schedule.sleep(), None);
        schedule.insert(5, lease());
        assert!(schedule.must_wake() && !schedule.must_wake());
        schedule.insert(7, lease());
        assert!(!schedule.must_wake());
        schedule.insert(3, Due::Delay(1, "q".into()));
        assert!(schedule.must_wake());
        assert_eq!(schedule.pop(2), None);
        assert_eq!(schedule.pop(6), Some((3, Due::Delay(1, "q".into()))));
        schedule.remove(5, lease());
        assert_eq!((schedule.pop(6), schedule.sleep()), (None, Some(7)));
    }
}
