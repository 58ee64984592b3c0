//! What a connection reads: a buffer that grows for a peer that sends a lot, and how long a read may
//! take.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cli::Socket;
use rustix::net::RecvFlags;
use rustls::ServerConfig;

use crate::stream::{PeerStream, Wait};

/// The size of the buffer of a connection that asks little, in bytes.
pub(crate) const BUFFER_BYTES_MIN: usize = 4 * 1024;

/// The size of the buffer of a connection that sends as fast as it can, in bytes. It grows when a
/// read fills it.
pub(crate) const INPUT_BYTES_MAX: usize = 64 * 1024;

/// How long reading may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// As long as the peer is there, which TCP's keepalive watches over.
    None,
    /// This long for each read: the peer may be slow, but not silent.
    Stall(Duration),
    /// This long from the first wait on, however many reads it takes.
    Within(Duration),
    /// Up to this moment, however many reads it takes.
    At(Instant),
    /// This long for each read, and up to this moment for all of them.
    StallUntil(Duration, Instant),
}

impl Deadline {
    /// How long the peer may be silent.
    fn stall(self) -> Option<Duration> {
        match self {
            Self::Stall(stall) | Self::StallUntil(stall, _) => Some(stall),
            Self::None | Self::Within(_) | Self::At(_) => None,
        }
    }
}

/// The bytes that have arrived and are not consumed.
pub(crate) struct Input {
    /// What was read last is `bytes[consumed..filled]`.
    bytes: Vec<u8>,
    filled: usize,
    consumed: usize,
    deadline: Deadline,
    /// The read timeout that the socket has now, so that the same one is not set again.
    read_timeout: Option<Duration>,
    /// Whether the peer has ended its half of the connection.
    has_ended: bool,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            filled: 0,
            consumed: 0,
            deadline: Deadline::None,
            read_timeout: None,
            has_ended: false,
        }
    }

    pub(crate) fn buffered(&self) -> &[u8] {
        &self.bytes[self.consumed..self.filled]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.consumed == self.filled
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Frees what only a busy connection needs.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() && self.bytes.len() > BUFFER_BYTES_MIN {
            (self.consumed, self.filled) = (0, 0);
            self.bytes = Vec::new();
        }
    }

    /// Replaces the consumed input by one read. At the end of the stream it stays empty.
    pub(crate) fn refill(&mut self, stream: &mut PeerStream, wait: Wait) -> io::Result<()> {
        let size = match self.bytes.len() {
            0 => BUFFER_BYTES_MIN,
            // It was full, so there will be more.
            size if self.filled == size => (size * 4).min(INPUT_BYTES_MAX),
            size => size,
        };
        (self.consumed, self.filled) = (0, 0);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(size, 0);
        let read = self.receive(stream, &mut bytes, wait);
        self.bytes = bytes;
        self.filled = read?;
        Ok(())
    }

    /// Appends one read to the input that is not consumed; returns false at the end of the stream.
    pub(crate) fn extend(&mut self, stream: &mut PeerStream) -> io::Result<bool> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
        if self.filled == bytes.len() {
            bytes.resize((bytes.len() * 2).max(BUFFER_BYTES_MIN), 0);
        }
        let read = self.receive(stream, &mut bytes[self.filled..], Wait::WithinRequest);
        self.bytes = bytes;
        let read = read?;
        self.filled += read;
        Ok(read > 0)
    }

    /// One read from the peer, before the deadline.
    pub(crate) fn receive(
        &mut self,
        stream: &mut PeerStream,
        out: &mut [u8],
        wait: Wait,
    ) -> io::Result<usize> {
        let received = self.receive_some(stream, out, wait);
        let is_aborted = || stream.registration().entry.is_aborted();
        let read = match received {
            Ok(0) if is_aborted() => return Err(io::ErrorKind::ConnectionAborted.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => match wait {
                _ if is_aborted() => return Err(io::ErrorKind::ConnectionAborted.into()),
                // No request is cut short by it.
                Wait::ForRequest => 0,
                Wait::WithinRequest => return Err(error),
            },
            received => received?,
        };
        self.has_ended |= read == 0;
        Ok(read)
    }

    fn receive_some(
        &mut self,
        stream: &mut PeerStream,
        out: &mut [u8],
        wait: Wait,
    ) -> io::Result<usize> {
        if let Some(read) = stream.read_decrypted(out)? {
            return Ok(read);
        }
        let mut stall_end = None;
        loop {
            self.set_timeout(stream.socket(), stall_end)?;
            if let Some(read) = stream.receive(out, wait)? {
                return Ok(read);
            }
            // The rest of a record, however many reads it takes.
            stall_end = stall_end.or_else(|| Some(Instant::now() + self.deadline.stall()?));
        }
    }

    /// Exchanges the messages of a TLS handshake, before the deadline.
    ///
    /// # Errors
    /// As [`PeerStream::encrypt`].
    pub(crate) fn encrypt(
        &mut self,
        stream: &mut PeerStream,
        settings: Arc<ServerConfig>,
    ) -> io::Result<()> {
        stream.encrypt(settings, |socket| self.set_timeout(socket, None))
    }

    /// The first bytes of the stream, up to this many, which stay in the socket; none at its end. Not
    /// behind a handshake.
    pub(crate) fn peek(&mut self, stream: &mut PeerStream, bytes: usize) -> io::Result<Vec<u8>> {
        self.set_timeout(stream.socket(), None)?;
        let mut start = vec![0; bytes];
        let receive = |socket: &Socket| socket.receive(&mut start, RecvFlags::PEEK);
        let peeked = stream.wait_for_peer(receive)?;
        self.has_ended = peeked == 0;
        start.truncate(peeked);
        Ok(start)
    }

    /// Has the next read end with the deadline, and before `stall_end`.
    fn set_timeout(&mut self, socket: &Socket, stall_end: Option<Instant>) -> io::Result<()> {
        if let Deadline::Within(wait) = self.deadline {
            self.deadline = Deadline::At(Instant::now() + wait);
        }
        let until = |moment: Instant| moment.saturating_duration_since(Instant::now());
        let timeout = match self.deadline {
            Deadline::None => None,
            Deadline::Stall(wait) | Deadline::Within(wait) => Some(wait),
            Deadline::At(moment) => Some(until(moment)),
            Deadline::StallUntil(stall, moment) => Some(until(moment).min(stall)),
        };
        let timeout = match stall_end.map(until) {
            Some(left) => Some(timeout.unwrap_or(left).min(left)),
            None => timeout,
        };
        if timeout == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if timeout != self.read_timeout {
            socket.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }
}
