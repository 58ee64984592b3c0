//! One session: what is known of its last requests, and the memory that it is charged.
//!
//! A request that is begun has a [`Stamp`] until it is carried out. The stamp remembers the answer; one that is
//! dropped says that nothing was changed, and the number is free again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use daemon::{Source, lock};
use proto::ErrorCode;
use proto::queue::REMEMBERED_MAX;
use uuid::Uuid;

use super::window::{Answer, Answered, Slot, Window, check};
use crate::clock::Micros;
use crate::error::QueueError;
use crate::memory::Memory;
use crate::queues::Wake;
use crate::quota::Quota;

/// What a session takes beside its answers: measured.
pub(super) const SESSION_BYTES: usize = 352;

/// What an answer takes.
pub(super) const ANSWER_BYTES: usize = size_of::<Slot>();

/// For how many answers a session has room at first.
pub(super) const ANSWERS_MIN: usize = 4;

/// What a session takes with this many answers.
fn cost(answers: usize) -> usize {
    SESSION_BYTES + answers * ANSWER_BYTES
}

/// What all sessions take.
pub(super) struct Account {
    pub(super) quota: Mutex<Quota>,
    /// How many answers are remembered at most.
    answers: AtomicUsize,
}

impl Account {
    /// Room for this many bytes of the memory.
    pub(super) fn new(bytes_max: usize, memory: &Arc<Memory>) -> Self {
        Self {
            quota: Mutex::new(Quota::new(bytes_max, memory)),
            answers: AtomicUsize::new(0),
        }
    }

    /// How many answers are remembered at most.
    pub(super) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }
}

/// One session.
pub(crate) struct Session {
    id: Uuid,
    from: Option<Source>,
    account: Arc<Account>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    /// How many connections have taken it over. Only the last one may begin something.
    pub(super) takeovers: u64,
    /// How many requests are being carried out.
    pub(super) begun: usize,
    /// The connection that waits until none is.
    pub(super) waiting: Option<Arc<dyn Wake>>,
    pub(super) window: Window,
    pub(super) last_request: Micros,
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
    pub(super) fn new(id: Uuid, from: Option<Source>, account: &Arc<Account>, now: Micros) -> Self {
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

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn last_request(&self) -> Micros {
        lock(&self.state).last_request
    }

    /// Whether this number may still be asked again.
    pub(super) fn is_remembered(&self, number: u64) -> bool {
        lock(&self.state).window.is_remembered(number)
    }

    /// Remembers an answer that was found at the start.
    pub(super) fn restore(&self, number: u64, answer: Answer) {
        let mut state = lock(&self.state);
        if let Some(slot) = self.slot(&mut state, number) {
            *slot = Slot::Answered(answer);
        }
        let answers = state.window.slots.len().max(ANSWERS_MIN);
        let more = cost(answers).saturating_sub(state.charged);
        lock(&self.account.quota).charge_always(self.from, more);
        state.charged += more;
    }

    /// Gives it to another connection, for all that one may ask. Returns which takeover this is.
    ///
    /// # Errors
    /// [`QueueError::TooManySessions`].
    pub(super) fn take_over(&self, now: Micros) -> Result<u64, QueueError> {
        let mut state = lock(&self.state);
        state.last_request = now;
        self.charge(&mut state, REMEMBERED_MAX)?;
        state.takeovers += 1;
        state.wake();
        Ok(state.takeovers)
    }

    /// The slot of a number, made if there is none; `None` if the number is too old.
    pub(super) fn slot<'s>(&self, state: &'s mut State, number: u64) -> Option<&'s mut Slot> {
        let before = state.window.slots.len();
        let at = state.window.slot(number);
        let after = state.window.slots.len();
        // A full window has as many as before, and all sessions share the count.
        if after != before {
            let answers = &self.account.answers;
            answers.fetch_add(after, Ordering::Relaxed);
            answers.fetch_sub(before, Ordering::Relaxed);
        }
        state.window.slots.get_mut(at?)
    }

    /// Charges what a new session takes.
    ///
    /// # Errors
    /// [`QueueError::TooManySessions`].
    pub(super) fn charge_first(&self) -> Result<(), QueueError> {
        self.charge(&mut lock(&self.state), ANSWERS_MIN)
    }

    /// Charges the room for this many answers, if there is.
    fn charge(&self, state: &mut State, answers: usize) -> Result<(), QueueError> {
        let more = cost(answers).saturating_sub(state.charged);
        if more > 0 && !lock(&self.account.quota).charge(self.from, more) {
            return Err(QueueError::TooManySessions);
        }
        state.charged += more;
        Ok(())
    }

    /// Frees the room that is charged and not used, when no connection has it any more.
    pub(super) fn free_unused(&self, state: &mut State) {
        let slots = &mut state.window.slots;
        slots.shrink_to(ANSWERS_MIN);
        let answers = slots.len().next_power_of_two().max(ANSWERS_MIN);
        let unused = state.charged.saturating_sub(cost(answers));
        state.charged -= unused;
        lock(&self.account.quota).free(self.from, unused);
    }

    /// Begins a request of a datagram.
    ///
    /// # Errors
    /// [`QueueError::TooOld`]; [`QueueError::NumberTooHigh`]; [`QueueError::TooManySessions`].
    pub(crate) fn begin(self: &Arc<Self>, number: u64, now: Micros) -> Result<Seen, QueueError> {
        self.begin_in(lock(&self.state), number, now)
    }

    pub(super) fn begin_in(
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
        if number >= state.window.end() {
            self.charge(&mut state, answers.max(ANSWERS_MIN))?;
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

/// Requests of a session that are being carried out. Dropping it says that they have changed nothing.
#[must_use = "a request without its stamp acts again when it comes again"]
pub(crate) struct Stamp {
    pub(super) session: Arc<Session>,
    pub(super) first: u64,
    pub(super) count: usize,
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
