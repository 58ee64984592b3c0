//! One connection: a buffered stream with deadlines.
//!
//! What is written is gathered, and sent when the connection next has to wait for input. So the
//! replies to pipelined requests go out together, and no service has to remember to flush.
//!
//! A peer may be slow, but it cannot hold a thread for longer than it is worth: what it sends has a
//! [`Deadline`], what it reads has a least rate, and at the connection limit one that asks for nothing,
//! or gets hardly anywhere, is evicted.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::net::SendFlags;

use crate::access::Access;
use crate::entry::Entry;
use crate::eviction::{SLOW_MILLIS, State};
use crate::input::{Deadline, INPUT_BYTES_MAX, Input};
use crate::metrics::{Kind, Meter, Outcome};
use crate::output::{OUTPUT_BYTES, Output};
use crate::peer::Peer;
use crate::pending_reply::Replies;
use crate::registry::{Registration, Registry};
use crate::stream::{PeerStream, Wait, evicted};
use crate::tls::Tls;

/// A TLS handshake must be done this long after the connection was accepted.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

mod login;
mod pending;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod waiting;

pub use waiting::Waited;
use waiting::Waiting;

/// A connection, as the service sees it: read it through [`io::BufRead`], write to it through
/// [`io::Write`].
pub struct Connection<'a> {
    stream: PeerStream<'a>,
    input: Input,
    output: Output,
    /// The replies that other threads complete; made when it is first needed.
    pending: Option<Arc<Replies>>,
    waiting: Waiting,
    has_asked: bool,
    meter: Meter<'a>,
}

/// Aborts a connection from another thread.
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
    pub(crate) fn new(registration: &'a Arc<Registration>) -> Self {
        Self {
            stream: PeerStream::new(registration),
            input: Input::new(),
            output: Output::default(),
            pending: None,
            waiting: Waiting::default(),
            has_asked: false,
            meter: Meter::new(registration.shard()),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.entry().peer
    }

    /// Who may use the server.
    pub(crate) fn access(&self) -> &'a Access {
        &self.registry().access
    }

    /// The connections open at the moment, this one included.
    pub fn open_connections(&self) -> usize {
        self.registry().open()
    }

    /// Whether the server is shutting down, so that this should be the connection's last reply.
    pub fn is_stopping(&self) -> bool {
        self.registry().is_stopping()
    }

    /// Whether this should be the connection's last reply, because the server is shutting down or somebody
    /// else needs the place.
    pub(crate) fn ends_next(&self) -> bool {
        self.is_stopping() || self.is_leaving()
    }

    /// Whether somebody else needs the place, and nothing that is reserved would be lost.
    fn is_leaving(&self) -> bool {
        self.entry().is_leaving() && self.stream.is_evictable()
    }

    /// Whether the server is shutting down and this connection has had a request. One that was accepted
    /// just before still has its first: its peer cannot know that it should ask another server.
    pub(crate) fn begins_no_other(&self) -> bool {
        self.has_asked && self.is_stopping()
    }

    /// What it has asked was only who it is: its first request is still to come.
    pub(crate) fn expect_first_request(&mut self) {
        self.has_asked = false;
    }

    /// Whether what it reads is encrypted. Then only the peer can end its half of the connection, and
    /// what somebody on the way holds back is missing.
    pub fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// Whether the peer has ended its half of the connection.
    pub fn peer_has_closed(&self) -> bool {
        self.input.has_ended()
    }

    /// Aborts this connection from another thread.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(Some(Arc::clone(self.entry())))
    }

    /// Says whether this connection may be evicted while it waits for a request, or for its peer in the
    /// middle of one. It may, unless the service says that something would be lost by it: a message
    /// that is reserved for it.
    pub fn set_evictable(&mut self, is_evictable: bool) {
        self.stream.set_evictable(is_evictable);
    }

    /// Sets whether the peer is told by a reset if the connection ends now. It is for a body whose end is that
    /// of the connection.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn reset_if_it_ends(&self, must_reset: bool) -> io::Result<()> {
        self.entry().set_must_reset(must_reset)
    }

    /// The peer was sent everything. From now on the connection waits only for the peer to read it, and may
    /// be evicted.
    pub(crate) fn linger_from_now(&self) {
        let now = self.registry().millis();
        self.entry().eviction.set(State::Slow(now));
    }

    /// What it is registered with.
    pub(crate) fn registry(&self) -> &'a Arc<Registry> {
        &self.registration().registry
    }

    /// What it is registered as.
    pub(crate) fn registration(&self) -> &'a Arc<Registration> {
        self.stream.registration()
    }

    fn entry(&self) -> &'a Arc<Entry> {
        &self.registration().entry
    }
}

