//! One queue: the order of its messages, and its waiters.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use proto::queue::MessageId;

use crate::clock::Micros;
use crate::message::{Message, ReservedMessage};
use crate::position::Position;
use crate::totals::Counts;

/// One in this many places in a queue may be a gap. So nobody skips many of them under the lock, and few
/// removals in a million have the gaps closed.
const GAPS_SHARE: usize = 16;

/// Wakes a thread that waits for a message.
pub(crate) trait Wake: Send + Sync {
    /// Ends the present wait, or the next one.
    fn wake(&self);
}

/// A first-in, first-out queue of messages, ordered by their positions.
#[derive(Default)]
pub(super) struct Queue {
    /// Nearly all messages: those that came in order. Positions grow from front to back.
    in_order: VecDeque<Message>,
    /// How many of these were removed from the middle. Their places stay until the front comes by, because to
    /// close a gap among a million messages takes milliseconds. The first is none of them.
    gaps: usize,
    /// Those whose position is before the last of `in_order`, because they were requeued or have a higher
    /// priority; and all that expire, because they are removed from anywhere.
    out_of_order: BTreeMap<(Position, MessageId), Message>,
    /// Those that are delayed; the moment of their position is that at which the delay is over.
    pub(super) delayed: BTreeMap<(Micros, MessageId), Message>,
    /// Those that are reserved, each with its holder.
    pub(super) reserved: BTreeMap<(Position, MessageId), ReservedMessage>,
    /// How many are reserved, or on their way to another position until that is committed.
    pub(super) reserved_count: usize,
    /// How many were sent and are not committed.
    pub(super) arriving: usize,
    /// What happened to its messages since it was made.
    pub(super) counts: Counts,
    /// What all of them cost, in bytes.
    pub(super) bytes: usize,
    /// The one that waits longest is first.
    waiters: VecDeque<Arc<dyn Wake>>,
    pub(super) is_paused: bool,
}

impl Queue {
    /// How many messages can be received.
    pub(super) fn ready(&self) -> usize {
        self.in_order.len() - self.gaps + self.out_of_order.len()
    }

    /// How many messages there are, in any state.
    pub(super) fn messages(&self) -> usize {
        self.ready() + self.delayed.len() + self.reserved_count + self.arriving
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
        let last = self.in_order.back();
        let is_behind = last.is_none_or(|last| last.position < message.position);
        if is_behind && message.expires_at().is_none() {
            self.in_order.push_back(message);
        } else {
            let key = (message.position, message.id);
            self.out_of_order.insert(key, message);
        }
        self.next_waiter()
    }

    /// Removes the message at the front, also if the queue is paused.
    pub(super) fn pop(&mut self) -> Option<Message> {
        let out_of_order = self.out_of_order.first_key_value().map(|(key, _)| key.0);
        let in_order = self.in_order.front().map(|message| message.position);
        match (out_of_order, in_order) {
            (Some(out_of_order), Some(in_order)) if in_order < out_of_order => self.pop_in_order(),
            (Some(_), _) => self.out_of_order.pop_first().map(|(_, message)| message),
            (None, _) => self.pop_in_order(),
        }
    }

    fn pop_in_order(&mut self) -> Option<Message> {
        let first = self.in_order.pop_front();
        while self.gaps > 0 && self.in_order.front().is_some_and(is_gap) {
            self.in_order.pop_front();
            self.gaps -= 1;
        }
        first
    }

    /// Removes a message that is ready or delayed.
    pub(super) fn remove(&mut self, (position, id): Key) -> Option<Message> {
        let ready = self.out_of_order.remove(&(position, id));
        ready
            .or_else(|| self.delayed.remove(&(position.moment(), id)))
            .or_else(|| self.remove_in_order((position, id)))
    }

    /// A message that is ready or delayed.
    pub(super) fn get(&self, (position, id): Key) -> Option<&Message> {
        let ready = self.out_of_order.get(&(position, id));
        let in_order = || {
            let at = self.in_order.partition_point(|m| m.position < position);
            self.in_order.get(at).filter(|m| m.id == id)
        };
        ready
            .or_else(|| self.delayed.get(&(position.moment(), id)))
            .or_else(in_order)
    }

