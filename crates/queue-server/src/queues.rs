//! All queues of a server: handing messages out, acknowledging and requeueing them.
//!
//! A change counts when it is committed. Every change is a [`Pending`]: [`Queues::wait`] waits for its
//! commit, and [`Queues::on_complete`] has the writer thread tell its outcome. Changes that are submitted
//! meanwhile share the commit. A message that is [`Reserved`] is in no queue, so nobody else can change
//! it, and the journal hears of its changes in their order.
//!
//! [`state`] is the rules, [`queue`] the order in one queue, [`operation`] what is asked and its
//! outcome, [`pending`] the change between the two, [`waiters`] who waits for a message, [`manage`] what
//! concerns whole queues, [`due`] what the timer does, [`figures`] what can be looked at, [`shared`] the lock around all of it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::queue::{Delivery, QueueName, Token};
use storage::{CommitFigures, Committer, Fsync, StorageError};

use crate::clock::Clock;
use crate::error::{Error, QueueError};
use crate::journal::{Change, Journal, LiveQueues as _, Opened, Submission};
use crate::memory::{Memory, Room};
use crate::message::{Lease, Message, Reserved};
use crate::position::Position;

mod due;
mod figures;
mod manage;
mod operation;
mod pending;
mod queue;
mod shared;
mod state;
mod waiters;

pub(crate) use figures::Figures;
pub(crate) use operation::{Handout, Operation, Outcome};
pub(crate) use pending::Pending;
pub(crate) use queue::Wake;
pub use state::Limits;
pub(crate) use waiters::Waiter;

use pending::Effect;
use shared::{IsStopping, Shared};

/// Any number of queues, which any number of threads may use at once.
pub(crate) struct Queues {
    shared: Arc<Shared>,
    /// `None` in memory.
    journal: Option<Committer<Journal>>,
}

