//! Where a server listens, who is at the other end of a connection, and what counts as one source.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

impl Source {
    /// The sources that it may have in common with one owner: the first 24 bits of an IPv4 address,
    /// or 48 bits of an IPv6 address, which are a site's.
    pub(crate) fn network(self) -> Self {
        match self {
            Self::Ip(IpAddr::V4(ip)) => {
                Self::Ip(Ipv4Addr::from_bits(ip.to_bits() >> 8 << 8).into())
            }
            Self::Ip(IpAddr::V6(ip)) => Self::Ip(ipv6_start(ip, 48)),
            Self::User(_) => self,
        }
    }
}

/// The first bits of an address.
fn ipv6_start(ip: Ipv6Addr, bits: u32) -> IpAddr {
    let rest = Ipv6Addr::BITS - bits;
    Ipv6Addr::from_bits(ip.to_bits() >> rest << rest).into()
}

impl From<Peer> for Source {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Ip(peer) => Self::Ip(match peer.ip().to_canonical() {
                IpAddr::V6(ip) => ipv6_start(ip, 64),
                ip @ IpAddr::V4(_) => ip,
            }),
            Peer::Unix { uid } => Self::User(uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_one_owner_has_at_least_and_a_network_what_it_may_have() {
        let check = |peer: &str, source: &str, network: &str| {
            let [source, network] = [source, network].map(|ip| Source::Ip(ip.parse().unwrap()));
            let got = Source::from(Peer::Ip(peer.parse().unwrap()));
            assert_eq!((got, got.network()), (source, network), "{peer}");
        };
        check("192.0.2.9:80", "192.0.2.9", "192.0.2.0");
        check("[::ffff:192.0.2.9]:80", "192.0.2.9", "192.0.2.0");
        check(
            "[2001:db8:1:2:3:4:5:6]:80",
            "2001:db8:1:2::",
            "2001:db8:1::",
        );
        let user = Source::from(Peer::Unix { uid: 7 });
        assert_eq!(user.network(), user);
    }
}
