//! A connection to a server, on which no wait is longer than it was meant to be.
//!
//! A timeout of the socket bounds each read, so a server that sends a byte now and then can hold its
//! client for ever. Here the timeout is what a whole reply may take, plus the time that its bytes
//! need at the least rate: waiting uses up the client's patience, and every byte gives some of it
//! back. A large file that keeps coming is read to its end; a reply that trickles is given up.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A peer that moves fewer bytes a second than this is waiting, as far as its client's patience is
/// concerned.
const LEAST_RATE: u64 = 1024;

/// A TCP connection to a server.
#[derive(Debug)]
pub struct ServerStream {
    stream: Arc<TcpStream>,
    timeout: Duration,
    /// How much longer may be waited.
    patience: Duration,
}

impl ServerStream {
    pub(crate) fn new(stream: TcpStream, timeout: Duration) -> Self {
        Self {
            stream: Arc::new(stream),
            timeout,
            patience: timeout,
        }
    }

    /// Begins to wait for another reply, which may take so much longer than the timeout.
    pub fn begin(&mut self, wait: Duration) {
        self.patience = self.timeout.saturating_add(wait);
    }

    /// The socket, for a thread that has to end the connection from elsewhere, or to look at it.
    pub fn socket(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Reads or writes with the patience that is left.
    fn within_patience(
        &mut self,
        set_timeout: impl FnOnce(&TcpStream, Option<Duration>) -> io::Result<()>,
        transfer: impl FnOnce(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.patience.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        set_timeout(&self.stream, Some(self.patience))?;
        let begun = Instant::now();
        let transferred = transfer(&self.stream);
        self.patience = self.patience.saturating_sub(begun.elapsed());
        match transferred {
            Ok(bytes) => {
                let earned = Duration::from_micros(bytes as u64 * 1_000_000 / LEAST_RATE);
                let most = self.patience.max(self.timeout);
                self.patience = self.patience.saturating_add(earned).min(most);
                Ok(bytes)
            }
            // The system calls it something that means nothing to a person.
            Err(error) if is_timeout(&error) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }
}

impl Read for ServerStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.within_patience(TcpStream::set_read_timeout, |mut stream| stream.read(out))
    }
}

impl Write for ServerStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.within_patience(TcpStream::set_write_timeout, |mut stream| {
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

/// Whether an error of a stream means that a timeout ran out, which the sockets of this system
/// report as "would block".
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

    /// Has a server send a byte after each pause until the client is gone.
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
            stream.begin(wait);
            let begun = Instant::now();
            let error = stream.read(&mut [0]).unwrap_err();
            assert_eq!(error.to_string(), "timed out");
            assert!(begun.elapsed() >= wait + Duration::from_millis(19));
        }
        // Nothing is left of it.
        assert!(is_timeout(&stream.read(&mut [0]).unwrap_err()));
    }

    #[test]
    fn what_keeps_coming_is_read_to_its_end() {
        let (mut stream, mut server) = pair(Duration::from_millis(500));
        stream.patience = Duration::from_millis(200);
        server.write_all(&[0; 1024]).unwrap();
        stream.read_exact(&mut [0; 1024]).unwrap();
        // A second is earned, but no more than the timeout is kept.
        assert_eq!(stream.patience, Duration::from_millis(500));
        stream.begin(Duration::MAX);
        server.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        assert!(stream.patience > Duration::from_secs(3600));
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
