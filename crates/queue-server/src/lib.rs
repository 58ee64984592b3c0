//! The queue server: first-in, first-out queues of messages, over TCP, UDP or both at once.
//!
//! [`args`] reads the command line. `queues` is the queues and their rules, without sockets:
//! `message` is a message, `position` where it stands, `clock` the time, `memory` the account of what all of
//! it takes, `totals` what happened to them.
//! `journal` is the database, and `timer` the thread for what is due. `requests` does what a request
//! asks and `replies` tells the outcome, over TCP and UDP alike. `service` is a TCP connection, `text`
//! the text protocol, `datagram` a UDP request, `sessions` what was answered to whom, and
//! `quota` how much of that is kept.

pub mod args;
mod arrival;
mod clock;
mod datagram;
mod error;
mod http;
mod journal;
mod keys;
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
mod text;
mod timer;
mod totals;

use std::path::PathBuf;
use std::sync::Arc;

use cli::ServerOptions;
use daemon::http::{Http, Probes};
use daemon::{Address, Audience, Daemon, Protocols, StartError};
use storage::Fsync;

pub use daemon::Serve;
pub use error::Error;
pub use queues::Limits;

use datagram::Datagrams;
use http::QueueHttp;
use metrics::QueueFigures;
use queues::Queues;
use service::Service;
use timer::Timer;

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
    /// The database that keeps the queues; `None` keeps them in memory.
    pub data: Option<PathBuf>,
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
    /// How much the queues may hold.
    pub limits: Limits,
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
    queues: Arc<Queues>,
    _timer: Timer,
    local_addr: Address,
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

/// What a port serves while these are the queues.
fn protocols(queues: &Arc<Queues>) -> Protocols {
    let service = Arc::new(Service(Arc::clone(queues)));
    let figures = QueueFigures(Arc::clone(queues));
    Protocols {
        frames: Some(Arc::clone(&service) as _),
        text: Some(service),
        http: Some(Http {
            handler: Arc::new(QueueHttp::new(queues)),
            probes: Probes::new("", Arc::new(figures)),
        }),
    }
}

impl Server {
    /// Opens the queues and listens.
    ///
    /// # Errors
    /// If the database or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let mut daemon = Daemon::new(config.door.clone(), 1, exposure(&config.door))?;
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
        let timer = Timer::start(&queues).map_err(StartError::Thread)?;
        let port = config.port;
        let protocols = protocols(&queues);
        let counter = daemon.datagram_counter();
        let datagrams = Datagrams::new(Arc::clone(&queues), config.udp_text, counter);
        let datagrams = Arc::new(datagrams);
        let local_addr = match config.transport {
            Transport::Tcp => daemon.listen(port, "", protocols)?,
            Transport::Udp => daemon.listen_udp(port, datagrams)?,
            Transport::Both => daemon.listen_both(port, protocols, datagrams)?,
        };
        Ok(Self {
            daemon,
            queues,
            _timer: timer,
            local_addr,
        })
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
        let handle = self.handle();
        self.queues.serve(Box::new(move || handle.is_stopping()));
        self.daemon.run()?;
        let failure = self.queues.failure();
        failure.map_or(Ok(()), |lost| Err(lost.into()))
    }
}
