//! All queues of a server: the rules of handing out, giving back and forgetting, with no socket in
//! sight.
//!
//! With a database, a change counts when it is committed. That takes a while, so every change comes
//! in two steps: it is begun, and [`Queues::finish`] waits for it, or [`Queues::finish_later`] has it
//! finished by the thread that commits. What is begun in the meantime shares the commit. A message that
//! is [`Taken`] is in no queue, so nobody else can change it, and the database hears of its changes in
//! their order.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Handle, lock};
use proto::queue::{QueueName, Reply, Token};
use storage::{Committer, Fsync, Pending, StorageError};

use crate::begun::{Begun, Effect};
use crate::journal::{Asked, Change, Journal, Opened, Row};
use crate::memory::Room;
use crate::message::{Clock, Message, Place, Taken};
use crate::shared::{Shared, wake};
use crate::state::Limits;
use crate::{Error, QueueError};

/// Any number of queues that any number of threads may use at once.
pub struct Queues {
    pub(crate) shared: Arc<Shared>,
    writer: Option<Committer<Journal>>,
}

impl Queues {
    /// No messages, and nothing is kept on a disk.
    pub fn in_memory(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared::new(limits, Clock::new())),
            writer: None,
        }
    }

    /// The queues that are kept in a database, which is made if it does not exist. `on_failure` is
    /// called when the disk fails in a way that leaves open what is on it.
    ///
    /// # Errors
    /// If the database is in use, cannot be opened, or is not one of ours.
    pub fn open(
        path: &Path,
        limits: Limits,
        fsync: Fsync,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let database = Opened::open(path, fsync)?;
        let shared = Arc::new(Shared::new(limits, database.clock()));
        let journal = database.load(path, Arc::clone(&shared))?;
        let writer = Committer::start("journal", journal, on_failure);
        Ok(Self {
            shared,
            writer: Some(writer?),
        })
    }

    /// From now on, somebody may be told that something is stored: the database stays, though it may
    /// have been made just now.
    pub(crate) fn serve(&self, server: Handle) {
        // Nobody else has set it.
        let _ = self.shared.server.set(server);
    }

    /// The longest message, in bytes.
    pub fn body_bytes_max(&self) -> usize {
        self.shared.limits.body_bytes_max
    }

    /// Whether changes have to be waited for.
    pub fn is_durable(&self) -> bool {
        self.writer.is_some()
    }

    /// Why the disk failed in a way that leaves open what is on it, if it did. Tells it once.
    pub fn failure(&self) -> Option<StorageError> {
        self.writer.as_ref()?.failure()
    }

    pub(crate) fn begin(&self, change: impl FnOnce() -> Change, effect: Effect) -> Begun {
        let asked = || Asked {
            change: change(),
            since: Instant::now(),
        };
        let ticket = self.writer.as_ref().map(|writer| writer.submit(asked()));
        Begun { ticket, effect }
    }

    /// Puts a message at the end of a queue, after a delay.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`], [`QueueError::Draining`], and those of a full queue or server.
    pub fn send(
        &self,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
    ) -> Result<Begun, QueueError> {
        let mut none = Room::new(&self.shared.memory);
        self.send_from(&mut none, queue, delay, body)
    }

    /// The same, with a body that has room already: that is given back when the message may need it,
    /// and not before, so that others do not read more meanwhile than the account has room for.
    ///
    /// # Errors
    /// As [`Queues::send`].
    pub(crate) fn send_from(
        &self,
        room: &mut Room,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
    ) -> Result<Begun, QueueError> {
        let shared = &*self.shared;
        shared.check_length(body)?;
        // Others do not wait for the copy.
        let message = Message::new(body);
        if self.writer.is_some() {
            let message = message.with_checksum();
            let mut state = lock(&shared.state);
            room.clear();
            let name = state.admit(queue, &message, &shared.limits)?;
            drop(state);
            let message = message.counted(&shared.memory);
            let change = || Change::Insert(name, message, delay);
            return Ok(self.begin(change, Effect::Store(0)));
        }
        let mut state = lock(&shared.state);
        room.clear();
        let (id, wakeup) = shared.store(&mut state, queue, delay, message)?;
        drop(state);
        wake(wakeup);
        Ok(Begun {
            ticket: None,
            effect: Effect::Store(id),
        })
    }

    /// Takes the oldest message; `None` if there is none.
    ///
    /// # Errors
    /// [`QueueError::Paused`].
    pub fn reserve(&self, queue: QueueName) -> Result<Option<Taken>, QueueError> {
        lock(&self.shared.state).reserve(queue)
    }

    /// Puts a message back that was not handed out after all.
    pub fn untake(&self, taken: Taken) {
        self.shared.untake(taken);
    }

    /// Begins to forget a message.
    pub fn forget(&self, taken: Taken) -> Begun {
        let (id, bytes) = (taken.message.id, taken.message.cost());
        self.begin(|| Change::Delete(id, bytes), Effect::Forget(taken))
    }

    /// Begins to forget a message that is handed out with that.
    pub fn deliver(&self, taken: Taken) -> Begun {
        let (id, bytes) = (taken.message.id, taken.message.cost());
        self.begin(|| Change::Delete(id, bytes), Effect::Deliver(taken))
    }

    /// Begins to lease a message.
    pub fn lease(&self, mut taken: Taken, lease: Duration) -> Begun {
        taken.lease = Some((Token::new_v4(), self.shared.clock.after(lease)));
        let row = Row::of(&taken, self.shared.clock.now());
        self.begin(|| Change::Update(row), Effect::Lease(taken))
    }

    /// Takes a message that is leased.
    ///
    /// # Errors
    /// [`QueueError::NoLease`].
    pub fn claim(&self, token: Token) -> Result<Taken, QueueError> {
        let mut state = lock(&self.shared.state);
        state.end_lease(token).ok_or(QueueError::NoLease)
    }

    /// Begins to make a lease run out later, or earlier.
    ///
    /// # Errors
    /// [`QueueError::NoLease`].
    pub fn extend(&self, token: Token, lease: Duration) -> Result<Begun, QueueError> {
        let until = self.shared.clock.after(lease);
        if self.writer.is_none() {
            let extended = self.shared.extend(token, until, |_, _| ());
            extended.ok_or(QueueError::NoLease)?;
        }
        // With a database the writer does it, so that there is one order in memory and on the disk.
        Ok(self.begin(|| Change::Extend(token, until), Effect::None))
    }

    /// Begins to give a message back on purpose: it goes to the end of its queue after a delay, or
    /// to the dead if it was handed out too often.
    pub fn release(&self, taken: Taken, delay: Duration) -> Begun {
        lock(&self.shared.state).totals.released += 1;
        self.put_back(taken, Some(delay))
    }

    /// Begins to give a message back that its holder could not begin with: it goes to its old place,
    /// and the attempt does not count.
    pub fn unreserve(&self, mut taken: Taken) -> Begun {
        lock(&self.shared.state).totals.released += 1;
        taken.message.attempts = taken.message.attempts.saturating_sub(1);
        self.move_to_old_place(taken)
    }

    /// Gives a message back because the server stops: it goes to its old place, and whoever is
    /// handed it next is told that this is one more attempt; but it does not die of that.
    pub(crate) fn give_back_at_stop(&self, taken: Taken) {
        lock(&self.shared.state).totals.requeued += 1;
        self.finish_unwaited(self.move_to_old_place(taken));
    }

    /// Gives a message back whose holder is gone: it goes to its old place, or to the dead if it
    /// was handed out too often. Whether the disk knows that it was handed out does not matter
    /// enough to be waited for.
    pub fn give_back(&self, taken: Taken) {
        log::debug!("Message {} goes back to the queue", taken.message.id);
        lock(&self.shared.state).totals.requeued += 1;
        self.finish_unwaited(self.put_back(taken, None));
    }

    /// Finishes a change before it is committed.
    fn finish_unwaited(&self, mut begun: Begun) {
        begun.ticket = None;
        // Without a ticket nothing can fail.
        let _ = self.finish(begun, |_| {});
    }

    /// Begins to put a message where it belongs now: to its old place, or to the end after a delay.
    fn put_back(&self, taken: Taken, delay: Option<Duration>) -> Begun {
        let is_dead = QueueName::new(&taken.queue).is_ok_and(QueueName::is_dead);
        let attempts_max = self.shared.limits.attempts_max;
        if taken.message.attempts >= attempts_max && !is_dead {
            let dead = format!("{}{}", taken.queue, QueueName::DEAD_SUFFIX);
            log::warn!(
                "Message {} was handed out {} times and goes to {dead}",
                taken.message.id,
                taken.message.attempts
            );
            lock(&self.shared.state).totals.dead_lettered += 1;
            return self.move_to_end(taken, dead.into());
        }
        let Some(delay) = delay else {
            return self.move_to_old_place(taken);
        };
        let queue = Arc::clone(&taken.queue);
        let place = self.shared.clock.place_after(delay);
        self.move_to(taken, queue, place, !delay.is_zero())
    }

    /// Begins to put a message where it was.
    fn move_to_old_place(&self, taken: Taken) -> Begun {
        let queue = Arc::clone(&taken.queue);
        let place = taken.message.place;
        self.move_to(taken, queue, place, false)
    }

    /// Begins to move a message to the end of a queue.
    pub(crate) fn move_to_end(&self, taken: Taken, queue: Arc<str>) -> Begun {
        let place = self.shared.clock.next_place();
        self.move_to(taken, queue, place, false)
    }

    /// Begins to move a message, which keeps its lease and its place until that is committed.
    fn move_to(&self, taken: Taken, queue: Arc<str>, place: Place, is_delayed: bool) -> Begun {
        let now = self.shared.clock.now();
        let row = Row::moved(&taken.message, &queue, place, is_delayed, now);
        let effect = Effect::Move {
            taken,
            queue,
            place,
            is_delayed,
        };
        self.begin(|| Change::Update(row), effect)
    }

    /// Waits until a change is committed, and hands what came of it to `with`.
    ///
    /// # Errors
    /// [`QueueError::NotStored`]; the message then stays leased if it was, and goes back to its
    /// place in the queue if not.
    pub fn finish<R>(&self, begun: Begun, with: impl FnOnce(Reply) -> R) -> Result<R, QueueError> {
        let committed = begun.ticket.map(Pending::wait).transpose();
        let shared = &self.shared;
        shared.finish(begun.effect, committed, |outcome| outcome.map(with))
    }

    /// Has a change finished by whoever commits it. What came of it is handed to `with`, and what
    /// that makes of it to `then`, when nothing more remains to be done.
    pub fn finish_later<R>(
        &self,
        begun: Begun,
        with: impl FnOnce(Result<Reply, QueueError>) -> R + Send + 'static,
        then: impl FnOnce(R) + Send + 'static,
    ) {
        let Begun { ticket, effect } = begun;
        let shared = Arc::clone(&self.shared);
        match ticket {
            Some(ticket) => {
                ticket.on_complete(move |committed| {
                    then(shared.finish(effect, committed.map(Some), with));
                });
            }
            None => then(shared.finish(effect, Ok(None), with)),
        }
    }
}

#[cfg(test)]
mod tests;
