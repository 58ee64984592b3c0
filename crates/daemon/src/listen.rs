//! The sockets that a server listens on.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cli::Bind;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::datagrams::DatagramService;
use crate::error::StartError;
use crate::listener::Listener;
use crate::peer::Address;
use crate::socket_options::{BACKLOG, set_tcp_options};
use crate::switch::Switch;

/// A socket, where it listens, and for whom.
pub(crate) struct Listening {
    pub(crate) address: Address,
    /// What tells it from the others in the log; empty if it is the only one.
    pub(crate) note: &'static str,
    pub(crate) socket: Socket,
}

pub(crate) enum Socket {
    Stream(Arc<Listener>, Switch),
    Udp(Arc<UdpSocket>, Switch<dyn DatagramService>),
}

impl Listening {
    pub(crate) fn stream(listener: Listener, note: &'static str, protocols: &Switch) -> Self {
        Self {
            address: listener.address().clone(),
            note,
            socket: Socket::Stream(Arc::new(listener), protocols.clone()),
        }
    }

    pub(crate) fn udp(
        socket: UdpSocket,
        service: &Switch<dyn DatagramService>,
    ) -> io::Result<Self> {
        Ok(Self {
            address: Address::Ip(socket.local_addr()?),
            note: "",
            socket: Socket::Udp(Arc::new(socket), service.clone()),
        })
    }
}

/// An address to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostAddress {
    pub(crate) address: SocketAddr,
    /// `::` is all of IPv6, and not of IPv4 too.
    is_v6_only: bool,
}

impl HostAddress {
    /// The same, at this port.
    pub(crate) fn at(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }
}

/// The addresses of each host that a server is to listen at, each once, without the port. `::` is IPv4 too,
/// unless an IPv4 address is named as well.
///
/// # Errors
/// If a name has no address.
pub(crate) fn hosts(binds: &[Bind]) -> Result<Vec<Vec<HostAddress>>, StartError> {
    let mut seen = HashSet::new();
    let mut hosts = Vec::new();
    for bind in binds {
        let mut addresses = match bind {
            Bind::Ip(ip) => vec![SocketAddr::new(*ip, 0)],
            Bind::Name(name) => resolve(name)?,
            Bind::Unix(_) => Vec::new(),
        };
        addresses.retain(|address| seen.insert(*address));
        hosts.push(addresses);
    }
    let has_v4 = seen.iter().any(SocketAddr::is_ipv4);
    let host_address = |address: SocketAddr| HostAddress {
        address,
        is_v6_only: has_v4 && address.is_ipv6(),
    };
    let hosts = hosts.into_iter();
    Ok(hosts
        .map(|addresses| addresses.into_iter().map(host_address).collect())
        .collect())
}

fn resolve(name: &str) -> Result<Vec<SocketAddr>, StartError> {
    let found = (name, 0).to_socket_addrs();
    let found = found.map_err(|source| StartError::Resolve {
        name: name.to_owned(),
        source,
    })?;
    Ok(found.collect())
}

/// Whether this machine does not have an address, as one without IPv6 does not have `::1`.
pub(crate) fn is_lacking(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Listens on an address. The options are set on the listener, and before it listens: connections
/// inherit them (tcp(7), socket(7)), which spares each of them the system calls.
pub(crate) fn tcp(host: HostAddress) -> io::Result<Listener> {
    let socket = socket(host, SocketType::STREAM)?;
    // A server can be started again at once, though connections of the last one linger.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    set_tcp_options(&socket)?;
    rustix::net::bind(&socket, &host.address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Listener::tcp(socket)
}

/// Receives datagrams at an address.
pub(crate) fn udp(host: HostAddress) -> io::Result<UdpSocket> {
    let socket = socket(host, SocketType::DGRAM)?;
    rustix::net::bind(&socket, &host.address)?;
    Ok(socket.into())
}

fn socket(host: HostAddress, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match host.address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if host.is_v6_only {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

impl Socket {
    /// Makes the thread that accepts or receives look whether the server stops.
    pub(crate) fn wake(&self) {
        match self {
            Self::Stream(listener, _) => listener.wake(),
            // Linux ends a blocked `recv_from` when the socket is shut down, also of one without a
            // peer, for which the call itself reports ENOTCONN.
            Self::Udp(socket, _) => {
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn addresses(binds: &[Bind]) -> Vec<HostAddress> {
        hosts(binds).unwrap().concat()
    }

    #[test]
    fn each_address_is_listened_on_once() {
        let ip = |text: &str| Bind::Ip(text.parse().unwrap());
        let check = |binds: &[Bind], want: &[(&str, bool)]| {
            let found: Vec<_> = addresses(binds)
                .iter()
                .map(|host| (host.address.ip().to_string(), host.is_v6_only))
                .collect();
            let want: Vec<_> = want
                .iter()
                .map(|(ip, only)| ((*ip).to_owned(), *only))
                .collect();
            assert_eq!(found, want, "{binds:?}");
        };
        check(&[ip("::")], &[("::", false)]);
        let both = [("::", true), ("0.0.0.0", false)];
        check(&[ip("::"), ip("0.0.0.0"), ip("::")], &both);
        let name = Bind::Name("127.0.0.1".to_owned());
        check(&[ip("127.0.0.1"), name], &[("127.0.0.1", false)]);
        let name = Bind::Name("name.invalid".to_owned());
        assert!(matches!(hosts(&[name]), Err(StartError::Resolve { .. })));
    }

    #[test]
    fn all_of_ipv6_and_all_of_ipv4_are_different_sockets() {
        let binds = ["::", "0.0.0.0"].map(|ip| Bind::Ip(ip.parse().unwrap()));
        let [v6, v4] = addresses(&binds)[..] else {
            panic!("two places");
        };
        // Not every machine has IPv6.
        let Ok(v6) = tcp(v6) else { return };
        let Address::Ip(address) = *v6.address() else {
            panic!("{}", v6.address());
        };
        let listener = tcp(v4.at(address.port())).unwrap();
        TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        let (_, peer) = listener.accept().unwrap().unwrap();
        assert!(peer.to_string().starts_with("127.0.0.1:"), "{peer}");
    }
}
