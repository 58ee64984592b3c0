//! What the queues and the writer of their database share: the state, its clock and its limits.

use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use daemon::{Handle, Wakeup, lock};
use proto::queue::{MessageId, QueueName, Token};

use crate::QueueError;
use crate::memory::Memory;
use crate::message::{Arriving, Clock, Message, Place, Taken};
use crate::state::{Limits, State};

/// What the queues and the writer of their database share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) memory: Arc<Memory>,
    pub(crate) state: Mutex<State>,
    /// Something is due earlier than it was.
    pub(crate) due_earlier: Condvar,
    /// The server, from when on anybody may have been told that something is stored.
    pub(crate) server: OnceLock<Handle>,
}

/// Wakes whoever is to be woken, if anybody is.
pub(crate) fn wake(wakeup: Option<Arc<Wakeup>>) {
    if let Some(wakeup) = wakeup {
        wakeup.wake();
    }
}

impl Shared {
    /// No messages.
    pub(crate) fn new(limits: Limits, clock: Clock) -> Self {
        let memory = Memory::new(limits.memory_bytes_max);
        Self {
            clock,
            state: Mutex::new(State::new(Arc::clone(&memory))),
            memory,
            limits,
            due_earlier: Condvar::new(),
            server: OnceLock::new(),
        }
    }

