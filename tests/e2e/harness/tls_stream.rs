//! The client's side of a TLS connection, for tests that say each byte themselves.
//!
//! One thread may read while another writes: the lock of the state is not held while the socket
//! blocks, only those of the readers and the writers among themselves.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::lock;

/// How much is read from the socket at once.
const PIECE_BYTES: usize = 16 << 10;

/// A TLS connection to a server.
pub struct TlsStream {
    socket: TcpStream,
    tls: Mutex<ClientConnection>,
    /// What has arrived while rustls had no room for it.
    arrived: Mutex<Vec<u8>>,
    /// Held by the thread that writes, so that records reach the socket in their order.
    writing: Mutex<()>,
}

impl TlsStream {
    /// Does the handshake.
    ///
    /// # Errors
    /// If the socket fails, or the two do not agree.
    pub fn connect(mut socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::from(socket.peer_addr()?.ip());
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self {
            socket,
            tls: Mutex::new(tls),
            arrived: Mutex::default(),
            writing: Mutex::new(()),
        })
    }

    /// The socket under it.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Ends our half with a close_notify, and then that of the socket.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Shutdown::Write | Shutdown::Both = how {
            self.send(|tls| {
                tls.send_close_notify();
                Ok(0)
            })?;
        }
        self.socket.shutdown(how)
    }

    /// Sends the records that something makes.
    fn send(
        &self,
        make: impl FnOnce(&mut ClientConnection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let _writing = lock(&self.writing);
        let mut records = Vec::new();
        let made = {
            let mut tls = lock(&self.tls);
            let made = make(&mut tls)?;
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
            made
        };
        (&self.socket).write_all(&records)?;
        Ok(made)
    }
}

impl Read for &TlsStream {
    /// A stream that ends without a close_notify was reset, as far as anybody can tell.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut arrived = lock(&self.arrived);
        loop {
            match lock(&self.tls).reader().read(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, error));
                }
                done => return done,
            }
            // There is room now that everything decrypted has been read.
            if arrived.is_empty() {
                let mut piece = [0; PIECE_BYTES];
                let bytes = (&self.socket).read(&mut piece)?;
                arrived.extend_from_slice(&piece[..bytes]);
            }
            let mut tls = lock(&self.tls);
            let fed = tls.read_tls(&mut arrived.as_slice())?;
            arrived.drain(..fed);
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for &TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(|tls| tls.writer().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
