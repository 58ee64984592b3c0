//! Looking at queues: their figures, and messages that stay where they are.

use std::sync::Arc;

use proto::queue::{QueueName, Totals};

use super::queue::Queue;
use super::state::State;
use crate::clock::Micros;
use crate::message::Message;
use crate::position::Position;

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
    /// How long the oldest message that is ready has been in the queue, in milliseconds.
    pub(crate) oldest_millis: u64,
    pub(crate) is_paused: bool,
}

impl Figures {
    fn of(name: &Arc<str>, queue: &Queue, now: Micros) -> Self {
        let waited = |oldest: Micros| now.saturating_sub(oldest) / 1000;
        Self {
            name: Arc::clone(name),
            ready: queue.ready(),
            reserved: queue.reserved,
            delayed: queue.delayed.len(),
            dead_letters: 0,
            waiters: queue.waiting(),
            oldest_millis: queue.oldest().map_or(0, waited),
            is_paused: queue.is_paused,
        }
    }
}

impl State {
    /// The first message behind a position.
    pub(super) fn peek(&self, queue: QueueName, after: Position) -> Option<Message> {
        let queue = self.queues.get(queue.as_str())?;
        queue.first_behind(after).cloned()
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

impl Stats {
    /// Sorts the queues by name, and counts the dead letters of each.
    pub(super) fn sorted(mut self) -> Self {
        let queues = &mut self.queues;
        queues.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for at in 0..queues.len() {
            let dead = format!("{}{}", queues[at].name, QueueName::DEAD_SUFFIX);
            let dead = queues.binary_search_by(|one| (*one.name).cmp(&dead));
            queues[at].dead_letters = dead.map_or(0, |dead| queues[dead].ready);
        }
        self
    }
}
