//! Waiting for another thread and for the peer at the same time.
//!
//! A thread that waits for another one usually sleeps on a condition variable, where it would not
//! notice that its peer has hung up. So it sleeps in poll(2), on the connection and on an
//! eventfd(2) that the other thread writes to.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes one connection's thread.
#[derive(Debug)]
pub struct Wakeup {
    event: OwnedFd,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// It was woken.
    Woken,
    /// The deadline has come.
    TimedOut,
    /// The peer has ended the connection, or its half of it.
    HungUp,
    /// The server is shutting down.
    Stopping,
}

impl Wakeup {
    /// One that was not woken yet.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            event: eventfd(0, flags)?,
        })
    }

    /// Ends the present wait, or the next one.
    pub fn wake(&self) {
        // It can fail only when it was woken 2^64 times.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Waits until it is woken, `stream` is ended by its peer, or the deadline has come. A peer that
    /// has ended its half of the connection may be gone altogether, so that ends the wait too.
    ///
    /// # Errors
    /// If there is no memory for the wait (poll(2)).
    pub fn wait(&self, stream: &TcpStream, deadline: Instant) -> io::Result<Waited> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut waiting = [
                PollFd::new(stream, PollFlags::RDHUP),
                PollFd::new(&self.event, PollFlags::IN),
            ];
            match poll(&mut waiting, Some(&timespec(left))) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(0) => return Ok(Waited::TimedOut),
                Ok(_) => {}
            }
            if !waiting[0].revents().is_empty() {
                return Ok(Waited::HungUp);
            }
            // Takes all that it was woken, so that it can be woken anew.
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
            return Ok(Waited::Woken);
        }
    }
}

fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LONG: Duration = Duration::from_secs(30);

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn it_is_woken_from_elsewhere_and_once() {
        let (server, _client) = connection();
        let wakeup = Wakeup::new().unwrap();
        let waited = std::thread::scope(|scope| {
            scope.spawn(|| wakeup.wake());
            wakeup.wait(&server, Instant::now() + LONG).unwrap()
        });
        assert_eq!(waited, Waited::Woken);
        let waited = wakeup.wait(&server, Instant::now()).unwrap();
        assert_eq!(waited, Waited::TimedOut);
    }

    #[test]
    fn a_peer_that_hangs_up_ends_the_wait() {
        let (server, client) = connection();
        let wakeup = Wakeup::new().unwrap();
        // Also when it sent something first, and when there is somebody to wake us.
        std::io::Write::write_all(&mut &client, b"more").unwrap();
        drop(client);
        wakeup.wake();
        let waited = wakeup.wait(&server, Instant::now() + LONG).unwrap();
        assert_eq!(waited, Waited::HungUp);
    }
}