/// TLS.
impl Connection<'_> {
    /// How the stream begins below TLS, up to this many bytes; nothing at its end. Meanwhile, and during the handshake,
    /// the connection may be evicted as one that is slow.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::TimedOut`] after [`HANDSHAKE_WAIT`].
    pub(crate) fn peek(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        self.input.set_deadline(Deadline::Within(HANDSHAKE_WAIT));
        self.input.peek(&mut self.stream, bytes)
    }

    /// Does the handshake that the peer begins, and is encrypted from then on.
    ///
    /// # Errors
    /// As [`Connection::peek`], whose deadline continues; [`io::ErrorKind::InvalidData`] if the two
    /// cannot agree, of which the peer is told.
    pub(crate) fn encrypt(&mut self, tls: &Tls) -> io::Result<()> {
        self.input.encrypt(&mut self.stream, tls.settings())
    }

    /// Sends what has been gathered, and that it is all.
    ///
    /// # Errors
    /// Those of the stream.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.stream.end()
    }
}

/// Waiting for requests.
impl Connection<'_> {
    /// Waits for the first byte of the next request, and returns it without consuming it. `None` is
    /// the end: the peer closed, was silent for `idle`, or the server is shutting down. Everything
    /// written so far is sent before the wait.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn next_request(&mut self, idle: Option<Duration>) -> io::Result<Option<u8>> {
        let first = self.first_byte(idle)?;
        self.has_asked |= first.is_some();
        self.set_probing(false);
        Ok(first)
    }

    /// The same, but does not count as a request yet.
    pub(crate) fn first_byte(&mut self, idle: Option<Duration>) -> io::Result<Option<u8>> {
        self.flush_if_large()?;
        if self.has_asked && self.is_leaving() {
            log::debug!("Leaves for another");
            return Ok(None);
        }
        if !self.has_input()? && !self.wait_for_request(idle)? {
            return Ok(None);
        }
        self.stream.restart_count();
        Ok(self.buffered().first().copied())
    }

    /// Whether there is input, so that nothing need be sent or waited for first.
    fn has_input(&mut self) -> io::Result<bool> {
        if self.input.is_empty() && self.stream.has_input() {
            self.input.refill(&mut self.stream, Wait::WithinRequest)?;
        }
        Ok(!self.input.is_empty())
    }

    /// Waits for input; returns whether the connection continues: the peer was not silent for `idle`,
    /// and the server does not stop.
    fn wait_for_request(&mut self, idle: Option<Duration>) -> io::Result<bool> {
        self.input
            .set_deadline(idle.map_or(Deadline::None, Deadline::Stall));
        self.meter.flush();
        self.note_request();
        if let Some(replies) = self.pending.clone()
            && let Some(continues) = self.wait_beside_pending(&replies, idle)?
        {
            return Ok(continues);
        }
        self.flush()?;
        self.registration().has_arrived();
        self.shrink();
        let eviction = &self.entry().eviction;
        let from = self.registry().millis() + self.patience_millis();
        eviction.set(State::resting(self.stream.is_evictable(), from));
        // The state is set before this look, and the thread that stops the server looks at the states
        // after it has said so: one of the two sees the other.
        let waited = match self.begins_no_other() {
            true => Ok(()),
            false => self.input.refill(&mut self.stream, Wait::ForRequest),
        };
        self.meter.arrived();
        if !self.resume()? {
            return Ok(false);
        }
        match waited {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Makes the connection busy again after a wait; returns false if it was ended meanwhile because
    /// the server stops. A connection that was ended while its request came does not act on it.
    ///
    /// # Errors
    /// If it was evicted.
    fn resume(&self) -> io::Result<bool> {
        match self.entry().eviction.resume() {
            true => Ok(true),
            false if self.is_stopping() => Ok(false),
            false => Err(evicted()),
        }
    }

    /// A connection that never asked has a moment for its first request.
    fn patience_millis(&self) -> u64 {
        if self.has_asked { 0 } else { SLOW_MILLIS }
    }

    /// Notes that a request begins or has ended, for the server that ends when there are none. A probe
    /// is none.
    fn note_request(&self) {
        if self.has_asked && !self.entry().is_probing.load(Ordering::Relaxed) {
            self.registry().note_request();
        }
    }

    fn set_probing(&self, is_probing: bool) {
        self.entry().is_probing.store(is_probing, Ordering::Relaxed);
    }

    /// A request has arrived, and this is what it asks.
    pub(crate) fn begin(&mut self, kind: Kind) {
        self.meter.begin(kind);
        self.note_request();
    }

    /// A request has arrived, and it is a probe.
    pub(crate) fn begin_probe(&mut self, kind: Kind) {
        self.set_probing(true);
        self.meter.begin(kind);
    }

    /// Says that the reply to the oldest request that is not answered yet is written. Pending replies
    /// say so themselves.
    pub fn answered(&mut self, outcome: Outcome) {
        self.meter.answered(outcome);
    }

    /// Frees what only a busy connection needs.
    fn shrink(&mut self) {
        self.input.shrink();
        self.output.shrink();
    }
}

/// Reading.
impl Connection<'_> {
    /// What has arrived and is not consumed.
    pub fn buffered(&self) -> &[u8] {
        self.input.buffered()
    }

    /// Reads more behind what has arrived, which the caller bounds; returns false at the end of the
    /// stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub(crate) fn read_ahead(&mut self) -> io::Result<bool> {
        self.flush()?;
        self.input.extend(&mut self.stream)
    }

    /// Sets how long the reads from now on may take.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.input.set_deadline(deadline);
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // A large read need not go through the buffer.
        if self.input.is_empty() && out.len() >= INPUT_BYTES_MAX {
            self.flush()?;
            let read = (self.input).receive(&mut self.stream, out, Wait::WithinRequest);
            self.meter.arrived();
            return read;
        }
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Connection<'_> {
    /// Everything written so far is sent before a wait.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.has_input()? {
            self.flush()?;
            self.input.refill(&mut self.stream, Wait::WithinRequest)?;
            self.meter.arrived();
        }
        Ok(self.input.buffered())
    }

    fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
    }
}

