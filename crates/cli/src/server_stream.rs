//! A connection to a server that sends or receives its replies in bounded time.
//!
//! A timeout of the socket bounds a single read, so a server that sends one byte now and then could
//! keep its client for ever. Here a whole reply has a time budget. It starts at the timeout; waiting
//! uses it up, and each byte adds to it what a byte takes at the least rate. A large file that keeps
//! coming is read to its end, and a reply that trickles times out.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The rate at which the time budget stays constant, in bytes a second. A slower server uses it up.
const LEAST_RATE: u64 = 1024;

/// A TCP connection to a server.
#[derive(Debug)]
pub struct ServerStream {
    stream: Arc<TcpStream>,
    timeout: Duration,
    /// How much longer this client waits for the current reply.
    budget: Duration,
}

impl ServerStream {
    pub(crate) fn new(stream: TcpStream, timeout: Duration) -> Self {
        Self {
            stream: Arc::new(stream),
            timeout,
            budget: timeout,
        }
    }

    /// Gives the next transfer a new time budget: the timeout, and `extra` if the server is asked to
    /// wait before it replies.
    pub fn reset_timeout(&mut self, extra: Duration) {
        self.budget = self.timeout.saturating_add(extra);
    }

    /// The socket, for a thread that ends the connection from elsewhere, or that polls it.
    pub fn socket(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Reads or writes within the budget that is left.
    fn within_budget(
        &mut self,
        set_timeout: impl FnOnce(&TcpStream, Option<Duration>) -> io::Result<()>,
        transfer: impl FnOnce(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.budget.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        set_timeout(&self.stream, Some(self.budget))?;
        let started = Instant::now();
        let transferred = transfer(&self.stream);
        self.budget = self.budget.saturating_sub(started.elapsed());
        match transferred {
            Ok(bytes) => {
                let earned = Duration::from_micros(bytes as u64 * 1_000_000 / LEAST_RATE);
                let most = self.budget.max(self.timeout);
                self.budget = self.budget.saturating_add(earned).min(most);
                Ok(bytes)
            }
            // The system reports "would block", which means nothing to a person.
            Err(error) if is_timeout(&error) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }
}

impl Read for ServerStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.within_budget(TcpStream::set_read_timeout, |mut stream| stream.read(out))
    }
}

impl Write for ServerStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.within_budget(TcpStream::set_write_timeout, |mut stream| {
            stream.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for ServerStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Whether an error of a stream is a timeout. Sockets report one as "would block".
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A connection, and its other end.
    fn pair(timeout: Duration) -> (ServerStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (
            ServerStream::new(stream, timeout),
            listener.accept().unwrap().0,
        )
    }

    /// Sends a byte after each pause until the client closes the connection.
    fn trickle(mut server: TcpStream, pause: Duration) {
        while server.write_all(b"x").is_ok() {
            thread::park_timeout(pause);
        }
    }

    #[test]
    fn a_trickle_is_given_up() {
        let (mut stream, server) = pair(Duration::from_millis(100));
        thread::scope(|scope| {
            scope.spawn(|| trickle(server, Duration::from_millis(10)));
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).unwrap_err();
            assert!(is_timeout(&error), "{error}");
            drop(stream);
        });
    }

    #[test]
    fn a_silent_server_has_the_timeout_and_what_it_was_asked_to_wait() {
        let (mut stream, _server) = pair(Duration::from_millis(20));
        for wait in [Duration::ZERO, Duration::from_millis(30)] {
            stream.reset_timeout(wait);
            let started = Instant::now();
            let error = stream.read(&mut [0]).unwrap_err();
            assert_eq!(error.to_string(), "timed out");
            assert!(started.elapsed() >= wait + Duration::from_millis(19));
        }
        // The budget is used up.
        assert!(is_timeout(&stream.read(&mut [0]).unwrap_err()));
    }

    #[test]
    fn what_keeps_coming_is_read_to_its_end() {
        let (mut stream, mut server) = pair(Duration::from_millis(500));
        stream.budget = Duration::from_millis(200);
        server.write_all(&[0; 1024]).unwrap();
        stream.read_exact(&mut [0; 1024]).unwrap();
        // A second is earned, but no more than the timeout is kept.
        assert_eq!(stream.budget, Duration::from_millis(500));
        stream.reset_timeout(Duration::MAX);
        server.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        assert!(stream.budget > Duration::from_secs(3600));
    }

    #[test]
    fn a_server_that_does_not_read_is_given_up() {
        let (mut stream, _server) = pair(Duration::from_millis(50));
        let error = stream.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert!(is_timeout(&error), "{error}");
    }

    #[test]
    fn a_timeout_is_told_from_other_errors() {
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            assert!(is_timeout(&kind.into()));
        }
        assert!(!is_timeout(&io::ErrorKind::ConnectionReset.into()));
    }
}
