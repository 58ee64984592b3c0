//! Sessions: what was answered to the last requests of each client, so that a request that comes again is
//! answered again and never acts twice.
//!
//! A client chooses a session, 128 random bits, and numbers its requests. The server remembers the answers
//! of the last [`REMEMBERED_MAX`] numbers until [`KEPT`] after the last request. An answer is an id, a
//! count or a token: a message is looked up, not kept. A refusal has changed nothing, so over TCP it is not
//! remembered, and the request is tried again. A datagram may come late, when its sender has long been told
//! that it was refused; so over UDP it is refused again.
//!
//! A session belongs to the connection that named it last. When another takes it over, that waits until
//! what the one before has begun is done, and the one before can begin nothing more. So of two that ask
//! the same, one acts.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use daemon::{Source, lock};
use proto::queue::REMEMBERED_MAX;
use uuid::Uuid;

use crate::clock::{Micros, micros};
use crate::error::QueueError;
use crate::quota::Quota;

mod window;

pub(crate) use window::{Answer, Answered};
use window::{Slot, Window};

/// How long a session is remembered after its last request, or after a start of the server.
pub(crate) const KEPT: Duration = Duration::from_secs(600);

/// What all sessions may take, in bytes of memory. A source has an eighth of it, this machine a half.
const BYTES_MAX: usize = 128 << 20;

/// What a session takes beside its answers: measured.
const SESSION_BYTES: usize = 352;

/// What an answer takes.
const ANSWER_BYTES: usize = size_of::<Slot>();

/// For how many answers a session has room at first.
const ANSWERS_MIN: usize = 4;

/// How long a connection waits at most for what the one before it has begun: longer than a change waits for
/// a locked database.
const TAKEOVER_WAIT: Duration = Duration::from_secs(30);

/// All sessions.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    quota: Arc<Mutex<Quota>>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<Uuid, Arc<Session>>,
    /// When each is looked at next: it may be over by then.
    due: BTreeSet<(Micros, Uuid)>,
}

/// One session.
pub(crate) struct Session {
    id: Uuid,
    from: Option<Source>,
    quota: Arc<Mutex<Quota>>,
    state: Mutex<State>,
    /// Nothing is being carried out any more.
    idle: Condvar,
}

struct State {
    /// How many connections have taken it over. Only the last one may begin something.
    takeovers: u64,
    /// How many requests are being carried out.
    begun: usize,
    window: Window,
    last_request: Micros,
    /// The last reply of which nothing else is left, and its number.
    kept: Option<(u64, Vec<u8>)>,
    /// What it is charged beside that, in bytes.
    charged: usize,
}

/// What is to be done with a request.
pub(crate) enum Begun {
    /// It is carried out, and the stamp says so.
    New(Stamp),
    /// It was, with this answer.
    Known(Answer),
    /// It was refused.
    Refused,
    /// It is being carried out.
    Pending,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::default(),
            quota: Arc::new(Mutex::new(Quota::new(BYTES_MAX))),
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
        table.forget(now);
        let session = Session::new(id, from, &self.quota, now);
        if !session.charge(&mut lock(&session.state), ANSWERS_MIN) {
            return Err(QueueError::TooManySessions);
        }
        Ok(table.insert(session, now))
    }

    /// Gives a session to a connection, whose next request has this number. All that a request of it may
    /// need is charged now, so that no acknowledgement is refused for want of it.
    ///
    /// # Errors
    /// [`QueueError::TooManySessions`]; [`QueueError::SessionBusy`].
    pub(crate) fn attach(
        &self,
        id: Uuid,
        next: u64,
        from: Option<Source>,
        now: Micros,
    ) -> Result<Attached, QueueError> {
        let session = self.get(id, from, now)?;
        let mut state = lock(&session.state);
        state.last_request = now;
        if !session.charge(&mut state, REMEMBERED_MAX) {
            return Err(QueueError::TooManySessions);
        }
        state.takeovers += 1;
        let takeovers = state.takeovers;
        let is_busy = |state: &mut State| state.begun > 0 && state.takeovers == takeovers;
        let waited = session
            .idle
            .wait_timeout_while(state, TAKEOVER_WAIT, is_busy);
        let (state, waited) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if waited.timed_out() {
            return Err(QueueError::SessionBusy);
        }
        let unknown = state.window.end().max(next);
        drop(state);
        Ok(Attached {
            session,
            takeovers,
            next,
            unknown,
        })
    }

    /// Remembers an answer that was found at the start.
    pub(crate) fn restore(&self, found: &Answered, now: Micros) {
        let mut table = lock(&self.table);
        let session = match table.sessions.get(&found.session) {
            Some(session) => Arc::clone(session),
            None => table.insert(Session::new(found.session, None, &self.quota, now), now),
        };
        drop(table);
        let mut state = lock(&session.state);
        if let Some(at) = state.window.slot(found.number) {
            state.window.slots[at] = Slot::Answered(found.answer);
        }
        session.charge_always(&mut state);
    }

    /// Whether this number of a session may still be asked again.
    pub(crate) fn may_repeat(&self, session: Uuid, number: u64) -> bool {
        let table = lock(&self.table);
        let found = table.sessions.get(&session);
        found.is_some_and(|session| lock(&session.state).window.is_remembered(number))
    }

    /// How many answers are remembered at most.
    pub(crate) fn answers_max(&self) -> usize {
        let table = lock(&self.table);
        let slots = |session: &Arc<Session>| lock(&session.state).window.slots.len();
        table.sessions.values().map(slots).sum()
    }
}

