//! Where a client finds its server, and how it connects.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use std::vec;

use crate::error::ClientError;
use crate::server_stream::ServerStream;

/// The server of a client that is not told one.
pub const HOST_DEFAULT: &str = "127.0.0.1";

/// How long a client waits for anything unless told otherwise (`--timeout`).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The pause between two attempts to connect (`--wait-for-server`).
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A server's address, and how long its client waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Bounds every wait: for the connection, and for a whole reply, unless its bytes keep coming
    /// ([`ServerStream`]).
    pub timeout: Duration,
    /// How long to keep trying while the server cannot be reached; zero is one attempt.
    pub wait_for_server: Duration,
}

/// A host as an [`Endpoint`] has it: an IPv6 address may be written in brackets, as in a URL.
pub fn unbracketed(host: &str) -> &str {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    address.unwrap_or(host)
}

impl Endpoint {
    /// A server with the defaults: 30 s for each wait, one attempt to connect.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            timeout: TIMEOUT_DEFAULT,
            wait_for_server: Duration::ZERO,
        }
    }

    /// The same server at another port.
    pub fn with_port(&self, port: u16) -> Self {
        Self {
            port,
            ..self.clone()
        }
    }

    /// The host and the port, as in a URL: an IPv6 address stands in brackets.
    fn address(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }

    /// Connects over TCP, with Nagle's delay off.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if no address of the host answers in time.
    pub fn connect(&self) -> Result<ServerStream, ClientError> {
        self.reach(|addresses| {
            let mut last = no_address();
            // `localhost` may have two addresses, and a server usually listens on one of them.
            for address in addresses {
                match TcpStream::connect_timeout(&address, self.timeout) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(ServerStream::new(stream, self.timeout));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    /// UDP sockets that send to the server and receive from nobody else: one for each address of the
    /// host, in their order. Only a reply shows which address has a server.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if the host has no address that can be sent to.
    pub fn connect_udp(&self) -> Result<Vec<UdpSocket>, ClientError> {
        self.reach(|addresses| {
            let mut last = no_address();
            let mut sockets = Vec::new();
            for address in addresses {
                match connected_udp(address) {
                    Ok(socket) => sockets.push(socket),
                    Err(error) => last = error,
                }
            }
            match sockets.is_empty() {
                true => Err(last),
                false => Ok(sockets),
            }
        })
    }

    /// Calls `connect` with the addresses of the host until it succeeds or
    /// [`Endpoint::wait_for_server`] is over.
    fn reach<T>(
        &self,
        connect: impl Fn(vec::IntoIter<SocketAddr>) -> io::Result<T>,
    ) -> Result<T, ClientError> {
        let server = (self.host.as_str(), self.port);
        let connect = |_: &Self| server.to_socket_addrs().and_then(&connect);
        let connected = self.retry(|_| true, pause, connect);
        connected.map_err(|cause| ClientError::Connect {
            address: self.address(),
            cause,
        })
    }

    /// Calls `attempt`, and again after each temporary error until [`Endpoint::wait_for_server`] is
    /// over. `attempt` is given an endpoint that does not wait by itself. Between two attempts `pause`
    /// is called; if it returns false, no more follow.
    ///
    /// # Errors
    /// The one of the last attempt.
    pub fn retry<T, E>(
        &self,
        is_temporary: impl Fn(&E) -> bool,
        pause: impl Fn(Duration) -> bool,
        mut attempt: impl FnMut(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let deadline = Instant::now().checked_add(self.wait_for_server);
        let without_wait = Self {
            wait_for_server: Duration::ZERO,
            ..self.clone()
        };
        loop {
            let error = match attempt(&without_wait) {
                Err(error) if is_temporary(&error) => error,
                result => return result,
            };
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over || !pause(RETRY_PAUSE) {
                return Err(error);
            }
        }
    }
}

/// Waits between two attempts. No event tells that a server has started.
pub fn pause(duration: Duration) -> bool {
    thread::park_timeout(duration);
    true
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the host has no address")
}

fn connected_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let local = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A port that nobody listens on.
    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_server_is_reached_by_its_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // It may be two addresses, and this server listens on one.
        let mut stream = Endpoint::new("localhost", port).connect().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"hi").unwrap();
        let mut read = [0; 2];
        stream.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hi");
        assert!(stream.socket().nodelay().unwrap());
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let port = free_port();
        let error = Endpoint::new("127.0.0.1", port).connect().unwrap_err();
        let want = format!("cannot connect to 127.0.0.1:{port}: ");
        let told = crate::exit::with_causes(&error);
        assert!(told.starts_with(&want), "{told}");
        let error = Endpoint::new("", port).connect().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot connect to :{port}"));
        let error = Endpoint::new("::1%none", port).connect().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot connect to [::1%none]:{port}")
        );
    }

    #[test]
    fn an_address_may_be_in_brackets() {
        for (host, want) in [("[::1]", "::1"), ("::1", "::1"), ("[a", "[a"), ("h]", "h]")] {
            assert_eq!(unbracketed(host), want);
        }
    }

    #[test]
    fn a_server_that_starts_late_is_waited_for() {
        let port = free_port();
        let endpoint = Endpoint {
            wait_for_server: Duration::from_secs(30),
            ..Endpoint::new("127.0.0.1", port)
        };
        thread::scope(|scope| {
            let client = scope.spawn(|| endpoint.connect().map(drop));
            // Nobody can tell when the first try has failed; either way it has to connect.
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            listener.accept().unwrap();
            client.join().unwrap().unwrap();
        });
    }

    #[test]
    fn another_port_is_the_same_server() {
        let endpoint = Endpoint {
            timeout: Duration::from_secs(1),
            wait_for_server: Duration::from_secs(2),
            ..Endpoint::new("h", 1)
        };
        let other = endpoint.with_port(2);
        assert_eq!((other.host.as_str(), other.port), ("h", 2));
        assert_eq!(other.timeout, endpoint.timeout);
        assert_eq!(other.wait_for_server, endpoint.wait_for_server);
        assert_eq!(Endpoint::new("h", 1).timeout, TIMEOUT_DEFAULT);
    }
}
