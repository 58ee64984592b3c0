//! A server: its ports, its threads, and its life from the first connection to the last.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cli::{Bind, ServerOptions};

use crate::access::Access;
use crate::datagrams::{DatagramCounter, DatagramService};
use crate::descriptors::{descriptors_allowed, descriptors_needed};
use crate::error::StartError;
use crate::exposure;
use crate::listen::{self, Listening, Socket};
use crate::peer::Address;
use crate::protocol::Protocols;
use crate::registry::Registry;
use crate::service_manager;
use crate::threads::{self, Job};
use crate::tls::Tls;

/// How long requests in flight may continue once a server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How many connections may be accepted and wait for their threads, on all ports together, if there
/// are descriptors to spare.
const ACCEPTED_MAX: usize = 4096;

/// How many may do so on each port in any case, out of the reserved descriptors.
const ACCEPTED_MIN: usize = 16;

/// A server's sockets and its connections.
#[must_use = "a daemon listens, but serves nobody until it runs"]
pub struct Daemon {
    options: ServerOptions,
    registry: Arc<Registry>,
    listeners: Vec<Listening>,
    idle_exit: Option<Duration>,
    /// What other machines can do with it.
    exposure: String,
    /// How many descriptors are allowed beyond those that are needed.
    descriptors_spare: usize,
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
    /// A server behind a front door as `options` say. `exposure` says who can do what with it
    /// ([`Audience`](crate::Audience)), in half a sentence: the warning when other machines can reach it.
    ///
    /// # Errors
    /// If the system does not allow as many descriptors as these may need, or the file of accounts or
    /// those for TLS are not right.
    pub fn new(options: ServerOptions, exposure: impl Into<String>) -> Result<Self, StartError> {
        let connections_max = options.connections_max;
        let allowed = descriptors_allowed();
        let needed = descriptors_needed(connections_max);
        if allowed < needed {
            return Err(StartError::Descriptors {
                allowed,
                needed,
                connections: connections_max,
            });
        }
        let access = Access::open(&options)?;
        let tls = options.tls.clone().map(Tls::new).transpose()?;
        Ok(Self {
            options,
            registry: Registry::with(connections_max, access, tls.map(Arc::new)),
            listeners: Vec::new(),
            idle_exit: None,
            exposure: exposure.into(),
            descriptors_spare: allowed - needed,
        })
    }

    /// Makes [`Daemon::run`] return by itself when no request was made for this long.
    pub fn exit_when_idle(&mut self, idle: Duration) {
        self.registry.watch_requests();
        self.idle_exit = Some(idle);
    }

