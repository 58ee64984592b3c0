//! A connected stream socket, over TCP or in the file system: what the two do alike.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};

/// A socket with a server at its other end. Any thread may use it.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Connects over TCP, with Nagle's delay off.
    pub(crate) fn tcp(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream.into()))
    }

    /// Connects to a Unix socket. If the server's backlog is full, this waits.
    pub(crate) fn unix(path: &Path, timeout: Duration) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
        let address = SocketAddrUnix::new(path)?;
        match connect(&socket, &address) {
            Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
            connected => Ok(connected.map(|()| Self(socket))?),
        }
    }

    /// Reads, and waits at most this long for the first byte.
    pub(crate) fn read(&self, out: &mut [u8], timeout: Duration) -> io::Result<usize> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(timeout))?;
        Ok(recv(&self.0, out, RecvFlags::empty())?.0)
    }

    /// Writes, and waits at most this long until a byte can be written.
    pub(crate) fn write(&self, bytes: &[u8], timeout: Duration) -> io::Result<usize> {
        set_socket_timeout(&self.0, Timeout::Send, Some(timeout))?;
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    /// The same without a wait.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(send(&self.0, bytes, flags)?)
    }

    /// Reads without a wait.
    pub(crate) fn try_read(&self, out: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, out, RecvFlags::DONTWAIT)?.0)
    }

    /// What the next read would return, without a wait.
    pub(crate) fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, out, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
    }

    /// Waits until it can be read.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the deadline is over; without one this waits for ever.
    pub(crate) fn wait_readable(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.wait(PollFlags::IN, deadline)
    }

    /// Waits until it can be written; errors as above.
    pub(crate) fn wait_writable(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.wait(PollFlags::OUT, deadline)
    }

    fn wait(&self, event: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            // A wait that is too long for the system has no end either.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.0, event)], left.as_ref()) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends both directions: every wait of every thread ends.
    pub(crate) fn shutdown(&self) {
        // An error means that it has ended already.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    #[cfg(test)]
    pub(crate) fn has_no_delay(&self) -> bool {
        rustix::net::sockopt::tcp_nodelay(&self.0).unwrap()
    }
}

#[cfg(test)]
impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(stream.into())
    }
}
