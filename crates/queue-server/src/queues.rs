//! All queues of a server: handing messages out, acknowledging and requeueing them.
//!
//! A change counts when it is committed. Every change is [`Prepared`], and then a [`Pending`], when
//! [`Queues::submit`] has given it to the journal: [`Queues::wait`] waits for its commit, and
//! [`Queues::on_complete`] has the writer thread tell its outcome. Changes that are submitted meanwhile
//! share the commit. A message that is [`Reserved`] is in no queue, so nobody else can change it, and the
//! journal hears of its changes in their order.
//!
//! [`state`] is the rules, [`queue`] the order in one queue, [`operation`] what is asked and its
//! outcome, [`pending`] the change between the two, [`requeue`] what becomes of a message that was not
//! acknowledged, [`reservations`] who has a reserved one, [`waiters`] who waits for a message, [`manage`] what
//! concerns whole queues and [`one`] what an operator does to one message, [`schedule`] what is due and
//! [`due`] what the timer does then, [`figures`] what can be looked at, [`shared`] the lock around all of it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::queue::{Delivery, Properties, QueueName, QueueNames, Token};
use storage::{CommitFigures, Committer, Fsync, StorageError};

use crate::clock::Clock;
use crate::error::{Error, QueueError};
use crate::journal::{Change, Journal, LiveQueues, Opened};
use crate::keys::Sender;
use crate::memory::{Memory, Room};
use crate::message::{Lease, Message, Reserved};

#[cfg(feature = "postgres")]
mod authority;
mod due;
mod figures;
mod held_keys;
mod manage;
mod one;
mod operation;
mod pending;
mod queue;
mod requeue;
mod reservations;
mod schedule;
mod shared;
mod state;
mod submit;
mod waiters;
mod why;

