//! What becomes of a message that was not acknowledged: it goes back to its queue or to the dead letters,
//! and keeps the reason why.

use std::sync::Arc;
use std::time::Duration;

use proto::queue::{QueueName, Reason, Retry};

use super::pending::{Effect, Prepared};
use super::why::Why;
use super::{Queues, millis};
use crate::message::Reserved;
use crate::position::Position;

/// The reasons that no receiver gives.
pub(crate) const CONNECTION_ENDED: &str = "the connection ended before it was acknowledged";
pub(super) const LEASE_EXPIRED: &str = "the lease expired before it was acknowledged";
const TAKEN_FROM_HOLDER: &str = "an operator has released it from its holder";
const SERVER_STOPPED: &str = "the server stopped before it was acknowledged";

impl Queues {
    /// Releases a message on purpose.
    pub(crate) fn release(&self, mut reserved: Reserved, retry: Retry, reason: Reason) -> Prepared {
        self.note(&mut reserved, reason);
        self.prepared(match retry {
            Retry::Counted { delay_millis } if self.was_handed_out_too_often(&reserved) => {
                self.bury_or(reserved, millis(delay_millis))
            }
            Retry::Counted { delay_millis } => {
                self.move_to_end(reserved, millis(delay_millis), Why::Released)
            }
            Retry::Uncounted { delay_millis } => {
                uncount(&mut reserved);
                self.move_to_end(reserved, millis(delay_millis), Why::Uncounted)
            }
            Retry::Never => self.bury_or(reserved, Duration::ZERO),
        })
    }

    /// Unreserves a message that its receiver could not begin with: it goes to its old position, and
    /// the attempt does not count.
    pub(crate) fn unreserve(&self, mut reserved: Reserved) -> Prepared {
        uncount(&mut reserved);
        self.prepared(move_back(reserved, Why::Uncounted))
    }

    /// Requeues a message because the server stops. The attempt counts, but it does not make the
    /// message a dead letter.
    pub(crate) fn requeue_at_stop(&self, mut reserved: Reserved) {
        self.note(&mut reserved, Reason::new(SERVER_STOPPED));
        self.submit_unwaited(move_back(reserved, Why::Requeued));
    }

    /// Requeues a message because its receiver is gone or its lease expired: it goes to its old
    /// position, or to the dead letters if it was handed out too often. Nobody waits until the disk
    /// knows of the attempt.
    pub(crate) fn requeue(&self, reserved: Reserved, reason: &'static str) {
        self.submit_unwaited(self.requeued(reserved, reason));
    }

    /// The same because an operator has released it from its holder, who waits for that.
    pub(super) fn release_from_holder(&self, reserved: Reserved) -> Effect {
        self.requeued(reserved, TAKEN_FROM_HOLDER)
    }

    fn requeued(&self, mut reserved: Reserved, reason: &'static str) -> Effect {
        log::debug!("Message {} is requeued: {reason}", reserved.message.id);
        self.note(&mut reserved, Reason::new(reason));
        if self.was_handed_out_too_often(&reserved) && !is_dead_letter(&reserved) {
            self.bury(reserved, Why::Requeued)
        } else {
            move_back(reserved, Why::Requeued)
        }
    }

    /// Makes a dead letter of a message that nobody has received in time.
    pub(super) fn expire(&self, mut reserved: Reserved) {
        let message = &reserved.message;
        let waited = (self.shared.clock.now()).saturating_sub(message.position.moment());
        let waited = Duration::from_micros(waited).as_secs();
        let mut reason = format!("expired after {waited} s in the queue");
        if !message.reason().is_empty() {
            reason = format!("{reason}; before that: {}", message.reason());
        }
        self.note(&mut reserved, Reason::new(&reason));
        self.submit_unwaited(if is_dead_letter(&reserved) {
            // It stays where it is.
            move_back(self.without_expiry(reserved), Why::Expired)
        } else {
            self.bury(reserved, Why::Expired)
        });
    }

    /// Notes why a message was given up.
    fn note(&self, reserved: &mut Reserved, reason: Reason) {
        if reserved.message.reason() != reason.as_str() {
            let mut state = self.shared.lock();
            state.change_extras(reserved, |extras| extras.reason = reason.as_str().into());
        }
    }

    fn was_handed_out_too_often(&self, reserved: &Reserved) -> bool {
        let message = &reserved.message;
        let attempts_max = message.attempts_max();
        message.attempts >= attempts_max.unwrap_or(self.shared.limits.attempts_max)
    }

    /// Moves a released message to the dead letters, or to the end of its queue if it is one.
    fn bury_or(&self, reserved: Reserved, delay: Duration) -> Effect {
        if is_dead_letter(&reserved) {
            self.move_to_end(reserved, delay, Why::Released)
        } else {
            self.bury(reserved, Why::Released)
        }
    }

    /// Moves a message to the dead letters, where it does not expire.
    fn bury(&self, reserved: Reserved, why: Why) -> Effect {
        let reserved = self.without_expiry(reserved);
        let dead = format!("{}{}", reserved.queue, QueueName::DEAD_SUFFIX);
        let (id, attempts) = (reserved.message.id, reserved.message.attempts);
        // The reason is for those who may look at the message.
        match why {
            // Thousands may expire at once.
            Why::Expired => log::debug!("Message {id} has expired and goes to {dead}"),
            Why::Released | Why::Uncounted | Why::Requeued | Why::Operator => {
                log::warn!("Message {id} was handed out {attempts} times and goes to {dead}");
            }
        }
        self.move_into(reserved, dead.into(), why)
    }

    fn without_expiry(&self, mut reserved: Reserved) -> Reserved {
        if reserved.message.expires_at().is_some() {
            let mut state = self.shared.lock();
            state.change_extras(&mut reserved, |extras| extras.expires_at = None);
        }
        reserved
    }

    fn move_to_end(&self, reserved: Reserved, delay: Duration, why: Why) -> Effect {
        let moment = self.shared.clock.moment_after(delay);
        Effect::Move {
            queue: Arc::clone(&reserved.queue),
            position: reserved.message.position.at(moment),
            is_delayed: !delay.is_zero(),
            why,
            reserved,
        }
    }

    /// Moves a message to the end of a queue.
    pub(super) fn move_into(&self, mut reserved: Reserved, queue: Arc<str>, why: Why) -> Effect {
        if reserved.message.keyed().is_some() {
            let now = self.now();
            let mut state = self.shared.lock();
            state.hold_key_in(&queue, &mut reserved, now);
        }
        let moment = self.shared.clock.next_moment();
        let position = reserved.message.position.at(moment);
        move_to(reserved, queue, position, why)
    }
}

fn is_dead_letter(reserved: &Reserved) -> bool {
    reserved.queue.ends_with(QueueName::DEAD_SUFFIX)
}

/// Makes the last attempt one that does not count.
fn uncount(reserved: &mut Reserved) {
    let attempts = &mut reserved.message.attempts;
    *attempts = attempts.saturating_sub(1);
}

fn move_back(reserved: Reserved, why: Why) -> Effect {
    let position = reserved.message.position;
    let queue = Arc::clone(&reserved.queue);
    move_to(reserved, queue, position, why)
}

fn move_to(reserved: Reserved, queue: Arc<str>, position: Position, why: Why) -> Effect {
    Effect::Move {
        reserved,
        queue,
        position,
        is_delayed: false,
        why,
    }
}
