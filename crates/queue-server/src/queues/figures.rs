//! Looking at queues: their figures, and single messages that stay where they are.

use std::sync::Arc;
use std::time::Duration;

use proto::queue::{MessageId, QueueName, Totals};

use super::queue::Queue;
use super::state::State;
use crate::clock::{Micros, Position};
use crate::memory::Body;

/// A message that stays where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peeked {
    pub(crate) position: Position,
    pub(crate) id: MessageId,
    pub(crate) attempts: u32,
    pub(crate) body: Body,
}

/// The figures of all queues, by name, and what they add up to since the server started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) totals: Totals,
    pub(crate) queues: Vec<Figures>,
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
    /// When the message at the front entered the queue.
    oldest: Option<Position>,
    /// How long ago that was, in milliseconds.
    pub(crate) oldest_millis: u64,
    pub(crate) is_paused: bool,
}

impl Figures {
    fn of(name: &Arc<str>, queue: &Queue) -> Self {
        Self {
            name: Arc::clone(name),
            ready: queue.ready(),
            reserved: queue.reserved,
            delayed: queue.delayed.len(),
            dead_letters: 0,
            waiters: queue.waiting(),
            oldest: queue.first_behind(0).map(|message| message.position),
            oldest_millis: 0,
            is_paused: queue.is_paused,
        }
    }
}

impl State {
    /// The first message behind a position.
    pub(super) fn peek(&self, queue: QueueName, after: Position) -> Option<Peeked> {
        let message = self.queues.get(queue.as_str())?.first_behind(after)?;
        Some(Peeked {
            position: message.position,
            id: message.id,
            attempts: message.attempts,
            body: message.body.clone(),
        })
    }

    /// A copy of the numbers, in any order. Nothing is made of them under the lock.
    pub(super) fn figures(&self) -> Stats {
        Stats {
            totals: self.common.totals,
            queues: self.queues.iter().map(|(n, q)| Figures::of(n, q)).collect(),
        }
    }
}

impl Stats {
    /// Sorts the queues by name and completes their figures.
    pub(super) fn complete(mut self, now: Micros, uptime: Duration) -> Self {
        self.totals.uptime_millis = uptime.as_millis() as u64;
        let queues = &mut self.queues;
        queues.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for at in 0..queues.len() {
            let dead = format!("{}{}", queues[at].name, QueueName::DEAD_SUFFIX);
            let dead = queues.binary_search_by(|one| (*one.name).cmp(&dead));
            let dead_letters = dead.map_or(0, |dead| queues[dead].ready);
            let one = &mut queues[at];
            one.dead_letters = dead_letters;
            let waited = |since| now.saturating_sub(since) / 1000;
            one.oldest_millis = one.oldest.map_or(0, waited);
        }
        self
    }
}