pub(crate) use figures::{Figures, Peeked, Stats};
pub(crate) use operation::{Handout, Operation, Outcome, Receive};
pub(crate) use pending::{Pending, Prepared};
pub(crate) use queue::Wake;
pub(crate) use requeue::CONNECTION_ENDED;
pub(crate) use reservations::Reservations;
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
            shared: Arc::new(Shared::new(limits, Clock::new(), None)),
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
        Self::load(Opened::sqlite(path, fsync)?, limits, on_failure)
    }

    /// The queues of a database that is open. `on_failure` is called when a commit is lost.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn load(
        database: Opened,
        limits: Limits,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(limits, database.clock(), database.authority()));
        let journal = database.load(Arc::clone(&shared) as _)?;
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

    /// Whose the ids of the messages are: within one epoch none is given twice.
    pub(crate) fn epoch(&self) -> u64 {
        match self.journal {
            Some(_) => 0,
            None => self.shared.epoch,
        }
    }

    /// Why the disk failed so that it is not known what is on it, if it did. Tells it once.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.journal.as_ref()?.failure()
    }

    /// What was measured of the commits; `None` in memory.
    pub(crate) fn commit_figures(&self) -> Option<&CommitFigures> {
        self.journal.as_ref().map(Committer::figures)
    }

    /// The operation that puts a message at the end of a queue.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`].
    pub(crate) fn send_operation(
        &self,
        sender: &Sender,
        body: &[u8],
        properties: &Properties,
    ) -> Result<Operation, QueueError> {
        let body_bytes_max = self.body_bytes_max();
        if body.len() > body_bytes_max {
            return Err(QueueError::TooLarge {
                body_bytes: body.len(),
                body_bytes_max,
            });
        }
        let mut message = Message::new(body, properties, sender);
        if properties.expiry_millis > 0 {
            let expires_at = self.shared.clock.after(millis(properties.expiry_millis));
            message.change_extras(|extras| extras.expires_at = Some(expires_at));
        }
        let message = match self.journal {
            Some(_) => message.with_checksum(),
            None => message,
        };
        Ok(Operation::Send(message, millis(properties.delay_millis)))
    }

    /// Puts a message at the end of a queue, after a delay.
    ///
    /// The frame with the body may be on the account already. It is freed when the message is counted, and
    /// not before, so that other connections do not read more meanwhile than there is room for.
    ///
    /// # Errors
    /// Those of [`Queues::send_operation`], [`QueueError::Draining`], those of a full queue or server, and those of
    /// the message's key.
    pub(crate) fn send(
        &self,
        sender: &Sender,
        queue: QueueName,
        properties: &Properties,
        body: &[u8],
        room: Option<&mut Room>,
    ) -> Result<Prepared, QueueError> {
        let send = self.send_operation(sender, body, properties)?;
        if let Some(room) = room {
            room.clear();
        }
        self.act(queue, send)
    }

    /// Hands out the oldest message of the first of these queues that has one, if its body is at most this
    /// long.
    ///
    /// # Errors
    /// [`QueueError::Paused`], if one of them is paused and the others are empty; [`QueueError::TooLong`].
    pub(crate) fn receive(
        &self,
        queues: &QueueNames,
        delivery: Delivery,
        body_bytes_max: usize,
    ) -> Result<Prepared, QueueError> {
        // The token is made here because nobody waits for that.
        let handout = Handout::new(delivery, &self.shared.clock);
        let is_kept = matches!(handout, Handout::Reserve(_));
        if is_kept && !self.shared.memory.has_room_to_reserve() {
            return Err(self.shared.memory.full());
        }
        let mut nothing = Ok(Prepared::Done(Outcome::Empty));
        for (queue_index, queue) in (0..).zip(queues.iter()) {
            let receive = Receive {
                handout,
                body_bytes_max,
                queue_index,
            };
            match self.act(queue, Operation::Receive(receive)) {
                Ok(Prepared::Done(Outcome::Empty)) => {}
                Err(error @ QueueError::Paused(_)) => nothing = nothing.and(Err(error)),
                received => return received,
            }
        }
        nothing
    }

    /// A batch of one operation.
    fn act(&self, queue: QueueName, operation: Operation) -> Result<Prepared, QueueError> {
        if self.journal.is_none() {
            let sends = usize::from(operation.is_send());
            let (mut batch, mut outcome) = (Some(operation), Ok(Outcome::Empty));
            let done = |one| outcome = one;
            self.act_at_once(queue, sends, usize::MAX, || batch.take(), done);
            return outcome.map(Prepared::Done);
        }
        self.prepare(queue, operation)
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
        if self.journal.is_none() {
            let sends = batch.iter().filter(|one| one.is_send()).count();
            let push = |outcome| done.push(outcome);
            return self.act_at_once(queue, sends, bytes_max, || batch.pop_front(), push);
        }
        let submit = |operation| {
            let prepared = self.prepare(queue, operation)?;
            Ok(self.submit(prepared, None))
        };
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
        let now = clock.now();
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
                    match entry.claim_key(&message, now) {
                        Ok(None) => {}
                        Ok(Some(id)) => {
                            done(Ok(Outcome::StoredBefore(id)));
                            continue;
                        }
                        Err(error) => {
                            done(Err(error));
                            continue;
                        }
                    }
                    let admitted = entry.admit(message.cost_while(is_delayed));
                    if admitted.is_err() {
                        entry.release_key(&message);
                    }
                    admitted.map(|()| {
                        let position = message.position.at(moment);
                        let message = Message {
                            position,
                            ..message
                        };
                        Outcome::Stored(entry.arrive_unnumbered(message, is_delayed))
                    })
                }
                (Operation::Receive(receive), Some(entry)) => {
                    let reserved = entry.reserve(receive.body_bytes_max);
                    reserved.map(|message| match message {
                        None => Outcome::Empty,
                        Some(message) => {
                            bytes += message.body.len();
                            entry.hand_out(message, receive, now)
                        }
                    })
                }
            });
        }
        state.remove_if_unused(queue.as_str());
    }

    /// Does the first half of an operation, with a database.
    fn prepare(&self, queue: QueueName, operation: Operation) -> Result<Prepared, QueueError> {
        let shared = &*self.shared;
        match operation {
            Operation::Send(message, delay) => {
                let mut state = shared.lock();
                if let Some(id) = state.key_holder(queue, &message, self.now())? {
                    return Ok(Prepared::Done(Outcome::StoredBefore(id)));
                }
                let name = state.admit(queue, message.cost_while(!delay.is_zero()))?;
                drop(state);
                let change = Change::Insert(name, message.counted(&shared.memory), delay);
                Ok(Prepared::Change(change, None))
            }
            Operation::Receive(receive) => {
                if !shared.has_authority() {
                    return Err(QueueError::Standby);
                }
                let reserved = shared.lock().reserve(queue, receive)?;
                let Some(mut reserved) = reserved else {
                    return Ok(Prepared::Done(Outcome::Empty));
                };
                Ok(match receive.handout {
                    Handout::AtMostOnce => self.prepared(Effect::Deliver(reserved)),
                    Handout::Reserve(None) => Prepared::Done(Outcome::Reserved(reserved)),
                    Handout::Reserve(lease) => {
                        reserved.lease = lease;
                        self.prepared(Effect::Lease(reserved))
                    }
                })
            }
        }
    }

    /// Acknowledges a message.
    pub(crate) fn ack(&self, reserved: Reserved) -> Prepared {
        self.prepared(Effect::Ack(reserved))
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
    pub(crate) fn extend(&self, token: Token, lease: Duration) -> Result<Prepared, QueueError> {
        let expires_at = self.shared.clock.after(lease);
        match &self.journal {
            None => match self.shared.lock().extend(token, expires_at) {
                Some(_) => Ok(Prepared::Done(Outcome::Done(1))),
                None => Err(QueueError::NoLease),
            },
            // The writer thread does it, so that there is one order in memory and on the disk.
            Some(_) => {
                let change = Change::Extend(Lease { token, expires_at });
                Ok(Prepared::Change(change, None))
            }
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
            Pending::Submitted(commit, effect, stamp) => {
                self.shared.conclude(effect, stamp, commit.wait())
            }
        }
    }

    /// Submits a change of no session, and waits for its outcome.
    ///
    /// # Errors
    /// As [`Queues::wait`].
    pub(crate) fn carry_out(&self, prepared: Prepared) -> Result<Outcome, QueueError> {
        self.wait(self.submit(prepared, None))
    }

    /// Submits several changes, waits for them, and counts them.
    ///
    /// # Errors
    /// [`QueueError::NotStored`] if one of them is not; all are waited for.
    pub(crate) fn wait_for_all(&self, prepared: Vec<Prepared>) -> Result<u64, QueueError> {
        let count = prepared.len() as u64;
        // All are submitted before the first is waited for, so that they share a commit.
        let submit = |one| self.submit(one, None);
        let pending: Vec<_> = prepared.into_iter().map(submit).collect();
        let waited = pending.into_iter().map(|one| self.wait(one).map(drop));
        waited.fold(Ok(()), Result::and).map(|()| count)
    }

    /// Starts the lease of a message, after the reply is written that hands it out.
    pub(crate) fn start_lease(&self, reserved: Reserved) {
        self.shared.lock().start_lease(reserved);
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
                shared.lock().start_lease(leased);
            }
            send(reply);
        };
        match pending {
            Pending::Done(outcome) => complete(&self.shared, Ok(outcome)),
            Pending::Submitted(commit, effect, stamp) => {
                let shared = Arc::clone(&self.shared);
                commit.on_complete(move |applied| {
                    let result = shared.conclude(effect, stamp, applied);
                    complete(&shared, result);
                });
            }
        }
    }

    /// Waits for a message of any of these queues; `None` if there is one.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub(crate) fn add_waiter(
        &self,
        queues: &QueueNames,
        waiter: Arc<dyn Wake>,
    ) -> Result<Option<Waiter<'_>>, QueueError> {
        Waiter::new(&self.shared, queues, waiter)
    }
}

/// A duration as requests have it.
pub(crate) fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

#[cfg(test)]
mod tests;
