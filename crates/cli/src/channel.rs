//! The way to a server: a socket, and TLS over it or not.
//!
//! One thread reads, and others may write or end the connection meanwhile, as a worker does that stops.
//! So the state of TLS is behind a lock, and nobody holds the lock during a wait: a thread waits for the
//! socket first, and then takes the lock to move what can be moved at once. Without TLS there is no
//! lock, and a transfer is a single call of the system with a timeout.

use std::io::{self, BufRead, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustls::ClientConnection;

use crate::socket::Socket;
use crate::tls_error::TlsError;

/// A connection to a server, which several threads may use.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    tls: Option<Tls>,
}

#[derive(Debug)]
pub(crate) struct Tls {
    state: Mutex<ClientConnection>,
    /// What the certificate must be for.
    host: String,
}

/// A socket as rustls reads and writes it: never with a wait.
struct AtOnce<'a>(&'a Socket);

impl Read for AtOnce<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.receive(out, RecvFlags::DONTWAIT)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes, SendFlags::DONTWAIT)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel {
    /// Without TLS.
    pub(crate) fn plain(socket: Socket) -> Self {
        Self { socket, tls: None }
    }

    /// With TLS, which has not begun. The certificate must be for `host`.
    pub(crate) fn encrypted(socket: Socket, state: ClientConnection, host: String) -> Self {
        let state = Mutex::new(state);
        Self {
            socket,
            tls: Some(Tls { state, host }),
        }
    }

    /// Ends the connection from any thread: each wait of it ends.
    pub fn abort(&self) {
        // An error means that it has ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Writes what can be written at once, from any thread.
    ///
    /// # Errors
    /// Those of the connection; [`io::ErrorKind::WouldBlock`] if not all could be written.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return match self.socket.send(bytes, SendFlags::DONTWAIT)? == bytes.len() {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
        };
        let mut state = tls.lock();
        state.writer().write_all(bytes)?;
        while state.wants_write() {
            state.write_tls(&mut AtOnce(&self.socket))?;
        }
        Ok(())
    }

    /// The TLS of the connection, if it has any.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What the next read would return, without a wait.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it would wait.
    pub(crate) fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self
                .socket
                .receive(out, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        };
        let mut state = tls.lock();
        loop {
            let buffered = match state.reader().fill_buf() {
                Ok([]) => return Ok(0),
                Ok(bytes) => {
                    let peeked = bytes.len().min(out.len());
                    out[..peeked].copy_from_slice(&bytes[..peeked]);
                    Ok(peeked)
                }
                Err(error) => Err(error),
            };
            if matches!(buffered, Ok(bytes) if bytes == out.len()) {
                return buffered;
            }
            match tls.receive(&mut state, &self.socket) {
                Ok(0) => return buffered.or(Ok(0)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return buffered,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Tls {
    fn lock(&self) -> MutexGuard<'_, ClientConnection> {
        // A panic leaves the state as it was before the call, or the connection fails.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.lock().is_handshaking()
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.lock().wants_write()
    }

    /// Reads what is decrypted already; `None` if that is nothing, and 0 if the server has ended the
    /// stream and said so.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the stream has ended without that: something may be missing.
    pub(crate) fn read(&self, out: &mut [u8]) -> io::Result<Option<usize>> {
        match self.lock().reader().read(out) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // rustls' own sentence is one for programmers.
            Err(error) => Err(error.kind().into()),
        }
    }

    /// Encrypts the beginning of some bytes; returns how many. They are sent by [`Tls::send`].
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().writer().write(bytes)
    }

    /// Waits for encrypted bytes and decrypts them; returns how many they were, and 0 at their end.
    pub(crate) fn fill(&self, socket: &Socket, timeout: Duration) -> io::Result<usize> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // Another thread may have read what woke this one.
            match self.receive(&mut self.lock(), socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                filled => return filled,
            }
            socket.wait_readable(deadline)?;
        }
    }

    /// Waits until encrypted bytes can be sent, and sends them; returns how many they were.
    pub(crate) fn send(&self, socket: &Socket, timeout: Duration) -> io::Result<usize> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let mut state = self.lock();
            match state.write_tls(&mut AtOnce(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Why the server has ended the connection says more than that it did.
                Err(error) => return Err(self.last_word(&mut state, socket).unwrap_or(error)),
                sent => return sent,
            }
            drop(state);
            socket.wait_writable(deadline)?;
        }
    }

    /// Tells the server that this is the end of the stream, if that can be written at once.
    pub(crate) fn close(&self, socket: &Socket) {
        let mut state = self.lock();
        if state.is_handshaking() {
            return;
        }
        state.send_close_notify();
        // A server that does not hear it ends the connection all the same.
        let _ = state.write_tls(&mut AtOnce(socket));
    }

    /// Decrypts what has arrived, and sends what TLS has to say to it.
    fn receive(&self, state: &mut ClientConnection, socket: &Socket) -> io::Result<usize> {
        let bytes = state.read_tls(&mut AtOnce(socket))?;
        let processed = state.process_new_packets();
        if state.wants_write() {
            // It is an alert, or the answer to a new key. What does not fit goes with the next write.
            let _ = state.write_tls(&mut AtOnce(socket));
        }
        match processed {
            Ok(_) => Ok(bytes),
            Err(error) => Err(TlsError::new(&error, &self.host).into()),
        }
    }

    /// The error that the server has sent before it ended the connection.
    fn last_word(&self, state: &mut ClientConnection, socket: &Socket) -> Option<io::Error> {
        loop {
            match self.receive(state, socket) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error).filter(|error| TlsError::of(error).is_some()),
            }
        }
    }
}
