//! The queue server: a first-in, first-out queue of messages, over TCP, UDP or both at once.
//!
//! [`args`] reads the command line; `queue` is the queue and its rules; `connection` is the life of
//! a TCP connection in either dialect, `datagram` a UDP request.

pub mod args;
mod connection;
mod datagram;
mod queue;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use cli::{Exit, Failure};
use daemon::{Daemon, Handle, StartError};

pub use queue::{Held, Message, Queue, QueueError};

use connection::Connections;
use datagram::Datagrams;

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The port; 0 is any free one.
    pub port: u16,
    /// TCP, UDP or both.
    pub transport: Transport,
    /// The longest message, in bytes.
    pub body_bytes_max: usize,
    /// Connections open at once.
    pub connections_max: usize,
}

/// What a server listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP and UDP, on the same port number.
    Both,
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "BOTH" => Ok(Self::Both),
            _ => Err(()),
        }
    }
}

/// Why a server could not run.
#[derive(Debug)]
pub enum Error {
    /// It could not listen.
    Start(StartError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(_) => Exit::Network,
        }
    }
}

/// A queue server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    local_addr: SocketAddr,
}

/// How often to look for a port that is free for TCP and for UDP.
const BOTH_TRIES: usize = 20;

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// If the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let queue = Arc::new(Queue::new(config.body_bytes_max));
        for _ in 1..BOTH_TRIES {
            if let Ok(server) = Self::bind_to(&config, &queue) {
                return Ok(server);
            }
            if config.port != 0 || config.transport != Transport::Both {
                break;
            }
        }
        Ok(Self::bind_to(&config, &queue)?)
    }

    fn bind_to(config: &Config, queue: &Arc<Queue>) -> Result<Self, StartError> {
        let mut daemon = Daemon::new(config.connections_max);
        let mut local_addr = SocketAddr::new(config.ip, config.port);
        if config.transport != Transport::Udp {
            let service = Arc::new(Connections::new(Arc::clone(queue)));
            local_addr = daemon.listen(config.ip, local_addr.port(), service)?;
        }
        if config.transport != Transport::Tcp {
            let service = Arc::new(Datagrams::new(Arc::clone(queue)));
            local_addr = daemon.listen_udp(config.ip, local_addr.port(), service)?;
        }
        Ok(Self { daemon, local_addr })
    }

    /// The address it listens on, with the port it took; the same for TCP and UDP.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the server from elsewhere.
    pub fn handle(&self) -> Handle {
        self.daemon.handle()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If it cannot start its threads.
    pub fn run(self) -> Result<(), Error> {
        log::info!("Server started on {}", self.local_addr);
        Ok(self.daemon.run()?)
    }
}
