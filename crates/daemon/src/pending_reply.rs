//! A reply that another thread completes: the one that commits to the disk, say.
//!
//! A thread that waits for a commit only to send a few bytes would be woken for that, and then sleep
//! again until the next request. So a connection's thread, the owner, does not wait. It takes a
//! [`PendingReply`], hands it to the writer thread, and waits for the next request at once. What
//! keeps the replies in order is a queue of slots, one for each reply:
//!
//! ```text
//!  requests:        SEND        SEND        PEEK        SEND
//!                     │           │           │           │
//!               ┌─────▼─────┬─────▼─────┬─────▼─────┬─────▼─────┐
//!  slots:       │ completed │   open    │ completed │   open    │ ◀─ the owner adds at this end
//!               └───────────┴─────▲─────┴───────────┴─────▲─────┘
//!                                 └────── complete() ─────┘
//!                                   by the writer thread
//!
//!  When no slot is open any more:
//!
//!    the owner waits for a request ──▶ the completing thread sends all of it, as much as fits
//!                                      without waiting; if bytes remain, it wakes the owner
//!    the owner waits for replies ────▶ it wakes the owner, which sends them
//!    the owner is busy ──────────────▶ the owner sends them before it next waits
//! ```
//!
//! The owner waits in poll(2), for its socket or its [`Wakeup`]. Before each wait it sends the
//! completed replies in front of the first open slot. So a reply that is completed during a wait is kept
//! back only for changes that were submitted before that wait began: usually one more commit, and more
//! only if those changes fill more than one batch.
//!
//! What is pending is bounded. Beyond, the owner reads no more requests until all replies are sent. A
//! completing thread sends at most 64 KiB, and never a body; beyond, it wakes the owner.
//!
//! An encrypted stream is touched by its owner alone. There a completing thread never sends; it wakes
//! the owner.

use std::sync::{Arc, Mutex};

use rustix::net::SendFlags;

use crate::eviction::State;
use crate::lock;
use crate::metrics::{Asked, Outcome};
use crate::registry::Registration;
use crate::wakeup::Wakeup;

mod slots;

pub use slots::SharedBytes;
pub(crate) use slots::{Completed, Pending};
use slots::{Duty, Owner, Slots};

/// A reply that is owed to a peer. Dropping it without completing it aborts the connection.
#[must_use = "the peer waits for its reply"]
pub struct PendingReply {
    replies: Arc<Replies>,
    /// The number of its slot; `None` once it is completed.
    slot: Option<u64>,
    /// The request that it replies to, and how.
    asked: Option<Asked>,
    outcome: Outcome,
}

impl PendingReply {
    /// Says how the reply answers its request, if it is not [`Outcome::Ok`].
    pub fn set_outcome(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Completes the reply. This never waits for the peer.
    pub fn complete(self, bytes: Vec<u8>) {
        self.complete_with(bytes, None);
    }

    /// Completes the reply with a body that is sent behind `bytes`, by the owner, without a copy.
    pub fn complete_with(mut self, bytes: Vec<u8>, body: Option<SharedBytes>) {
        if let Some(slot) = self.slot.take() {
            if let Some(asked) = self.asked.take() {
                let shard = self.replies.registration.shard();
                shard.answered(asked, self.outcome);
            }
            self.replies.complete(slot, Completed { bytes, body });
        }
    }

    /// Whether the server is shutting down, so that this should be the connection's last reply.
    pub(crate) fn is_stopping(&self) -> bool {
        self.replies.registration.registry.is_stopping()
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.replies.registration.entry.abort();
            self.replies.complete(slot, Completed::default());
        }
    }
}

/// The replies of one connection, as its owner and the completing threads share them.
pub(crate) struct Replies {
    /// The connection counts until it has no open slot any more, though its thread may have ended: a
    /// slot keeps its socket.
    registration: Arc<Registration>,
    /// Wakes the owner.
    wakeup: Arc<Wakeup>,
    slots: Mutex<Slots>,
}

impl Replies {
    /// `is_encrypted` says that only the owner may write to the stream.
    pub(crate) fn new(
        registration: &Arc<Registration>,
        wakeup: Arc<Wakeup>,
        is_encrypted: bool,
    ) -> Self {
        Self {
            registration: Arc::clone(registration),
            wakeup,
            slots: Mutex::new(Slots::new(is_encrypted)),
        }
    }

    /// Adds a slot behind what is in `output`. `bytes` is about what it keeps in memory until it is
    /// sent. `None` if there are too many already.
    pub(crate) fn open(
        self: &Arc<Self>,
        output: &mut Vec<u8>,
        bytes: usize,
        asked: Option<Asked>,
    ) -> Option<PendingReply> {
        let slot = lock(&self.slots).open(output, bytes)?;
        Some(PendingReply {
            asked,
            outcome: Outcome::Ok,
            slot: Some(slot),
            replies: Arc::clone(self),
        })
    }

    /// Adds what is in `output` behind the slots, if there are any, and takes the completed replies up
    /// to the first that is open.
    pub(crate) fn take_completed(&self, output: &mut Vec<u8>) -> Vec<Completed> {
        let mut slots = lock(&self.slots);
        slots.add_behind(output);
        slots.take_completed()
    }

    /// Whether many bytes can be sent.
    pub(crate) fn has_much_completed(&self, bytes: usize) -> bool {
        lock(&self.slots).has_much_completed(bytes)
    }

    /// Says that the owner is about to wait for a request, unless there is something to be sent,
    /// nothing is open, or too much is pending. Adds what is in `output` behind the slots, if there are any.
    pub(crate) fn begin_request_wait(&self, is_evictable: bool, output: &mut Vec<u8>) -> Pending {
        let mut slots = lock(&self.slots);
        slots.add_behind(output);
        slots.begin_wait(Owner::WaitsForRequest { is_evictable })
    }

    /// Says that the owner is about to wait for all replies, unless nothing is open.
    pub(crate) fn begin_reply_wait(&self) -> Pending {
        lock(&self.slots).begin_wait(Owner::WaitsForReplies)
    }

    /// Says that the owner does not wait any more. Returns whether nothing is pending.
    pub(crate) fn end_wait(&self) -> bool {
        lock(&self.slots).end_wait()
    }

    /// Whether nothing is pending.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.slots).is_empty()
    }

    /// Whether a reply is not completed yet.
    pub(crate) fn has_open(&self) -> bool {
        lock(&self.slots).has_open()
    }

    fn complete(&self, slot: u64, reply: Completed) {
        let mut slots = lock(&self.slots);
        match slots.complete(slot, reply) {
            Duty::None => {}
            Duty::Wake => self.wakeup.wake(),
            Duty::Send { is_evictable } => self.send(&mut slots, is_evictable),
        }
    }

    /// Sends all replies, as much as fits. If that is all, the connection waits for a request, and for
    /// nothing else.
    fn send(&self, slots: &mut Slots, is_evictable: bool) {
        let Registration {
            registry, entry, ..
        } = &*self.registration;
        let mut gathered = slots.gather();
        // The owner meets the error, if there is one.
        let sent = entry.socket.send(&gathered, SendFlags::DONTWAIT);
        let sent = sent.unwrap_or(0);
        self.registration.shard().sent(sent);
        if sent < gathered.len() {
            gathered.drain(..sent);
            slots.put_back(gathered);
            return self.wakeup.wake();
        }
        self.registration.has_arrived();
        let state = State::resting(is_evictable, registry.millis());
        entry.eviction.set(state);
        // The thread that stops the server has passed over a connection that was not idle.
        if registry.is_stopping() {
            entry.end_wait(registry.millis());
        }
    }
}
