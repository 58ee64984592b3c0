//! The sockets that a server listens on.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::datagrams::DatagramService;
use crate::peer::Address;
use crate::protocol::Protocols;

/// How many connections the kernel keeps until they are accepted. std asks for 128, too few for a
/// burst.
const BACKLOG: i32 = 4096;

/// A silent connection is probed after this long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// The time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection is given up after this many probes without an answer. So a peer that vanished is gone
/// after two minutes.
const KEEPALIVE_PROBES: u32 = 6;

/// How long something that was sent may wait for its acknowledgement, in milliseconds. Keepalive does
/// not probe meanwhile, and the kernel would try for a quarter of an hour.
const UNACKNOWLEDGED_MILLIS: u32 = 120_000;

/// A peer that reads nothing of what is written to it for this long is given up.
pub(crate) const WRITE_STALL: Duration = Duration::from_secs(30);

/// A socket, where it listens, and for whom.
pub(crate) struct Listening {
    pub(crate) address: Address,
    /// What tells it from the others in the log; empty if it is the only one.
    pub(crate) note: &'static str,
    pub(crate) socket: Socket,
}

pub(crate) enum Socket {
    Tcp(Arc<TcpListener>, Arc<Protocols>),
    Udp(Arc<UdpSocket>, Arc<dyn DatagramService>),
}

/// Listens on an address. The options are set on the listener, and before it listens: connections
/// inherit them (tcp(7), socket(7)), which spares each of them the system calls.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A server can be started again at once, though connections of the last one linger.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(WRITE_STALL))?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(&socket, UNACKNOWLEDGED_MILLIS)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

impl Socket {
    /// Makes a blocked `accept` or `recv_from` return. Linux does so when the socket is shut
    /// down, also for a UDP socket without a peer, for which the call itself reports ENOTCONN.
    pub(crate) fn wake(&self) {
        let how = rustix::net::Shutdown::Both;
        let _ = match self {
            Self::Tcp(listener, _) => rustix::net::shutdown(listener, how),
            Self::Udp(socket, _) => rustix::net::shutdown(socket, how),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_connection_has_its_options_and_an_address_can_be_taken_again_at_once() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tcp(ip.parse().unwrap()) else {
                // Not every machine has IPv6.
                assert_eq!(ip, "[::1]:0");
                continue;
            };
            let address = listener.local_addr().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let (stream, _) = listener.accept().unwrap();
            assert!(stream.nodelay().unwrap());
            assert_eq!(stream.write_timeout().unwrap(), Some(WRITE_STALL));
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE_IDLE);
            // Closed by us first, so that it lingers.
            drop((listener, stream));
            drop(client);
            tcp(address).unwrap();
        }
    }
}
