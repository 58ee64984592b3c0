//! Whether a connection may be ended by another thread: evicted for a new connection, or because the
//! server stops. That thread and the connection's own agree in one atomic.
//!
//! ```text
//!            set              claim            end
//!   Busy ──────────▶ Resting ─────────▶ Claimed ─────▶ Ended
//!    ▲               or Slow ◀──────────┘   │
//!    │                  │      release      │
//!    └────── resume ────┴───────────────────┘
//! ```
//!
//! The thread that claims a connection that rests looks once more whether a request has arrived, and then
//! ends the connection or releases it. The connection's thread resumes before it acts on what it has read. Each
//! of these is one atomic step, so one of the two threads is first, and the other does nothing: no
//! request is acted on whose reply cannot be sent any more.

use crate::sync::{AtomicU64, Ordering};

/// At the connection limit, a connection may be evicted in the middle of a request or a reply when it
/// has hardly moved a byte in this many milliseconds, or before its first request when it has had this long
/// for it. A stop leaves it this long, too.
pub(crate) const SLOW_MILLIS: u64 = 1000;

/// The state of a connection. Times are those of `Registry::millis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its request is worked on.
    Busy,
    /// It waits for a request, and may be ended from this moment on, unless the request has come. For a new
    /// connection, that is a moment in the future.
    Resting(u64),
    /// It waits for a request, and would lose something if it were evicted. Only a stop ends it.
    Kept,
    /// It waits for another thread.
    Waiting,
    /// In the middle of a request or a reply, it waits for its peer, and may be ended from this moment
    /// on.
    Slow(u64),
    /// Another thread is about to end it.
    Claimed,
    /// It was ended.
    Ended,
}

/// The bits of an encoded state that say which it is. The others are the time.
const KIND_BITS: u32 = 3;

impl State {
    /// The state of a connection that waits for a request: whether it may be evicted, and from when on.
    pub(crate) fn resting(is_evictable: bool, from: u64) -> Self {
        match is_evictable {
            true => Self::Resting(from),
            false => Self::Kept,
        }
    }

    fn encode(self) -> u64 {
        let (kind, millis) = match self {
            Self::Busy => (0, 0),
            Self::Resting(from) => (1, from),
            Self::Kept => (2, 0),
            Self::Waiting => (3, 0),
            Self::Slow(from) => (4, from),
            Self::Claimed => (5, 0),
            Self::Ended => (6, 0),
        };
        millis << KIND_BITS | kind
    }

    fn decode(encoded: u64) -> Self {
        let from = encoded >> KIND_BITS;
        match encoded & ((1 << KIND_BITS) - 1) {
            0 => Self::Busy,
            1 => Self::Resting(from),
            2 => Self::Kept,
            3 => Self::Waiting,
            4 => Self::Slow(from),
            5 => Self::Claimed,
            // There is no seventh.
            _ => Self::Ended,
        }
    }

    /// Why a connection may be evicted at this time, and since or from when; `None` if it may not.
    pub(crate) fn ease(self, now: u64) -> Option<(Ease, u64)> {
        match self {
            Self::Resting(from) if from <= now => Some((Ease::Idle, from)),
            Self::Slow(from) if from <= now => Some((Ease::Slow, from)),
            Self::Resting(from) => Some((Ease::New, from)),
            Self::Slow(from) => Some((Ease::Moving, from)),
            Self::Busy | Self::Kept | Self::Waiting | Self::Claimed | Self::Ended => None,
        }
    }
}

/// How easily a connection is evicted. A slow one comes after those that are idle, because it may only have
/// a bad network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ease {
    /// It waits for a request.
    Idle,
    /// It waits for its peer, and hardly moves a byte.
    Slow,
    /// It is new, and has a moment for its first request. It is spared, unless its source has more than its
    /// share.
    New,
    /// It waits for its peer at this moment. It is spared in the same way.
    Moving,
}

/// The state of one connection, which two threads may change.
#[derive(Debug)]
pub(crate) struct Eviction(AtomicU64);

impl Eviction {
    /// The state of a connection whose thread is about to work on it.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(State::Busy.encode()))
    }

    pub(crate) fn state(&self) -> State {
        State::decode(self.0.load(Ordering::SeqCst))
    }

    /// Sets the state; for the connection's own thread, while it is busy.
    pub(crate) fn set(&self, state: State) {
        // A thread that is about to wait sets its state and then reads whether the server stops. The thread
        // that stops the server says so and then reads the states. Sequential order makes one of the two
        // see the other.
        self.0.store(state.encode(), Ordering::SeqCst);
    }

    /// Makes the connection busy again; for its own thread, before it acts on anything. Returns false
    /// if it was ended.
    #[must_use = "a connection that was ended must not act"]
    pub(crate) fn resume(&self) -> bool {
        let before = self.0.swap(State::Busy.encode(), Ordering::AcqRel);
        if State::decode(before) == State::Ended {
            self.set(State::Ended);
            return false;
        }
        true
    }

    /// Claims a connection to end it, if its state is still `seen`.
    pub(crate) fn claim(&self, seen: State) -> Option<Claim<'_>> {
        let claim = Claim {
            eviction: self,
            seen,
        };
        self.replace(seen, State::Claimed).then_some(claim)
    }

    fn replace(&self, old: State, new: State) -> bool {
        let (old, new) = (old.encode(), new.encode());
        let replaced = (self.0).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        replaced.is_ok()
    }
}

/// A connection that is about to be ended, unless it resumes first.
#[must_use = "it is ended or released"]
pub(crate) struct Claim<'a> {
    eviction: &'a Eviction,
    seen: State,
}

impl Claim<'_> {
    /// Ends it; returns whether it had not resumed.
    #[must_use = "a connection that has resumed continues"]
    pub(crate) fn end(self) -> bool {
        self.eviction.replace(State::Claimed, State::Ended)
    }

    /// Puts it back to the state that it was seen in.
    pub(crate) fn release(self) {
        // If it has resumed, it stays busy.
        self.eviction.replace(State::Claimed, self.seen);
    }
}
