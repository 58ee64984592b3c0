//! What a connection reads: a buffer that grows for a peer who sends a lot, and how long a read may
//! take.

use std::io::{self, BufRead, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use super::{BUFFER_BYTES_MIN, Connection, Wait, retry};

/// The size of the buffer, in bytes, of a connection that sends as fast as it can. It grows when a
/// read fills it.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// How long reading may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// As long as the peer is there, which TCP's keepalive watches over.
    None,
    /// So long for each read: the peer may be slow, but not silent.
    Stall(Duration),
    /// So long from the first wait on, however many reads it takes.
    Within(Duration),
    /// Up to this moment, however many reads it takes.
    At(Instant),
    /// So long for each read, and up to this moment for all of them.
    StallUntil(Duration, Instant),
}

impl Connection<'_> {
    /// What has arrived and is not consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    /// Sets how long the reads from now on may take.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Replaces the consumed input by one read. At the end of the stream it stays empty.
    pub(super) fn refill(&mut self, wait: Wait) -> io::Result<()> {
        let bytes = match self.input.len() {
            0 => BUFFER_BYTES_MIN,
            // It was full, so there will be more.
            bytes if self.filled == bytes => (bytes * 4).min(INPUT_BYTES_MAX),
            bytes => bytes,
        };
        (self.consumed, self.filled) = (0, 0);
        let mut input = std::mem::take(&mut self.input);
        input.resize(bytes, 0);
        let read = self.receive(&mut input, wait);
        self.input = input;
        self.filled = read?;
        Ok(())
    }

    /// One read from the peer, before the deadline. Everything written so far is sent first.
    fn receive(&mut self, out: &mut [u8], wait: Wait) -> io::Result<usize> {
        self.flush()?;
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
        if timeout == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if timeout != self.read_timeout {
            self.stream().set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        let receive = |stream: &TcpStream| Ok(recv(stream, &mut *out, RecvFlags::empty())?.1);
        let read = match wait {
            Wait::ForRequest => retry(self.stream(), receive),
            Wait::WithinRequest => self.blocked(receive),
        }?;
        if read == 0 && self.registration.entry.is_aborted() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.peer_has_closed |= read == 0;
        Ok(read)
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // A large read need not go through the buffer.
        if self.consumed == self.filled && out.len() >= INPUT_BYTES_MAX {
            return self.receive(out, Wait::WithinRequest);
        }
        let taken = self.fill_buf()?.read(out)?;
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for Connection<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.filled {
            self.refill(Wait::WithinRequest)?;
        }
        Ok(&self.input[self.consumed..self.filled])
    }

    fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
    }
}
