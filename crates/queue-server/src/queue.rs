//! One queue: who is next, who is kept back, and who waits in line.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use daemon::Wakeup;
use proto::queue::MessageId;

use crate::message::{Message, Place};

/// A first-in, first-out queue of messages, ordered by their places.
#[derive(Default)]
pub(crate) struct Queue {
    /// The messages that came in order, which is nearly all: places grow from front to back.
    ready: VecDeque<Message>,
    /// Those whose place is before the last of `ready`: most were handed out and came back.
    returned: BTreeMap<(Place, MessageId), Message>,
    /// Those that are kept back until their place is in the past.
    pub(crate) delayed: BTreeMap<(Place, MessageId), Message>,
    /// How many are held, leased, or not in their place until a change is on the disk.
    pub(crate) held: usize,
    /// How many were sent, and are not here until that is on the disk.
    pub(crate) arriving: usize,
    /// What all of them cost, in bytes.
    pub(crate) bytes: usize,
    /// Who waits for a message.
    line: VecDeque<Arc<Wakeup>>,
    pub(crate) is_paused: bool,
}

impl Queue {
    /// How many messages can be received.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len() + self.returned.len()
    }

    /// How many messages there are, in whatever state.
    pub(crate) fn messages(&self) -> usize {
        self.ready() + self.delayed.len() + self.held + self.arriving
    }

    /// Whether nothing would be missed without it.
    pub(crate) fn is_unused(&self) -> bool {
        self.messages() == 0 && self.line.is_empty() && !self.is_paused
    }

    /// How many are in line.
    pub(crate) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// Puts a message into its place. Returns who is to be woken for it.
    pub(crate) fn insert(&mut self, message: Message) -> Option<Arc<Wakeup>> {
        if self
            .ready
            .back()
            .is_none_or(|last| last.place < message.place)
        {
            self.ready.push_back(message);
        } else {
            self.returned.insert((message.place, message.id), message);
        }
        self.next_in_line()
    }

    /// Takes the message at the front, whether or not the queue is paused.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let returned = self
            .returned
            .first_key_value()
            .map(|(&(place, _), _)| place);
        let ready = self.ready.front().map(|message| message.place);
        match (returned, ready) {
            (Some(returned), Some(ready)) if ready < returned => self.ready.pop_front(),
            (Some(_), _) => self.returned.pop_first().map(|(_, message)| message),
            (None, _) => self.ready.pop_front(),
        }
    }

    /// The first message behind a place.
    pub(crate) fn first_behind(&self, place: Place) -> Option<&Message> {
        let at = self.ready.partition_point(|m| m.place <= place);
        let ready = self.ready.get(at);
        let behind = (place, MessageId::MAX)..;
        let returned = self.returned.range(behind).find(|(key, _)| key.0 > place);
        let returned = returned.map(|(_, message)| message);
        [ready, returned]
            .into_iter()
            .flatten()
            .min_by_key(|m| m.place)
    }

    /// Who is to be woken because there is a message: whoever waits longest. He is not in line any
    /// more.
    pub(crate) fn next_in_line(&mut self) -> Option<Arc<Wakeup>> {
        match self.is_paused || self.ready() == 0 {
            true => None,
            false => self.line.pop_front(),
        }
    }

    /// Puts somebody at the end of the line, unless there is a message for him.
    pub(crate) fn get_in_line(&mut self, wakeup: &Arc<Wakeup>) -> bool {
        let must_wait = self.is_paused || self.ready() == 0;
        if must_wait {
            self.line.push_back(Arc::clone(wakeup));
        }
        must_wait
    }

    /// Takes somebody out of the line. If he is not in it he was woken, and the one behind him may
    /// have to be woken in his stead.
    pub(crate) fn leave_line(&mut self, wakeup: &Arc<Wakeup>) -> Option<Arc<Wakeup>> {
        let at = self.line.iter().position(|one| Arc::ptr_eq(one, wakeup));
        match at {
            Some(at) => {
                self.line.remove(at);
                None
            }
            None => self.next_in_line(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(place: Place) -> Message {
        Message {
            id: place,
            place,
            ..Message::new(b"x")
        }
    }

    fn queue_of(places: &[Place]) -> Queue {
        let mut queue = Queue::default();
        for place in places {
            queue.insert(message(*place));
        }
        queue
    }

    fn places(mut queue: Queue) -> Vec<Place> {
        std::iter::from_fn(|| queue.pop().map(|m| m.place)).collect()
    }

    #[test]
    fn the_lower_place_is_taken_first() {
        assert_eq!(places(queue_of(&[1, 2, 3])), [1, 2, 3]);
        assert_eq!(places(queue_of(&[5, 2, 7, 3, 6, 1])), [1, 2, 3, 5, 6, 7]);
    }

    #[test]
    fn what_comes_back_goes_to_its_old_place() {
        let mut queue = queue_of(&[1, 2, 3, 4]);
        let first = queue.pop().unwrap();
        let second = queue.pop().unwrap();
        queue.pop().unwrap();
        queue.insert(second);
        queue.insert(first);
        assert_eq!(places(queue), [1, 2, 4]);
    }

    #[test]
    fn looking_goes_from_place_to_place() {
        let queue = queue_of(&[5, 9, 2, 7]);
        let mut seen = vec![0];
        while let Some(message) = queue.first_behind(seen[seen.len() - 1]) {
            seen.push(message.place);
        }
        assert_eq!(seen, [0, 2, 5, 7, 9]);
        assert_eq!(queue.ready(), 4);
    }

    #[test]
    fn a_message_is_small() {
        assert!(size_of::<Message>() <= 40, "{}", size_of::<Message>());
    }

    #[test]
    fn one_message_wakes_one() {
        let mut queue = Queue::default();
        let one = Arc::new(Wakeup::new().unwrap());
        let two = Arc::new(Wakeup::new().unwrap());
        assert!(queue.get_in_line(&one) && queue.get_in_line(&two));
        let woken = queue.insert(message(1)).unwrap();
        assert!(Arc::ptr_eq(&woken, &one));
        // He has gone away without taking it, so the next one is woken.
        let woken = queue.leave_line(&one).unwrap();
        assert!(Arc::ptr_eq(&woken, &two));
        queue.pop().unwrap();
        assert!(queue.leave_line(&two).is_none());
        assert!(queue.is_unused());
    }

    #[test]
    fn a_paused_queue_wakes_nobody() {
        let mut queue = queue_of(&[1]);
        queue.is_paused = true;
        let one = Arc::new(Wakeup::new().unwrap());
        assert!(queue.get_in_line(&one));
        assert!(queue.insert(message(2)).is_none());
        queue.is_paused = false;
        assert!(queue.next_in_line().is_some());
    }
}
