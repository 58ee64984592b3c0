//! Where a client finds its server, and how long it waits for it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::ServerStream;

/// How long a client waits for anything unless told otherwise (`--timeout`).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The pause between two tries to connect (`--wait-for-server`).
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A server's address and the client's patience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Bounds every wait: for the connection, and for a whole reply, whose bytes buy time at the
    /// least rate of [`ServerStream`].
    pub timeout: Duration,
    /// How long to go on trying while nobody listens; zero is one try.
    pub wait_for_server: Duration,
}

/// Why a server could not be reached.
#[derive(Debug)]
pub struct ConnectError {
    host: String,
    port: u16,
    cause: io::Error,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}:{}", self.host, self.port)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Endpoint {
    /// A server with the default patience: 30 s for each wait, one try to connect.
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

    /// Connects over TCP, with Nagle's delay off.
    ///
    /// # Errors
    /// If no address of the host answers in time.
    pub fn connect(&self) -> Result<ServerStream, ConnectError> {
        self.retry(|| {
            let stream =
                self.first_address(|address| TcpStream::connect_timeout(&address, self.timeout))?;
            stream.set_nodelay(true)?;
            Ok(ServerStream::new(stream, self.timeout))
        })
    }

    /// UDP sockets that send to the server and receive from nobody else: one for each address of the
    /// host, in their order. Only a datagram shows whether anybody is there.
    ///
    /// # Errors
    /// If the host has no address that can be sent to.
    pub fn connect_udp(&self) -> Result<Vec<UdpSocket>, ConnectError> {
        self.retry(|| {
            let mut last = no_address();
            let mut sockets = Vec::new();
            for address in (self.host.as_str(), self.port).to_socket_addrs()? {
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

    /// The first address of the host for which `connect` succeeds; `localhost` may be two, and a
    /// server usually listens on one of them.
    fn first_address<T>(&self, connect: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
        let mut last = no_address();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match connect(address) {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn retry<T>(&self, connect: impl Fn() -> io::Result<T>) -> Result<T, ConnectError> {
        let deadline = Instant::now() + self.wait_for_server;
        loop {
            match connect() {
                Ok(connected) => return Ok(connected),
                Err(_) if Instant::now() + RETRY_PAUSE < deadline => {
                    // There is no event to wait for: nobody tells us that a server came up.
                    thread::park_timeout(RETRY_PAUSE);
                }
                Err(cause) => {
                    return Err(ConnectError {
                        host: self.host.clone(),
                        port: self.port,
                        cause,
                    });
                }
            }
        }
    }
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

/// Whether an error of a stream means that a timeout ran out, which the sockets of this system
/// report as "would block".
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
