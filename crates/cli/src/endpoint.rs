//! Where a client finds its server, and how it connects.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::address::Address;
use crate::channel::Channel;
use crate::error::ClientError;
use crate::security::Security;
use crate::server_stream::ServerStream;
use crate::socket::Socket;
use crate::tls_error::TlsError;

/// The server of a client that is not told one.
pub const HOST_DEFAULT: &str = "127.0.0.1";

/// How long a client waits for anything unless told otherwise (`--timeout`).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The pause between two attempts to connect (`--wait-for-server`).
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A server: where it is, how long its client waits, and how the two know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// More servers of the same data, of which one is active. [`Endpoint::connect`] leaves them to those
    /// who can ask a server whether it is the one.
    pub others: Vec<Address>,
    /// Bounds every wait: for the connection, and for a whole reply, unless its bytes keep coming
    /// ([`ServerStream`]).
    pub timeout: Duration,
    /// How long to keep trying while the server cannot be reached; zero is one attempt.
    pub wait_for_server: Duration,
    /// TLS and the account.
    pub security: Security,
}

impl Endpoint {
    /// A server with the defaults: 30 s for each wait, one attempt to connect, neither TLS nor an
    /// account. A host `unix:/path` is a Unix socket, which has no port.
    pub fn new(host: impl AsRef<str>, port: u16) -> Self {
        Self {
            address: Address::new(host.as_ref(), port),
            others: Vec::new(),
            timeout: TIMEOUT_DEFAULT,
            wait_for_server: Duration::ZERO,
            security: Security::default(),
        }
    }

    /// The same server at another port.
    pub fn with_port(&self, port: u16) -> Self {
        self.at(self.address.with_port(port))
    }

    /// Another address alone, reached in the same way.
    pub fn at(&self, address: Address) -> Self {
        Self {
            address,
            others: Vec::new(),
            ..self.clone()
        }
    }

    /// Connects, over TCP with Nagle's delay off, or to a Unix socket; and begins TLS.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if the server does not answer in time at any address of the host;
    /// [`ClientError::Tls`] if it is not to be trusted, or does not trust this client;
    /// [`ClientError::File`] if a file of [`Endpoint::security`] cannot be used.
    pub fn connect(&self) -> Result<ServerStream, ClientError> {
        let tls = self.security.tls()?;
        self.reach(|| match &self.address {
            Address::Unix(_) if tls.is_some() => Err(TlsError::UnixSocket.into()),
            Address::Unix(path) => {
                let socket = Socket::unix(path, self.timeout)?;
                Ok(ServerStream::new(Channel::plain(socket), self.timeout))
            }
            Address::Tcp { host, port } => {
                let mut last = no_address();
                // `localhost` may have two addresses, and a server usually listens on one of them.
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match self.connect_to(address, host, tls.as_ref()) {
                        Err(error) if TlsError::of(&error).is_none() => last = error,
                        connected => return connected,
                    }
                }
                Err(last)
            }
        })
    }

    fn connect_to(
        &self,
        address: SocketAddr,
        host: &str,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<ServerStream> {
        let socket = Socket::tcp(address, self.timeout)?;
        let Some(config) = tls else {
            return Ok(ServerStream::new(Channel::plain(socket), self.timeout));
        };
        // A certificate knows nothing of the interface behind an IPv6 address.
        let name = host.split('%').next().unwrap_or(host).to_owned();
        let not_a_name = |_| TlsError::NotAName(host.to_owned());
        let name = ServerName::try_from(name).map_err(not_a_name)?;
        let state = ClientConnection::new(Arc::clone(config), name);
        let state = state.map_err(|error| TlsError::new(&error, host))?;
        let channel = Channel::encrypted(socket, state, host.to_owned());
        let mut stream = ServerStream::new(channel, self.timeout);
        stream.shake_hands()?;
        Ok(stream)
    }

    /// UDP sockets that send to the server and receive from nobody else: one for each address of the
    /// host, in their order. Only a reply shows which address has a server.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if the host has no address that can be sent to.
    pub fn connect_udp(&self) -> Result<Vec<UdpSocket>, ClientError> {
        self.reach(|| {
            let mut last = no_address();
            let mut sockets = Vec::new();
            let (host, port) = match &self.address {
                Address::Tcp { host, port } => (host.as_str(), *port),
                Address::Unix(_) => return Err(last),
            };
            for address in (host, port).to_socket_addrs()? {
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

    /// Calls `connect` until it succeeds, or fails for good, or [`Endpoint::wait_for_server`] is over.
    fn reach<T>(&self, connect: impl Fn() -> io::Result<T>) -> Result<T, ClientError> {
        let is_temporary = |error: &io::Error| TlsError::of(error).is_none();
        let connected = self.retry(is_temporary, pause, |_| connect());
        connected.map_err(|cause| match cause.downcast() {
            Ok(error) => ClientError::Tls(error),
            Err(cause) => ClientError::Connect {
                address: self.address.to_string(),
                cause,
            },
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
    use std::os::unix::net::UnixListener;

    use rustix::net::sockopt::tcp_nodelay;

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
        assert!(tcp_nodelay(stream.channel().socket()).unwrap());
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
    fn a_server_is_reached_by_its_socket() {
        let path = std::env::temp_dir().join(format!("quartet-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let host = format!("unix:{}", path.display());
        let endpoint = Endpoint::new(&host, 0);
        let error = endpoint.connect().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot connect to {host}"));
        let listener = UnixListener::bind(&path).unwrap();
        let mut stream = endpoint.connect().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        stream.write_all(b"hi").unwrap();
        let mut read = [0; 2];
        server.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hi");
        drop(server);
        assert_eq!(stream.read(&mut read).unwrap(), 0);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_socket_that_nobody_accepts_from_is_given_up() {
        let path = std::env::temp_dir().join(format!("quartet-full-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let _listener = UnixListener::bind(&path).unwrap();
        let endpoint = Endpoint {
            timeout: Duration::from_millis(20),
            ..Endpoint::new(format!("unix:{}", path.display()), 0)
        };
        let mut connected = Vec::new();
        let error = loop {
            match endpoint.connect() {
                Ok(stream) => connected.push(stream),
                Err(error) => break error,
            }
        };
        assert!(
            crate::exit::with_causes(&error).ends_with("timed out"),
            "{error:?}"
        );
        std::fs::remove_file(&path).unwrap();
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
        assert_eq!(other.address, Address::new("h", 2));
        assert_eq!(other.timeout, endpoint.timeout);
        assert_eq!(other.wait_for_server, endpoint.wait_for_server);
        assert_eq!(Endpoint::new("h", 1).timeout, TIMEOUT_DEFAULT);
    }
}
