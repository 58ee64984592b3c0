//! What a connection writes: gathered, and sent when it is a lot or before the next wait. The peer
//! has a least rate at which it must read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::input::BUFFER_BYTES_MIN;
use crate::stream::PeerStream;
use crate::write_rate::WriteRate;

/// Output is sent when this many bytes have gathered, even while there is more input. On loopback a
/// segment holds nearly 64 KiB, and each send leaves a rest that is a segment of its own, and hardly
/// cheaper than a full one.
pub(crate) const OUTPUT_BYTES: usize = 128 * 1024;

/// How much room for output is kept while a connection is busy, in bytes: what was gathered before it
/// was a lot, and one reply more.
const OUTPUT_KEPT_BYTES: usize = 2 * OUTPUT_BYTES;

/// A file is sent in pieces of at most this many bytes.
const FILE_PIECE_BYTES: u64 = 256 * 1024;

/// A file is read in pieces of at most this many bytes if it is encrypted on the way, or the kernel cannot
/// send it: a few whole records, which the processor's cache holds.
const COPIED_PIECE_BYTES: usize = 64 * 1024;

/// The replies that are gathered and not sent yet.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
}

impl Output {
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.len() >= OUTPUT_BYTES
    }

    /// Frees what only a busy connection needs.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to(BUFFER_BYTES_MIN);
    }

    /// Sends what has been gathered.
    ///
    /// # Errors
    /// Those of the stream; [`io::ErrorKind::TimedOut`] if the peer reads too little.
    pub(crate) fn send(&mut self, stream: &mut PeerStream, flags: SendFlags) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut gathered = std::mem::take(&mut self.bytes);
        let sent = stream.send_all(&gathered, flags);
        gathered.clear();
        gathered.shrink_to(OUTPUT_KEPT_BYTES);
        self.bytes = gathered;
        sent
    }

    /// Sends what has been gathered, then these bytes, which are not copied.
    ///
    /// # Errors
    /// As [`Output::send`].
    pub(crate) fn send_behind(&mut self, stream: &mut PeerStream, bytes: &[u8]) -> io::Result<()> {
        self.send(stream, SendFlags::MORE)?;
        stream.send_all(bytes, SendFlags::empty())
    }

    /// Sends what has been gathered, then `bytes` bytes of `file` from `start`. Returns how many
    /// there were; less if the file ended early.
    ///
    /// # Errors
    /// As [`Output::send`], and those of the file.
    pub(crate) fn send_file(
        &mut self,
        stream: &mut PeerStream,
        file: &File,
        start: u64,
        bytes: u64,
    ) -> io::Result<u64> {
        let more = match bytes {
            0 => SendFlags::empty(),
            // The head and the start of the file leave together.
            _ => SendFlags::MORE,
        };
        self.send(stream, more)?;
        stream.restart_count();
        let end = start.saturating_add(bytes);
        let sent_to = match stream.is_encrypted() {
            true => start,
            false => send_by_kernel(stream, file, start, end)?,
        };
        Ok(send_copied(stream, file, sent_to, end)? - start)
    }
}

/// Sends a file from `at` to `end` without a copy. Returns up to where it did, which is `at` if the file
/// system cannot do that.
fn send_by_kernel(stream: &mut PeerStream, file: &File, mut at: u64, end: u64) -> io::Result<u64> {
    let mut rate = WriteRate::default();
    while at < end {
        let piece = (end - at).min(FILE_PIECE_BYTES) as usize;
        let sent =
            stream.wait_for_peer(
                |socket| match sendfile(socket, file, Some(&mut at), piece) {
                    Err(Errno::INVAL | Errno::NOSYS) => Ok(0),
                    sent => Ok(sent?),
                },
            )?;
        if sent == 0 {
            break;
        }
        stream.registration().shard().sent(sent);
        rate.note(sent)?;
    }
    Ok(at)
}

/// Sends a file from `at` to `end` by way of a buffer. Returns up to where, which is less if the file
/// ended early.
fn send_copied(stream: &mut PeerStream, file: &File, mut at: u64, end: u64) -> io::Result<u64> {
    let left = |at| usize::try_from(end - at).unwrap_or(usize::MAX);
    let mut piece = vec![0; left(at).min(COPIED_PIECE_BYTES)];
    while at < end {
        let piece_bytes = left(at).min(COPIED_PIECE_BYTES);
        let read = match file.read_at(&mut piece[..piece_bytes], at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            break;
        }
        at += read as u64;
        stream.send_all(&piece[..read], SendFlags::empty())?;
    }
    Ok(at)
}