impl Table {
    fn insert(&mut self, session: Session, now: Micros) -> Arc<Session> {
        let session = Arc::new(session);
        self.due.insert((now + micros(KEPT), session.id));
        self.sessions.insert(session.id, Arc::clone(&session));
        session
    }

    /// Forgets sessions that are over.
    fn forget(&mut self, now: Micros) {
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            let over_at = lock(&session.state).last_request + micros(KEPT);
            // Nobody else gets it meanwhile, because the table is locked.
            let is_in_use = Arc::strong_count(session) > 1;
            match over_at <= now && !is_in_use {
                true => drop(self.sessions.remove(&id)),
                false => drop(self.due.insert((over_at.max(now + 1), id))),
            }
        }
    }
}

impl State {
    fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |(_, reply)| reply.len())
    }
}

impl Session {
    fn new(id: Uuid, from: Option<Source>, quota: &Arc<Mutex<Quota>>, now: Micros) -> Self {
        Self {
            id,
            from,
            quota: Arc::clone(quota),
            state: Mutex::new(State {
                takeovers: 0,
                begun: 0,
                window: Window::default(),
                last_request: now,
                kept: None,
                charged: 0,
            }),
            idle: Condvar::new(),
        }
    }

    /// Charges the room for this many answers. Returns whether there is.
    fn charge(&self, state: &mut State, answers: usize) -> bool {
        let wanted = SESSION_BYTES + answers * ANSWER_BYTES;
        let more = wanted.saturating_sub(state.charged);
        let charged = more == 0 || lock(&self.quota).charge(self.from, more);
        if charged {
            state.charged += more;
        }
        charged
    }

    fn charge_always(&self, state: &mut State) {
        let wanted = SESSION_BYTES + state.window.slots.len().max(ANSWERS_MIN) * ANSWER_BYTES;
        let more = wanted.saturating_sub(state.charged);
        lock(&self.quota).charge_always(self.from, more);
        state.charged += more;
    }

    /// Begins a request of a datagram.
    ///
    /// # Errors
    /// [`QueueError::TooOld`]; [`QueueError::TooManySessions`].
    pub(crate) fn begin(self: &Arc<Self>, number: u64, now: Micros) -> Result<Begun, QueueError> {
        self.begin_in(lock(&self.state), number, now)
    }

