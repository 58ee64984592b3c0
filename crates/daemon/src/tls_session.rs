//! The TLS of one connection: what rustls decrypts and encrypts, and the socket below.
//!
//! Only the connection's own thread touches it: a record's place in the stream is its number, so two
//! threads could not write at once anyway.
//!
//! Every buffer is bounded. rustls keeps one record of input, what it decrypted of that, and
//! [`ENCRYPTED_BYTES_MAX`] of output. It refuses renegotiation, and more than a few records in a row
//! that carry no data: empty ones, key updates and warnings.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use cli::Socket;
use rustix::net::{RecvFlags, SendFlags};
use rustls::{ServerConfig, ServerConnection};

/// How many bytes may be encrypted and not sent. One sendmsg(2) takes eight whole records.
const ENCRYPTED_BYTES_MAX: usize = 128 * 1024;

/// The TLS of one connection.
pub(crate) struct TlsSession {
    tls: ServerConnection,
    /// What is decrypted and not read, in bytes.
    decrypted_bytes: usize,
    /// Whether the peer has said that it sends no more.
    has_ended: bool,
}

impl TlsSession {
    pub(crate) fn new(settings: Arc<ServerConfig>) -> io::Result<Self> {
        let mut tls = ServerConnection::new(settings).map_err(io::Error::other)?;
        tls.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        Ok(Self {
            tls,
            decrypted_bytes: 0,
            has_ended: false,
        })
    }

    /// Exchanges the messages of the handshake. `exchange` calls what it is given, which moves bytes
    /// once and may wait for the peer.
    ///
    /// # Errors
    /// Those of `exchange`; [`io::ErrorKind::InvalidData`] if the two cannot agree.
    pub(crate) fn handshake(
        &mut self,
        mut exchange: impl FnMut(&mut dyn FnMut(&Socket) -> io::Result<usize>) -> io::Result<usize>,
    ) -> io::Result<()> {
        loop {
            while self.has_unsent() {
                exchange(&mut |socket| self.send(socket, SendFlags::empty()))?;
            }
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            if exchange(&mut |socket| self.receive(socket, RecvFlags::empty()))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether a read needs nothing from the socket.
    pub(crate) fn has_input(&self) -> bool {
        self.decrypted_bytes > 0 || self.has_ended
    }

    /// Reads what is decrypted; 0 is the end, of which the peer has told. `None` if there is nothing
    /// yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the stream has ended and the peer did not say so: somebody
    /// else may have cut it.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
        match self.tls.reader().read(out) {
            Ok(read) => {
                self.decrypted_bytes -= read;
                Ok(Some(read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receives from the socket once, and decrypts what is whole. 0 is the end of the stream. Only when
    /// nothing decrypted is left to be read.
    ///
    /// # Errors
    /// Those of the socket; [`io::ErrorKind::InvalidData`] if it is not what TLS allows, of which the
    /// peer is told.
    pub(crate) fn receive(&mut self, socket: &Socket, flags: RecvFlags) -> io::Result<usize> {
        let received = self.tls.read_tls(&mut Incoming(socket, flags))?;
        let processed = self.tls.process_new_packets();
        if let Ok(state) = &processed {
            self.decrypted_bytes = state.plaintext_bytes_to_read();
            self.has_ended = state.peer_has_closed();
        }
        // The answer to a key update, or an alert. What does not fit goes with the next reply.
        if self.has_unsent() && (processed.is_err() || !self.tls.is_handshaking()) {
            let _ = self.send(socket, SendFlags::DONTWAIT);
        }
        match processed {
            Ok(_) => Ok(received),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Encrypts the start of `bytes`, as much as may wait to be sent; returns how many bytes those
    /// were.
    pub(crate) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tls.writer().write(bytes)
    }

    /// Whether something is encrypted and not sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// Sends from what is encrypted, with one system call. Returns how many bytes of it.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send(&mut self, socket: &Socket, flags: SendFlags) -> io::Result<usize> {
        self.tls.write_tls(&mut Outgoing(socket, flags))
    }

    /// Says that there is no more, behind everything encrypted so far. The peer can then tell the end of
    /// the stream from one that somebody cut.
    pub(crate) fn end(&mut self) {
        self.tls.send_close_notify();
    }
}

/// A socket that rustls reads from.
struct Incoming<'a>(&'a Socket, RecvFlags);

impl Read for Incoming<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.receive(out, self.1)
    }
}

/// A socket that rustls writes to.
struct Outgoing<'a>(&'a Socket, SendFlags);

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes, self.1)
    }

    fn write_vectored(&mut self, records: &[IoSlice]) -> io::Result<usize> {
        match records {
            [record] => self.0.send(record, self.1),
            records => self.0.send_vectored(records, self.1),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
