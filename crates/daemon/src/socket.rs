//! The socket of a connection, over TCP or in the file system alike: the system calls are the same.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

/// A connected stream socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

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
    /// One recv(2); 0 is the end of the stream.
    pub(crate) fn receive(&self, out: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.0, out, flags)?.1)
    }

    /// One send(2), without SIGPIPE.
    pub(crate) fn send(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(&self.0, bytes, flags)?)
    }

    /// One sendmsg(2) of several pieces, without SIGPIPE.
    pub(crate) fn send_vectored(&self, pieces: &[IoSlice], flags: SendFlags) -> io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        let mut control = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(&self.0, pieces, &mut control, flags)?)
    }

    /// Bounds each wait of [`Socket::receive`] from now on. It must not be zero.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(set_socket_timeout(&self.0, Timeout::Recv, timeout)?)
    }

    /// Ends one half of the stream, or both. An error means that the peer was faster.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, how)?)
    }
}
