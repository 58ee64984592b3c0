//! Waiting for another thread and for the peer at the same time.
//!
//! A thread that sleeps on a condition variable notices nothing of its peer, and one that sleeps in
//! read(2) nothing of other threads. So a connection's thread that waits for both sleeps in poll(2), on
//! its socket and on an eventfd(2) that the other thread writes to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes one connection's thread.
#[derive(Debug)]
pub struct Wakeup {
    event: OwnedFd,
}

/// What a wait in poll(2) ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    /// It was woken.
    Woken,
    /// What was waited for has happened at the socket.
    Socket,
    /// The deadline has come.
    TimedOut,
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

    /// Waits until it is woken; returns false if the deadline comes first.
    ///
    /// # Errors
    /// If there is no memory for the wait (poll(2)).
    pub fn wait_until(&self, deadline: Instant) -> io::Result<bool> {
        Ok(self.wait(None::<(&OwnedFd, _)>, Some(deadline))? == Polled::Woken)
    }

    /// Waits until it is woken, `events` happen at `socket`, or the deadline has come. A peer that
    /// resets the connection ends the wait whatever is waited for; the socket comes before the wakeup.
    ///
    /// # Errors
    /// If there is no memory for the wait (poll(2)).
    pub(crate) fn wait(
        &self,
        socket: Option<(&impl AsFd, PollFlags)>,
        deadline: Option<Instant>,
    ) -> io::Result<Polled> {
        let wakeup = PollFd::new(&self.event, PollFlags::IN);
        let mut both = [wakeup.clone(), wakeup];
        let polled = match socket {
            Some((socket, events)) => {
                both[0] = PollFd::new(socket, events);
                &mut both[..]
            }
            None => &mut both[1..],
        };
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            // A wait that is too long for the system has no end either.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(polled, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Ok(Polled::TimedOut),
                Ok(_) => break,
            }
        }
        if socket.is_some() && !polled[0].revents().is_empty() {
            return Ok(Polled::Socket);
        }
        // Takes all that it was woken, so that it can be woken anew.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        Ok(Polled::Woken)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn long() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(30))
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn it_is_woken_from_elsewhere_and_once() {
        let (server, _client) = connection();
        let wakeup = Wakeup::new().unwrap();
        for stream in [None, Some((&server, PollFlags::RDHUP))] {
            let waited = std::thread::scope(|scope| {
                scope.spawn(|| wakeup.wake());
                wakeup.wait(stream, long()).unwrap()
            });
            assert_eq!(waited, Polled::Woken);
            let waited = wakeup.wait(stream, Some(Instant::now())).unwrap();
            assert_eq!(waited, Polled::TimedOut);
        }
    }

    #[test]
    fn a_peer_that_hangs_up_ends_the_wait() {
        let (server, client) = connection();
        let wakeup = Wakeup::new().unwrap();
        // Also when it sent something first, and when there is somebody to wake us.
        std::io::Write::write_all(&mut &client, b"more").unwrap();
        drop(client);
        wakeup.wake();
        let stream = Some((&server, PollFlags::RDHUP));
        assert_eq!(wakeup.wait(stream, long()).unwrap(), Polled::Socket);
    }
}
