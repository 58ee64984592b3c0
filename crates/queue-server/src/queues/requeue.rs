//! What becomes of a message that was not acknowledged: it goes back to its queue or to the dead letters,
//! and keeps the reason why.

use std::sync::Arc;
use std::time::Duration;

use proto::queue::{QueueName, Reason, Retry, Totals};

use super::pending::{Effect, Prepared};
use super::{Queues, millis};
use crate::message::Reserved;
use crate::position::Position;
use crate::totals::Counts;

/// The reasons that no receiver gives.
pub(crate) const CONNECTION_ENDED: &str = "the connection ended before it was acknowledged";
pub(super) const LEASE_EXPIRED: &str = "the lease expired before it was acknowledged";
const TAKEN_FROM_HOLDER: &str = "an operator has released it from its holder";
const SERVER_STOPPED: &str = "the server stopped before it was acknowledged";

/// What is counted when an attempt fails...
const FAILED: Counts = Counts {
    failed: 1,
    ..Counts::NONE
};

/// ...when a message becomes a dead letter...
const DIED: Counts = Counts {
    died: 1,
    ..Counts::NONE
};

/// ...and when that is because it has expired.
const EXPIRED: Counts = Counts {
    expired: 1,
    ..Counts::NONE
};

impl Queues {
    /// Releases a message on purpose.
    pub(crate) fn release(&self, mut reserved: Reserved, retry: Retry, reason: Reason) -> Prepared {
        let failed = match retry {
            Retry::Counted { .. } | Retry::Never => FAILED,
            Retry::Uncounted { .. } => Counts::NONE,
        };
        self.note(&mut reserved, reason, failed, |totals| {
            totals.released += 1;
        });
        self.prepared(match retry {
            Retry::Counted { delay_millis } if self.was_handed_out_too_often(&reserved) => {
                self.bury_or(reserved, millis(delay_millis))
            }
            Retry::Counted { delay_millis } => self.move_to_end(reserved, millis(delay_millis)),
            Retry::Uncounted { delay_millis } => {
                uncount(&mut reserved);
                self.move_to_end(reserved, millis(delay_millis))
            }
            Retry::Never => self.bury_or(reserved, Duration::ZERO),
        })
    }

    /// Unreserves a message that its receiver could not begin with: it goes to its old position, and
    /// the attempt does not count.
    pub(crate) fn unreserve(&self, mut reserved: Reserved) -> Prepared {
        self.shared.lock().common.totals.released += 1;
        uncount(&mut reserved);
        self.prepared(move_back(reserved))
    }

    /// Requeues a message because the server stops. The attempt counts, but it does not make the
    /// message a dead letter.
    pub(crate) fn requeue_at_stop(&self, mut reserved: Reserved) {
        let reason = Reason::new(SERVER_STOPPED);
        self.note(&mut reserved, reason, FAILED, |totals| {
            totals.requeued += 1;
        });
        self.submit_unwaited(move_back(reserved));
    }

    /// Requeues a message because its receiver is gone or its lease expired: it goes to its old
    /// position, or to the dead letters if it was handed out too often. Nobody waits until the disk
    /// knows of the attempt.
    pub(crate) fn requeue(&self, reserved: Reserved, reason: &'static str) {
        self.submit_unwaited(self.requeued(reserved, reason));
    }

    /// The same because an operator has released it from its holder, who waits for that.
    pub(super) fn release_from_holder(&self, reserved: Reserved) -> Prepared {
        self.prepared(self.requeued(reserved, TAKEN_FROM_HOLDER))
    }

