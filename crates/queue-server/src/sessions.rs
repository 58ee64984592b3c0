//! Sessions: what was answered to the last requests of each client, so that a request that comes again is
//! answered again and never acts twice.
//!
//! A client chooses a session, 128 random bits, and numbers its requests. The server remembers the answers
//! of the last [`REMEMBERED_MAX`] numbers until [`KEPT`] after the last request. An answer is an id, a
//! count or a token: a message is looked up, not kept. A refusal has changed nothing, so over TCP it is not
//! remembered, and the request is tried again. A datagram may come late, when its sender has long been told
//! that it was refused; so over UDP it is refused again, for the same reason.
//!
//! A session belongs to the connection that named it last. When another takes it over, that waits until
//! what the one before has begun is done, and the one before can begin nothing more. So of two that ask
//! the same, one acts.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use daemon::{Source, lock};
use proto::ErrorCode;
use proto::queue::REMEMBERED_MAX;
use uuid::Uuid;

use crate::clock::{Micros, micros};
use crate::error::QueueError;
use crate::memory::Memory;
use crate::queues::Wake;
use crate::quota::Quota;

mod window;

pub(crate) use window::{Answer, Answered};
use window::{NUMBER_MAX, Slot, Window};

/// How long a session is remembered after its last request, or after a start of the server.
pub(crate) const KEPT: Duration = Duration::from_secs(600);

/// What part of the memory of all queues the sessions may take. A source has an eighth of it, this machine a
/// half. They may do so when the messages take all of it, because who empties a queue needs a session...
const MEMORY_PART: usize = 8;

/// ...and this many bytes where an eighth is less.
const BYTES_MIN: usize = 4 << 20;

/// What a session takes beside its answers: measured.
const SESSION_BYTES: usize = 352;

/// What an answer takes.
const ANSWER_BYTES: usize = size_of::<Slot>();

/// For how many answers a session has room at first.
const ANSWERS_MIN: usize = 4;

/// All sessions.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    account: Arc<Account>,
}

/// What all sessions take.
struct Account {
    quota: Mutex<Quota>,
    /// How many answers are remembered at most.
    answers: AtomicUsize,
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
    account: Arc<Account>,
    state: Mutex<State>,
}

struct State {
    /// How many connections have taken it over. Only the last one may begin something.
    takeovers: u64,
    /// How many requests are being carried out.
    begun: usize,
    /// The connection that waits until none is.
    waiting: Option<Arc<dyn Wake>>,
    window: Window,
    last_request: Micros,
    /// The last reply of which nothing else is left, and its number.
    kept: Option<(u64, Vec<u8>)>,
    /// What it is charged beside that, in bytes.
    charged: usize,
}

/// What is to be done with a request.
pub(crate) enum Seen {
    /// It is carried out, and the stamp says so.
    New(Stamp),
    /// It was, with this answer.
    Known(Answer),
    /// It found nothing, or was refused for this reason.
    Refused(Option<ErrorCode>),
    /// It is being carried out.
    Pending,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        let bytes_max = (memory.bytes_max() / MEMORY_PART).max(BYTES_MIN);
        Self {
            table: Mutex::default(),
            account: Arc::new(Account {
                quota: Mutex::new(Quota::new(bytes_max, memory)),
                answers: AtomicUsize::new(0),
            }),
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
        let session = Session::new(id, from, &self.account, now);
        if !session.charge(&mut lock(&session.state), ANSWERS_MIN) {
            return Err(QueueError::TooManySessions);
        }
        Ok(table.insert(session, now))
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
        let mut state = lock(&session.state);
        state.last_request = now;
        if !session.charge(&mut state, REMEMBERED_MAX) {
            return Err(QueueError::TooManySessions);
        }
        state.takeovers += 1;
        state.wake();
        let takeovers = state.takeovers;
        drop(state);
        Ok(Attached {
            session,
            takeovers,
            next,
            unknown: NUMBER_MAX,
        })
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
        let mut state = lock(&session.state);
        if let Some(slot) = session.slot(&mut state, found.number) {
            *slot = Slot::Answered(found.answer);
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
        self.account.answers.load(Ordering::Relaxed)
    }
}

/// Checks that there are numbers behind this one.
fn check(number: u64) -> Result<(), QueueError> {
    match number <= NUMBER_MAX {
        true => Ok(()),
        false => Err(QueueError::NumberTooHigh(number)),
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
            // One that is in use is looked at now and then, and not each time.
            let next = over_at.max(now + micros(KEPT) / 2);
            match (over_at <= now, is_in_use) {
                (true, false) => drop(self.sessions.remove(&id)),
                (true, true) => drop(self.due.insert((next, id))),
                (false, _) => drop(self.due.insert((over_at, id))),
            }
        }
    }
}

