//! A change that was submitted: what is done when it is committed, and its outcome.
//!
//! In memory a change is done at once, and its [`Pending`] has its outcome from the start. With a
//! database, the journal commits the change first; until then, its message stays reserved.

use std::sync::Arc;

use storage::NotStored;

use super::operation::Outcome;
use super::shared::Shared;
use super::state::State;
use super::why::Why;
use crate::clock::Micros;
use crate::error::QueueError;
use crate::journal::{Applied, Change, Row};
use crate::keys::Acked;
use crate::message::Reserved;
use crate::position::Position;
use crate::sessions::{Answer, Stamp};

/// A request that is done, or whose change the journal has not been given yet: [`super::Queues::submit`] does so.
#[must_use = "a change that is not submitted never happens, and its message is lost"]
pub(crate) enum Prepared {
    /// The outcome is known.
    Done(Outcome),
    /// The effect is what remains to be done when the change is committed.
    Change(Change, Option<Effect>),
}

/// A change that was submitted. [`super::Queues::wait`] waits for its outcome, and
/// [`super::Queues::on_complete`] has it told.
#[must_use = "a message may be lost if nobody waits for its change"]
pub(crate) enum Pending {
    /// The outcome is known.
    Done(Outcome),
    /// The journal commits the change, and then the effect is done. The stamp is that of its request.
    Submitted(storage::Pending<Applied>, Option<Effect>, Option<Stamp>),
}

/// What is done when a change is committed.
pub(crate) enum Effect {
    /// A message is handed out and needs no acknowledgement.
    Deliver(Reserved),
    /// A message is acknowledged.
    Ack(Reserved),
    /// A message is deleted that nobody has acknowledged.
    Delete(Reserved),
    /// A message is handed out under its lease.
    Lease(Reserved),
    /// A message goes to a position in a queue.
    Move {
        reserved: Reserved,
        queue: Arc<str>,
        position: Position,
        is_delayed: bool,
        why: Why,
    },
    /// The last of several, and how many there are.
    Last(Box<Effect>, u64),
    /// It is done already, and only its answer is written.
    Answer(Outcome),
}

impl Pending {
    /// The length of the body that is handed out when this is committed, in bytes.
    pub(crate) fn delivered_bytes(&self) -> Option<usize> {
        match self {
            Self::Submitted(_, effect, _) => match effect {
                Some(Effect::Deliver(reserved) | Effect::Lease(reserved)) => {
                    Some(reserved.message.body.len())
                }
                Some(
                    Effect::Ack(_)
                    | Effect::Delete(_)
                    | Effect::Move { .. }
                    | Effect::Last(..)
                    | Effect::Answer(_),
                )
                | None => None,
            },
            Self::Done(_) => None,
        }
    }
}

impl Effect {
    /// What the journal has to write for it.
    /// `acked` is what becomes of the key of a message that is acknowledged now.
    pub(super) fn change(&self, now: Micros, acked: Option<Box<Acked>>) -> Change {
        match self {
            Self::Deliver(Reserved { message, .. }) | Self::Ack(Reserved { message, .. }) => {
                Change::Delete(message.id, message.cost(), acked)
            }
            Self::Delete(Reserved { message, .. }) => {
                Change::Delete(message.id, message.cost(), None)
            }
            Self::Lease(reserved) => Change::Update(Box::new(Row::of(reserved, now))),
            Self::Move {
                reserved,
                queue,
                position,
                is_delayed,
                ..
            } => {
                let message = &reserved.message;
                let row = Row::moved(message, queue, *position, *is_delayed, now);
                Change::Update(Box::new(row))
            }
            Self::Last(effect, _) => effect.change(now, acked),
            Self::Answer(_) => Change::Nothing,
        }
    }

    /// The answer that is known before the commit.
    pub(super) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Deliver(reserved) => Some(Answer::Delivered(reserved.message.id)),
            Self::Ack(_) | Self::Delete(_) => Some(Answer::Done(1)),
            Self::Lease(Reserved {
                lease, queue_index, ..
            }) => lease.map(|lease| Answer::Leased(lease.token, *queue_index)),
            Self::Move {
                reserved,
                queue,
                why,
                ..
            } => {
                let is_buried = why.is_burial(&reserved.queue, queue);
                Some(Answer::Done(u64::from(!is_buried)))
            }
            Self::Last(_, count) => Some(Answer::Done(*count)),
            Self::Answer(outcome) => outcome.answer(),
        }
    }
}