    /// Listens on a TCP port at each place that the options name; 0 is any free one. Returns the first
    /// address, with the port. In the log, `note` tells the port from the server's others.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn listen(
        &mut self,
        port: u16,
        note: &'static str,
        protocols: Protocols,
    ) -> Result<Address, StartError> {
        let protocols = Arc::new(protocols);
        self.listen_at_all(port, note, |address| {
            let listener = listen::tcp(address)?;
            let local = listener.local_addr()?;
            Ok((
                local,
                Socket::Tcp(Arc::new(listener), Arc::clone(&protocols)),
            ))
        })
    }

    /// Receives on a UDP port at each place that the options name; 0 is any free one. Returns the first
    /// address, with the port.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn listen_udp(
        &mut self,
        port: u16,
        service: Arc<dyn DatagramService>,
    ) -> Result<Address, StartError> {
        self.listen_at_all(port, "", |address| {
            let socket = UdpSocket::bind(address)?;
            let local = socket.local_addr()?;
            Ok((local, Socket::Udp(Arc::new(socket), Arc::clone(&service))))
        })
    }

    fn listen_at_all(
        &mut self,
        port: u16,
        note: &'static str,
        bind: impl Fn(SocketAddr) -> io::Result<(SocketAddr, Socket)>,
    ) -> Result<Address, StartError> {
        let before = self.listeners.len();
        let mut port = port;
        for ip in self.addresses()? {
            let address = SocketAddr::new(ip, port);
            let bound = bind(address).map_err(|source| StartError::Bind {
                address: Address::Ip(address),
                source,
            });
            let (address, socket) = bound.inspect_err(|_| self.listeners.truncate(before))?;
            // The same port everywhere.
            port = address.port();
            self.listeners.push(Listening {
                address: Address::Ip(address),
                note,
                socket,
            });
        }
        Ok(self.listeners[before].address.clone())
    }

    /// The addresses of the places to listen at.
    fn addresses(&self) -> Result<Vec<IpAddr>, StartError> {
        let mut addresses = Vec::new();
        for bind in &self.options.binds {
            match bind {
                Bind::Ip(ip) => addresses.push(*ip),
                Bind::Name(name) => {
                    let found = (name.as_str(), 0).to_socket_addrs();
                    let found = found.map_err(|source| StartError::Resolve {
                        name: name.clone(),
                        source,
                    })?;
                    addresses.extend(found.map(|address| address.ip()));
                }
                Bind::Unix(_) => {}
            }
        }
        addresses.dedup();
        Ok(addresses)
    }

    /// Counts what a service does that receives on a UDP port.
    pub fn datagram_counter(&self) -> DatagramCounter {
        DatagramCounter::new(&self.registry.metrics)
    }

    /// Listens on a TCP port and receives on the UDP port of the same number; 0 is a number that
    /// is free for both. Returns the first address.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub fn listen_both(
        &mut self,
        port: u16,
        protocols: Protocols,
        udp: Arc<dyn DatagramService>,
    ) -> Result<Address, StartError> {
        /// How often to look for a number that is free for both.
        const TRIES: usize = 20;
        let mut tries = if port == 0 { TRIES } else { 1 };
        let before = self.listeners.len();
        loop {
            tries -= 1;
            let address = self.listen(port, "", protocols.clone())?;
            let port = match &address {
                Address::Ip(address) => address.port(),
                Address::Unix(_) => port,
            };
            match self.listen_udp(port, Arc::clone(&udp)) {
                Err(_) if tries > 0 => self.listeners.truncate(before),
                other => return other,
            }
        }
    }

    /// Stops this daemon from elsewhere.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.registry))
    }

    /// What SIGHUP calls for the front door: it reads the certificates again, and says what it did.
    /// Returns whether there was anything to read.
    pub(crate) fn reload(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let registry = Arc::clone(&self.registry);
        move || registry.reload()
    }

    /// Serves until [`Handle::stop`] is called or the server was idle for too long; then waits for
    /// the requests in flight, at most 10 s. Logs when it has started.
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
        service_manager::ready(self.listeners.iter().map(|listening| &listening.address));
        self.registry.wait_until_stopped(self.idle_exit);
        log::info!("Shutting down server");
        service_manager::stopping();
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
        let address = &listening.address;
        match &listening.socket {
            Socket::Tcp(listener, protocols) => {
                let (listener, protocols) = (Arc::clone(listener), Arc::clone(protocols));
                let spare = self.descriptors_spare.min(ACCEPTED_MAX) / self.listeners.len();
                let (accepted, admitted) = sync_channel(spare.max(ACCEPTED_MIN));
                let admitting = Arc::clone(&registry);
                let admit = move || admitting.admit_all(&admitted, &protocols);
                let accept = move || registry.accept_all(&listener, &accepted);
                let name = format!("tcp {address}");
                vec![(name.clone(), Box::new(admit)), (name, Box::new(accept))]
            }
            Socket::Udp(socket, service) => {
                let (socket, service) = (Arc::clone(socket), Arc::clone(service));
                let receive = move || registry.receive_all(&socket, &*service);
                vec![(format!("udp {address}"), Box::new(receive))]
            }
        }
    }

    fn log_start(&self) {
        let mut logged = None;
        for Listening {
            address,
            note,
            socket,
        } in &self.listeners
        {
            // The same port over TCP and UDP is one.
            if logged.replace(address) == Some(address) {
                continue;
            }
            if !address.is_local()
                && let Some(warning) = exposure::warning(&self.options, &self.exposure)
            {
                log::warn!("{address} can be reached from other machines: {warning}");
            }
            let ends = self.idle_exit.map(|idle| {
                let secs = idle.as_secs_f64();
                format!("ends after {secs}s without a request")
            });
            let is_encrypted = match (address, socket) {
                (Address::Ip(_), Socket::Tcp(..)) => self.options.tls.is_some(),
                (Address::Ip(_), Socket::Udp(..)) | (Address::Unix(_), _) => false,
            };
            let tls = if is_encrypted { "tls" } else { "" };
            let notes = [*note, tls, ends.as_deref().unwrap_or_default()];
            let notes: Vec<_> = notes.into_iter().filter(|note| !note.is_empty()).collect();
            match notes.join(", ").as_str() {
                "" => log::info!("Server started on {address}"),
                notes => log::info!("Server started on {address} ({notes})"),
            }
        }
    }
}
