//! What concerns whole queues, or all of them: looking, purging, kicking, pausing, draining.

use std::sync::Arc;

use proto::queue::{MessageState, QueueName, Totals};

use super::Queues;
use super::figures::Stats;
use super::operation::Outcome;
use super::pending::{Effect, Prepared};
use super::submit::Several;
use super::why::Why;
use crate::error::QueueError;
use crate::journal::{Change, LiveQueues};
use crate::message::Reserved;
use crate::position::Position;
use crate::totals::CountsByName;

/// How many messages are moved or acknowledged at once when a whole queue is.
const CHUNK: usize = 1024;

impl Queues {
    /// Shows the first message of a queue in a state, behind a position.
    pub(crate) fn peek(&self, queue: QueueName, state: MessageState, after: Position) -> Outcome {
        let now = self.shared.clock.now();
        let peeked = self.shared.lock().peek(queue.as_str(), state, after, now);
        peeked.map_or(Outcome::Empty, |peeked| Outcome::Peeked(Box::new(peeked)))
    }

    /// Tells the figures of all queues.
    pub(crate) fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let figures = shared.lock().figures(shared.clock.now());
        let totals = Totals {
            memory_bytes: shared.memory.allocated() as u64,
            memory_bytes_max: shared.limits.memory_bytes_max as u64,
            uptime_millis: shared.clock.uptime().as_millis() as u64,
            ..figures.totals
        };
        Stats { totals, ..figures }.sorted()
    }

    /// What happened to the messages of each queue, since it was first used.
    pub(crate) fn counts(&self) -> CountsByName {
        LiveQueues::counts(&*self.shared)
    }

    /// How many queues there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.lock().queues.len()
    }

    /// Whether there is a queue of this name.
    pub(crate) fn exists(&self, queue: QueueName) -> bool {
        self.shared.lock().existing(queue).is_ok()
    }

    /// Removes all messages of a queue that nobody has reserved.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`]; [`QueueError::NotStored`], then some of them may be gone.
    pub(crate) fn purge(&self, queue: QueueName) -> Result<Prepared, QueueError> {
        self.shared.lock().existing(queue)?;
        self.for_all(queue.as_str(), true, Effect::Delete)
    }

    /// Moves the dead letters of a queue back to its end.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`], [`QueueError::OfDeadLetters`]; [`QueueError::NotStored`], then some of
    /// them may be moved.
    pub(crate) fn kick(&self, queue: QueueName) -> Result<Prepared, QueueError> {
        if queue.is_dead() {
            return Err(QueueError::OfDeadLetters {
                name: queue.as_str().to_owned(),
            });
        }
        let name = self.shared.lock().existing(queue)?;
        self.for_all(&queue.dead(), false, |mut reserved| {
            reserved.message.attempts = 0;
            self.move_into(reserved, Arc::clone(&name), Why::Operator)
        })
    }

    /// Does something to all the messages that a queue has now, a chunk in a commit.
    fn for_all(
        &self,
        queue: &str,
        with_delayed: bool,
        effect: impl Fn(Reserved) -> Effect,
    ) -> Result<Prepared, QueueError> {
        let mut left = match self.shared.lock().queues.get(queue) {
            Some(queue) if with_delayed => queue.ready() + queue.delayed.len(),
            Some(queue) => queue.ready(),
            None => 0,
        };
        let mut several = Several::default();
        while left > 0 {
            let chunk = left.min(CHUNK);
            let chunk = self.shared.lock().reserve_some(queue, with_delayed, chunk);
            if chunk.is_empty() {
                break;
            }
            left -= chunk.len();
            self.carry_out_but_last(&mut several, chunk.into_iter().map(&effect).collect())?;
        }
        Ok(self.last_of(several))
    }

    /// Pauses a queue, or resumes it. A paused queue takes messages, but hands out none.
    ///
    /// # Errors
    /// [`QueueError::NoQueue`].
    pub(crate) fn pause(&self, queue: QueueName, is_paused: bool) -> Result<Prepared, QueueError> {
        // That concerns no message.
        let outcome = Outcome::Done(0);
        let name = self.shared.lock().existing(queue)?;
        match &self.journal {
            None => {
                self.shared.lock().pause(&name, is_paused);
                Ok(Prepared::Done(outcome))
            }
            // The writer thread does it, so that two at once do not leave memory and disk at odds.
            Some(_) => {
                let change = Change::Pause(name, is_paused);
                Ok(Prepared::Change(change, Some(Effect::Answer(outcome))))
            }
        }
    }

    /// Has all new messages refused, or accepted again.
    pub(crate) fn drain(&self, is_draining: bool) {
        self.shared.lock().common.totals.is_draining = is_draining;
    }
}
