//! The least rate at which a peer must read.

use std::io;
use std::time::Instant;

use crate::socket_options::WRITE_STALL;

/// What a peer must read of a reply within [`WRITE_STALL`], in bytes: 1 KiB a second.
const WRITE_STALL_BYTES: u64 = 1024 * WRITE_STALL.as_secs();

/// How fast a peer reads a reply.
pub(crate) struct WriteRate {
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
    /// Notes what the peer has read.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if it was less than [`WRITE_STALL_BYTES`] in [`WRITE_STALL`].
    pub(crate) fn note(&mut self, bytes: usize) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