    fn remove_in_order(&mut self, (position, id): Key) -> Option<Message> {
        let at = self.in_order.partition_point(|m| m.position < position);
        let message = self.in_order.get_mut(at).filter(|m| m.id == id)?;
        if at == 0 {
            return self.pop_in_order();
        }
        let gap = Message {
            position,
            ..Message::plain(b"")
        };
        let message = std::mem::replace(message, gap);
        self.gaps += 1;
        if self.gaps > self.in_order.len() / GAPS_SHARE {
            self.in_order.retain(|one| !is_gap(one));
            self.gaps = 0;
        }
        Some(message)
    }

    /// The message at the front.
    pub(super) fn front(&self) -> Option<&Message> {
        self.first_behind(Position::FRONT)
    }

    /// When the oldest message that is ready has entered.
    pub(super) fn oldest(&self) -> Option<Micros> {
        oldest(|position| self.first_behind(position))
    }

    /// The first message behind a position.
    pub(super) fn first_behind(&self, position: Position) -> Option<&Message> {
        let at = self.in_order.partition_point(|m| m.position <= position);
        let in_order = self.in_order.range(at..).find(|one| !is_gap(one));
        let out_of_order = first_behind(&self.out_of_order, position);
        [in_order, out_of_order]
            .into_iter()
            .flatten()
            .min_by_key(|m| m.position)
    }

    /// The first delayed message behind a position: in the order in which the delays are over.
    pub(super) fn first_delayed_behind(&self, position: Position) -> Option<&Message> {
        first_behind(&self.delayed, position.moment())
    }

    /// The first reserved message behind a position.
    pub(super) fn first_reserved_behind(&self, position: Position) -> Option<&ReservedMessage> {
        first_behind(&self.reserved, position)
    }

    /// When the oldest reserved message has entered.
    pub(super) fn oldest_reserved(&self) -> Option<Micros> {
        oldest(|position| self.first_reserved_behind(position).map(|one| &one.message))
    }

    /// Looks for a message by its id among the next `count_max` of one shelf, behind a key.
    pub(super) fn search(
        &self,
        shelf: Shelf,
        after: Key,
        id: MessageId,
        count_max: usize,
    ) -> Search {
        match shelf {
            Shelf::Delayed => {
                let from = (after.0.moment(), after.1);
                let behind = (Bound::Excluded(from), Bound::Unbounded);
                search(
                    self.delayed.range(behind).map(|(_, one)| one),
                    id,
                    count_max,
                )
            }
            Shelf::OutOfOrder => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                let behind = self.out_of_order.range(behind);
                search(behind.map(|(_, one)| one), id, count_max)
            }
            Shelf::InOrder => {
                let at = self.in_order.partition_point(|m| m.position <= after.0);
                search(self.in_order.range(at..), id, count_max)
            }
            Shelf::Reserved => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                let behind = self.reserved.range(behind);
                search(behind.map(|(_, one)| &one.message), id, count_max)
            }
        }
    }

    /// The waiter to wake if there is a message: the one that waits longest. It waits no more.
    pub(super) fn next_waiter(&mut self) -> Option<Arc<dyn Wake>> {
        if self.must_wait() {
            None
        } else {
            self.waiters.pop_front()
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

/// Where a message can be in a queue, in the order in which it goes from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shelf {
    Delayed,
    OutOfOrder,
    InOrder,
    Reserved,
}

impl Shelf {
    pub(super) const ALL: [Self; 4] = [
        Self::Delayed,
        Self::OutOfOrder,
        Self::InOrder,
        Self::Reserved,
    ];
}

/// What orders the messages of a shelf.
pub(super) type Key = (Position, MessageId);

/// How far a search has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The message is at this position.
    Found(Position),
    /// It is not among those up to this one.
    NotUpTo(Key),
    /// It is not there.
    End,
}

