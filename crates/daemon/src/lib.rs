//! What every server needs, so that each has only its service to write.
//!
//! A [`Daemon`] listens, gives every connection a named thread of its own, counts them, answers
//! "busy" past a limit, and ends gracefully. A service says in [`Service::serve`] what the life of
//! one [`Connection`] is; an HTTP service implements [`http::Handler`] instead.
//!
//! One blocking thread a connection is the whole model: what a connection does is written from
//! top to bottom, and what it waits for it simply waits for; only a reply that is waited for may be
//! [`Deferred`], so that nobody is woken for it. The price, a stack each, is 128 KiB of address space
//! and a few KiB of memory.

mod accept;
mod connection;
mod deferred;
mod eviction;
pub mod http;
mod listen;
mod registry;
mod signals;
mod sync;
mod threads;
mod waiters;
mod wakeup;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use accept::Service;
pub use connection::{AbortHandle, Connection, DEFERRED_CONNECTIONS_MIN, Deadline};
pub use deferred::{DEFERRED_BYTES_MAX, Deferred};
pub use signals::Signals;
pub use waiters::Network;
pub use wakeup::{Waited, Wakeup};

use accept::TURNED_AWAY_MAX;
use listen::{Listening, Socket};
use registry::{LEAVING_MAX, Registry};
use threads::Job;
use waiters::waiters_max;

/// How many connections a server keeps open unless told otherwise (`--max-connections`).
pub const CONNECTIONS_DEFAULT: usize = 4096;

/// The most connections a server can be told to keep. Each is a thread, and past about 16,000
/// threads (two memory mappings each, 65,530 allowed) the Rust runtime aborts the process.
pub const CONNECTIONS_MAX: usize = 15_000;

/// Descriptors for everything but connections: listeners, files, and those that were accepted and are
/// not counted yet.
const DESCRIPTORS_RESERVED: usize = 128;

/// How long requests in flight may go on once a server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The stack of every thread, in bytes.
pub const STACK_BYTES: usize = 128 * 1024;

/// Connections that were accepted and whose threads are not started yet, on all ports together: so many
/// if there are descriptors to spare...
const ACCEPTED_MAX: usize = 4096;
/// ...and so many on each port out of those that are reserved.
const ACCEPTED_MIN: usize = 16;

/// Why a server could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The system does not allow as many descriptors as it needs.
    Descriptors {
        /// How many it does.
        allowed: usize,
        /// How many are needed...
        needed: usize,
        /// ...for this many connections.
        connections: usize,
    },
    /// A thread could not be started.
    Thread(io::Error),
    /// The signal handler could not be set.
    Signals(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, .. } => write!(f, "cannot listen on {address}"),
            Self::Descriptors {
                allowed,
                needed,
                connections,
            } => {
                write!(
                    f,
                    "{connections} connections (--max-connections) need {needed} descriptors \
                     (ulimit -n), and {allowed} are allowed"
                )?;
                match connections_within(*allowed) {
                    0 => Ok(()),
                    fit => write!(f, ", enough for --max-connections {fit}"),
                }
            }
            Self::Thread(_) => f.write_str("cannot start a thread"),
            Self::Signals(_) => f.write_str("cannot handle signals"),
        }
    }
}

impl StartError {
    /// Whether it is the network that keeps the server from starting, and not its own machine.
    pub fn is_of_network(&self) -> bool {
        match self {
            Self::Bind { .. } => true,
            Self::Descriptors { .. } | Self::Thread(_) | Self::Signals(_) => false,
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { cause, .. } | Self::Thread(cause) | Self::Signals(cause) => Some(cause),
            Self::Descriptors { .. } => None,
        }
    }
}

/// A server's sockets and its connections.
#[must_use = "a daemon listens, but serves nobody until it runs"]
pub struct Daemon {
    registry: Arc<Registry>,
    listeners: Vec<Listening>,
    idle_exit: Option<Duration>,
    /// What other machines can do with it.
    exposure: String,
    /// How many descriptors are allowed beyond those that are needed.
    descriptors_spare: usize,
}