impl Queues {
    /// No messages, and nothing is kept on a disk.
    pub(crate) fn in_memory(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared::new(limits, Clock::new())),
            journal: None,
        }
    }

    /// The queues that are kept in a database, which is made if it does not exist. `on_failure` is
    /// called when the disk fails so that it is not known what is on it.
    ///
    /// # Errors
    /// If the database is in use, cannot be opened, or belongs to another program.
    pub(crate) fn open(
        path: &Path,
        limits: Limits,
        fsync: Fsync,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let database = Opened::open(path, fsync)?;
        let shared = Arc::new(Shared::new(limits, database.clock()));
        let journal = database.load(path, Arc::clone(&shared) as _)?;
        let journal = Committer::start("journal", journal, on_failure);
        Ok(Self {
            shared,
            journal: Some(journal?),
        })
    }

    /// From now on, a peer may be told that something is stored: the database stays, also if it was
    /// made just now.
    pub(crate) fn serve(&self, is_stopping: IsStopping) {
        // Nobody else has set it.
        let _ = self.shared.is_stopping.set(is_stopping);
    }

    /// Whether the server is shutting down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    /// The longest message, in bytes.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.shared.limits.body_bytes_max
    }

    /// What the messages of all queues take.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.shared.memory
    }

    /// Whether changes have to be waited for.
    pub(crate) fn is_durable(&self) -> bool {
        self.journal.is_some()
    }

    /// Why the disk failed so that it is not known what is on it, if it did. Tells it once.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.journal.as_ref()?.failure()
    }

    /// What was measured of the commits; `None` in memory.
    pub(crate) fn commit_figures(&self) -> Option<&CommitFigures> {
        self.journal.as_ref().map(Committer::figures)
    }

    /// A message to be sent.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`].
    pub(crate) fn message(&self, body: &[u8]) -> Result<Message, QueueError> {
        let body_bytes_max = self.body_bytes_max();
        if body.len() > body_bytes_max {
            return Err(QueueError::TooLarge {
                body_bytes: body.len(),
                body_bytes_max,
            });
        }
        let message = Message::new(body);
        Ok(match self.journal {
            Some(_) => message.with_checksum(),
            None => message,
        })
    }

    /// Puts a message at the end of a queue, after a delay.
    ///
    /// The frame with the body may be on the account already. It is freed when the message is counted, and
    /// not before, so that other connections do not read more meanwhile than there is room for.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`], [`QueueError::Draining`], and those of a full queue or server.
    pub(crate) fn send(
        &self,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
        room: Option<&mut Room>,
    ) -> Result<Pending, QueueError> {
        let message = self.message(body)?;
        if let Some(room) = room {
            room.clear();
        }
        self.act(queue, Operation::Send(message, delay))
    }

    /// Hands out the oldest message, if there is one and its body is at most this long.
    ///
    /// # Errors
    /// [`QueueError::Paused`], [`QueueError::TooLong`].
    pub(crate) fn receive(
        &self,
        queue: QueueName,
        delivery: Delivery,
        body_bytes_max: usize,
    ) -> Result<Pending, QueueError> {
        // The token is made here because nobody waits for that.
        let handout = Handout::new(delivery, &self.shared.clock);
        self.act(queue, Operation::Receive(handout, body_bytes_max))
    }

    /// A batch of one operation.
    fn act(&self, queue: QueueName, operation: Operation) -> Result<Pending, QueueError> {
        let Some(journal) = &self.journal else {
            let sends = usize::from(operation.is_send());
            let (mut batch, mut outcome) = (Some(operation), Ok(Outcome::Empty));
            let done = |one| outcome = one;
            self.act_at_once(queue, sends, usize::MAX, || batch.take(), done);
            return outcome.map(Pending::Done);
        };
        self.submit_operation(journal, queue, operation)
    }

    /// Acts on several operations for one queue, in their order, and adds their outcomes to `done`. In
    /// memory that is done under one lock, and stops when the messages that are received have `bytes_max`
    /// bytes; what was not acted on stays in the batch. With a database, all share their commits.
    pub(crate) fn run(
        &self,
        queue: QueueName,
        batch: &mut VecDeque<Operation>,
        done: &mut Vec<Result<Outcome, QueueError>>,
        bytes_max: usize,
    ) {
        let Some(journal) = &self.journal else {
            let sends = batch.iter().filter(|one| one.is_send()).count();
            let push = |outcome| done.push(outcome);
            return self.act_at_once(queue, sends, bytes_max, || batch.pop_front(), push);
        };
        let submit = |operation| self.submit_operation(journal, queue, operation);
        let pending: Vec<_> = batch.drain(..).map(submit).collect();
        let wait = |one: Result<Pending, QueueError>| one.and_then(|pending| self.wait(pending));
        done.extend(pending.into_iter().map(wait));
    }

    /// Acts on operations in memory, of which this many are sends.
    fn act_at_once(
        &self,
        queue: QueueName,
        sends: usize,
        bytes_max: usize,
        mut next: impl FnMut() -> Option<Operation>,
        mut done: impl FnMut(Result<Outcome, QueueError>),
    ) {
        let clock = &self.shared.clock;
        let mut bytes = 0;
        let mut state = self.shared.lock();
        // Under the lock, so that moments come in the order in which they are used.
        let mut moments = clock.next_moments(sends);
        // Only a send makes a queue. If it cannot, there are too many.
        if sends > 0 {
            let _ = state.make(queue);
        }
        let mut entry = state.find(queue.as_str());
        while bytes < bytes_max
            && let Some(operation) = next()
        {
            done(match (operation, &mut entry) {
                (Operation::Send(..), None) => Err(QueueError::TooManyQueues),
                (Operation::Receive(..), None) => Ok(Outcome::Empty),
                (Operation::Send(message, delay), Some(entry)) => {
                    let is_delayed = !delay.is_zero();
                    let moment = match moments.next() {
                        Some(moment) if !is_delayed => moment,
                        Some(_) | None => clock.moment_after(delay),
                    };
                    entry.admit(message.cost()).map(|()| {
                        let position = message.position.at(moment);
                        let message = Message {
                            position,
                            ..message
                        };
                        Outcome::Stored(entry.arrive_unnumbered(message, is_delayed))
                    })
                }
                (Operation::Receive(handout, body_bytes_max), Some(entry)) => {
                    let reserved = entry.reserve(body_bytes_max);
                    reserved.map(|message| match message {
                        None => Outcome::Empty,
                        Some(message) => {
                            bytes += message.body.len();
                            entry.hand_out(message, handout)
                        }
                    })
                }
            });
        }
        state.remove_if_unused(queue.as_str());
    }

    /// Submits an operation to the journal.
    fn submit_operation(
        &self,
        journal: &Committer<Journal>,
        queue: QueueName,
        operation: Operation,
    ) -> Result<Pending, QueueError> {
        let shared = &*self.shared;
        match operation {
            Operation::Send(message, delay) => {
                let name = shared.lock().admit(queue, message.cost())?;
                let change = Change::Insert(name, message.counted(&shared.memory), delay);
                Ok(Self::submit_to(journal, change, None))
            }
            Operation::Receive(handout, body_bytes_max) => {
                let reserved = shared.lock().reserve(queue, body_bytes_max)?;
                let Some(mut reserved) = reserved else {
                    return Ok(Pending::Done(Outcome::Empty));
                };
                Ok(match handout {
                    Handout::AtMostOnce => self.submit(Effect::Deliver(reserved)),
                    Handout::Reserve(None) => Pending::Done(Outcome::Reserved(reserved)),
                    Handout::Reserve(lease) => {
                        reserved.lease = lease;
                        self.submit(Effect::Lease(reserved))
                    }
                })
            }
        }
    }

    /// Submits a change to the journal; in memory it is done at once.
    fn submit(&self, effect: Effect) -> Pending {
        match &self.journal {
            None => Pending::Done(self.shared.lock().commit(effect)),
            Some(journal) => {
                let change = effect.change(self.shared.clock.now());
                Self::submit_to(journal, change, Some(effect))
            }
        }
    }

    fn submit_to(journal: &Committer<Journal>, change: Change, effect: Option<Effect>) -> Pending {
        let since = Instant::now();
        Pending::Submitted(journal.submit(Submission { change, since }), effect)
    }

    /// Submits a change and does it at once, because nobody has to be told when it is committed.
    fn submit_unwaited(&self, effect: Effect) {
        if let Some(journal) = &self.journal {
            let change = effect.change(self.shared.clock.now());
            drop(Self::submit_to(journal, change, None));
        }
        self.shared.lock().commit(effect);
    }

    /// Acknowledges a message.
    pub(crate) fn ack(&self, reserved: Reserved) -> Pending {
        self.submit(Effect::Ack(reserved))
    }

    /// Ends a lease, so that its message can be acknowledged, released or unreserved.
    ///
    /// # Errors
    /// [`QueueError::NoLease`].
    pub(crate) fn claim(&self, token: Token) -> Result<Reserved, QueueError> {
        let mut state = self.shared.lock();
        state.end_lease(token).ok_or(QueueError::NoLease)
    }

    /// Makes a lease expire later, or earlier.
    ///
    /// # Errors
    /// [`QueueError::NoLease`].
    pub(crate) fn extend(&self, token: Token, lease: Duration) -> Result<Pending, QueueError> {
        let expires_at = self.shared.clock.after(lease);
        match &self.journal {
            None => match self.shared.lock().extend(token, expires_at) {
                Some(_) => Ok(Pending::Done(Outcome::Done(1))),
                None => Err(QueueError::NoLease),
            },
            // The writer thread does it, so that there is one order in memory and on the disk.
            Some(journal) => {
                let change = Change::Extend(Lease { token, expires_at });
                Ok(Self::submit_to(journal, change, None))
            }
        }
    }

    /// Releases a message: it goes to the end of its queue after a delay, or to the dead
    /// letters if it was handed out too often.
    pub(crate) fn release(&self, reserved: Reserved, delay: Duration) -> Pending {
        self.shared.lock().common.totals.released += 1;
        self.submit(self.move_on(reserved, Some(delay)))
    }

    /// Unreserves a message that its receiver could not begin with: it goes to its old position, and
    /// the attempt does not count.
    pub(crate) fn unreserve(&self, mut reserved: Reserved) -> Pending {
        self.shared.lock().common.totals.released += 1;
        let attempts = &mut reserved.message.attempts;
        *attempts = attempts.saturating_sub(1);
        self.submit(Self::move_back(reserved))
    }

    /// Requeues a message because the server stops. The attempt counts, but it does not make the
    /// message a dead letter.
    pub(crate) fn requeue_at_stop(&self, reserved: Reserved) {
        self.shared.lock().common.totals.requeued += 1;
        self.submit_unwaited(Self::move_back(reserved));
    }

    /// Requeues a message because its receiver is gone or its lease expired: it goes to its old
    /// position, or to the dead letters if it was handed out too often. Nobody waits until the disk
    /// knows of the attempt.
    pub(crate) fn requeue(&self, reserved: Reserved) {
        log::debug!("Message {} is requeued", reserved.message.id);
        self.shared.lock().common.totals.requeued += 1;
        self.submit_unwaited(self.move_on(reserved, None));
    }

    /// Moves a message to where it belongs now: to the dead letters, to its old position, or to the end
    /// after a delay.
    fn move_on(&self, reserved: Reserved, delay: Option<Duration>) -> Effect {
        let attempts = reserved.message.attempts;
        let is_dead_letter = reserved.queue.ends_with(QueueName::DEAD_SUFFIX);
        if attempts >= self.shared.limits.attempts_max && !is_dead_letter {
            let dead = format!("{}{}", reserved.queue, QueueName::DEAD_SUFFIX);
            let id = reserved.message.id;
            log::warn!("Message {id} was handed out {attempts} times and goes to {dead}");
            self.shared.lock().common.totals.dead_lettered += 1;
            return self.move_to_end(reserved, dead.into());
        }
        match delay {
            None => Self::move_back(reserved),
            Some(delay) => Effect::Move {
                queue: Arc::clone(&reserved.queue),
                position: (reserved.message.position).at(self.shared.clock.moment_after(delay)),
                is_delayed: !delay.is_zero(),
                reserved,
            },
        }
    }

    fn move_back(reserved: Reserved) -> Effect {
        let position = reserved.message.position;
        let queue = Arc::clone(&reserved.queue);
        Self::move_to(reserved, queue, position)
    }

    fn move_to_end(&self, reserved: Reserved, queue: Arc<str>) -> Effect {
        let position = reserved.message.position;
        Self::move_to(
            reserved,
            queue,
            position.at(self.shared.clock.next_moment()),
        )
    }

    fn move_to(reserved: Reserved, queue: Arc<str>, position: Position) -> Effect {
        Effect::Move {
            reserved,
            queue,
            position,
            is_delayed: false,
        }
    }

    /// Waits for the outcome of a change.
    ///
    /// # Errors
    /// [`QueueError::NotStored`]. Its message then stays leased if it was, and goes back to its
    /// position if not.
    pub(crate) fn wait(&self, pending: Pending) -> Result<Outcome, QueueError> {
        match pending {
            Pending::Done(outcome) => Ok(outcome),
            Pending::Submitted(commit, effect) => self.shared.conclude(effect, commit.wait()),
        }
    }

    /// Waits for several changes, and counts them.
    ///
    /// # Errors
    /// [`QueueError::NotStored`] if one of them is not; all are waited for.
    pub(crate) fn wait_for_all(&self, pending: Vec<Pending>) -> Result<u64, QueueError> {
        let count = pending.len() as u64;
        let waited = pending.into_iter().map(|one| self.wait(one).map(drop));
        waited.fold(Ok(()), Result::and).map(|()| count)
    }

    /// Starts the lease of a message, after the reply is written that hands it out.
    pub(crate) fn start_lease(&self, reserved: Reserved) {
        self.shared.lock().common.start_lease(reserved);
    }

    /// Has `encode` make a reply of the outcome of a change, and `send` send it. The writer thread
    /// calls them when the change is committed.
    pub(crate) fn on_complete<R>(
        &self,
        pending: Pending,
        encode: impl FnOnce(Result<&Outcome, &QueueError>) -> R + Send + 'static,
        send: impl FnOnce(R) + Send + 'static,
    ) {
        let complete = |shared: &Shared, result: Result<Outcome, QueueError>| {
            let reply = encode(result.as_ref());
            if let Ok(Outcome::Reserved(leased)) = result {
                shared.lock().common.start_lease(leased);
            }
            send(reply);
        };
        match pending {
            Pending::Done(outcome) => complete(&self.shared, Ok(outcome)),
            Pending::Submitted(commit, effect) => {
                let shared = Arc::clone(&self.shared);
                commit.on_complete(move |applied| {
                    let result = shared.conclude(effect, applied);
                    complete(&shared, result);
                });
            }
        }
    }

    /// Waits for a message of this queue; `None` if there is one.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub(crate) fn add_waiter(
        &self,
        queue: QueueName,
        waiter: Arc<dyn Wake>,
    ) -> Result<Option<Waiter<'_>>, QueueError> {
        Waiter::new(&self.shared, queue, waiter)
    }
}

#[cfg(test)]
mod tests;