impl State {
    fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |(_, reply)| reply.len())
    }

    /// Wakes the connection that waits.
    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl Session {
    fn new(id: Uuid, from: Option<Source>, account: &Arc<Account>, now: Micros) -> Self {
        Self {
            id,
            from,
            account: Arc::clone(account),
            state: Mutex::new(State {
                takeovers: 0,
                begun: 0,
                waiting: None,
                window: Window::default(),
                last_request: now,
                kept: None,
                charged: 0,
            }),
        }
    }

    /// The slot of a number, made if there is none; `None` if the number is too old.
    fn slot<'s>(&self, state: &'s mut State, number: u64) -> Option<&'s mut Slot> {
        let before = state.window.slots.len();
        let at = state.window.slot(number);
        let answers = &self.account.answers;
        answers.fetch_add(state.window.slots.len(), Ordering::Relaxed);
        answers.fetch_sub(before, Ordering::Relaxed);
        state.window.slots.get_mut(at?)
    }

    /// Charges the room for this many answers. Returns whether there is.
    fn charge(&self, state: &mut State, answers: usize) -> bool {
        let wanted = SESSION_BYTES + answers * ANSWER_BYTES;
        let more = wanted.saturating_sub(state.charged);
        let charged = more == 0 || lock(&self.account.quota).charge(self.from, more);
        if charged {
            state.charged += more;
        }
        charged
    }

    fn charge_always(&self, state: &mut State) {
        let wanted = SESSION_BYTES + state.window.slots.len().max(ANSWERS_MIN) * ANSWER_BYTES;
        let more = wanted.saturating_sub(state.charged);
        lock(&self.account.quota).charge_always(self.from, more);
        state.charged += more;
    }

    /// Begins a request of a datagram.
    ///
    /// # Errors
    /// [`QueueError::TooOld`]; [`QueueError::NumberTooHigh`]; [`QueueError::TooManySessions`].
    pub(crate) fn begin(self: &Arc<Self>, number: u64, now: Micros) -> Result<Seen, QueueError> {
        self.begin_in(lock(&self.state), number, now)
    }

    fn begin_in(
        self: &Arc<Self>,
        mut state: MutexGuard<State>,
        number: u64,
        now: Micros,
    ) -> Result<Seen, QueueError> {
        check(number)?;
        state.last_request = now;
        let answers = (state.window.slots.len() + 1)
            .next_power_of_two()
            .min(REMEMBERED_MAX);
        if number >= state.window.end() && !self.charge(&mut state, answers.max(ANSWERS_MIN)) {
            return Err(QueueError::TooManySessions);
        }
        let slot = self.slot(&mut state, number);
        let slot = slot.ok_or(QueueError::TooOld(number))?;
        Ok(match *slot {
            Slot::Answered(answer) => Seen::Known(answer),
            Slot::Pending => Seen::Pending,
            Slot::Refused(code) => Seen::Refused(code),
            Slot::Free => {
                *slot = Slot::Pending;
                state.begun += 1;
                Seen::New(Stamp {
                    session: Arc::clone(self),
                    first: number,
                    count: 1,
                })
            }
        })
    }

    /// Remembers that a request of a datagram was refused for this reason, or has found nothing.
    pub(crate) fn refuse(&self, number: u64, code: Option<ErrorCode>) {
        lock(&self.state).window.set(number, Slot::Refused(code));
    }

    /// Keeps a reply until the next one of which nothing else is left, if there is room.
    pub(crate) fn keep(&self, number: u64, reply: &[u8]) {
        let mut state = lock(&self.state);
        let mut quota = lock(&self.account.quota);
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
        lock(&self.account.quota).free(self.from, bytes);
        let answers = state.window.slots.len();
        self.account.answers.fetch_sub(answers, Ordering::Relaxed);
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

    /// Whether a request cannot have come before.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        number >= self.unknown
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
        lock(&self.session.account.quota).free(self.session.from, unused);
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
            state.wake();
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
