//! The queue server: a first-in, first-out queue of messages, over TCP, UDP or both at once.
//!
//! [`args`] reads the command line; `queue` is the queue and its rules, `journal` the database that
//! keeps it; `connection` is the life of a TCP connection in either dialect, `datagram` a UDP
//! request.

pub mod args;
mod connection;
mod datagram;
mod journal;
mod queue;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use cli::{Exit, Failure};
use daemon::{Daemon, Handle, StartError};
use group_commit::Fsync;

pub use journal::JournalError;
pub use queue::{Held, Message, Pending, Queue, QueueError};

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
    /// The database that keeps the queue; `None` keeps it in memory.
    pub data: Option<PathBuf>,
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
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

/// Why a server could not run, or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It could not listen.
    Start(StartError),
    /// The database could not be opened.
    Journal(JournalError),
    /// The writer thread could not be started.
    Thread(io::Error),
    /// The disk failed in a way that leaves open what is on it.
    Disk(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::Thread(_) => f.write_str("cannot start the writer thread"),
            Self::Disk(_) => f.write_str("ended, for the disk failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
            Self::Journal(error) => error.source(),
            Self::Thread(cause) | Self::Disk(cause) => Some(cause),
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(_) => Exit::Network,
            Self::Journal(_) | Self::Thread(_) | Self::Disk(_) => Exit::Usage,
        }
    }
}

/// A queue server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    queue: Arc<Queue>,
    local_addr: SocketAddr,
}

impl Server {
    /// Opens the queue and listens.
    ///
    /// # Errors
    /// If the database or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let mut daemon = Daemon::new(config.connections_max);
        let handle = daemon.handle();
        let stop = move || {
            handle.stop();
        };
        let body_bytes_max = config.body_bytes_max;
        let queue = Arc::new(match &config.data {
            Some(path) => Queue::open(path, body_bytes_max, config.fsync, stop)?,
            None => Queue::in_memory(body_bytes_max),
        });
        let (ip, port) = (config.ip, config.port);
        let connections = Arc::new(Connections::new(Arc::clone(&queue)));
        let datagrams = Arc::new(Datagrams::new(Arc::clone(&queue)));
        let local_addr = match config.transport {
            Transport::Tcp => daemon.listen(ip, port, connections)?,
            Transport::Udp => daemon.listen_udp(ip, port, datagrams)?,
            Transport::Both => daemon.listen_both(ip, port, connections, datagrams)?,
        };
        Ok(Self {
            daemon,
            queue,
            local_addr,
        })
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
    /// If it cannot start its threads, or had to end because the disk failed.
    pub fn run(self) -> Result<(), Error> {
        log::info!("Server started on {}", self.local_addr);
        self.daemon.run()?;
        let failure = self.queue.failure();
        failure.map_or(Ok(()), |cause| Err(Error::Disk(cause)))
    }
}