    fn begin_in(
        self: &Arc<Self>,
        mut state: MutexGuard<State>,
        number: u64,
        now: Micros,
    ) -> Result<Begun, QueueError> {
        state.last_request = now;
        let answers = (state.window.slots.len() + 1)
            .next_power_of_two()
            .min(REMEMBERED_MAX);
        if number >= state.window.end() && !self.charge(&mut state, answers.max(ANSWERS_MIN)) {
            return Err(QueueError::TooManySessions);
        }
        let at = state
            .window
            .slot(number)
            .ok_or(QueueError::TooOld(number))?;
        Ok(match state.window.slots[at] {
            Slot::Answered(answer) => Begun::Known(answer),
            Slot::Begun => Begun::Pending,
            Slot::Refused => Begun::Refused,
            Slot::Free => {
                state.window.slots[at] = Slot::Begun;
                state.begun += 1;
                Begun::New(Stamp {
                    session: Arc::clone(self),
                    first: number,
                    count: 1,
                })
            }
        })
    }

    /// Remembers that a request of a datagram was refused, or has found nothing, and keeps the reply.
    pub(crate) fn refuse(&self, number: u64, reply: &[u8]) {
        lock(&self.state).window.set(number, Slot::Refused);
        self.keep(number, reply);
    }

    /// Keeps a reply until the next one of which nothing else is left, if there is room.
    pub(crate) fn keep(&self, number: u64, reply: &[u8]) {
        let mut state = lock(&self.state);
        let mut quota = lock(&self.quota);
        quota.free(self.from, state.kept_bytes());
        state.kept = None;
        if quota.charge(self.from, reply.len()) {
            state.kept = Some((number, reply.to_vec()));
        }
    }

    /// The reply that was kept.
    pub(crate) fn kept(&self, number: u64) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        let kept = state.kept.as_ref()?;
        (kept.0 == number).then(|| kept.1.clone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let state = lock(&self.state);
        let bytes = state.charged + state.kept_bytes();
        lock(&self.quota).free(self.from, bytes);
    }
}

/// A session as its connection has it.
pub(crate) struct Attached {
    session: Arc<Session>,
    takeovers: u64,
    next: u64,
    /// No request from this number on was begun before.
    unknown: u64,
}

impl Attached {
    /// The number of the next request. Each has one, also what only reads or is refused.
    pub(crate) fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Whether a request cannot have come before.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        number >= self.unknown
    }

    /// Begins a request.
    ///
    /// # Errors
    /// [`QueueError::TakenOver`]; [`QueueError::TooOld`].
    pub(crate) fn begin(&self, number: u64, now: Micros) -> Result<Begun, QueueError> {
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
            if let Some(at) = state.window.slot(number) {
                state.window.slots[at] = Slot::Begun;
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
        match state.takeovers == self.takeovers {
            true => Ok(state),
            false => Err(QueueError::TakenOver),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = lock(&self.session.state);
        if state.takeovers != self.takeovers {
            return;
        }
        // What it has not used.
        state.window.slots.shrink_to(ANSWERS_MIN);
        let answers = state
            .window
            .slots
            .len()
            .next_power_of_two()
            .max(ANSWERS_MIN);
        let used = SESSION_BYTES + answers * ANSWER_BYTES;
        let unused = state.charged.saturating_sub(used);
        state.charged -= unused;
        lock(&self.session.quota).free(self.session.from, unused);
    }
}

/// Requests of a session that are being carried out. Dropping it says that they have changed nothing.
#[must_use = "a request without its stamp acts again when it comes again"]
pub(crate) struct Stamp {
    session: Arc<Session>,
    first: u64,
    count: usize,
}

impl Stamp {
    /// What is to be written when the first of them is carried out.
    pub(crate) fn answered(&self, answer: Answer) -> Answered {
        Answered {
            session: self.session.id,
            number: self.first,
            answer,
        }
    }

    /// Remembers the answers to the next of them; a refusal has none.
    pub(crate) fn remember(&mut self, answers: impl Iterator<Item = Option<Answer>>) {
        let mut state = lock(&self.session.state);
        for answer in answers.take(self.count) {
            state
                .window
                .set(self.first, answer.map_or(Slot::Free, Slot::Answered));
            self.first += 1;
            self.count -= 1;
            state.begun -= 1;
        }
        if state.begun == 0 {
            self.session.idle.notify_all();
        }
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        if self.count > 0 {
            self.remember(std::iter::repeat(None));
        }
    }
}

#[cfg(test)]
mod tests;