/// A service over UDP: one datagram is one request.
pub trait DatagramService: Send + Sync + 'static {
    /// Acts on one datagram; replies, if at all, through `socket`, at once or in
    /// [`DatagramService::settle`].
    fn serve_datagram(&self, datagram: &[u8], peer: SocketAddr, socket: &UdpSocket);

    /// Gives the replies that are still owed. No more datagrams are waiting, or a good number was
    /// served since the last call.
    fn settle(&self, socket: &UdpSocket);
}

/// Stops a running [`Daemon`] from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Registry>);

impl Handle {
    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    /// Lets requests in flight finish, closes everything else, and makes [`Daemon::run`] return.
    /// Returns whether this was the first call.
    pub fn stop(&self) -> bool {
        self.0.stop()
    }

    /// The connections open at the moment.
    pub fn open_connections(&self) -> usize {
        self.0.open()
    }
}

impl Daemon {
    /// A server that keeps up to `connections_max` connections open at once. `exposure` says who can
    /// do what with it, in half a sentence: the warning when other machines can reach it.
    ///
    /// # Errors
    /// If the system does not allow as many descriptors as these may need.
    pub fn new(connections_max: usize, exposure: impl Into<String>) -> Result<Self, StartError> {
        let allowed = descriptors_allowed();
        let needed = descriptors_needed(connections_max);
        if allowed < needed {
            return Err(StartError::Descriptors {
                allowed,
                needed,
                connections: connections_max,
            });
        }
        Ok(Self {
            registry: Registry::new(connections_max),
            listeners: Vec::new(),
            idle_exit: None,
            exposure: exposure.into(),
            descriptors_spare: allowed - needed,
        })
    }

    /// Makes [`Daemon::run`] return by itself when no request was made for so long.
    pub fn exit_when_idle(&mut self, idle: Duration) {
        self.registry.watch_requests();
        self.idle_exit = Some(idle);
    }

