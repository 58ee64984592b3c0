//! Looking at queues: their figures, and messages that stay where they are.

use std::collections::HashMap;
use std::sync::Arc;

use proto::queue::{MessageState, QueueName, Totals};

use super::queue::{Key, Queue, Shelf};
use super::state::State;
use crate::clock::Micros;
use crate::message::{Holder, Message, ReservedMessage};
use crate::position::Position;
use crate::totals::{Counts, CountsByName};

/// A message that stays where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peeked {
    /// The queue that has it: also the dead letters, if it is one.
    pub(crate) queue: Arc<str>,
    pub(crate) message: Message,
    pub(crate) state: MessageState,
    /// Who has it, if it is reserved.
    pub(crate) holder: Option<Holder>,
    /// When it was looked at.
    pub(crate) now: Micros,
}

impl Peeked {
    fn new(
        queue: &Arc<str>,
        message: &Message,
        state: MessageState,
        holder: Option<&Holder>,
        now: Micros,
    ) -> Self {
        Self {
            queue: Arc::clone(queue),
            message: message.clone(),
            state,
            holder: holder.cloned(),
            now,
        }
    }
}

impl ReservedMessage {
    fn parts(&self) -> (&Message, Option<&Holder>) {
        (&self.message, Some(&self.holder))
    }
}

/// The figures of all queues, by name, and what has happened in all of them since the server started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) totals: Totals,
    pub(crate) queues: Vec<Figures>,
}

/// What happened to messages: in queues that are there, and in those that were.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CountsSeen {
    queues: Vec<(Arc<str>, Counts)>,
    past: CountsByName,
}

impl CountsSeen {
    /// All of them by name.
    pub(crate) fn sum(self) -> CountsByName {
        let Self { queues, mut past } = self;
        for (queue, counts) in &queues {
            past.add(queue, *counts);
        }
        past
    }
}

/// The figures of one queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) name: Arc<str>,
    pub(crate) ready: usize,
    pub(crate) reserved: usize,
    pub(crate) delayed: usize,
    /// Messages in its queue of dead letters.
    pub(crate) dead_letters: usize,
    pub(crate) waiters: usize,
    /// How long the oldest message that is ready has been in the queue, in milliseconds.
    pub(crate) oldest_millis: u64,
    /// The same of the oldest message that somebody has reserved.
    pub(crate) oldest_reserved_millis: u64,
    pub(crate) is_paused: bool,
}

impl Figures {
    fn of(name: &Arc<str>, queue: &Queue, now: Micros) -> Self {
        let waited = |oldest: Micros| now.saturating_sub(oldest) / 1000;
        Self {
            name: Arc::clone(name),
            ready: queue.ready(),
            reserved: queue.reserved_count,
            delayed: queue.delayed.len(),
            dead_letters: 0,
            waiters: queue.waiting(),
            oldest_millis: queue.oldest().map_or(0, waited),
            oldest_reserved_millis: queue.oldest_reserved().map_or(0, waited),
            is_paused: queue.is_paused,
        }
    }
}

impl State {
    /// The first message in a state, behind a position. Those that are on their way from one position to another
    /// are in none.
    pub(super) fn peek(
        &self,
        queue: &str,
        state: MessageState,
        after: Position,
        now: Micros,
    ) -> Option<Peeked> {
        let (name, queue) = self.queues.get_key_value(queue)?;
        let (message, holder) = match state {
            MessageState::Ready => (queue.first_behind(after)?, None),
            MessageState::Delayed => (queue.first_delayed_behind(after)?, None),
            MessageState::Reserved => queue.first_reserved_behind(after)?.parts(),
        };
        Some(Peeked::new(name, message, state, holder, now))
    }

    /// The message in a state at a position.
    pub(super) fn peek_at(
        &self,
        queue: &str,
        state: MessageState,
        at: Key,
        now: Micros,
    ) -> Option<Peeked> {
        let (name, queue) = self.queues.get_key_value(queue)?;
        let (message, holder) = match state {
            MessageState::Ready | MessageState::Delayed => (queue.get(at)?, None),
            MessageState::Reserved => queue.reserved.get(&at)?.parts(),
        };
        Some(Peeked::new(name, message, state, holder, now))
    }

    /// A copy of what happened to messages. A queue that is seen for the first time has a name from then on, or
    /// never.
    pub(super) fn counts(&mut self) -> CountsSeen {
        let queues = self.queues.iter();
        let counted = queues.filter(|(_, queue)| queue.counts != Counts::default());
        let queues: Vec<_> = counted
            .map(|(name, queue)| (Arc::clone(name), queue.counts))
            .collect();
        let past = &mut self.common.past;
        past.name(queues.iter().map(|(name, _)| name));
        CountsSeen {
            queues,
            past: past.clone(),
        }
    }

    /// A copy of the numbers, in any order. Nothing is made of them under the lock.
    pub(super) fn figures(&self, now: Micros) -> Stats {
        Stats {
            totals: self.common.totals,
            queues: self
                .queues
                .iter()
                .map(|(n, q)| Figures::of(n, q, now))
                .collect(),
        }
    }
}

impl Shelf {
    /// The state of the messages on it.
    pub(super) fn state(self) -> MessageState {
        match self {
            Self::Delayed => MessageState::Delayed,
            Self::OutOfOrder | Self::InOrder => MessageState::Ready,
            Self::Reserved => MessageState::Reserved,
        }
    }
}

impl Stats {
    /// Sorts the queues by name, and counts the dead letters of each. A queue of which nothing else is left is told,
    /// too.
    pub(super) fn sorted(mut self) -> Self {
        let queues = &mut self.queues;
        let of = |dead: &Figures| {
            let name = dead.name.strip_suffix(QueueName::DEAD_SUFFIX)?;
            Some((Arc::from(name), dead.ready))
        };
        let mut dead_letters: HashMap<Arc<str>, usize> = queues.iter().filter_map(of).collect();
        for queue in queues.iter_mut() {
            queue.dead_letters = dead_letters.remove(&queue.name).unwrap_or(0);
        }
        let gone = dead_letters.into_iter();
        let gone = gone.filter(|(name, _)| QueueName::new(name).is_ok());
        queues.extend(gone.map(|(name, dead_letters)| Figures {
            dead_letters,
            ..Figures::of(&name, &Queue::default(), 0)
        }));
        queues.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self
    }
}
