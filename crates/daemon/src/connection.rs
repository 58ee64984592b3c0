//! One connection: a buffered stream with deadlines.
//!
//! What is written is gathered and sent when the connection next has to wait for input, so the
//! replies to pipelined requests go out together, and nobody has to remember to flush.
//!
//! A peer may be slow, but it cannot hold a thread for longer than it is worth: what it sends has a
//! [`Deadline`], what it takes has a least rate, and when there are too many connections, one that
//! asks for nothing, or gets hardly anywhere, is evicted. That holds for every connection of which its
//! service does not say otherwise.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::deferred::{Deferred, Given, Outlook};
use crate::eviction::State;
use crate::registry::{Entry, Registration};
use crate::{Waited, Wakeup};

mod input;
mod output;
#[cfg(test)]
mod tests;

pub use input::Deadline;
use output::has_room;

/// The size of a buffer, in bytes, of a connection that asks little.
const BUFFER_BYTES_MIN: usize = 4 * 1024;

/// At the limit, a connection may be evicted in the middle of a request or a reply, or before its
/// first request, when it has moved less than [`SLOW_BYTES`] in so long...
const SLOW_MILLIS: u64 = 1000;
/// ...in bytes.
const SLOW_BYTES: u64 = 16 * 1024;

/// How the first record of a TLS connection begins (RFC 8446 section 5.1): with its type...
const TLS_HANDSHAKE: u8 = 0x16;
/// ...and, in all versions there are, this first half of a version.
const TLS_MAJOR: u8 = 3;

/// With fewer connections than this, each sends its own replies: the processors have time to wake
/// its thread, and whoever it waits for is soon free for the next one.
pub const DEFERRED_CONNECTIONS_MIN: usize = 32;

/// A connection, as the service sees it: read it through [`io::BufRead`], write to it through
/// [`io::Write`].
pub struct Connection<'a> {
    registration: &'a Registration,
    /// What was read last is `input[consumed..filled]`.
    input: Vec<u8>,
    filled: usize,
    consumed: usize,
    output: Vec<u8>,
    /// Whether the reply to the last request was left to another thread, and how that gives it; made
    /// when it is first needed.
    deferred: Option<Outlook>,
    given: Option<Given>,
    deadline: Deadline,
    /// The read timeout the socket has now, so that the same one is not set again.
    read_timeout: Option<Duration>,
    peer_has_closed: bool,
    has_asked: bool,
    /// Whether it may be evicted while it waits for a request, or for its peer.
    is_evictable: bool,
    /// Whether it must not be evicted until all of `output` is sent.
    must_arrive: bool,
    /// Whether it may wait for something else than its peer.
    is_waiter: bool,
    /// How long it has waited for `moved_bytes` to go either way. What the service itself takes is
    /// not the peer's fault, and does not count.
    waited_millis: u64,
    moved_bytes: u64,
}

/// Ends a connection from another thread.
#[derive(Clone, Default)]
pub struct AbortHandle(Option<Arc<Entry>>);

impl AbortHandle {
    /// Makes every read and write of the connection fail from now on.
    pub fn abort(&self) {
        if let Some(entry) = &self.0 {
            entry.abort();
        }
    }
}

impl<'a> Connection<'a> {
    pub(crate) fn new(registration: &'a Registration) -> Self {
        Self {
            registration,
            input: Vec::new(),
            filled: 0,
            consumed: 0,
            output: Vec::new(),
            deferred: None,
            given: None,
            deadline: Deadline::None,
            read_timeout: None,
            peer_has_closed: false,
            has_asked: false,
            is_evictable: true,
            must_arrive: false,
            is_waiter: false,
            waited_millis: 0,
            moved_bytes: 0,
        }
    }

    /// Says whether this connection may be evicted while it waits for a request, or for its peer in the
    /// middle of one. It may, unless the service says that something would be lost by it: a message that
    /// is reserved for it.
    pub fn set_evictable(&mut self, is_evictable: bool) {
        self.is_evictable = is_evictable;
    }

    /// Has this connection stay until what was written so far is sent: that cannot be asked for again.
    pub fn must_arrive(&mut self) {
        self.must_arrive = !self.output.is_empty();
    }

