//! What a connection writes: gathered, and sent when it is a lot or before the next wait. Its peer
//! has a least rate.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::Connection;
use crate::accept::WRITE_STALL;

/// Output is sent when this many bytes of it have gathered, also while there is more input. On
/// loopback a segment holds nearly 64 KiB, and each send leaves a rest that is a segment of its own,
/// and hardly cheaper than a full one.
pub(super) const OUTPUT_BYTES: usize = 128 * 1024;

/// So much room is kept for output while a connection is busy, in bytes: what was gathered before it
/// was a lot, and a reply more.
const OUTPUT_KEPT_BYTES: usize = 2 * OUTPUT_BYTES;

/// What a peer has to take of a reply within [`WRITE_STALL`], in bytes: 1 KiB a second.
pub(super) const WRITE_STALL_BYTES: u64 = 1024 * WRITE_STALL.as_secs();

/// A file is sent in pieces of up to so many bytes.
const FILE_PIECE_BYTES: u64 = 256 * 1024;

impl Connection<'_> {
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

    /// Sends what has been gathered, then these bytes, which are not copied.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::TimedOut`] if the peer takes too little.
    pub fn send_behind(&mut self, bytes: &[u8]) -> io::Result<()> {
        let must_arrive = self.must_arrive;
        self.send_gathered(SendFlags::MORE)?;
        self.must_arrive = must_arrive;
        let sent = self.send_all(bytes, SendFlags::NOSIGNAL);
        self.must_arrive = false;
        sent
    }

    /// Sends what has been gathered.
    fn send_gathered(&mut self, flags: SendFlags) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut output = std::mem::take(&mut self.output);
        let sent = self.send_all(&output, flags | SendFlags::NOSIGNAL);
        self.must_arrive = false;
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
pub(super) fn has_room(stream: &TcpStream) -> bool {
    let mut waiting = [PollFd::new(stream, PollFlags::OUT)];
    let ready = poll(&mut waiting, Some(&Timespec::default()));
    ready == Ok(1) && waiting[0].revents() == PollFlags::OUT
}

/// What a peer takes of a reply.
pub(super) struct WriteRate {
    pub(super) since: Instant,
    pub(super) bytes: u64,
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
    pub(super) fn note(&mut self, bytes: usize) -> io::Result<()> {
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
