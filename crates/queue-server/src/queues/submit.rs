//! From an effect to the journal: a change is prepared, and then submitted with the stamp of its request, so
//! that the answer is committed together with it.

use std::time::Instant;

use storage::Committer;

use super::Queues;
use super::operation::Outcome;
use super::pending::{Effect, Pending, Prepared};
use crate::clock::Micros;
use crate::error::QueueError;
use crate::journal::{Change, Journal, Submission};
use crate::message::Reserved;
use crate::sessions::{Answer, Sessions, Stamp};

/// Effects that are carried out for one request, whose answer is committed with the last of them.
#[derive(Default)]
pub(super) struct Several {
    last: Option<Effect>,
    done: u64,
}

impl Queues {
    /// Carries out all but the last of these effects, and the last of those before.
    ///
    /// # Errors
    /// [`QueueError::NotStored`].
    pub(super) fn carry_out_but_last(
        &self,
        several: &mut Several,
        effects: Vec<Effect>,
    ) -> Result<(), QueueError> {
        let mut effects: Vec<_> = several.last.take().into_iter().chain(effects).collect();
        several.last = effects.pop();
        let prepared = effects.into_iter().map(|one| self.prepared(one)).collect();
        match self.wait_for_all(prepared) {
            Ok(done) => several.done += done,
            Err(error) => {
                if let Some(last) = several.last.take() {
                    self.shared.lock().undo(last);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The last of several effects. Its outcome is how many they are.
    pub(super) fn last_of(&self, several: Several) -> Prepared {
        match several.last {
            Some(last) => self.prepared(Effect::Last(Box::new(last), several.done + 1)),
            None => Prepared::Done(Outcome::Done(several.done)),
        }
    }

    /// The change that has an effect; in memory it is done at once.
    pub(super) fn prepared(&self, effect: Effect) -> Prepared {
        match &self.journal {
            None => Prepared::Done(self.shared.lock().commit(effect, self.now())),
            Some(_) => {
                let change = self.change(&effect);
                Prepared::Change(change, Some(effect))
            }
        }
    }

    fn change(&self, effect: &Effect) -> Change {
        let now = self.now();
        let acked = match effect {
            Effect::Ack(reserved) | Effect::Deliver(reserved)
                if reserved.message.keyed().is_some() =>
            {
                self.shared.lock().acked_key(reserved, now).map(Box::new)
            }
            Effect::Ack(_)
            | Effect::Deliver(_)
            | Effect::Delete(_)
            | Effect::Lease(_)
            | Effect::Move { .. }
            | Effect::Last(..)
            | Effect::Answer(_) => None,
        };
        effect.change(now, acked)
    }

    /// Submits a change to the journal, with the stamp of its request: the answer is written together
    /// with the change. What is done already has its answer remembered.
    pub(crate) fn submit(&self, prepared: Prepared, stamp: Option<Stamp>) -> Pending {
        match (prepared, &self.journal, stamp) {
            (Prepared::Change(change, effect), Some(journal), stamp) => {
                Self::submit_to(journal, change, effect, stamp)
            }
            (Prepared::Done(outcome), Some(journal), Some(stamp)) if outcome.answer().is_some() => {
                let effect = Some(Effect::Answer(outcome));
                Self::submit_to(journal, Change::Nothing, effect, Some(stamp))
            }
            (Prepared::Done(outcome), None, Some(stamp)) => {
                Pending::Done(self.shared.remember(outcome, stamp))
            }
            (Prepared::Done(outcome), _, _) => Pending::Done(outcome),
            // In memory it is done at once.
            (Prepared::Change(_, effect), None, stamp) => {
                let commit = |effect| self.shared.lock().commit(effect, self.now());
                let outcome = effect.map_or(Outcome::Done(1), commit);
                self.submit(Prepared::Done(outcome), stamp)
            }
        }
    }

    fn submit_to(
        journal: &Committer<Journal>,
        change: Change,
        effect: Option<Effect>,
        stamp: Option<Stamp>,
    ) -> Pending {
        // Of a send the journal says the id; an extension has no effect but itself.
        let answer = match (&change, &effect) {
            (Change::Insert(..), _) => Some(Answer::Stored(0)),
            (_, Some(effect)) => effect.answer(),
            (_, None) => Some(Answer::Done(1)),
        };
        let answered = stamp.as_ref().zip(answer);
        let answered = answered.map(|(stamp, answer)| stamp.answered(answer));
        let submission = Submission {
            change,
            answered,
            since: Instant::now(),
        };
        Pending::Submitted(journal.submit(submission), effect, stamp)
    }

    /// All sessions.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    /// What the queues' clock shows.
    pub(crate) fn now(&self) -> Micros {
        self.shared.clock.now()
    }

    /// The outcome of a request that was carried out before, as it was told then.
    ///
    /// # Errors
    /// [`QueueError::NoLease`], if what it has leased is not leased any more; [`QueueError::ReplyGone`].
    pub(crate) fn outcome_of(&self, answer: Answer) -> Result<Outcome, QueueError> {
        Ok(match answer {
            Answer::Stored(id) => Outcome::Stored(id),
            Answer::StoredBefore(id) => Outcome::StoredBefore(id),
            Answer::Done(messages) => Outcome::Done(messages),
            Answer::Delivered(id) => return Err(QueueError::ReplyGone(id)),
            Answer::Leased(token, queue_index) => {
                let leased = self.shared.lock().leased(token);
                Outcome::LeasedBefore(Reserved {
                    queue_index,
                    ..leased.ok_or(QueueError::NoLease)?
                })
            }
        })
    }

    /// Submits a change and does it at once, because nobody has to be told when it is committed.
    pub(super) fn submit_unwaited(&self, effect: Effect) {
        if let Some(journal) = &self.journal {
            let change = self.change(&effect);
            drop(Self::submit_to(journal, change, None, None));
        }
        self.shared.lock().commit(effect, self.now());
    }
}