/// Writing.
impl Connection<'_> {
    /// Where replies are gathered; for encoders that append to a vector.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output.bytes
    }

    /// Sends what has been gathered if it is a lot.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn flush_if_large(&mut self) -> io::Result<()> {
        if let Some(replies) = self.pending.clone()
            && replies.has_much_completed(OUTPUT_BYTES)
        {
            return self.send_completed(&replies);
        }
        match self.output.is_large() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Sends what has been gathered, then `bytes` bytes of `file` from `start`. Returns how many
    /// there were; less if the file ended early.
    ///
    /// # Errors
    /// Those of the stream and the file; [`io::ErrorKind::TimedOut`] if the peer reads too little.
    pub fn send_file(&mut self, file: &File, start: u64, bytes: u64) -> io::Result<u64> {
        self.gather_pending()?;
        self.output.send_file(&mut self.stream, file, start, bytes)
    }

    /// Sends what has been gathered, then these bytes, which are not copied.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::TimedOut`] if the peer reads too little.
    pub fn send_behind(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gather_pending()?;
        self.output.send_behind(&mut self.stream, bytes)
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.bytes.extend_from_slice(bytes);
        self.flush_if_large()?;
        Ok(bytes.len())
    }

    /// Waits until every pending reply is completed, and sends everything.
    fn flush(&mut self) -> io::Result<()> {
        self.gather_pending()?;
        self.output.send(&mut self.stream, SendFlags::empty())
    }
}
