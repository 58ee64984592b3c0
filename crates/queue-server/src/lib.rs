//! The queue server: first-in, first-out queues of messages, over TCP, UDP or both at once.
//!
//! [`args`] reads the command line. `message` is a message and its place, `queue` one queue, `state`
//! all of them under one lock, `shared` what the writer of the database uses too; `queues` is the rules
//! of handing out and giving back, `begun` a change that waits for the disk, `steps` requests that are
//! acted on together, `in_line` whoever waits, `whole` what concerns whole queues, `memory` the account
//! of what all of it takes. `journal` is the database that keeps them, and `alarm` the thread for what is
//! due later. `connection` is the life of a TCP connection, `session` its requests in frames, `plain` the
//! one in plain text; `datagram` is a UDP request, and `recent` what was answered over UDP lately.

mod alarm;
pub mod args;
mod begun;
mod connection;
mod datagram;
mod error;
mod in_line;
mod journal;
mod memory;
mod message;
mod plain;
mod queue;
mod queues;
mod recent;
mod session;
mod shared;
mod state;
mod steps;
mod whole;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use cli::{Exit, Failure};
use daemon::{Daemon, Handle, StartError};
use storage::{Fsync, StorageError};

pub use begun::Begun;
pub use error::{QUEUES_MAX, QueueError, RESERVED_MAX};
pub use in_line::InLine;
pub use journal::JournalError;
pub use memory::{Body, LongBody};
pub use message::{Message, Place, Taken};
pub use queues::Queues;
pub use state::Limits;
pub use steps::{Step, Stepped};

use alarm::Alarm;
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
    /// Whether other machines may speak in plain text over UDP.
    pub udp_text: bool,
    /// The database that keeps the queues; `None` keeps them in memory.
    pub data: Option<PathBuf>,
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
    /// How much the queues may hold.
    pub limits: Limits,
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
    /// It cannot use its files, or cannot continue to.
    Storage(StorageError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
            Self::Journal(error) => error.source(),
            Self::Storage(error) => error.source(),
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
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
            Self::Start(error) if error.is_of_network() => Exit::Network,
            Self::Start(_) | Self::Journal(_) | Self::Storage(_) => Exit::Local,
        }
    }
}

/// A queue server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    queues: Arc<Queues>,
    _alarm: Alarm,
    local_addr: SocketAddr,
}

/// What other machines can do, if they can reach it.
const EXPOSURE: &str = "everyone can send and receive messages";

impl Server {
    /// Opens the queues and listens.
    ///
    /// # Errors
    /// If the database or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let mut daemon = Daemon::new(config.connections_max, EXPOSURE)?;
        let handle = daemon.handle();
        let stop = move || {
            handle.stop();
        };
        let queues = Arc::new(match &config.data {
            Some(path) => {
                config.fsync.warn();
                Queues::open(path, config.limits, config.fsync, stop)?
            }
            None => Queues::in_memory(config.limits),
        });
        let alarm = Alarm::start(&queues).map_err(StartError::Thread)?;
        let (ip, port) = (config.ip, config.port);
        let connections = Arc::new(Connections::new(Arc::clone(&queues)));
        let datagrams = Arc::new(Datagrams::new(Arc::clone(&queues), config.udp_text));
        let local_addr = match config.transport {
            Transport::Tcp => daemon.listen(ip, port, "", connections)?,
            Transport::Udp => daemon.listen_udp(ip, port, datagrams)?,
            Transport::Both => daemon.listen_both(ip, port, connections, datagrams)?,
        };
        Ok(Self {
            daemon,
            queues,
            _alarm: alarm,
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

    /// What SIGHUP calls: reads and opens again what can be.
    pub fn reload(&self) -> impl Fn() + Send + Sync + 'static {
        || log::info!("Nothing to reload")
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If it cannot start its threads, or had to end because the disk failed.
    pub fn run(self) -> Result<(), Error> {
        self.queues.serve(self.handle());
        self.daemon.run()?;
        let failure = self.queues.failure();
        failure.map_or(Ok(()), |lost| Err(lost.into()))
    }
}
