//! One connection: a buffered stream with deadlines.
//!
//! What is written is gathered and sent when the connection next has to wait for input, so the
//! replies to pipelined requests go out together, and nobody has to remember to flush.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::registry::Registration;
use crate::{Waited, Wakeup};

/// The size of the input buffer, in bytes.
const INPUT_BYTES: usize = 16 * 1024;

/// Output is sent when this many bytes of it have gathered, also while there is more input.
const OUTPUT_BYTES: usize = 64 * 1024;

/// How long reading may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// As long as the peer is there, which TCP's keepalive watches over.
    None,
    /// So long for each read: the peer may be slow, but not silent.
    Stall(Duration),
    /// Up to this moment, however many reads it takes.
    At(Instant),
    /// So long for each read, and up to this moment for all of them.
    StallUntil(Duration, Instant),
}

impl Deadline {
    /// A moment from now.
    pub fn after(wait: Duration) -> Self {
        Self::At(Instant::now() + wait)
    }
}

/// A connection, as the service sees it: read it through [`BufRead`], write to it through
/// [`Write`].
pub struct Connection<'a> {
    registration: &'a Registration,
    /// What was read last is `input[consumed..filled]`.
    input: Vec<u8>,
    filled: usize,
    consumed: usize,
    output: Vec<u8>,
    deadline: Deadline,
    /// The read timeout the socket has now, so that the same one is not set again.
    read_timeout: Option<Duration>,
    peer_has_closed: bool,
    has_asked: bool,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(registration: &'a Registration) -> Self {
        Self {
            registration,
            input: Vec::new(),
            filled: 0,
            consumed: 0,
            output: Vec::new(),
            deadline: Deadline::None,
            read_timeout: None,
            peer_has_closed: false,
            has_asked: false,
        }
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
        if self.consumed == self.filled {
            self.deadline = idle.map_or(Deadline::None, Deadline::Stall);
            self.note_request();
            self.registration.entry.set_idle(true);
            let waited = match self.is_stopping() {
                true => Ok(()),
                false => self.refill(),
            };
            self.registration.entry.set_idle(false);
            match waited {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                other => other?,
            }
        }
        let first = self.buffered().first().copied();
        self.has_asked |= first.is_some();
        self.note_request();
        Ok(first)
    }

    /// Waits for something else than the peer's next request: until `wakeup` is woken. Everything
    /// written so far is sent before the wait.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn wait(&mut self, wakeup: &Wakeup, deadline: Instant) -> io::Result<Waited> {
        self.flush()?;
        self.registration.entry.set_idle(true);
        let waited = match self.is_stopping() {
            true => Ok(Waited::HungUp),
            false => wakeup.wait(self.stream(), deadline),
        };
        self.registration.entry.set_idle(false);
        waited
    }

    /// Notes that a request begins or has ended; a connection that never asked anything does not
    /// count.
    fn note_request(&self) {
        if self.has_asked {
            self.registration.registry.note_request();
        }
    }

    /// What has arrived and is not consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    /// Sets how long the reads from now on may take.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Where replies are gathered; for encoders that append to a vector.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what has been gathered if it is a lot.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn flush_if_large(&mut self) -> io::Result<()> {
        match self.output.len() {
            0..OUTPUT_BYTES => Ok(()),
            _ => self.flush(),
        }
    }

    /// Sends what has been gathered, then `bytes` bytes of `file` from where it stands. Returns how
    /// many there were; less if the file ended early.
    ///
    /// # Errors
    /// Those of the stream and the file.
    pub fn send_file(&mut self, file: &std::fs::File, bytes: u64) -> io::Result<u64> {
        self.flush()?;
        io::copy(&mut file.take(bytes), &mut self.stream())
    }

    fn stream(&self) -> &'a TcpStream {
        &self.registration.entry.stream
    }

    /// Replaces the consumed input by one read. At the end of the stream it stays empty.
    fn refill(&mut self) -> io::Result<()> {
        self.flush()?;
        (self.consumed, self.filled) = (0, 0);
        self.input.resize(INPUT_BYTES, 0);
        self.filled = self.read_before_deadline()?;
        self.peer_has_closed |= self.filled == 0;
        Ok(())
    }

    fn read_before_deadline(&mut self) -> io::Result<usize> {
        loop {
            let until = |moment: Instant| moment.saturating_duration_since(Instant::now());
            let wait = match self.deadline {
                Deadline::None => None,
                Deadline::Stall(stall) => Some(stall),
                Deadline::At(moment) => Some(until(moment)),
                Deadline::StallUntil(stall, moment) => Some(until(moment).min(stall)),
            };
            if wait == Some(Duration::ZERO) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if wait != self.read_timeout {
                self.stream().set_read_timeout(wait)?;
                self.read_timeout = wait;
            }
            match self.stream().read(&mut self.input) {
                // A socket's own timeout is reported as EAGAIN.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let taken = self.fill_buf()?.read(out)?;
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for Connection<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.filled {
            self.refill()?;
        }
        Ok(&self.input[self.consumed..self.filled])
    }

    fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        self.flush_if_large()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stream = self.stream();
        let sent = stream.write_all(&self.output);
        self.output.clear();
        self.output.shrink_to(OUTPUT_BYTES);
        sent
    }
}
