//! What concerns whole queues, or all of them: looking, purging, kicking, pausing.

use std::sync::Arc;

use daemon::lock;
use proto::queue::{MessageId, QueueName, QueueStats, Reply, Totals};

use crate::QueueError;
use crate::begun::{Begun, Effect};
use crate::journal::Change;
use crate::memory::Body;
use crate::message::{Place, Taken};
use crate::queue::Queue;
use crate::queues::Queues;

/// How many messages are moved or forgotten at once when a whole queue is.
const CHUNK: usize = 1024;

impl Queues {
    /// Shows the first message behind a place, which stays where it is.
    pub fn peek<R>(&self, queue: QueueName, after: Place, with: impl FnOnce(Reply) -> R) -> R {
        match self.peek_at(queue, after) {
            Some(peeked) => with(peeked.reply()),
            None => with(Reply::Empty),
        }
    }

    /// The same message, to be shown later.
    pub(crate) fn peek_at(&self, queue: QueueName, after: Place) -> Option<Peeked> {
        let state = lock(&self.shared.state);
        let message = state.queues.get(queue.as_str())?.first_behind(after)?;
        Some(Peeked {
            place: message.place,
            id: message.id,
            attempts: message.attempts,
            body: message.body.clone(),
        })
    }

    /// Tells how the queues are, by name.
    pub fn stats<R>(&self, with: impl FnOnce(Reply) -> R) -> R {
        let shared = &*self.shared;
        // Others wait for a copy of the numbers, and for nothing that is made of them.
        let (totals, mut looked_at) = {
            let state = lock(&shared.state);
            let look = |(name, queue): (&Arc<str>, &Queue)| LookedAt::new(name, queue);
            let queues: Vec<_> = state.queues.iter().map(look).collect();
            let totals = Totals {
                memory_bytes: state.memory.taken() as u64,
                ..state.totals
            };
            (totals, queues)
        };
        looked_at.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let ready_in = |name: &str| {
            let at = looked_at.binary_search_by(|one| (*one.name).cmp(name));
            at.map_or(0, |at| looked_at[at].ready)
        };
        let now = shared.clock.now();
        let stats = |one| LookedAt::stats(one, ready_in, now);
        let queues = looked_at.iter().map(stats).collect();
        let totals = Totals {
            memory_bytes_max: shared.limits.memory_bytes_max as u64,
            uptime_millis: shared.clock.uptime().as_millis() as u64,
            ..totals
        };
        with(Reply::Stats { totals, queues })
    }

    /// How many queues there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.shared.state).queues.len()
    }

    /// Forgets all messages of a queue that nobody holds; returns how many there were.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`]; [`QueueError::NotStored`], some of them may be forgotten.
    pub fn purge(&self, queue: QueueName) -> Result<u64, QueueError> {
        lock(&self.shared.state).existing(queue)?;
        self.for_all(queue.as_str(), true, |taken| self.forget(taken))
    }

    /// Moves the messages of a queue's dead back to its end; returns how many there were.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`], [`QueueError::OfDeadLetters`]; [`QueueError::NotStored`], some of them
    /// may be moved.
    pub fn kick(&self, queue: QueueName) -> Result<u64, QueueError> {
        if queue.is_dead() {
            return Err(QueueError::OfDeadLetters(queue.as_str().to_owned()));
        }
        let name = lock(&self.shared.state).existing(queue)?;
        self.for_all(&queue.dead(), false, |mut taken| {
            taken.message.attempts = 0;
            self.move_to_end(taken, Arc::clone(&name))
        })
    }

    /// Begins something for all the messages that a queue has now, and finishes it.
    fn for_all(
        &self,
        queue: &str,
        with_delayed: bool,
        begin: impl Fn(Taken) -> Begun,
    ) -> Result<u64, QueueError> {
        let mut left = {
            let state = lock(&self.shared.state);
            let one = state.queues.get(queue);
            one.map_or(0, |q| {
                q.ready() + if with_delayed { q.delayed.len() } else { 0 }
            })
        };
        let mut done = 0;
        while left > 0 {
            let chunk = lock(&self.shared.state).take_some(queue, with_delayed, left.min(CHUNK));
            if chunk.is_empty() {
                break;
            }
            left -= chunk.len();
            let begun: Vec<_> = chunk.into_iter().map(&begin).collect();
            let mut failed = None;
            for begun in begun {
                match self.finish(begun, |_| {}) {
                    Ok(()) => done += 1,
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(done)
    }

    /// Pauses a queue, or resumes it. A paused queue takes messages, but hands out none. That concerns
    /// no message.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`] and [`QueueError::NotStored`].
    pub fn pause(&self, queue: QueueName, is_paused: bool) -> Result<u64, QueueError> {
        let name = lock(&self.shared.state).existing(queue)?;
        if !self.is_durable() {
            self.shared.pause(&name, is_paused);
            return Ok(0);
        }
        // The writer does it, so that two at once do not leave memory and disk at odds.
        let change = || Change::Pause(Arc::clone(&name), is_paused);
        let finished = self.finish(self.begin(change, Effect::None), |_| 0);
        lock(&self.shared.state).remove_if_unused(&name);
        finished
    }

    /// Has all new messages refused, or not any more. That concerns no message.
    pub fn drain(&self, is_draining: bool) -> u64 {
        lock(&self.shared.state).totals.is_draining = is_draining;
        0
    }
}

/// The numbers of one queue at one moment.
struct LookedAt {
    name: Arc<str>,
    ready: usize,
    held: usize,
    delayed: usize,
    waiting: usize,
    first_place: Option<Place>,
    is_paused: bool,
}

impl LookedAt {
    fn new(name: &Arc<str>, queue: &Queue) -> Self {
        Self {
            name: Arc::clone(name),
            ready: queue.ready(),
            held: queue.held,
            delayed: queue.delayed.len(),
            waiting: queue.waiting(),
            first_place: queue.first_behind(0).map(|message| message.place),
            is_paused: queue.is_paused,
        }
    }

    fn stats(&self, ready_in: impl Fn(&str) -> usize, now: Place) -> QueueStats<'_> {
        let dead = format!("{}{}", self.name, QueueName::DEAD_SUFFIX);
        let waited = |place| now.saturating_sub(place) / 1000;
        QueueStats {
            name: (&*self.name).into(),
            ready: self.ready as u64,
            reserved: self.held as u64,
            delayed: self.delayed as u64,
            dead: ready_in(&dead) as u64,
            waiters: self.waiting as u64,
            oldest_millis: self.first_place.map_or(0, waited),
            is_paused: self.is_paused,
        }
    }
}

/// A message that is looked at.
pub(crate) struct Peeked {
    place: Place,
    id: MessageId,
    attempts: u32,
    pub(crate) body: Body,
}

impl Peeked {
    pub(crate) fn reply(&self) -> Reply<'_> {
        Reply::Peeked {
            position: self.place,
            id: self.id,
            attempts: self.attempts,
            body: &self.body,
        }
    }
}
