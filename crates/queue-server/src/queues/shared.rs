//! What connections, the timer and the journal share: the state behind its lock, the clock, the limits.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use proto::queue::{MessageId, Token};
use uuid::Uuid;

use super::state::{Limits, State};
use crate::authority::Authority;
use crate::clock::{Clock, Micros};
use crate::error::QueueError;
use crate::journal::{LiveQueues, Row};
use crate::keys::{Acked, Holder, Keyed};
use crate::memory::Memory;
use crate::message::{Arriving, Lease, Reserved};
use crate::sessions::{Answered, Sessions};
use crate::totals::CountsByName;

/// Whether the server is shutting down.
pub(crate) type IsStopping = Box<dyn Fn() -> bool + Send + Sync>;

/// What connections, the timer and the journal share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) memory: Arc<Memory>,
    pub(crate) sessions: Sessions,
    /// `None` if no other server can have the queues.
    pub(super) authority: Option<Arc<Authority>>,
    state: Mutex<State>,
    /// Whose the ids are that are given in memory, and end with the server.
    pub(super) epoch: u64,
    /// How many connections have had a number.
    holders: AtomicU64,
    /// Something is due earlier than it was.
    due_earlier: Condvar,
    /// Set when the server begins to serve.
    pub(super) is_stopping: OnceLock<IsStopping>,
}

impl Shared {
    /// No messages.
    pub(super) fn new(limits: Limits, clock: Clock, authority: Option<Arc<Authority>>) -> Self {
        let memory = Memory::new(limits.memory_bytes_max);
        Self {
            state: Mutex::new(State::new(limits.clone(), Arc::clone(&memory))),
            clock,
            sessions: Sessions::new(&memory),
            memory,
            authority,
            limits,
            // 0 is that of the ids that a database gives.
            epoch: Uuid::new_v4().as_u64_pair().1,
            holders: AtomicU64::new(0),
            due_earlier: Condvar::new(),
            is_stopping: OnceLock::new(),
        }
    }

    /// Whether no other server can have taken the queues over.
    pub(super) fn has_authority(&self) -> bool {
        self.authority.as_deref().is_none_or(Authority::is_valid)
    }

    /// A number for a connection, which no other has.
    pub(super) fn next_holder(&self) -> u64 {
        self.holders.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Locks the state, also after a thread has panicked under the lock.
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked {
            guard: Some(self.state.lock().unwrap_or_else(PoisonError::into_inner)),
            due_earlier: &self.due_earlier,
        }
    }
}

/// The locked state. Dropping it releases the lock, and then wakes the waiters for which there is a message.
pub(super) struct Locked<'s> {
    /// `None` while it is dropped.
    guard: Option<MutexGuard<'s, State>>,
    due_earlier: &'s Condvar,
}

impl Locked<'_> {
    /// Releases the lock until something is due earlier than it was, or `wait` is over.
    pub(super) fn wait_until_due(mut self, wait: Option<Duration>) {
        let Some(guard) = self.guard.take() else {
            return;
        };
        match wait {
            Some(wait) => drop(self.due_earlier.wait_timeout(guard, wait)),
            None => drop(self.due_earlier.wait(guard)),
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.guard
            .as_ref()
            .expect("it is there until it is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.guard
            .as_mut()
            .expect("it is there until it is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Some(mut state) = self.guard.take() else {
            return;
        };
        let woken = std::mem::take(&mut state.common.woken);
        let is_due_earlier = state.common.schedule.must_wake();
        drop(state);
        if is_due_earlier {
            self.due_earlier.notify_all();
        }
        woken.iter().for_each(|waiter| waiter.wake());
    }
}

impl LiveQueues for Shared {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn is_serving(&self) -> bool {
        self.is_stopping.get().is_some()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping
            .get()
            .is_some_and(|is_stopping| is_stopping())
    }

    fn restore(&self, found: Reserved, is_delayed: bool) {
        self.lock().restore(found, is_delayed, &self.clock);
    }

    fn arrived(&self, messages: Vec<Arriving>) {
        self.lock().arrived(messages);
    }

    fn refused(&self, messages: Vec<Arriving>) {
        self.lock().refused(messages);
    }

    fn extend(&self, token: Token, expires_at: Micros) -> Option<(Row, Micros)> {
        let mut state = self.lock();
        let (queue, message, before) = state.extend(token, expires_at)?;
        let lease = Lease { token, expires_at };
        let row = Row::new(queue, message, false, Some(lease), self.clock.now());
        Some((row, before))
    }

    fn claim_key(
        &self,
        queue: &Arc<str>,
        keyed: &Arc<Keyed>,
        id: MessageId,
    ) -> Result<Holder, QueueError> {
        let now = self.clock.now();
        self.lock().common.keys.claim(queue, keyed, id, now)
    }

    fn restore_key(&self, found: &Acked) {
        let now = self.clock.now();
        self.lock().common.keys.restore(found, now);
    }

    fn restore_answer(&self, found: &Answered) {
        self.sessions.restore(found, self.clock.now());
    }

    fn may_repeat(&self, answered: &Answered) -> bool {
        self.sessions.may_repeat(answered.session, answered.number)
    }

    fn answers_max(&self) -> usize {
        self.sessions.answers_max()
    }

    fn counts(&self) -> CountsByName {
        let counts = self.lock().counts();
        counts.sum()
    }

    fn restore_counts(&self, counts: &CountsByName) {
        let mut state = self.lock();
        for (queue, counts) in counts.iter() {
            state.common.past.add(queue, *counts);
        }
    }

    fn pause(&self, queue: &Arc<str>, is_paused: bool) {
        self.lock().pause(queue, is_paused);
    }
}
