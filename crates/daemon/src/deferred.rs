//! A reply that another thread gives.
//!
//! A connection's thread that waits for another thread, the one that writes to the disk say, would
//! have to be woken only to send a few bytes, and would then sleep until the next request. So it
//! leaves the reply to the other thread, and waits for the next request at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use rustix::net::{SendFlags, send};

use crate::eviction::State;
use crate::registry::{Entry, Registry};

/// The longest reply that may be left to another thread, in bytes.
pub const DEFERRED_BYTES_MAX: usize = 4096;

/// A reply that is owed to a peer. Dropping it without giving it ends the connection.
#[must_use = "the peer waits for its reply"]
pub struct Deferred {
    pub(crate) registry: Arc<Registry>,
    pub(crate) entry: Arc<Entry>,
    pub(crate) outlook: Outlook,
    /// `None` once it was given.
    pub(crate) given: Option<SyncSender<Vec<u8>>>,
}

/// The two ends between which the connection's thread learns that its reply was given, and what of it
/// is still to be sent. There is one reply at a time.
pub(crate) type Given = (SyncSender<Vec<u8>>, Receiver<Vec<u8>>);

/// What is to be done with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It is sent at once: nothing else is to be sent before it, and there is room for it.
    Send {
        /// Whether the connection may then be evicted.
        is_evictable: bool,
    },
    /// The connection's thread fetches it.
    Keep,
}

impl Deferred {
    /// Gives the reply, of at most [`DEFERRED_BYTES_MAX`]. This never waits for the peer.
    pub fn reply(mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= DEFERRED_BYTES_MAX, "{}", bytes.len());
        self.give(Some(bytes));
    }

    /// Whether the server is shutting down, so that this should be the connection's last reply.
    pub(crate) fn is_stopping(&self) -> bool {
        self.registry.is_stopping()
    }

    fn give(&mut self, reply: Option<&[u8]>) {
        let Some(given) = self.given.take() else {
            return;
        };
        let mut kept = Vec::new();
        match (reply, self.outlook) {
            (None, _) => self.entry.abort(),
            (Some(bytes), Outlook::Keep) => kept = bytes.to_vec(),
            (Some(bytes), Outlook::Send { is_evictable }) => self.send(bytes, is_evictable),
        }
        // Only now does the connection's thread go on. If it has ended, it was lost.
        let _ = given.try_send(kept);
    }

    /// Sends the reply; the connection then waits for a request, and for nothing else.
    fn send(&self, bytes: &[u8], is_evictable: bool) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // There was room for it. If there is none now, the system has run out of memory.
        if send(&self.entry.stream, bytes, flags) != Ok(bytes.len()) {
            self.entry.abort();
        }
        let state = State::resting(is_evictable, self.registry.millis());
        self.entry.eviction.set(state);
        // Whoever stops the server has passed over what was not idle.
        if self.registry.is_stopping() {
            self.entry.end_wait();
        }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.give(None);
    }
}
