//! A server's address, as a command line names it: `HOST PORT`, or `unix:/path`.

use std::fmt;
use std::path::PathBuf;

/// What stands in front of the path of a Unix socket.
const UNIX: &str = "unix:";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A port of a machine.
    Tcp {
        /// A name or an IP address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system of this machine.
    Unix(PathBuf),
}

impl Address {
    /// A host, which may be written as in a URL, and its port. `unix:/path` has no port.
    pub fn new(host: &str, port: u16) -> Self {
        Self::unix(host).unwrap_or_else(|| Self::Tcp {
            host: unbracketed(host).to_owned(),
            port,
        })
    }

    /// The Unix socket that a word names, if it is `unix:/path`.
    pub fn unix(word: &str) -> Option<Self> {
        let path = word.strip_prefix(UNIX).filter(|path| !path.is_empty());
        path.map(|path| Self::Unix(path.into()))
    }

    /// The same machine at another port; a Unix socket stays.
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp { host, .. } => Self::Tcp {
                host: host.clone(),
                port,
            },
            Self::Unix(_) => self.clone(),
        }
    }

    /// The host and the port for HTTP's `Host`. A Unix socket is on this machine.
    pub fn host_and_port(&self) -> (&str, u16) {
        match self {
            Self::Tcp { host, port } => (host, *port),
            Self::Unix(_) => ("localhost", 80),
        }
    }
}

/// As a command line names it, with the port as in a URL: an IPv6 address stands in brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A host without the brackets in which an IPv6 address may be written, as in a URL.
pub fn unbracketed(host: &str) -> &str {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .filter(|host| !host.contains(']'));
    address.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ip_address_may_be_in_brackets() {
        for (host, want) in [
            ("[::1]", "::1"),
            ("[a],[b]", "[a],[b]"),
            ("::1", "::1"),
            ("[a", "[a"),
            ("h]", "h]"),
        ] {
            assert_eq!(unbracketed(host), want);
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for (host, want) in [
            ("h", "h:7"),
            ("[::1]", "[::1]:7"),
            ("::1", "[::1]:7"),
            ("unix:/run/q", "unix:/run/q"),
            ("unix:q", "unix:q"),
            // A host named so.
            ("unix", "unix:7"),
        ] {
            assert_eq!(Address::new(host, 7).to_string(), want);
        }
    }

    #[test]
    fn another_port_is_the_same_machine() {
        assert_eq!(Address::new("h", 1).with_port(2), Address::new("h", 2));
        let unix = Address::new("unix:/q", 1);
        assert_eq!(unix.with_port(2), unix);
    }
}
