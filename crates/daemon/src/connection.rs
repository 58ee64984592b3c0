//! One connection: a buffered stream with deadlines.
//!
//! What is written is gathered and sent when the connection next has to wait for input, so the
//! replies to pipelined requests go out together, and nobody has to remember to flush.
//!
//! A peer may be slow, but it cannot hold a thread for longer than it is worth: what it sends has a
//! [`Deadline`], what it takes has a least rate, and when there are too many connections, one that
//! asks for nothing, or gets hardly anywhere, makes way.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::accept::WRITE_STALL;
use crate::deferred::{Deferred, Given, Outlook};
use crate::registry::{Entry, Registration};
use crate::{Waited, Wakeup};

/// The size of a buffer, in bytes: of a connection that asks little...
const BUFFER_BYTES_MIN: usize = 4 * 1024;
/// ...and of one that sends as fast as it can. It grows when a read fills it.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Output is sent when this many bytes of it have gathered, also while there is more input. On
/// loopback a segment holds nearly 64 KiB, and each send leaves a rest that is a segment of its own,
/// and hardly cheaper than a full one.
const OUTPUT_BYTES: usize = 128 * 1024;

/// So much room is kept for output while a connection is busy, in bytes: what was gathered before it
/// was a lot, and a reply more.
const OUTPUT_KEPT_BYTES: usize = 2 * OUTPUT_BYTES;

/// What a peer has to take of a reply within [`WRITE_STALL`], in bytes: 1 KiB a second.
const WRITE_STALL_BYTES: u64 = 1024 * WRITE_STALL.as_secs();

/// A file is sent in pieces of up to so many bytes.
const FILE_PIECE_BYTES: u64 = 256 * 1024;

/// A connection that is to make way does so when, in the middle of a request or a reply, it has
/// moved less than [`WAY_BYTES`] in so long...
const WAY_PATIENCE_MILLIS: u64 = 1000;
/// ...in bytes.
const WAY_BYTES: u64 = 16 * 1024;

/// With fewer connections than this, each sends its own replies: the processors have time to wake
/// its thread, and whoever it waits for is soon free for the next one.
const DEFERRED_CONNECTIONS_MIN: usize = 32;

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

/// A connection, as the service sees it: read it through [`BufRead`], write to it through
/// [`Write`].
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
    /// Whether it makes way when there are too many.
    gives_way: bool,
    /// How long it has waited for `moved_bytes` to go either way. What the service itself takes is
    /// not the peer's fault, and does not count.
    waited_millis: u64,
    moved_bytes: u64,
}

/// Ends a connection from another thread.
#[derive(Clone, Default)]
pub struct Cutter(Option<Arc<Entry>>);

impl Cutter {
    /// Makes every read and write of the connection fail from now on.
    pub fn cut(&self) {
        if let Some(entry) = &self.0 {
            entry.cut();
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
            gives_way: false,
            waited_millis: 0,
            moved_bytes: 0,
        }
    }

    /// From now on, this connection makes way for a new one if there are too many, when it asks for
    /// nothing or gets hardly anywhere.
    pub(crate) fn give_way(&mut self) {
        self.gives_way = true;
    }

    /// The peer was sent all that it will be. From now on there is nothing left to wait for but that
    /// it has read that.
    pub(crate) fn give_way_soon(&self) {
        if self.gives_way {
            let Registration {
                registry, entry, ..
            } = self.registration;
            entry.give_way(registry.millis() + WAY_PATIENCE_MILLIS);
        }
    }

    /// What ends this connection from another thread.
    pub fn cutter(&self) -> Cutter {
        Cutter(Some(Arc::clone(&self.registration.entry)))
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
        let first = self.buffered().first().copied();
        self.has_asked |= first.is_some();
        self.note_request();
        Ok(first)
    }

