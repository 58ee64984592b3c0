//! One queue: the order of its messages, and its waiters.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proto::queue::MessageId;

use crate::clock::Position;
use crate::message::Message;

/// Wakes a thread that waits for a message.
pub(crate) trait Wake: Send + Sync {
    /// Ends the present wait, or the next one.
    fn wake(&self);
}

/// A first-in, first-out queue of messages, ordered by their positions.
#[derive(Default)]
pub(super) struct Queue {
    /// Nearly all messages: those that came in order. Positions grow from front to back.
    ready: VecDeque<Message>,
    /// Those whose position is before the last of `ready`: most were requeued.
    requeued: BTreeMap<(Position, MessageId), Message>,
    /// Those that are delayed; their position is the moment at which that is over.
    pub(super) delayed: BTreeMap<(Position, MessageId), Message>,
    /// How many are reserved, leased, or on their way to another position until that is committed.
    pub(super) reserved: usize,
    /// How many were sent and are not committed.
    pub(super) arriving: usize,
    /// What all of them cost, in bytes.
    pub(super) bytes: usize,
    /// The one that waits longest is first.
    waiters: VecDeque<Arc<dyn Wake>>,
    pub(super) is_paused: bool,
}

impl Queue {
    /// How many messages can be received.
    pub(super) fn ready(&self) -> usize {
        self.ready.len() + self.requeued.len()
    }

    /// How many messages there are, in any state.
    pub(super) fn messages(&self) -> usize {
        self.ready() + self.delayed.len() + self.reserved + self.arriving
    }

    /// Whether nothing would be lost without it.
    pub(super) fn is_unused(&self) -> bool {
        self.messages() == 0 && self.waiters.is_empty() && !self.is_paused
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Puts a message at its position. Returns the waiter to wake.
    pub(super) fn insert(&mut self, message: Message) -> Option<Arc<dyn Wake>> {
        let last = self.ready.back();
        if last.is_none_or(|last| last.position < message.position) {
            self.ready.push_back(message);
        } else {
            let key = (message.position, message.id);
            self.requeued.insert(key, message);
        }
        self.next_waiter()
    }

    /// Takes the message at the front, also if the queue is paused.
    pub(super) fn pop(&mut self) -> Option<Message> {
        let requeued = self.requeued.first_key_value().map(|(key, _)| key.0);
        let ready = self.ready.front().map(|message| message.position);
        match (requeued, ready) {
            (Some(requeued), Some(ready)) if ready < requeued => self.ready.pop_front(),
            (Some(_), _) => self.requeued.pop_first().map(|(_, message)| message),
            (None, _) => self.ready.pop_front(),
        }
    }

    /// The first message behind a position.
    pub(super) fn first_behind(&self, position: Position) -> Option<&Message> {
        let at = self.ready.partition_point(|m| m.position <= position);
        let ready = self.ready.get(at);
        let behind = (position, MessageId::MAX)..;
        let requeued = self
            .requeued
            .range(behind)
            .find(|(key, _)| key.0 > position)
            .map(|(_, message)| message);
        [ready, requeued]
            .into_iter()
            .flatten()
            .min_by_key(|m| m.position)
    }

    /// The waiter to wake if there is a message: the one that waits longest. It waits no more.
    pub(super) fn next_waiter(&mut self) -> Option<Arc<dyn Wake>> {
        match self.must_wait() {
            true => None,
            false => self.waiters.pop_front(),
        }
    }

    /// Whether there is nothing to receive.
    pub(super) fn must_wait(&self) -> bool {
        self.is_paused || self.ready() == 0
    }

    pub(super) fn add_waiter(&mut self, waiter: Arc<dyn Wake>) {
        self.waiters.push_back(waiter);
    }

    /// Removes a waiter. If it is not there it was woken, and the one behind it may have to be woken
    /// instead, which is returned.
    pub(super) fn remove_waiter(&mut self, waiter: &Arc<dyn Wake>) -> Option<Arc<dyn Wake>> {
        let is_same =
            |one: &Arc<dyn Wake>| std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(waiter));
        match self.waiters.iter().position(is_same) {
            Some(at) => {
                self.waiters.remove(at);
                None
            }
            None => self.next_waiter(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(position: Position) -> Message {
        Message {
            id: position,
            position,
            ..Message::new(b"x")
        }
    }

    fn queue_of(positions: &[Position]) -> Queue {
        let mut queue = Queue::default();
        for position in positions {
            queue.insert(message(*position));
        }
        queue
    }

    fn positions(mut queue: Queue) -> Vec<Position> {
        std::iter::from_fn(|| queue.pop().map(|m| m.position)).collect()
    }

    #[test]
    fn the_lower_position_is_taken_first() {
        assert_eq!(positions(queue_of(&[1, 2, 3])), [1, 2, 3]);
        assert_eq!(positions(queue_of(&[5, 2, 7, 3, 6, 1])), [1, 2, 3, 5, 6, 7]);
    }

    #[test]
    fn what_comes_back_goes_to_its_old_position() {
        let mut queue = queue_of(&[1, 2, 3, 4]);
        let first = queue.pop().unwrap();
        let second = queue.pop().unwrap();
        queue.pop().unwrap();
        queue.insert(second);
        queue.insert(first);
        assert_eq!(positions(queue), [1, 2, 4]);
    }

    #[test]
    fn looking_goes_from_position_to_position() {
        let queue = queue_of(&[5, 9, 2, 7]);
        let mut seen = vec![0];
        while let Some(message) = queue.first_behind(seen[seen.len() - 1]) {
            seen.push(message.position);
        }
        assert_eq!(seen, [0, 2, 5, 7, 9]);
        assert_eq!(queue.ready(), 4);
    }

    #[test]
    fn a_message_is_small() {
        assert!(size_of::<Message>() <= 40, "{}", size_of::<Message>());
    }

    struct Waiter;

    impl Wake for Waiter {
        fn wake(&self) {}
    }

    fn is_same(one: &Arc<dyn Wake>, other: &Arc<dyn Wake>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
    }

    #[test]
    fn one_message_wakes_one() {
        let mut queue = Queue::default();
        let [one, two] = [(); 2].map(|()| -> Arc<dyn Wake> { Arc::new(Waiter) });
        queue.add_waiter(Arc::clone(&one));
        queue.add_waiter(Arc::clone(&two));
        let woken = queue.insert(message(1)).unwrap();
        assert!(is_same(&woken, &one));
        // It has gone without the message, so the next one is woken.
        let woken = queue.remove_waiter(&one).unwrap();
        assert!(is_same(&woken, &two));
        queue.pop().unwrap();
        assert!(queue.remove_waiter(&two).is_none());
        assert!(queue.is_unused());
    }

    #[test]
    fn a_paused_queue_wakes_nobody() {
        let mut queue = queue_of(&[1]);
        queue.is_paused = true;
        assert!(queue.must_wait());
        queue.add_waiter(Arc::new(Waiter));
        assert!(queue.insert(message(2)).is_none());
        queue.is_paused = false;
        assert!(queue.next_waiter().is_some());
    }
}
