//! Sessions: what was answered to the last requests of each client, so that a request that comes again is
//! answered again and never acts twice.
//!
//! A client chooses a session, 128 random bits, and numbers its requests. The server remembers the answers
//! of the last [`REMEMBERED_MAX`](proto::queue::REMEMBERED_MAX) numbers until [`KEPT`] after the last request. An answer is an id, a
//! count or a token: a message is looked up, not kept. A refusal has changed nothing, so over TCP it is not
//! remembered, and the request is tried again. A datagram may come late, when its sender has long been told
//! that it was refused; so over UDP it is refused again, for the same reason.
//!
//! A session belongs to the connection that named it last. When another takes it over, that waits until
//! what the one before has begun is done, and the one before can begin nothing more. So of two that ask
//! the same, one acts.
//!
//! Here is the table of them all, and when each is forgotten. [`session`] is one of them, [`attached`] one as its
//! connection has it, [`window`] what is known of each number.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::{Source, lock};
use uuid::Uuid;

use crate::clock::{Micros, micros};
use crate::error::QueueError;
use crate::memory::Memory;

mod attached;
mod session;
mod window;

pub(crate) use attached::Attached;
use session::Account;
pub(crate) use session::{Seen, Session, Stamp};
use window::check;
pub(crate) use window::{Answer, Answered};

/// How long a session is remembered after its last request, or after a start of the server.
pub(crate) const KEPT: Duration = Duration::from_secs(600);

/// What part of the memory of all queues the sessions may take. A source has an eighth of it, this machine a
/// half. They may do so when the messages take all of it, because who empties a queue needs a session...
const MEMORY_PART: usize = 8;

/// ...and this many bytes where an eighth is less.
const BYTES_MIN: usize = 4 << 20;

/// How many sessions are looked at for that at once, because others wait for the table meanwhile; more only
/// if there is no room otherwise.
const FORGOTTEN_MAX: usize = 64;

/// All sessions.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    account: Arc<Account>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<Uuid, Arc<Session>>,
    /// When each is looked at next: it may be over by then.
    due: BTreeSet<(Micros, Uuid)>,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        let bytes_max = (memory.bytes_max() / MEMORY_PART).max(BYTES_MIN);
        Self {
            table: Mutex::default(),
            account: Arc::new(Account::new(bytes_max, memory)),
        }
    }

    /// The session with this id, made if it is not known.
    ///
    /// # Errors
    /// [`QueueError::TooManySessions`].
    pub(crate) fn get(
        &self,
        id: Uuid,
        from: Option<Source>,
        now: Micros,
    ) -> Result<Arc<Session>, QueueError> {
        let mut table = lock(&self.table);
        if let Some(session) = table.sessions.get(&id) {
            return Ok(Arc::clone(session));
        }
        let session = Session::new(id, from, &self.account, now);
        loop {
            let may_be_more = table.forget(now);
            match session.charge_first() {
                Ok(()) => return Ok(table.insert(session, now)),
                Err(_) if may_be_more => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a session to a connection, whose next request has this number, and which then asks
    /// [`Attached::is_idle`]. All that a request of it may need is charged now, so that no acknowledgement is
    /// refused for want of it.
    ///
    /// # Errors
    /// [`QueueError::TooManySessions`]; [`QueueError::NumberTooHigh`].
    pub(crate) fn attach(
        &self,
        id: Uuid,
        next: u64,
        from: Option<Source>,
        now: Micros,
    ) -> Result<Attached, QueueError> {
        check(next)?;
        let session = self.get(id, from, now)?;
        Attached::new(session, next, now)
    }

    /// Remembers an answer that was found at the start.
    pub(crate) fn restore(&self, found: &Answered, now: Micros) {
        if check(found.number).is_err() {
            return;
        }
        let mut table = lock(&self.table);
        let session = match table.sessions.get(&found.session) {
            Some(session) => Arc::clone(session),
            None => table.insert(Session::new(found.session, None, &self.account, now), now),
        };
        drop(table);
        session.restore(found.number, found.answer);
    }

    /// Whether this number of a session may still be asked again.
    pub(crate) fn may_repeat(&self, session: Uuid, number: u64) -> bool {
        let table = lock(&self.table);
        let found = table.sessions.get(&session);
        found.is_some_and(|session| session.is_remembered(number))
    }

    /// How many answers are remembered at most.
    pub(crate) fn answers_max(&self) -> usize {
        self.account.answers()
    }
}

impl Table {
    fn insert(&mut self, session: Session, now: Micros) -> Arc<Session> {
        let session = Arc::new(session);
        self.due.insert((now + micros(KEPT), session.id()));
        self.sessions.insert(session.id(), Arc::clone(&session));
        session
    }

    /// Forgets sessions that are over, some at once. Returns whether there may be more of them.
    fn forget(&mut self, now: Micros) -> bool {
        for _ in 0..FORGOTTEN_MAX {
            let Some(&(at, id)) = self.due.first().filter(|(at, _)| *at <= now) else {
                return false;
            };
            self.due.remove(&(at, id));
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            let over_at = session.last_request() + micros(KEPT);
            // Nobody else gets it meanwhile, because the table is locked.
            let is_in_use = Arc::strong_count(session) > 1;
            // One that is in use is looked at now and then, and not each time.
            let next = over_at.max(now + micros(KEPT) / 2);
            match (over_at <= now, is_in_use) {
                (true, false) => drop(self.sessions.remove(&id)),
                (true, true) => drop(self.due.insert((next, id))),
                (false, _) => drop(self.due.insert((over_at, id))),
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
