//! A session as the connection has it that named it last.

use std::sync::{Arc, MutexGuard};

use daemon::lock;

use super::session::{Seen, Session, Stamp, State};
use super::window::{NUMBER_MAX, Slot};
use crate::clock::Micros;
use crate::error::QueueError;
use crate::queues::Wake;

/// A session as its connection has it.
pub(crate) struct Attached {
    session: Arc<Session>,
    takeovers: u64,
    next: u64,
    /// No request from this number on was begun before.
    unknown: u64,
}

impl Attached {
    /// Takes over a session; the next request has this number.
    ///
    /// # Errors
    /// [`QueueError::TooManySessions`].
    pub(super) fn new(session: Arc<Session>, next: u64, now: Micros) -> Result<Self, QueueError> {
        let takeovers = session.take_over(now)?;
        Ok(Self {
            session,
            takeovers,
            next,
            unknown: NUMBER_MAX,
        })
    }

    /// Whether what the connection before has begun is done. Until then nothing may be begun; the connection
    /// is woken when it is, or when another takes the session over.
    ///
    /// # Errors
    /// [`QueueError::TakenOver`].
    pub(crate) fn is_idle(&mut self, waiting: Option<Arc<dyn Wake>>) -> Result<bool, QueueError> {
        let mut state = self.lock()?;
        let is_idle = state.begun == 0;
        if !is_idle {
            state.waiting = waiting;
        }
        let end = state.window.end();
        drop(state);
        self.unknown = self.next.max(end);
        Ok(is_idle)
    }

    /// The number of the next request. Each has one, also what only reads or is refused.
    pub(crate) fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Whether a request cannot have come before, and is none that is refused for its number.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        number >= self.unknown && number <= NUMBER_MAX
    }

    /// Begins a request.
    ///
    /// # Errors
    /// [`QueueError::TakenOver`]; [`QueueError::TooOld`].
    pub(crate) fn begin(&self, number: u64, now: Micros) -> Result<Seen, QueueError> {
        let state = self.lock()?;
        self.session.begin_in(state, number, now)
    }

    /// Begins as many requests that are new, in one step.
    ///
    /// # Errors
    /// [`QueueError::TakenOver`].
    pub(crate) fn begin_new(
        &self,
        first: u64,
        count: usize,
        now: Micros,
    ) -> Result<Stamp, QueueError> {
        let mut state = self.lock()?;
        state.last_request = now;
        for number in first..first + count as u64 {
            if let Some(slot) = self.session.slot(&mut state, number) {
                *slot = Slot::Pending;
            }
        }
        state.begun += count;
        Ok(Stamp {
            session: Arc::clone(&self.session),
            first,
            count,
        })
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, QueueError> {
        let state = lock(&self.session.state);
        if state.takeovers != self.takeovers {
            return Err(QueueError::TakenOver);
        }
        Ok(state)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = lock(&self.session.state);
        if state.takeovers == self.takeovers {
            self.session.free_unused(&mut state);
        }
    }
}
