//! Where a server listens, who is at the other end of a connection, and what counts as one source.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// On the network.
    Ip(SocketAddr),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// The port, if it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over the network.
    Ip(SocketAddr),
    /// Over a socket in the file system: a process of this user (SO_PEERCRED, unix(7)).
    Unix {
        /// The user's number.
        uid: u32,
    },
}

impl From<SocketAddr> for Peer {
    fn from(peer: SocketAddr) -> Self {
        Self::Ip(peer)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(peer) => peer.fmt(f),
            Self::Unix { uid } => write!(f, "unix:{uid}"),
        }
    }
}

/// What limits and shares count by: an IPv4 address, the first 64 bits of an IPv6 address, because a
/// customer gets at least those, or a user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address; of IPv6 the network.
    Ip(IpAddr),
    /// The number of a user who connects over a socket in the file system.
    User(u32),
}

impl From<Peer> for Source {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Ip(peer) => Self::Ip(match peer.ip().to_canonical() {
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
                ip @ IpAddr::V4(_) => ip,
            }),
            Peer::Unix { uid } => Self::User(uid),
        }
    }
}