    /// Waits for input; returns whether the peer was not silent for `idle`.
    fn wait_for_request(&mut self, idle: Option<Duration>) -> io::Result<bool> {
        self.deadline = idle.map_or(Deadline::None, Deadline::Stall);
        self.note_request();
        self.flush()?;
        self.shrink();
        // With a reply outstanding, whoever gives it does this then.
        if self.deferred.is_none() {
            self.registration.entry.set_idle(true);
        }
        self.begin_moving();
        let waited = match self.is_stopping() {
            true => Ok(()),
            false => self.refill(),
        };
        self.collect();
        self.registration.entry.set_idle(false);
        match waited {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            other => other.map(|()| true),
        }
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
        let gives_way = self.gives_way;
        (is_worth_it && is_next && has_room(self.stream()))
            .then(|| self.defer_as(Outlook::Send { gives_way }))
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
        let entry = &self.registration.entry;
        entry.set_idle(false);
        if self.gives_way {
            entry.stay();
        }
    }

    /// Sends all that there is to send, also what is left to another thread.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.collect();
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
        self.registration.entry.set_idle(true);
        let waited = match self.is_stopping() {
            true => Ok(Waited::HungUp),
            false => wakeup.wait(self.stream(), deadline),
        };
        self.registration.entry.set_idle(false);
        waited
    }

    /// What this connection's thread can be woken by in [`Connection::wait`].
    ///
    /// # Errors
    /// If there are no more descriptors, or none but those that new connections need.
    pub fn wakeup(&self) -> io::Result<Wakeup> {
        let count = self.registration.registry.count_wakeup();
        Wakeup::counted(Some(count.ok_or(Errno::MFILE)?))
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
        debug_assert_eq!(self.deferred, None, "a reply comes before this");
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

    /// Sends what has been gathered, then `bytes` bytes of `file` from `start`. Returns how many
    /// there were; less if the file ended early.
    ///
    /// # Errors
    /// Those of the stream and the file; [`io::ErrorKind::TimedOut`] if the peer takes too little.
    pub fn send_file(&mut self, file: &File, start: u64, bytes: u64) -> io::Result<u64> {
        let more = match bytes {
            0 => SendFlags::empty(),
            // The head and the start of the file leave together.
            _ => SendFlags::MORE,
        };
        self.send_gathered(more)?;
        self.begin_moving();
        let mut at = start;
        let end = start.saturating_add(bytes);
        let mut rate = WriteRate::default();
        while at < end {
            let piece = (end - at).min(FILE_PIECE_BYTES);
            let sent = self.blocked(|stream| {
                match sendfile(stream, file, Some(&mut at), piece as usize) {
                    // Not every file system has it.
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        let sent = copy_piece(stream, file, at, piece)?;
                        at += sent as u64;
                        Ok(sent)
                    }
                    other => Ok(other?),
                }
            })?;
            if sent == 0 {
                break;
            }
            rate.note(sent)?;
        }
        Ok(at - start)
    }

    /// Sends what has been gathered.
    fn send_gathered(&mut self, flags: SendFlags) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut output = std::mem::take(&mut self.output);
        let sent = self.send_all(&output, flags | SendFlags::NOSIGNAL);
        output.clear();
        output.shrink_to(OUTPUT_KEPT_BYTES);
        self.output = output;
        sent
    }

    fn send_all(&mut self, bytes: &[u8], flags: SendFlags) -> io::Result<()> {
        // Nearly always there is room for all of it.
        let sent = send(self.stream(), bytes, flags | SendFlags::DONTWAIT);
        let mut rest = &bytes[sent.unwrap_or(0)..];
        if rest.is_empty() {
            return Ok(());
        }
        self.begin_moving();
        let mut rate = WriteRate::default();
        while !rest.is_empty() {
            let sent = self.blocked(|stream| Ok(send(stream, rest, flags)?))?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[sent..];
            if !rest.is_empty() {
                rate.note(sent)?;
            }
        }
        Ok(())
    }

    /// Begins to count what moves, for a connection that may have to make way.
    fn begin_moving(&mut self) {
        self.moved_bytes = 0;
        self.waited_millis = 0;
    }

    /// Does what moves bytes to the peer or from it, and may have to wait for the peer to do its
    /// part; meanwhile the connection may have to make way.
    fn blocked(
        &mut self,
        mut move_bytes: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Registration {
            registry, entry, ..
        } = self.registration;
        // While a reply is outstanding, the peer is not what is waited for.
        let gives_way = self.gives_way && self.deferred.is_none();
        let since = match gives_way {
            true => registry.millis(),
            false => 0,
        };
        if gives_way {
            // One that never asked has a moment for its first request.
            let patience = match self.has_asked && entry.is_idle() {
                true => 0,
                false => WAY_PATIENCE_MILLIS.saturating_sub(self.waited_millis),
            };
            entry.give_way(since + patience);
        }
        let moved = loop {
            match move_bytes(&entry.stream) {
                // A socket's own timeout is reported as EAGAIN.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        if gives_way {
            entry.stay();
            self.waited_millis += registry.millis().saturating_sub(since);
            self.moved_bytes += *moved.as_ref().unwrap_or(&0) as u64;
            if self.moved_bytes >= WAY_BYTES {
                self.begin_moving();
            }
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

    /// Replaces the consumed input by one read. At the end of the stream it stays empty.
    fn refill(&mut self) -> io::Result<()> {
        let bytes = match self.input.len() {
            0 => BUFFER_BYTES_MIN,
            // It was full, so there will be more.
            bytes if self.filled == bytes => (bytes * 4).min(INPUT_BYTES_MAX),
            bytes => bytes,
        };
        (self.consumed, self.filled) = (0, 0);
        let mut input = std::mem::take(&mut self.input);
        input.resize(bytes, 0);
        let read = self.receive(&mut input);
        self.input = input;
        self.filled = read?;
        Ok(())
    }

    /// One read from the peer, before the deadline. Everything written so far is sent first.
    fn receive(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        if let Deadline::Within(wait) = self.deadline {
            self.deadline = Deadline::At(Instant::now() + wait);
        }
        let until = |moment: Instant| moment.saturating_duration_since(Instant::now());
        let wait = match self.deadline {
            Deadline::None => None,
            Deadline::Stall(wait) | Deadline::Within(wait) => Some(wait),
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
        let read = self.blocked(|stream| Ok(recv(stream, &mut *out, RecvFlags::empty())?.1))?;
        self.peer_has_closed |= read == 0;
        Ok(read)
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // A large read need not go through the buffer.
        if self.consumed == self.filled && out.len() >= INPUT_BYTES_MAX {
            return self.receive(out);
        }
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
        self.output().extend_from_slice(bytes);
        self.flush_if_large()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_gathered(SendFlags::empty())
    }
}

/// Whether a socket takes a short reply more without making its writer wait. Linux says so while at
/// least a third of its buffer is free.
fn has_room(stream: &TcpStream) -> bool {
    let mut waiting = [PollFd::new(stream, PollFlags::OUT)];
    let ready = poll(&mut waiting, Some(&Timespec::default()));
    ready == Ok(1) && waiting[0].revents() == PollFlags::OUT
}

/// What a peer takes of a reply.
struct WriteRate {
    since: Instant,
    bytes: u64,
}

impl Default for WriteRate {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
        }
    }
}

impl WriteRate {
    /// Notes what was taken.
    ///
    /// # Errors
    /// If it was too little in too long a time.
    fn note(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes as u64;
        if self.since.elapsed() >= WRITE_STALL {
            if self.bytes < WRITE_STALL_BYTES {
                return Err(io::ErrorKind::TimedOut.into());
            }
            *self = Self::default();
        }
        Ok(())
    }
}

/// Copies the next piece of a file to the peer by way of a buffer.
fn copy_piece(mut stream: &TcpStream, file: &File, at: u64, bytes: u64) -> io::Result<usize> {
    let mut piece = vec![0; bytes as usize];
    let read = file.read_at(&mut piece, at)?;
    stream.write(&piece[..read])
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::registry::Registry;

    /// Connections that are served, enough for replies to be left to other threads; and their peers.
    fn registered() -> (Vec<Registration>, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let registry = Registry::new(100, 1000);
        let one = |_| {
            let peer = TcpStream::connect(addr).unwrap();
            let (stream, from) = listener.accept().unwrap();
            (registry.register(stream, from).unwrap(), peer)
        };
        (0..DEFERRED_CONNECTIONS_MIN).map(one).unzip()
    }

    #[test]
    fn a_reply_is_sent_by_another_thread_if_nothing_is_in_its_way() {
        let (registered, mut peers) = registered();
        let mut connection = Connection::new(&registered[0]);
        let deferred = connection.try_defer().expect("nothing is in its way");
        let mut read = [0; 5];
        thread::scope(|scope| {
            scope.spawn(|| deferred.reply(b"first"));
            peers[0].read_exact(&mut read).unwrap();
            assert_eq!(&read, b"first");
            // The next one waits for it, whenever its request comes.
            peers[0].write_all(b"next").unwrap();
            assert_eq!(connection.next_request(None).unwrap(), Some(b'n'));
        });
        // Something of the next request has arrived.
        assert!(connection.try_defer().is_none());
        connection.consume(4);
        connection
            .write_all(b"something is to be sent before")
            .unwrap();
        assert!(connection.try_defer().is_none());
    }

    #[test]
    fn a_reply_for_which_there_is_no_room_is_sent_by_its_own_thread() {
        let (registered, mut peers) = registered();
        let mut connection = Connection::new(&registered[0]);
        let mut filled = 0;
        while let Ok(sent) = send(connection.stream(), &[0; 10_000], SendFlags::DONTWAIT) {
            filled += sent;
        }
        assert!(connection.try_defer().is_none());
        let deferred = connection.defer();
        let mut read = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| deferred.reply(b"last"));
            scope.spawn(|| peers[0].read_to_end(&mut read).unwrap());
            connection.finish().unwrap();
            registered[0].entry.cut();
        });
        assert_eq!(read.len(), filled + 4);
        assert!(read.ends_with(b"last"));
    }

    #[test]
    fn replies_to_a_long_pipeline_are_sent_when_they_are_many() {
        const REPLY_BYTES: usize = 4096;
        let (registered, mut peers) = registered();
        let mut connection = Connection::new(&registered[0]);
        let replies = OUTPUT_BYTES / REPLY_BYTES;
        peers[0].write_all(&vec![b'x'; replies + 1]).unwrap();
        for _ in 0..replies {
            assert_eq!(connection.next_request(None).unwrap(), Some(b'x'));
            connection.consume(1);
            connection.defer().reply(&[0; REPLY_BYTES]);
        }
        // There is one more request, but all these replies are there already.
        assert_eq!(connection.next_request(None).unwrap(), Some(b'x'));
        peers[0].read_exact(&mut [0; OUTPUT_BYTES]).unwrap();
    }

    #[test]
    fn a_reply_that_is_never_given_ends_the_connection() {
        let (registered, mut peers) = registered();
        let mut connection = Connection::new(&registered[0]);
        drop(connection.defer());
        assert_eq!(peers[0].read(&mut [0]).unwrap(), 0);
        assert_eq!(connection.next_request(None).unwrap(), None);
    }

    #[test]
    fn a_peer_that_takes_too_little_for_too_long_is_given_up() {
        let rate = |bytes: u64, ago: Duration| WriteRate {
            since: Instant::now() - ago,
            bytes,
        };
        rate(0, Duration::ZERO).note(1).unwrap();
        rate(WRITE_STALL_BYTES, WRITE_STALL).note(1).unwrap();
        let slow = rate(WRITE_STALL_BYTES / 2, WRITE_STALL).note(1);
        assert_eq!(slow.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut steady = rate(WRITE_STALL_BYTES, WRITE_STALL);
        steady.note(1).unwrap();
        steady.note(1).expect("the next 30 s have only begun");
    }
}
