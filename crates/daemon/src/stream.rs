//! The stream of a connection, and what it costs to wait for the peer.
//!
//! Every read and write that may have to wait in the middle of a request or a reply goes through
//! [`PeerStream::wait_for_peer`]. It counts the bytes that move and the time that passes: while a peer
//! gets hardly anywhere, its connection may be evicted for another.

use std::io;
use std::sync::Arc;

use crate::eviction::State;
use crate::registry::Registration;
use crate::socket::Socket;

/// At the connection limit, a connection may be evicted in the middle of a request or a reply, or
/// before its first request, when it has moved less than [`SLOW_BYTES`] in this many milliseconds.
pub(crate) const SLOW_MILLIS: u64 = 1000;

/// See [`SLOW_MILLIS`], in bytes.
const SLOW_BYTES: u64 = 16 * 1024;

/// A connection's stream.
pub(crate) struct PeerStream<'a> {
    registration: &'a Arc<Registration>,
    /// Whether the connection may be evicted while it waits for a request, or for its peer.
    is_evictable: bool,
    /// How long it has waited for `moved_bytes` to move either way. The time that the service itself
    /// needs is not the peer's fault, and does not count.
    waited_millis: u64,
    moved_bytes: u64,
}

impl<'a> PeerStream<'a> {
    pub(crate) fn new(registration: &'a Arc<Registration>) -> Self {
        Self {
            registration,
            is_evictable: true,
            waited_millis: 0,
            moved_bytes: 0,
        }
    }

    pub(crate) fn registration(&self) -> &'a Arc<Registration> {
        self.registration
    }

    pub(crate) fn socket(&self) -> &'a Socket {
        &self.registration.entry.socket
    }

    pub(crate) fn is_evictable(&self) -> bool {
        self.is_evictable
    }

    pub(crate) fn set_evictable(&mut self, is_evictable: bool) {
        self.is_evictable = is_evictable;
    }

    /// Starts the count anew: a request begins, or a reply that may be long.
    pub(crate) fn restart_count(&mut self) {
        self.moved_bytes = 0;
        self.waited_millis = 0;
    }

    /// Moves bytes to the peer or from it in the middle of a request or a reply. Meanwhile the
    /// connection may be evicted, unless it `must_stay`.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::ConnectionAborted`] if it was evicted.
    pub(crate) fn wait_for_peer(
        &mut self,
        must_stay: bool,
        move_bytes: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.is_evictable || must_stay {
            return retry(self.socket(), move_bytes);
        }
        let registry = &self.registration.registry;
        let eviction = &self.registration.entry.eviction;
        let since = registry.millis();
        let patience = SLOW_MILLIS.saturating_sub(self.waited_millis);
        eviction.set(State::Slow(since + patience));
        let moved = retry(self.socket(), move_bytes);
        if !eviction.resume() {
            return Err(evicted());
        }
        self.waited_millis += registry.millis().saturating_sub(since);
        self.moved_bytes += *moved.as_ref().unwrap_or(&0) as u64;
        if self.moved_bytes >= SLOW_BYTES {
            self.restart_count();
        }
        moved
    }
}

/// Moves bytes, again if a signal interrupts it.
pub(crate) fn retry(
    socket: &Socket,
    mut move_bytes: impl FnMut(&Socket) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match move_bytes(socket) {
            // A socket's own timeout is reported as EAGAIN.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The error of a connection that was evicted.
pub(crate) fn evicted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "evicted for another")
}
