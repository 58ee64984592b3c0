//! A connection to a server, whichever door it came through, with what tests do to one.
//!
//! If the door has accounts, a connection that begins with a frame logs in first, so that a test does
//! not have to know. What begins with anything else is HTTP, whose requests log in one by one
//! ([`signed`](super::signed)), or a text protocol, which cannot.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::frame;
use rustix::net::{RecvFlags, recv};

use super::account;
use super::tls_stream::TlsStream;

/// A connection. As with those of the standard library, a shared one can be read and written.
pub struct Stream {
    carried: Carried,
    /// Whether something was written, and a frame would need a login in front.
    has_begun: AtomicBool,
}

/// What carries a connection.
pub enum Carried {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Calls a method of the socket, which those of both kinds have.
macro_rules! of_socket {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match &$stream.carried {
            Carried::Tcp(socket) => socket.$method($($argument),*),
            Carried::Tls(tls) => tls.socket().$method($($argument),*),
            Carried::Unix(socket) => socket.$method($($argument),*),
        }
    };
}

impl Stream {
    /// A connection that logs in first if it has to, and begins with a frame.
    pub fn new(carried: Carried, has_accounts: bool) -> Self {
        Self {
            carried,
            has_begun: AtomicBool::new(!has_accounts),
        }
    }

    /// See [`TcpStream::set_read_timeout`].
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        of_socket!(self, set_read_timeout(timeout))
    }

    /// See [`TcpStream::set_write_timeout`].
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        of_socket!(self, set_write_timeout(timeout))
    }

    /// See [`TcpStream::set_nonblocking`].
    pub fn set_nonblocking(&self, is_so: bool) -> io::Result<()> {
        of_socket!(self, set_nonblocking(is_so))
    }

    /// Ends one half, or both. Over TLS, that of writing ends with a close_notify.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.carried {
            Carried::Tls(tls) => tls.shutdown(how),
            Carried::Tcp(socket) => socket.shutdown(how),
            Carried::Unix(socket) => socket.shutdown(how),
        }
    }

    /// Waits until something has arrived that was not read, be it plain or a record of TLS.
    pub fn peek(&self) -> io::Result<usize> {
        let (bytes, _) = recv(self, &mut [0; 1], RecvFlags::PEEK)?;
        Ok(bytes)
    }

    /// Our address, for a test that needs one of the Internet.
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        match &self.carried {
            Carried::Tcp(socket) => socket.local_addr().unwrap(),
            Carried::Tls(tls) => tls.socket().local_addr().unwrap(),
            Carried::Unix(_) => panic!("a Unix socket has no such address"),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        of_socket!(self, as_fd())
    }
}

impl Read for &Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &self.carried {
            Carried::Tcp(socket) => (&*socket).read(out),
            Carried::Tls(tls) => (&**tls).read(out),
            Carried::Unix(socket) => (&*socket).read(out),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty()
            && !self.has_begun.swap(true, Ordering::SeqCst)
            && bytes[0] == frame::FIRST_BYTE
        {
            account::log_in(*self)?;
        }
        match &self.carried {
            Carried::Tcp(socket) => (&*socket).write(bytes),
            Carried::Tls(tls) => (&**tls).write(bytes),
            Carried::Unix(socket) => (&*socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (&*self).read(out)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
