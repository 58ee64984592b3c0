//! The queue server: first-in, first-out queues of messages, over TCP, UDP or both at once.
//!
//! [`args`] reads the command line. `queues` is the queues and their rules, without sockets:
//! `message` is a message, `position` where it stands, `clock` the time, `memory` the account of what all of
//! it takes, `totals` what happened to them.
//! `journal` is the database, and `timer` the thread for what is due. `requests` does what a request
//! asks and `replies` tells the outcome, over TCP and UDP alike. `service` is a TCP connection, `text`
//! the text protocol, `datagram` a UDP request, `sessions` what was answered to whom, and
//! `quota` how much of that is kept.
//!
//! `active` is a server that serves its queues. With PostgreSQL, `leader` decides whether this server is active or
//! another one, `standby` is what it answers with meanwhile, and `authority` is for how long it may hand out messages
//! without a word of the database.

mod active;
pub mod args;
mod arrival;
mod authority;
mod clock;
mod datagram;
mod error;
mod http;
mod journal;
mod keys;
#[cfg(feature = "postgres")]
mod leader;
mod memory;
mod message;
mod metrics;
mod position;
mod queues;
mod quota;
mod replies;
mod requests;
mod service;
mod sessions;
#[cfg(feature = "postgres")]
mod standby;
mod text;
mod timer;
mod totals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cli::ServerOptions;
use daemon::{Address, Audience, Daemon, DatagramService, Switch};
use storage::Fsync;

pub use daemon::Serve;
pub use error::Error;
pub use queues::Limits;

use active::{Active, Ports};
#[cfg(feature = "postgres")]
use journal::Candidate;
#[cfg(feature = "postgres")]
use leader::Leader;
use queues::Queues;

type Datagrams = Switch<dyn DatagramService>;

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its front door.
    pub door: ServerOptions,
    /// The port; 0 is any free one.
    pub port: u16,
    /// TCP, UDP or both.
    pub transport: Transport,
    /// Whether other machines may use the text protocol over UDP.
    pub udp_text: bool,
    /// Where the queues are kept.
    pub data: Data,
    /// How much the queues may hold.
    pub limits: Limits,
}

/// Where the queues are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In memory: they end with the server.
    Memory,
    /// In a database of SQLite.
    File {
        /// The file, which is made if it does not exist.
        path: PathBuf,
        /// Whether replies wait for the disk.
        fsync: Fsync,
    },
    /// In a database of PostgreSQL, which other servers can take over. Needs the feature `postgres`.
    Postgres {
        /// Where the database is: `postgresql://USER@HOST1,HOST2/DATABASE`.
        url: String,
        /// How long the active server may be silent before another takes over.
        takeover_after: Duration,
    },
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

/// A queue server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    keeper: Keeper,
    local_addr: Address,
}

/// Who has the queues.
enum Keeper {
    /// This server, as long as it runs.
    Own(Active, Ports),
    /// One of the servers on the same database.
    #[cfg(feature = "postgres")]
    Leader(Leader),
}

/// What other machines can do, if they can reach it.
fn exposure(door: &ServerOptions) -> String {
    let Audience { readers, writers } = Audience::of(door);
    if readers == writers {
        format!("{writers} can send and receive messages")
    } else {
        format!("{readers} can look at messages, and {writers} can send and receive them")
    }
}

impl Server {
    /// Opens the queues and listens.
    ///
    /// # Errors
    /// If the database or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let mut daemon = Daemon::new(config.door.clone(), 1, exposure(&config.door))?;
        let ports = Ports {
            handle: daemon.handle(),
            udp_text: config.udp_text,
            datagram_counter: daemon.datagram_counter(),
        };
        let (port, limits) = (config.port, config.limits);
        let (keeper, protocols, datagrams) = match config.data {
            Data::Memory => Self::own(Queues::in_memory(limits), ports)?,
            Data::File { path, fsync } => {
                fsync.warn();
                let handle = ports.handle.clone();
                let stop = move || {
                    handle.stop();
                };
                Self::own(Queues::open(&path, limits, fsync, stop)?, ports)?
            }
            #[cfg(not(feature = "postgres"))]
            Data::Postgres { .. } => return Err(Error::NoPostgres),
            #[cfg(feature = "postgres")]
            Data::Postgres {
                url,
                takeover_after,
            } => {
                let candidate = Candidate::new(&url, takeover_after)?;
                let leader = Leader::start(candidate, limits, ports)?;
                let (protocols, datagrams) = leader.switches();
                (Keeper::Leader(leader), protocols, datagrams)
            }
        };
        let local_addr = match config.transport {
            Transport::Tcp => daemon.listen(port, "", protocols)?,
            Transport::Udp => daemon.listen_udp(port, datagrams)?,
            Transport::Both => daemon.listen_both(port, protocols, datagrams)?,
        };
        Ok(Self {
            daemon,
            keeper,
            local_addr,
        })
    }

    /// A server that alone has these queues.
    fn own(queues: Queues, ports: Ports) -> Result<(Keeper, Switch, Datagrams), Error> {
        let active = Active::start(queues, &ports)?;
        let protocols = Switch::new(Arc::clone(&active.protocols));
        let datagrams = Switch::new(Arc::clone(&active.datagrams));
        Ok((Keeper::Own(active, ports), protocols, datagrams))
    }

    /// The first address it listens on, with the port it took; the same for TCP and UDP.
    pub fn local_addr(&self) -> &Address {
        &self.local_addr
    }
}

impl Serve for Server {
    type Error = Error;

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn run(self) -> Result<(), Error> {
        match self.keeper {
            Keeper::Own(active, ports) => {
                active.serve(&ports);
                self.daemon.run()?;
                let failure = active.queues.failure();
                failure.map_or(Ok(()), |lost| Err(lost.into()))
            }
            #[cfg(feature = "postgres")]
            Keeper::Leader(leader) => {
                self.daemon.run()?;
                leader.end()
            }
        }
    }
}