    fn requeued(&self, mut reserved: Reserved, reason: &'static str) -> Effect {
        log::debug!("Message {} is requeued: {reason}", reserved.message.id);
        let reason = Reason::new(reason);
        self.note(&mut reserved, reason, FAILED, |totals| {
            totals.requeued += 1;
        });
        let is_dead = self.was_handed_out_too_often(&reserved) && !is_dead_letter(&reserved);
        match is_dead {
            true => self.bury(reserved),
            false => move_back(reserved),
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
        let reason = Reason::new(&reason);
        self.note(&mut reserved, reason, Counts::NONE, |_| ());
        self.submit_unwaited(match is_dead_letter(&reserved) {
            // It stays where it is.
            true => move_back(self.without_expiry(reserved)),
            false => {
                self.count_one(&reserved, EXPIRED);
                self.bury(reserved)
            }
        });
    }

    /// Notes why a message was given up, and counts that.
    fn note(
        &self,
        reserved: &mut Reserved,
        reason: Reason,
        counts: Counts,
        count: impl FnOnce(&mut Totals),
    ) {
        let mut state = self.shared.lock();
        count(&mut state.common.totals);
        state.entry(&reserved.queue).queue.counts.add(counts);
        if reserved.message.reason() != reason.as_str() {
            state.change_extras(reserved, |extras| extras.reason = reason.as_str().into());
        }
    }

    /// Counts what happened to a message of its queue.
    fn count_one(&self, reserved: &Reserved, counts: Counts) {
        let mut state = self.shared.lock();
        state.entry(&reserved.queue).queue.counts.add(counts);
    }

    fn was_handed_out_too_often(&self, reserved: &Reserved) -> bool {
        let message = &reserved.message;
        let attempts_max = message.attempts_max();
        message.attempts >= attempts_max.unwrap_or(self.shared.limits.attempts_max)
    }

    /// Moves a message to the dead letters, or to the end of its queue if it is one.
    fn bury_or(&self, reserved: Reserved, delay: Duration) -> Effect {
        match is_dead_letter(&reserved) {
            true => self.move_to_end(reserved, delay),
            false => self.bury(reserved),
        }
    }

    /// Moves a message to the dead letters, where it does not expire.
    fn bury(&self, reserved: Reserved) -> Effect {
        let reserved = self.without_expiry(reserved);
        let dead = format!("{}{}", reserved.queue, QueueName::DEAD_SUFFIX);
        let (id, attempts) = (reserved.message.id, reserved.message.attempts);
        // Why is for those who may look at the message.
        log::warn!("Message {id} was handed out {attempts} times and goes to {dead}");
        self.shared.lock().common.totals.dead_lettered += 1;
        self.count_one(&reserved, DIED);
        self.move_into(reserved, dead.into())
    }

    fn without_expiry(&self, mut reserved: Reserved) -> Reserved {
        if reserved.message.expires_at().is_some() {
            let mut state = self.shared.lock();
            state.change_extras(&mut reserved, |extras| extras.expires_at = None);
        }
        reserved
    }

    fn move_to_end(&self, reserved: Reserved, delay: Duration) -> Effect {
        let moment = self.shared.clock.moment_after(delay);
        Effect::Move {
            queue: Arc::clone(&reserved.queue),
            position: reserved.message.position.at(moment),
            is_delayed: !delay.is_zero(),
            reserved,
        }
    }

    /// Moves a message to the end of a queue.
    pub(super) fn move_into(&self, mut reserved: Reserved, queue: Arc<str>) -> Effect {
        if reserved.message.keyed().is_some() {
            let now = self.now();
            let mut state = self.shared.lock();
            state.hold_key_in(&queue, &mut reserved, now);
        }
        let moment = self.shared.clock.next_moment();
        let position = reserved.message.position.at(moment);
        move_to(reserved, queue, position)
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

fn move_back(reserved: Reserved) -> Effect {
    let position = reserved.message.position;
    let queue = Arc::clone(&reserved.queue);
    move_to(reserved, queue, position)
}

fn move_to(reserved: Reserved, queue: Arc<str>, position: Position) -> Effect {
    Effect::Move {
        reserved,
        queue,
        position,
        is_delayed: false,
    }
}
