//! A connected stream socket, over TCP or in the file system alike: the system calls are the same.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, send, sendmsg, shutdown, socket_with,
};

/// A connected stream socket, of a client or a server. Any thread may use it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl<S: Into<OwnedFd>> From<S> for Socket {
    fn from(socket: S) -> Self {
        Self(socket.into())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

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

    /// One recv(2); 0 is the end of the stream.
    ///
    /// # Errors
    /// Those of the system call, here and below.
    pub fn receive(&self, out: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        Ok(recv(&self.0, out, flags)?.1)
    }

    /// One send(2), without SIGPIPE.
    pub fn send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        Ok(send(&self.0, bytes, flags | SendFlags::NOSIGNAL)?)
    }

    /// One sendmsg(2) of several pieces, without SIGPIPE.
    pub fn send_vectored(&self, pieces: &[IoSlice], flags: SendFlags) -> io::Result<usize> {
        let mut control = SendAncillaryBuffer::default();
        let flags = flags | SendFlags::NOSIGNAL;
        Ok(sendmsg(&self.0, pieces, &mut control, flags)?)
    }

    /// Bounds each wait of [`Socket::receive`] from now on. It must not be zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, timeout)?)
    }

    /// Ends one half of the stream, or both, in all threads. An error means that the peer was faster.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Ok(shutdown(&self.0, how)?)
    }

    /// Reads, and waits at most this long for the first byte.
    pub(crate) fn read(&self, out: &mut [u8], timeout: Duration) -> io::Result<usize> {
        self.set_read_timeout(Some(timeout))?;
        self.receive(out, RecvFlags::empty())
    }

    /// Writes, and waits at most this long until a byte can be written.
    pub(crate) fn write(&self, bytes: &[u8], timeout: Duration) -> io::Result<usize> {
        set_socket_timeout(&self.0, Timeout::Send, Some(timeout))?;
        self.send(bytes, SendFlags::empty())
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

    /// Waits until it can be read, or until nobody reads `out` any more; returns whether somebody does.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn wait_readable_while_read(
        &self,
        out: impl AsFd,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        // A descriptor of which no event is asked is ready when its other end is gone.
        let (readable, gone) = (PollFlags::IN, PollFlags::empty());
        let mut either = [PollFd::new(&self.0, readable), PollFd::new(&out, gone)];
        wait_for(&mut either, deadline)?;
        Ok(either[1].revents().is_empty())
    }

    fn wait(&self, event: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
        wait_for(&mut [PollFd::new(&self.0, event)], deadline)
    }
}

fn wait_for(events: &mut [PollFd], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        // A wait that is too long for the system has no end either.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(events, left.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