    /// The peer was sent all that it will be. From now on there is nothing left to wait for but that
    /// it has read that.
    pub(crate) fn linger_from_now(&self) {
        let Registration {
            registry, entry, ..
        } = self.registration;
        let from = registry.millis() + SLOW_MILLIS;
        entry.eviction.set(State::Slow(from));
    }

    /// What ends this connection from another thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(Some(Arc::clone(&self.registration.entry)))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.registration.entry.peer
    }

    /// The connections open at the moment, this one included.
    pub fn open_connections(&self) -> usize {
        self.registration.registry.open()
    }

    /// Whether the server is shutting down, so that this should be the connection's last reply.
    pub fn is_stopping(&self) -> bool {
        self.registration.registry.is_stopping()
    }

    /// Whether the peer has ended its half of the connection.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Waits for the first byte of the next request, and returns it without taking it. `None` is
    /// the end: the peer closed, was silent for `idle`, or the server is shutting down. Everything
    /// written so far is sent before the wait.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn next_request(&mut self, idle: Option<Duration>) -> io::Result<Option<u8>> {
        if !self.is_sent_elsewhere() {
            self.collect();
            self.flush_if_large()?;
        }
        if self.consumed == self.filled && !self.wait_for_request(idle)? {
            return Ok(None);
        }
        self.begin_moving();
        // Nothing that is spoken here begins so; a client that wants TLS would wait for its answer.
        if !self.has_asked
            && matches!(
                self.buffered(),
                [TLS_HANDSHAKE] | [TLS_HANDSHAKE, TLS_MAJOR, ..]
            )
        {
            log::warn!("A TLS handshake, which is not spoken on this port; closing the connection");
            self.consumed = self.filled;
            return Ok(None);
        }
        let first = self.buffered().first().copied();
        self.has_asked |= first.is_some();
        self.note_request();
        Ok(first)
    }

    /// Waits for input; returns whether the connection goes on: the peer was not silent for `idle`, and
    /// the server does not stop.
    fn wait_for_request(&mut self, idle: Option<Duration>) -> io::Result<bool> {
        self.deadline = idle.map_or(Deadline::None, Deadline::Stall);
        self.note_request();
        self.flush()?;
        self.shrink();
        // With a reply outstanding, whoever gives it does this then.
        if self.deferred.is_none() {
            let from = self.registration.registry.millis() + self.patience_millis();
            let state = State::resting(self.is_evictable, from);
            self.registration.entry.eviction.set(state);
        }
        let waited = match self.is_stopping() {
            true => Ok(()),
            false => self.refill(Wait::ForRequest),
        };
        self.collect();
        // Who was ended while its request came does not act on it.
        let goes_on = self.registration.entry.eviction.resume();
        match waited {
            _ if !goes_on && self.is_stopping() => Ok(false),
            Ok(()) if !goes_on => Err(evicted()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// A connection that never asked has a moment for its first request.
    fn patience_millis(&self) -> u64 {
        if self.has_asked { 0 } else { SLOW_MILLIS }
    }

    /// Leaves the reply to the present request to another thread. Until [`Connection::next_request`],
    /// which waits for that reply if it has to, nothing may be written.
    pub fn defer(&mut self) -> Deferred {
        match self.try_defer() {
            Some(deferred) => deferred,
            None => self.defer_as(Outlook::Keep),
        }
    }

    /// The same, but only if the other thread can send the reply as soon as it is there, which saves
    /// this one from being woken.
    pub fn try_defer(&mut self) -> Option<Deferred> {
        let is_worth_it = self.open_connections() >= DEFERRED_CONNECTIONS_MIN;
        let is_next = self.output.is_empty() && self.buffered().is_empty();
        let is_evictable = self.is_evictable;
        (is_worth_it && is_next && has_room(self.stream()))
            .then(|| self.defer_as(Outlook::Send { is_evictable }))
    }

    fn defer_as(&mut self, outlook: Outlook) -> Deferred {
        self.deferred = Some(outlook);
        let (given, _) = self.given.get_or_insert_with(|| sync_channel(1));
        let Registration {
            registry, entry, ..
        } = self.registration;
        Deferred {
            registry: Arc::clone(registry),
            entry: Arc::clone(entry),
            outlook,
            given: Some(given.clone()),
        }
    }

    /// Whether a reply is sent by another thread as soon as it is there.
    fn is_sent_elsewhere(&self) -> bool {
        matches!(self.deferred, Some(Outlook::Send { .. }))
    }

    /// Waits for the reply that was left to another thread, if one was.
    fn collect(&mut self) {
        if self.deferred.take().is_none() {
            return;
        }
        if let Some((_, replies)) = &self.given {
            self.output.extend(replies.recv().unwrap_or_default());
        }
    }

    /// Sends all that there is to send, also what is left to another thread.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.collect();
        // If it was ended meanwhile, it ends anyway; what can still be sent is sent.
        let _ = self.registration.entry.eviction.resume();
        self.flush()
    }

    /// Waits for something else than the peer's next request: until `wakeup` is woken. Everything
    /// written so far is sent before the wait.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn wait(&mut self, wakeup: &Wakeup, deadline: Instant) -> io::Result<Waited> {
        self.flush()?;
        self.shrink();
        let eviction = &self.registration.entry.eviction;
        eviction.set(State::Waiting);
        let waited = match self.is_stopping() {
            true => Ok(Waited::Stopping),
            false => wakeup.wait(self.stream(), deadline),
        };
        // Nobody but its thread ends this wait.
        eviction.set(State::Busy);
        // Whoever stops the server ends an idle connection's input, as its peer may too.
        match waited? {
            Waited::HungUp if self.is_stopping() => Ok(Waited::Stopping),
            waited => Ok(waited),
        }
    }

    /// Counts this connection among those that are not evicted because they wait, or have something
    /// reserved. To be called before either; once is enough.
    ///
    /// # Errors
    /// If there are as many as may be, or as many from that address, and all of them do.
    pub fn become_waiter(&mut self) -> io::Result<()> {
        self.is_waiter = self.is_waiter || self.registration.become_waiter();
        match self.is_waiter {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "as many connections wait or have something reserved as --max-connections allows",
            )),
        }
    }

    /// What this connection's thread can be woken by in [`Connection::wait`].
    ///
    /// # Errors
    /// Those of [`Connection::become_waiter`], or if there are no more descriptors.
    pub fn wakeup(&mut self) -> io::Result<Wakeup> {
        self.become_waiter()?;
        Wakeup::new()
    }

    /// Notes that a request begins or has ended; a connection that never asked anything does not
    /// count.
    fn note_request(&self) {
        if self.has_asked {
            self.registration.registry.note_request();
        }
    }

    /// Begins to count what moves, for a connection that may be slow.
    fn begin_moving(&mut self) {
        self.moved_bytes = 0;
        self.waited_millis = 0;
    }

    /// Does what moves bytes to the peer or from it in the middle of a request or a reply, and may have
    /// to wait for the peer to do its part; meanwhile the connection may be evicted.
    fn blocked(
        &mut self,
        move_bytes: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.is_evictable || self.must_arrive {
            return retry(self.stream(), move_bytes);
        }
        let Registration {
            registry, entry, ..
        } = self.registration;
        let since = registry.millis();
        let patience = SLOW_MILLIS.saturating_sub(self.waited_millis);
        entry.eviction.set(State::Slow(since + patience));
        let moved = retry(&entry.stream, move_bytes);
        if !entry.eviction.resume() {
            return Err(evicted());
        }
        self.waited_millis += registry.millis().saturating_sub(since);
        self.moved_bytes += *moved.as_ref().unwrap_or(&0) as u64;
        if self.moved_bytes >= SLOW_BYTES {
            self.begin_moving();
        }
        moved
    }

    /// Gives back what only a busy connection needs.
    fn shrink(&mut self) {
        if self.consumed == self.filled && self.input.len() > BUFFER_BYTES_MIN {
            (self.consumed, self.filled) = (0, 0);
            self.input = Vec::new();
        }
        self.output.shrink_to(BUFFER_BYTES_MIN);
    }

    fn stream(&self) -> &'a TcpStream {
        &self.registration.entry.stream
    }
}

/// What a read waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The next request.
    ForRequest,
    /// More of the present one.
    WithinRequest,
}

/// Does what moves bytes, until a signal does not interrupt it.
fn retry(
    stream: &TcpStream,
    mut move_bytes: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match move_bytes(stream) {
            // A socket's own timeout is reported as EAGAIN.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn evicted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "it made room for another")
}
