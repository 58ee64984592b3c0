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
pub mod http;
mod registry;
mod signals;
mod wakeup;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use accept::Service;
pub use connection::{Connection, Cutter, DEFERRED_CONNECTIONS_MIN, Deadline};
pub use deferred::{DEFERRED_BYTES_MAX, Deferred};
pub use signals::Signals;
pub use wakeup::{Waited, Wakeup};

use registry::Registry;

/// How many connections a server keeps open unless told otherwise (`--max-connections`).
pub const CONNECTIONS_DEFAULT: usize = 4096;

/// The most connections a server can be told to keep. Each is a thread, and past about 16,000
/// threads (two memory mappings each, 65,530 allowed) the Rust runtime aborts the process.
pub const CONNECTIONS_MAX: usize = 15_000;

/// Descriptors for everything but served connections: listeners, files, and the connections that
/// are being turned away.
const DESCRIPTORS_RESERVED: usize = 128;

/// How long requests in flight may go on once a server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The stack of every thread, in bytes.
pub const STACK_BYTES: usize = 128 * 1024;

/// Connections that were accepted and whose threads are not started yet, on each port.
const ACCEPTED_MAX: usize = 4096;

/// Waiting connections the kernel keeps for us; std asks for 128, too few for a burst.
const BACKLOG: i32 = 4096;

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
    /// A thread could not be started.
    Thread(io::Error),
    /// The signal handler could not be set.
    Signals(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, .. } => write!(f, "cannot listen on {address}"),
            Self::Thread(_) => f.write_str("cannot start a thread"),
            Self::Signals(_) => f.write_str("cannot handle signals"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { cause, .. } | Self::Thread(cause) | Self::Signals(cause) => Some(cause),
        }
    }
}

/// A server's sockets and its connections.
#[must_use = "a daemon listens, but serves nobody until it runs"]
pub struct Daemon {
    registry: Arc<Registry>,
    listeners: Vec<Listening>,
    idle_exit: Option<Duration>,
}

enum Listening {
    Tcp(Arc<TcpListener>, Arc<dyn Service>),
    Udp(Arc<UdpSocket>, Arc<dyn DatagramService>),
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
    /// A server that keeps up to `connections_max` connections open at once; fewer, with a warning,
    /// if the system does not allow as many descriptors.
    pub fn new(connections_max: usize) -> Self {
        let allowed = descriptors_allowed();
        let affordable = allowed
            .saturating_sub(DESCRIPTORS_RESERVED)
            .max(allowed / 2);
        if affordable < connections_max {
            log::warn!("{allowed} descriptors (ulimit -n) allow {affordable} connections at once");
        }
        Self {
            registry: Registry::new(connections_max.min(affordable), affordable),
            listeners: Vec::new(),
            idle_exit: None,
        }
    }

    /// Makes [`Daemon::run`] return by itself when no request was made for so long.
    pub fn exit_when_idle(&mut self, idle: Duration) {
        self.registry.watch_requests();
        self.idle_exit = Some(idle);
    }

    /// Listens on a TCP port; 0 is any free one. Returns the address taken.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn listen(
        &mut self,
        ip: IpAddr,
        port: u16,
        service: Arc<dyn Service>,
    ) -> Result<SocketAddr, StartError> {
        let address = SocketAddr::new(ip, port);
        let bind = || {
            let listener = TcpListener::bind(address)?;
            accept::set_options(&listener)?;
            rustix::net::listen(&listener, BACKLOG)?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = bind().map_err(|cause| StartError::Bind { address, cause })?;
        warn_if_exposed(local);
        let listening = Listening::Tcp(Arc::new(listener), service);
        self.listeners.push(listening);
        Ok(local)
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
        let address = SocketAddr::new(ip, port);
        let bind = || {
            let socket = UdpSocket::bind(address)?;
            let local = socket.local_addr()?;
            Ok((socket, local))
        };
        let (socket, local) = bind().map_err(|cause| StartError::Bind { address, cause })?;
        warn_if_exposed(local);
        let listening = Listening::Udp(Arc::new(socket), service);
        self.listeners.push(listening);
        Ok(local)
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
            let address = self.listen(ip, port, Arc::clone(&tcp))?;
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
    /// the requests in flight, 10 s at most.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn run(self) -> Result<(), StartError> {
        let mut threads = Vec::new();
        let mut sockets = Vec::new();
        for listening in self.listeners {
            let registry = Arc::clone(&self.registry);
            let started = match listening {
                Listening::Tcp(listener, service) => {
                    sockets.push(Socket::Tcp(Arc::clone(&listener)));
                    let name = named("tcp", listener.local_addr());
                    let (accepted, admitted) = sync_channel(ACCEPTED_MAX);
                    let admitting = Arc::clone(&registry);
                    let admit = move || admitting.admit_all(&admitted, &service);
                    threads.push(spawn(name.clone(), admit).map_err(StartError::Thread)?);
                    spawn(name, move || registry.accept_all(&listener, &accepted))
                }
                Listening::Udp(socket, service) => {
                    sockets.push(Socket::Udp(Arc::clone(&socket)));
                    let name = named("udp", socket.local_addr());
                    spawn(name, move || registry.receive_all(&socket, &*service))
                }
            };
            threads.push(started.map_err(StartError::Thread)?);
        }
        self.registry.wait_until_stopped(self.idle_exit);
        log::info!("Shutting down server");
        for socket in sockets {
            socket.wake();
        }
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a listening thread panicked");
            }
        }
        self.registry.close_all(GRACE);
        Ok(())
    }
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

enum Socket {
    Tcp(Arc<TcpListener>),
    Udp(Arc<UdpSocket>),
}

impl Socket {
    /// Makes a blocked `accept` or `recv_from` return. Linux does so when the socket is shut
    /// down, also for a UDP socket without a peer, for which the call itself reports ENOTCONN.
    fn wake(&self) {
        let how = rustix::net::Shutdown::Both;
        let _ = match self {
            Self::Tcp(listener) => rustix::net::shutdown(listener, how),
            Self::Udp(socket) => rustix::net::shutdown(socket, how),
        };
    }
}

fn named(transport: &str, address: io::Result<SocketAddr>) -> String {
    match address {
        Ok(address) => format!("{transport} {}", address.port()),
        Err(_) => transport.to_owned(),
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    let builder = thread::Builder::new().name(name);
    builder.stack_size(STACK_BYTES).spawn(run)
}

fn warn_if_exposed(address: SocketAddr) {
    if !address.ip().is_loopback() {
        log::warn!("{address} can be reached from other machines");
    }
}

/// Locks a mutex whether or not a thread panicked while it held it: one connection's panic must
/// not end the others. What is guarded this way is never left half-changed by code that can panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
