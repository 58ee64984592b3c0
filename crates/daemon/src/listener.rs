//! A socket that accepts connections, over TCP or in the file system alike.
//!
//! Its thread never blocks in accept(2). When no connection waits, it waits in poll(2), for one or until it is
//! woken. So a stop does not shut the socket down: one that was inherited belongs also to the
//! process that passed it, and to the next server, and is only closed.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use cli::Socket;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, sockopt};

use crate::peer::{Address, Peer};
use crate::socket_file::SocketFile;
use crate::socket_options::{set_tcp_options, set_unix_options};
use crate::wakeup::Wakeup;

/// A connection that was accepted, and who is at the other end.
pub(crate) type Accepted = (Socket, Peer);

/// A listening stream socket.
pub(crate) struct Listener {
    // Dropped before the socket is closed: nobody finds a file that is dead.
    _file: Option<SocketFile>,
    socket: OwnedFd,
    kind: Kind,
    address: Address,
    wakeup: Wakeup,
}

/// What its connections have to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They inherit the options of the listener.
    Tcp,
    /// They may have been made before this process could set options.
    InheritedTcp,
    /// They inherit nothing (unix(7)).
    Unix,
}

impl Listener {
    /// A TCP listener of our own.
    pub(crate) fn tcp(socket: OwnedFd) -> io::Result<Self> {
        Self::new(socket, Kind::Tcp, None)
    }

    /// A listener in the file system.
    pub(crate) fn unix(socket: OwnedFd, file: SocketFile) -> io::Result<Self> {
        Self::new(socket, Kind::Unix, Some(file))
    }

    /// A listener that was passed to this process. Its file, if it has one, stays.
    pub(crate) fn inherited(socket: OwnedFd) -> io::Result<Self> {
        let kind = match sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => Kind::Unix,
            _ => Kind::InheritedTcp,
        };
        Self::new(socket, kind, None)
    }

    fn new(socket: OwnedFd, kind: Kind, file: Option<SocketFile>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let address = match &file {
            Some(file) => Address::Unix(file.path().to_owned()),
            None => address_of(rustix::net::getsockname(&socket)?)?,
        };
        Ok(Self {
            _file: file,
            socket,
            kind,
            address,
            wakeup: Wakeup::new()?,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts a connection. If there is none, waits for one or for [`Listener::wake`], and returns
    /// `None`.
    ///
    /// # Errors
    /// Those of accept(2) and poll(2).
    pub(crate) fn accept(&self) -> io::Result<Option<Accepted>> {
        match rustix::net::acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => self.prepare(socket, peer).map(Some),
            Err(Errno::AGAIN) => {
                let readable = Some((&self.socket, PollFlags::IN));
                self.wakeup.wait(readable, None)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn prepare(&self, socket: OwnedFd, peer: Option<SocketAddrAny>) -> io::Result<Accepted> {
        let peer = match self.kind {
            Kind::Unix => {
                set_unix_options(&socket)?;
                let uid = sockopt::socket_peercred(&socket)?.uid.as_raw();
                Peer::Unix { uid }
            }
            Kind::Tcp | Kind::InheritedTcp => {
                if self.kind == Kind::InheritedTcp {
                    set_tcp_options(&socket)?;
                }
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Peer::Ip(peer.ok_or(io::ErrorKind::ConnectionAborted)?)
            }
        };
        Ok((socket.into(), peer))
    }

    /// Ends the present wait in [`Listener::accept`], or the next one.
    pub(crate) fn wake(&self) {
        self.wakeup.wake();
    }
}

fn address_of(address: SocketAddrAny) -> io::Result<Address> {
    if address.address_family() != AddressFamily::UNIX {
        return Ok(Address::Ip(address.try_into()?));
    }
    let address = SocketAddrUnix::try_from(address)?;
    let name = match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => path.to_vec(),
        // As `ss` and systemd write it.
        (None, Some(name)) => [b"@", name].concat(),
        (None, None) => Vec::new(),
    };
    Ok(Address::Unix(OsString::from_vec(name).into()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use rustix::net::RecvFlags;

    use super::*;
    use crate::listen;
    use crate::socket_options::{KEEPALIVE_IDLE, WRITE_STALL};

    fn loopback(ip: &str) -> listen::HostAddress {
        let binds = [cli::Bind::Ip(ip.parse().unwrap())];
        listen::hosts(&binds).unwrap()[0][0]
    }

    /// Accepts a connection that is there.
    fn accept(listener: &Listener) -> Accepted {
        std::iter::repeat_with(|| listener.accept().unwrap())
            .flatten()
            .next()
            .unwrap()
    }

    fn tcp_address(listener: &Listener) -> SocketAddr {
        match listener.address() {
            Address::Ip(address) => *address,
            Address::Unix(path) => panic!("{path:?}"),
        }
    }

    #[track_caller]
    fn check_tcp(socket: &Socket) {
        assert!(sockopt::tcp_nodelay(socket).unwrap());
        let stall = sockopt::socket_timeout(socket, sockopt::Timeout::Send);
        assert_eq!(stall.unwrap(), Some(WRITE_STALL));
        assert!(sockopt::socket_keepalive(socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), KEEPALIVE_IDLE);
    }

    #[test]
    fn a_connection_has_its_options_and_an_address_can_be_taken_again_at_once() {
        for ip in ["127.0.0.1", "::1"] {
            let host = loopback(ip);
            let Ok(listener) = listen::tcp(host.at(0)) else {
                // Not every machine has IPv6.
                assert_eq!(ip, "::1");
                continue;
            };
            let address = tcp_address(&listener);
            let client = TcpStream::connect(address).unwrap();
            let (socket, peer) = accept(&listener);
            assert_eq!(peer, Peer::Ip(client.local_addr().unwrap()));
            check_tcp(&socket);
            // Closed by us first, so that it lingers.
            drop((listener, socket));
            drop(client);
            listen::tcp(host.at(address.port())).unwrap();
        }
    }

    #[test]
    fn a_connection_to_an_inherited_listener_has_its_options_whenever_it_came() {
        let parents = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = parents.local_addr().unwrap();
        let _before = TcpStream::connect(address).unwrap();
        let ours = Listener::inherited(parents.try_clone().unwrap().into()).unwrap();
        assert_eq!(tcp_address(&ours), address);
        check_tcp(&accept(&ours).0);
        // The end of ours is not that of the parent's.
        drop(ours);
        let _after = TcpStream::connect(address).unwrap();
        let ours = Listener::inherited(parents.into()).unwrap();
        check_tcp(&accept(&ours).0);
    }

    #[test]
    fn a_peer_over_a_unix_socket_is_a_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (socket, file) = SocketFile::listen(&path, 0o600).unwrap();
        let listener = Listener::unix(socket, file).unwrap();
        assert_eq!(listener.address(), &Address::Unix(path.clone()));
        let mut client = UnixStream::connect(&path).unwrap();
        let (socket, peer) = accept(&listener);
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(peer, Peer::Unix { uid });
        let stall = sockopt::socket_timeout(&socket, sockopt::Timeout::Send);
        assert_eq!(stall.unwrap(), Some(WRITE_STALL));
        std::io::Write::write_all(&mut client, b"x").unwrap();
        assert_eq!(socket.receive(&mut [0; 2], RecvFlags::empty()).unwrap(), 1);
    }

    #[test]
    fn a_wait_for_a_connection_ends_when_it_is_woken() {
        let listener = listen::tcp(loopback("127.0.0.1")).unwrap();
        listener.wake();
        assert!(listener.accept().unwrap().is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(listener.accept().unwrap().is_none()));
            listener.wake();
        });
    }
}
