//! A change that was begun, and what is done when it is committed or refused.

use std::sync::Arc;

use daemon::lock;
use proto::queue::{MessageId, Reply};
use storage::{NotStored, Pending};

use crate::QueueError;
use crate::journal::Applied;
use crate::memory::LongBody;
use crate::message::{Place, Taken};
use crate::shared::Shared;

/// A change that was begun. It counts when [`Queues::finish`] says so, or [`Queues::finish_later`].
#[must_use = "a change that is not finished may lose a message"]
pub struct Begun {
    pub(crate) ticket: Option<Pending<Applied>>,
    pub(crate) effect: Effect,
}

/// What is done when a change is committed.
pub(crate) enum Effect {
    /// The message is in its queue already; this is its id if there is no database.
    Store(MessageId),
    /// A message is forgotten, and handed out with that.
    Deliver(Taken),
    /// A message is forgotten.
    Forget(Taken),
    /// A message is leased.
    Lease(Taken),
    /// A message goes to this place in a queue.
    Move {
        taken: Taken,
        queue: Arc<str>,
        place: Place,
        is_delayed: bool,
    },
    /// Nothing more.
    None,
}

impl Begun {
    /// The body of the message that is handed out with this, if it is long.
    pub(crate) fn long_body(&self) -> Option<Arc<LongBody>> {
        match &self.effect {
            Effect::Deliver(taken) | Effect::Lease(taken) => taken.message.body.shared(),
            Effect::Store(_) | Effect::Forget(_) | Effect::Move { .. } | Effect::None => None,
        }
    }
}

impl Shared {
    /// Does what remains to be done when a change is committed, or was refused; hands what came of it
    /// to `with`.
    pub(crate) fn finish<R>(
        &self,
        effect: Effect,
        committed: Result<Option<Applied>, NotStored>,
        with: impl FnOnce(Result<Reply, QueueError>) -> R,
    ) -> R {
        let stored_id = match committed {
            Ok(Some(Applied::Stored(id))) => Some(id),
            Ok(Some(Applied::Changed(_)) | None) => None,
            Ok(Some(Applied::NoLease)) => return with(Err(QueueError::NoLease)),
            Err(error) => {
                self.undo(effect);
                return with(Err(QueueError::NotStored(error)));
            }
        };
        let done = Reply::Done { messages: 1 };
        match effect {
            Effect::Store(id) => with(Ok(Reply::Stored {
                id: stored_id.unwrap_or(id),
            })),
            Effect::Deliver(taken) => {
                lock(&self.state).forgotten(&taken);
                with(Ok(taken.reply()))
            }
            Effect::Forget(taken) => {
                lock(&self.state).forgotten(&taken);
                with(Ok(done))
            }
            Effect::Lease(taken) => {
                let result = with(Ok(taken.reply()));
                self.start_lease(&mut lock(&self.state), taken);
                result
            }
            Effect::Move {
                mut taken,
                queue,
                place,
                is_delayed,
            } => {
                taken.message.place = place;
                // Not if it is among the dead now.
                let messages = u64::from(taken.queue == queue);
                self.put_down_in(taken, queue, is_delayed);
                with(Ok(Reply::Done { messages }))
            }
            Effect::None => with(Ok(done)),
        }
    }

    /// What was not stored did not happen.
    fn undo(&self, effect: Effect) {
        match effect {
            // The writer has taken it off the account.
            Effect::Store(_) | Effect::None => {}
            // Nobody was handed it.
            Effect::Deliver(taken) | Effect::Lease(taken) => self.untake(taken),
            Effect::Forget(taken) | Effect::Move { taken, .. } => match taken.lease {
                // Its token is good for another try.
                Some(_) => self.start_lease(&mut lock(&self.state), taken),
                None => self.put_down(taken),
            },
        }
    }
}