    /// Listens on a TCP port; 0 is any free one. Returns the address taken. In the log, `note` tells
    /// it from the server's other ports.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn listen(
        &mut self,
        ip: IpAddr,
        port: u16,
        note: &'static str,
        service: Arc<dyn Service>,
    ) -> Result<SocketAddr, StartError> {
        self.add(ip, port, note, |address| {
            let listener = listen::tcp(address)?;
            let local = listener.local_addr()?;
            Ok((local, Socket::Tcp(Arc::new(listener), service)))
        })
    }

    /// Receives on a UDP port; 0 is any free one. Returns the address taken.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn listen_udp(
        &mut self,
        ip: IpAddr,
        port: u16,
        service: Arc<dyn DatagramService>,
    ) -> Result<SocketAddr, StartError> {
        self.add(ip, port, "", |address| {
            let socket = UdpSocket::bind(address)?;
            let local = socket.local_addr()?;
            Ok((local, Socket::Udp(Arc::new(socket), service)))
        })
    }

    fn add(
        &mut self,
        ip: IpAddr,
        port: u16,
        note: &'static str,
        bind: impl FnOnce(SocketAddr) -> io::Result<(SocketAddr, Socket)>,
    ) -> Result<SocketAddr, StartError> {
        let address = SocketAddr::new(ip, port);
        let bound = bind(address).map_err(|cause| StartError::Bind { address, cause })?;
        let (address, socket) = bound;
        self.listeners.push(Listening {
            address,
            note,
            socket,
        });
        Ok(address)
    }

    /// Listens on a TCP port and receives on the UDP port of the same number; 0 is a number that
    /// is free for both. Returns the address taken.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn listen_both(
        &mut self,
        ip: IpAddr,
        port: u16,
        tcp: Arc<dyn Service>,
        udp: Arc<dyn DatagramService>,
    ) -> Result<SocketAddr, StartError> {
        /// How often to look for a number that is free for both.
        const TRIES: usize = 20;
        let mut tries = if port == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            let address = self.listen(ip, port, "", Arc::clone(&tcp))?;
            match self.listen_udp(ip, address.port(), Arc::clone(&udp)) {
                Err(_) if tries > 0 => drop(self.listeners.pop()),
                other => return other,
            }
        }
    }

    /// Stops this daemon from elsewhere.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.registry))
    }

    /// Serves until [`Handle::stop`] is called or the server was idle for too long; then waits for
    /// the requests in flight, 10 s at most. That it has started is logged when it is so.
    ///
    /// # Errors
    /// If a thread cannot be started. Then nobody was served.
    pub fn run(self) -> Result<(), StartError> {
        let jobs = self
            .listeners
            .iter()
            .flat_map(|listening| self.jobs(listening));
        let threads = threads::start_all(jobs.collect()).map_err(StartError::Thread)?;
        self.log_start();
        self.registry.wait_until_stopped(self.idle_exit);
        log::info!("Shutting down server");
        for listening in &self.listeners {
            listening.socket.wake();
        }
        threads::join_all(threads);
        // From now on, who connects is refused.
        drop(self.listeners);
        self.registry.close_all(GRACE);
        Ok(())
    }

    /// What serves a socket.
    fn jobs(&self, listening: &Listening) -> Vec<Job> {
        let registry = Arc::clone(&self.registry);
        let port = listening.address.port();
        match &listening.socket {
            Socket::Tcp(listener, service) => {
                let (listener, service) = (Arc::clone(listener), Arc::clone(service));
                let spare = self.descriptors_spare.min(ACCEPTED_MAX) / self.listeners.len();
                let (accepted, admitted) = sync_channel(spare.max(ACCEPTED_MIN));
                let admitting = Arc::clone(&registry);
                let admit = move || admitting.admit_all(&admitted, &service);
                let accept = move || registry.accept_all(&listener, &accepted);
                let name = format!("tcp {port}");
                vec![(name.clone(), Box::new(admit)), (name, Box::new(accept))]
            }
            Socket::Udp(socket, service) => {
                let (socket, service) = (Arc::clone(socket), Arc::clone(service));
                let receive = move || registry.receive_all(&socket, &*service);
                vec![(format!("udp {port}"), Box::new(receive))]
            }
        }
    }

    fn log_start(&self) {
        let mut logged = None;
        for Listening { address, note, .. } in &self.listeners {
            // The same port over TCP and UDP is one.
            if logged.replace(address) == Some(address) {
                continue;
            }
            if !address.ip().is_loopback() {
                let exposure = &self.exposure;
                log::warn!("{address} can be reached from other machines: {exposure}");
            }
            let ends = self.idle_exit.map(|idle| {
                let secs = idle.as_secs_f64();
                format!("ends after {secs}s without a request")
            });
            let notes = [*note, ends.as_deref().unwrap_or_default()];
            let notes: Vec<_> = notes.into_iter().filter(|note| !note.is_empty()).collect();
            match notes.join(", ").as_str() {
                "" => log::info!("Server started on {address}"),
                notes => log::info!("Server started on {address} ({notes})"),
            }
        }
    }
}

/// How many descriptors a server may need with so many connections: one each, one more for each that
/// waits, one for each that is leaving, and some for everything else.
fn descriptors_needed(connections_max: usize) -> usize {
    let leaving = LEAVING_MAX + TURNED_AWAY_MAX;
    connections_max + waiters_max(connections_max) + leaving + DESCRIPTORS_RESERVED
}

/// The most connections for which so many descriptors are enough.
fn connections_within(descriptors: usize) -> usize {
    let mut fit = 0;
    while fit < CONNECTIONS_MAX && descriptors_needed(fit + 1) <= descriptors {
        fit += 1;
    }
    fit
}

/// Raises the limit on descriptors to what is allowed, and returns it.
fn descriptors_allowed() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Locks a mutex whether or not a thread panicked while it held it: one connection's panic must
/// not end the others. What is guarded this way is never left half-changed by code that can panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_told_with_what_would_be_right() {
        #[track_caller]
        fn check(connections: usize, allowed: usize, want: &str) {
            let needed = descriptors_needed(connections);
            let error = StartError::Descriptors {
                allowed,
                needed,
                connections,
            };
            let why = format!(
                "{connections} connections (--max-connections) need {needed} descriptors \
                 (ulimit -n), and {allowed} are allowed"
            );
            assert_eq!(error.to_string(), why + want);
        }
        check(4096, 1024, ", enough for --max-connections 410");
        for (allowed, fit) in [(1024, 410), (258, 1), (257, 0), (1 << 40, CONNECTIONS_MAX)] {
            assert_eq!(connections_within(allowed), fit, "{allowed}");
        }
        check(1, 100, "");
    }
}