impl State {
    /// Does what remains to be done when a change is committed.
    pub(super) fn commit(&mut self, effect: Effect, now: Micros) -> Outcome {
        match effect {
            Effect::Deliver(reserved) => {
                self.entry(&reserved.queue).keep_key(&reserved.message, now);
                self.ack(&reserved);
                Outcome::Delivered(reserved.message, reserved.queue_index)
            }
            Effect::Ack(reserved) => {
                self.entry(&reserved.queue).keep_key(&reserved.message, now);
                self.ack(&reserved);
                Outcome::Done(1)
            }
            Effect::Delete(reserved) => {
                self.entry(&reserved.queue).release_key(&reserved.message);
                self.delete(&reserved);
                Outcome::Done(1)
            }
            Effect::Lease(reserved) => Outcome::Reserved(reserved),
            Effect::Move {
                mut reserved,
                queue,
                position,
                is_delayed,
                why,
            } => {
                reserved.message.position = position;
                let is_buried = why.is_burial(&reserved.queue, &queue);
                self.count(&reserved.queue, why, is_buried);
                self.put_into(reserved, &queue, is_delayed);
                Outcome::Done(u64::from(!is_buried))
            }
            Effect::Last(effect, count) => {
                self.commit(*effect, now);
                Outcome::Done(count)
            }
            Effect::Answer(outcome) => outcome,
        }
    }

    /// Undoes the first half of a change that is not committed.
    pub(super) fn undo(&mut self, effect: Effect) {
        if let Effect::Move {
            reserved, queue, ..
        } = &effect
            && reserved.queue != *queue
        {
            // It has claimed its key there already.
            self.entry(queue).release_key(&reserved.message);
            self.remove_if_unused(queue);
        }
        match effect {
            Effect::Deliver(reserved) | Effect::Lease(reserved) => self.unreserve(reserved),
            Effect::Ack(reserved) | Effect::Delete(reserved) | Effect::Move { reserved, .. } => {
                match reserved.lease {
                    // Its token is good for another try.
                    Some(_) => self.start_lease(reserved),
                    None => self.reinsert(reserved),
                }
            }
            Effect::Last(effect, _) => self.undo(*effect),
            // It is done again when it comes again.
            Effect::Answer(_) => {}
        }
    }
}

impl Shared {
    /// Concludes a change that the journal has committed or refused, and remembers the answer.
    ///
    /// # Errors
    /// [`QueueError::NotStored`], and [`QueueError::NoLease`] if there was none to extend.
    pub(super) fn conclude(
        &self,
        effect: Option<Effect>,
        stamp: Option<Stamp>,
        applied: Result<Applied, NotStored>,
    ) -> Result<Outcome, QueueError> {
        let result = self.outcome(effect, applied);
        match stamp {
            Some(stamp) => result.map(|outcome| self.remember(outcome, stamp)),
            None => result,
        }
    }

    /// Remembers the answer to a request. A lease starts before that, because the request may come again
    /// at once.
    pub(super) fn remember(&self, outcome: Outcome, mut stamp: Stamp) -> Outcome {
        let answer = outcome.answer();
        let outcome = match outcome {
            Outcome::Reserved(leased) if leased.lease.is_some() => {
                let copy = leased.copy();
                self.lock().start_lease(leased);
                Outcome::LeasedBefore(copy)
            }
            outcome => outcome,
        };
        stamp.remember(std::iter::once(answer));
        outcome
    }

    fn outcome(
        &self,
        effect: Option<Effect>,
        applied: Result<Applied, NotStored>,
    ) -> Result<Outcome, QueueError> {
        match (applied, effect) {
            (Ok(Applied::Stored(id)), _) => Ok(Outcome::Stored(id)),
            (Ok(Applied::StoredBefore(id)), _) => Ok(Outcome::StoredBefore(id)),
            (Ok(Applied::NoLease), _) => Err(QueueError::NoLease),
            (Ok(Applied::Refused(error)), _) => Err(*error),
            (Ok(Applied::Changed(_)), Some(Effect::Lease(reserved))) => {
                Ok(Outcome::Reserved(reserved))
            }
            (Ok(Applied::Changed(_)), Some(effect)) => {
                let now = self.clock.now();
                Ok(self.lock().commit(effect, now))
            }
            (Ok(Applied::Changed(_)), None) => Ok(Outcome::Done(1)),
            (Err(error), effect) => {
                if let Some(effect) = effect {
                    self.lock().undo(effect);
                }
                Err(QueueError::NotStored(error))
            }
        }
    }
}
