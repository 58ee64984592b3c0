//! A connection to a server that sends or receives its replies in bounded time.
//!
//! A timeout of the socket bounds a single read, so a server that sends one byte now and then could
//! keep its client for ever. Here a whole reply has a time budget. It starts at the timeout; waiting
//! uses it up, and each byte adds to it what a byte takes at the least rate. A large file that keeps
//! coming is read to its end, and a reply that trickles times out. With TLS, the encrypted bytes count:
//! most of a record comes before its first byte can be decrypted.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::{Channel, Tls};
use crate::tls_error::TlsError;

/// The rate at which the time budget stays constant, in bytes a second. A slower server uses it up.
const LEAST_RATE: u64 = 1024;

/// A connection to a server: over TCP or a Unix socket, with TLS or without.
#[derive(Debug)]
pub struct ServerStream {
    channel: Arc<Channel>,
    budget: Budget,
}

/// How much longer this client waits for the current reply.
#[derive(Debug)]
struct Budget {
    timeout: Duration,
    left: Duration,
}

impl ServerStream {
    pub(crate) fn new(channel: Channel, timeout: Duration) -> Self {
        let left = timeout;
        Self {
            channel: Arc::new(channel),
            budget: Budget { timeout, left },
        }
    }

    /// Begins TLS, within the budget.
    ///
    /// # Errors
    /// Those of the connection, and a [`TlsError`](crate::TlsError) in an [`io::Error`].
    pub(crate) fn shake_hands(&mut self) -> io::Result<()> {
        let Self { channel, budget } = self;
        let Some(tls) = channel.tls() else {
            return Ok(());
        };
        while tls.is_handshaking() {
            let moved = match tls.wants_write() {
                true => budget.spend(|left| tls.send(channel.socket(), left)),
                false => budget.spend(|left| tls.fill(channel.socket(), left)),
            };
            match moved {
                Ok(0) => return Err(no_handshake(io::ErrorKind::UnexpectedEof)),
                Ok(_) => {}
                Err(error) if TlsError::of(&error).is_some() => return Err(error),
                Err(error) => return Err(no_handshake(error.kind())),
            }
        }
        budget.send_all(channel, tls)
    }

    /// Has further transfers wait for this long instead.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.budget.timeout = timeout;
    }

    /// Gives the next transfer a new time budget: the timeout, and `extra` if the server is asked to
    /// wait before it replies.
    pub fn reset_timeout(&mut self, extra: Duration) {
        self.budget.left = self.budget.timeout.saturating_add(extra);
    }

    /// The connection, for a thread that ends it from elsewhere.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Waits within the budget until a read need not wait, or until nobody reads `out` any more; returns
    /// whether somebody does. Without this, a client that follows a quiet server would outlive the program
    /// that reads what it prints.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], or one of the system. Those of the connection are left to the read.
    pub fn wait_while_read(&mut self, out: impl AsFd) -> io::Result<bool> {
        let Self { channel, budget } = self;
        let mut is_read = true;
        while is_read && is_empty(channel.peek(&mut [0])) {
            budget.spend(|left| {
                let deadline = Instant::now().checked_add(left);
                is_read = (channel.socket()).wait_readable_while_read(&out, deadline)?;
                Ok(0)
            })?;
        }
        Ok(is_read)
    }

    /// Whether the server has neither sent anything that was not read, nor ended the connection.
    pub fn is_quiet(&self) -> bool {
        is_empty(self.peek(&mut [0]))
    }

    /// What the next read would return, without a wait.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it would wait; else those of the connection.
    pub fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        self.channel.peek(out)
    }
}

impl Budget {
    /// Reads or writes within what is left.
    fn spend(&mut self, transfer: impl FnOnce(Duration) -> io::Result<usize>) -> io::Result<usize> {
        if self.left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let started = Instant::now();
        let transferred = transfer(self.left);
        self.left = self.left.saturating_sub(started.elapsed());
        match transferred {
            Ok(bytes) => {
                let earned = Duration::from_micros(bytes as u64 * 1_000_000 / LEAST_RATE);
                let most = self.left.max(self.timeout);
                self.left = self.left.saturating_add(earned).min(most);
                Ok(bytes)
            }
            // The system reports "would block", which means nothing to a person.
            Err(error) if is_timeout(&error) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }

    /// Sends all that TLS has to send.
    fn send_all(&mut self, channel: &Channel, tls: &Tls) -> io::Result<()> {
        while tls.wants_write() {
            self.spend(|left| tls.send(channel.socket(), left))?;
        }
        Ok(())
    }
}

impl Read for ServerStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Self { channel, budget } = self;
        let Some(tls) = channel.tls() else {
            return budget.spend(|left| channel.socket().read(out, left));
        };
        loop {
            if let Some(bytes) = tls.read(out)? {
                return Ok(bytes);
            }
            budget.spend(|left| tls.fill(channel.socket(), left))?;
        }
    }
}

impl Write for ServerStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { channel, budget } = self;
        let Some(tls) = channel.tls() else {
            return budget.spend(|left| channel.socket().write(bytes, left));
        };
        let written = tls.write(bytes)?;
        budget.send_all(channel, tls)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_empty(peeked: io::Result<usize>) -> bool {
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Tells a server with TLS that the stream ends here.
impl Drop for ServerStream {
    fn drop(&mut self) {
        if let Some(tls) = self.channel.tls() {
            tls.close(self.channel.socket());
        }
    }
}

/// A server that does not speak TLS ends the connection, or waits for more.
fn no_handshake(kind: io::ErrorKind) -> io::Error {
    let what = match kind {
        io::ErrorKind::TimedOut => "the server did not begin TLS in time",
        _ => "the server ended the connection when TLS was to begin",
    };
    let sentence = format!("{what}; if it speaks none on this port, leave out --tls");
    io::Error::new(kind, sentence)
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
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::socket::Socket;

    /// A connection, and its other end.
    fn pair(timeout: Duration) -> (ServerStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let channel = Channel::plain(Socket::from(stream));
        (
            ServerStream::new(channel, timeout),
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
        stream.budget.left = Duration::from_millis(200);
        server.write_all(&[0; 1024]).unwrap();
        stream.read_exact(&mut [0; 1024]).unwrap();
        // A second is earned, but no more than the timeout is kept.
        assert_eq!(stream.budget.left, Duration::from_millis(500));
        stream.reset_timeout(Duration::MAX);
        server.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        assert!(stream.budget.left > Duration::from_secs(3600));
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

    #[test]
    fn a_wait_ends_with_bytes_or_with_the_reader_of_the_output() {
        let (mut stream, mut server) = pair(Duration::from_secs(60));
        let (reader, writer) = io::pipe().unwrap();
        assert!(stream.is_quiet());
        server.write_all(b"x").unwrap();
        assert!(stream.wait_while_read(&writer).unwrap());
        assert!(!stream.is_quiet());
        stream.read_exact(&mut [0]).unwrap();
        drop(reader);
        assert!(!stream.wait_while_read(&writer).unwrap());
        // The end of the connection is left to the read.
        drop(server);
        let (_reader, writer) = io::pipe().unwrap();
        assert!(stream.wait_while_read(&writer).unwrap());
        assert!(!stream.is_quiet());
    }

    #[test]
    fn a_wait_is_bounded() {
        let (mut stream, _server) = pair(Duration::from_millis(20));
        let (_reader, writer) = io::pipe().unwrap();
        assert!(is_timeout(&stream.wait_while_read(&writer).unwrap_err()));
    }
}