fn search<'m>(
    mut behind: impl Iterator<Item = &'m Message>,
    id: MessageId,
    count_max: usize,
) -> Search {
    let mut last = None;
    for message in behind.by_ref().take(count_max) {
        if message.id == id {
            return Search::Found(message.position);
        }
        last = Some((message.position, message.id));
    }
    last.map_or(Search::End, Search::NotUpTo)
}

/// Whether a message was removed from this place.
fn is_gap(message: &Message) -> bool {
    message.id == GAP
}

/// The id of a place without a message. Ids are given from 1 on.
const GAP: MessageId = 0;

fn first_behind<P: Ord + Copy, T>(tree: &BTreeMap<(P, MessageId), T>, position: P) -> Option<&T> {
    let mut behind = tree.range((position, MessageId::MAX)..);
    behind.find(|(key, _)| key.0 > position).map(|(_, one)| one)
}

/// When the oldest message has entered of those that `first_behind` finds.
fn oldest<'m>(first_behind: impl Fn(Position) -> Option<&'m Message>) -> Option<Micros> {
    // The first of each priority; nearly always there is one.
    let next = |first: &&Message| first_behind(first.position.at(Micros::MAX));
    let firsts = std::iter::successors(first_behind(Position::FRONT), next);
    firsts.map(|first| first.position.moment()).min()
}

#[cfg(test)]
mod tests {
    use proto::queue::Priority;

    use super::*;

    fn message(priority: u8, moment: Micros) -> Message {
        Message {
            id: moment,
            position: Position::new(Priority::new(priority).unwrap(), moment),
            ..Message::plain(b"x")
        }
    }

    fn queue_of(moments: &[Micros]) -> Queue {
        let mut queue = Queue::default();
        for moment in moments {
            queue.insert(message(0, *moment));
        }
        queue
    }

    fn moments(mut queue: Queue) -> Vec<Micros> {
        std::iter::from_fn(|| queue.pop().map(|m| m.position.moment())).collect()
    }

    #[test]
    fn the_lower_position_comes_first() {
        assert_eq!(moments(queue_of(&[1, 2, 3])), [1, 2, 3]);
        assert_eq!(moments(queue_of(&[5, 2, 7, 3, 6, 1])), [1, 2, 3, 5, 6, 7]);
    }

    #[test]
    fn what_comes_back_goes_to_its_old_position() {
        let mut queue = queue_of(&[1, 2, 3, 4]);
        let first = queue.pop().unwrap();
        let second = queue.pop().unwrap();
        queue.pop().unwrap();
        queue.insert(second);
        queue.insert(first);
        assert_eq!(moments(queue), [1, 2, 4]);
    }

    #[test]
    fn looking_goes_from_position_to_position() {
        let queue = queue_of(&[5, 9, 2, 7]);
        let next = |seen: &&Message| queue.first_behind(seen.position);
        let seen = std::iter::successors(queue.front(), next);
        let seen: Vec<_> = seen.map(|message| message.position.moment()).collect();
        assert_eq!(seen, [2, 5, 7, 9]);
        assert_eq!(queue.ready(), 4);
    }

    #[test]
    fn the_higher_priority_comes_first_and_within_it_the_first_in() {
        let mut queue = Queue::default();
        for (priority, moment) in [(0, 1), (9, 2), (0, 3), (9, 4), (5, 5), (9, 6)] {
            queue.insert(message(priority, moment));
        }
        assert_eq!(queue.oldest(), Some(1));
        assert_eq!(moments(queue), [2, 4, 6, 5, 1, 3]);
        assert_eq!(Queue::default().oldest(), None);
    }

    #[test]
    fn a_message_is_small() {
        assert!(size_of::<Message>() <= 48, "{}", size_of::<Message>());
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
        let woken = queue.insert(message(0, 1)).unwrap();
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
        assert!(queue.insert(message(0, 2)).is_none());
        queue.is_paused = false;
        assert!(queue.next_waiter().is_some());
    }
}