    /// Whether the server ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.server.get().is_some_and(Handle::is_stopping)
    }

    pub(crate) fn check_length(&self, body: &[u8]) -> Result<(), QueueError> {
        let body_bytes_max = self.limits.body_bytes_max;
        match body.len() {
            body_bytes if body_bytes > body_bytes_max => Err(QueueError::TooLarge {
                body_bytes,
                body_bytes_max,
            }),
            _ => Ok(()),
        }
    }

    /// Puts a message at the end of a queue, where there is no database. Returns its id, and who is
    /// to be woken.
    pub(crate) fn store(
        &self,
        state: &mut State,
        queue: QueueName,
        delay: Duration,
        message: Message,
    ) -> Result<(MessageId, Option<Arc<Wakeup>>), QueueError> {
        let name = state.admit(queue, &message, &self.limits)?;
        let mut message = message.counted(&self.memory);
        message.id = state.next_id;
        message.place = self.clock.place_after(delay);
        state.next_id += 1;
        let id = message.id;
        let wakeup = self.arrive(state, &name, message, !delay.is_zero());
        Ok((id, wakeup))
    }

    /// Puts a message that was counted by [`State::admit`] into its queue. Returns who is to be
    /// woken.
    pub(crate) fn arrive(
        &self,
        state: &mut State,
        name: &Arc<str>,
        message: Message,
        is_delayed: bool,
    ) -> Option<Arc<Wakeup>> {
        state.totals.sent += 1;
        state.queue(name).arriving -= 1;
        self.put(state, name, message, is_delayed)
    }

    /// Puts committed messages into their queues.
    pub(crate) fn arrived(&self, messages: Vec<Arriving>) {
        let mut state = lock(&self.state);
        let wakeups: Vec<_> = messages
            .into_iter()
            .filter_map(|(name, message, is_delayed)| {
                self.arrive(&mut state, &name, message, is_delayed)
            })
            .collect();
        drop(state);
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
    }

    /// Takes messages off the account that could not be committed.
    pub(crate) fn refused(&self, messages: Vec<Arriving>) {
        let mut state = lock(&self.state);
        for (name, message, _) in messages {
            self.memory.give(message.own_cost());
            let queue = state.queue(&name);
            queue.arriving -= 1;
            queue.bytes -= message.cost();
            state.remove_if_unused(&name);
        }
    }

    /// Counts and puts a message in that was found in the database.
    pub(crate) fn restore(&self, found: Taken, is_delayed: bool) {
        let mut state = lock(&self.state);
        let cost = found.message.cost();
        self.memory.take_in_any_case(cost);
        let found = Taken {
            message: found.message.counted(&self.memory),
            ..found
        };
        let queue = state.queue(&found.queue);
        queue.bytes += cost;
        // What became due before the server ended has its place among the others already.
        let is_delayed = is_delayed && found.message.place > self.clock.now();
        if !is_delayed {
            self.clock.skip(found.message.place);
        }
        if found.lease.is_some() {
            queue.held += 1;
            return self.start_lease(&mut state, found);
        }
        self.put(&mut state, &found.queue, found.message, is_delayed);
    }

    /// Pauses or resumes a queue.
    pub(crate) fn pause(&self, name: &Arc<str>, is_paused: bool) {
        let wakeups = lock(&self.state).pause(name, is_paused);
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
    }

    /// Puts a message back that was not handed out after all.
    pub(crate) fn untake(&self, mut taken: Taken) {
        taken.message.attempts -= 1;
        lock(&self.state).totals.received -= 1;
        self.put_down(taken);
    }

    /// Puts a message into its place as it is.
    pub(crate) fn put_down(&self, taken: Taken) {
        let queue = Arc::clone(&taken.queue);
        self.put_down_in(taken, queue, false);
    }

    pub(crate) fn put_down_in(&self, taken: Taken, queue: Arc<str>, is_delayed: bool) {
        let mut state = lock(&self.state);
        let wakeup = self.settle(&mut state, taken, queue, is_delayed);
        drop(state);
        wake(wakeup);
    }

    pub(crate) fn put(
        &self,
        state: &mut State,
        name: &Arc<str>,
        message: Message,
        is_delayed: bool,
    ) -> Option<Arc<Wakeup>> {
        if !is_delayed {
            return state.queue(name).insert(message);
        }
        let due = message.place;
        let key = (due, message.id);
        state.due.insert((due, message.id, Arc::clone(name)));
        state.queue(name).delayed.insert(key, message);
        self.set_alarm(state, due);
        None
    }

    /// Puts a message that was taken into a queue, its own or another one.
    pub(crate) fn settle(
        &self,
        state: &mut State,
        taken: Taken,
        queue: Arc<str>,
        is_delayed: bool,
    ) -> Option<Arc<Wakeup>> {
        let cost = taken.message.cost();
        let from = state.queue(&taken.queue);
        from.held -= 1;
        from.bytes -= cost;
        state.queue(&queue).bytes += cost;
        let wakeup = self.put(state, &queue, taken.message, is_delayed);
        state.remove_if_unused(&taken.queue);
        wakeup
    }

    pub(crate) fn start_lease(&self, state: &mut State, taken: Taken) {
        if let Some((token, until)) = taken.lease {
            state.expiries.insert((until, token));
            state.leases.insert(token, taken);
            self.set_alarm(state, until);
        }
    }

    /// Has a lease run out at another time, if there is such a lease. Returns when it ran out before,
    /// and what `look` makes of the message at this moment.
    pub(crate) fn extend<R>(
        &self,
        token: Token,
        until: Place,
        look: impl FnOnce(&Taken, Place) -> R,
    ) -> Option<(Place, R)> {
        let mut state = lock(&self.state);
        let mut taken = state.end_lease(token)?;
        let (_, before) = taken.lease.replace((token, until))?;
        let seen = look(&taken, self.clock.now());
        self.start_lease(&mut state, taken);
        Some((before, seen))
    }

    /// Has a lease run out when it did before, if it is still there.
    pub(crate) fn undo_extend(&self, token: Token, before: Place) {
        let mut state = lock(&self.state);
        if let Some(mut taken) = state.end_lease(token) {
            taken.lease = Some((token, before));
            self.start_lease(&mut state, taken);
        }
    }

    pub(crate) fn set_alarm(&self, state: &mut State, due: Place) {
        if state.next_due.is_none_or(|next| due < next) {
            state.next_due = Some(due);
            self.due_earlier.notify_all();
        }
    }
}
