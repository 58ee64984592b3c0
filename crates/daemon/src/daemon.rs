//! A server: its ports, its threads, and its life from the first connection to the last.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cli::{Bind, ServerOptions};

use crate::access::Access;
use crate::datagrams::{DatagramCounter, DatagramService};
use crate::descriptors::{Besides, descriptors_allowed, descriptors_needed};
use crate::error::StartError;
use crate::exposure;
use crate::inherited::Inherited;
use crate::listen::{self, HostAddress, Listening, Socket};
use crate::listener::Listener;
use crate::peer::Address;
use crate::registry::Registry;
use crate::socket_file::SocketFile;
use crate::switch::Switch;
use crate::threads::{self, Job};
use crate::tls::Tls;

/// How long requests in flight may continue once a server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How many connections may be accepted and wait for their threads, on all ports together, if there
/// are descriptors to spare.
const ACCEPTED_MAX: usize = 4096;

/// How many may do so on each port in any case, out of the reserved descriptors.
const ACCEPTED_MIN: usize = 16;

/// How often to look for a port that is free at all addresses, over TCP and UDP.
const PORT_TRIES: usize = 20;

/// A server's sockets and its connections.
#[must_use = "a daemon listens, but serves nobody until it runs"]
pub struct Daemon {
    options: ServerOptions,
    registry: Arc<Registry>,
    listeners: Vec<Listening>,
    /// The sockets that were passed to this process, until they are listened on.
    inherited: Option<Inherited>,
    idle_exit: Option<Duration>,
    exit_after: Option<Duration>,
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

    /// Makes every read and write of the present connections fail, also of those that wait. A request that
    /// has arrived may still be acted on, and its reply goes nowhere. To exchange what a port serves, call
    /// [`Switch::set`] first: then every connection either ends or is served by the new.
    pub fn abort_connections(&self) {
        self.0.abort_all();
    }

    /// Has the status that a service manager shows say what the server does: this, then "on", and the addresses;
    /// "Serving" at first. Does not wait for a service manager that has no room for it.
    pub fn set_status(&self, what: &'static str) {
        self.0.status.set(what);
    }

    /// The connections open at the moment.
    pub fn open_connections(&self) -> usize {
        self.0.open()
    }
}

impl Daemon {
    /// A server with this many ports, behind a front door as `options` say. `exposure` says who can do what
    /// with it ([`Audience`](crate::Audience)), in half a sentence: the warning when other machines can
    /// reach it.
    ///
    /// # Errors
    /// If the sockets that were passed to this process do not fit, the system does not allow as many
    /// descriptors as the connections may need, or the file of accounts or those for TLS are not right.
    pub fn new(
        options: ServerOptions,
        ports: usize,
        exposure: impl Into<String>,
    ) -> Result<Self, StartError> {
        Self::needing(Besides::default(), options, ports, exposure)
    }

    /// The same, for a service that needs descriptors of its own.
    ///
    /// # Errors
    /// Those of [`Daemon::new`].
    pub fn needing(
        besides: Besides,
        options: ServerOptions,
        ports: usize,
        exposure: impl Into<String>,
    ) -> Result<Self, StartError> {
        let inherited = Inherited::take(ports)?;
        if inherited.is_some() && options.is_place_given {
            return Err(StartError::InheritedAndBind);
        }
        let connections_max = options.connections_max;
        let allowed = descriptors_allowed();
        let needed = descriptors_needed(connections_max) + besides.descriptors;
        if allowed < needed {
            return Err(StartError::Descriptors {
                allowed,
                needed,
                connections: connections_max,
                besides,
            });
        }
        let access = Access::open(&options)?;
        let tls = options.tls.clone();
        let tls = tls.map(|files| Tls::new(files, options.served.clone()));
        let tls = tls.transpose()?;
        Ok(Self {
            options,
            registry: Registry::with(connections_max, access, tls.map(Arc::new)),
            listeners: Vec::new(),
            inherited,
            idle_exit: None,
            exit_after: None,
            exposure: exposure.into(),
            descriptors_spare: allowed - needed,
        })
    }

    /// Makes [`Daemon::run`] return by itself when no request was made for this long.
    pub fn exit_when_idle(&mut self, idle: Duration) {
        self.registry.watch_requests();
        self.idle_exit = Some(idle);
    }

    /// Makes [`Daemon::run`] return by itself when it has served for this long.
    pub fn exit_after(&mut self, time: Duration) {
        self.exit_after = Some(time);
    }

    /// Where it listens.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|listening| &listening.address)
    }

    /// The first place it will listen at that other machines may reach.
    pub fn exposed(&self) -> Option<String> {
        match &self.inherited {
            Some(inherited) => inherited.exposed().map(Address::to_string),
            None => self.options.exposed().map(Bind::to_string),
        }
    }

    /// Listens for one of the server's ports: on its share of the sockets that were passed to this
    /// process, if any were; else at each place that the options name. An address has the TCP port of this
    /// number; 0 is any that is free at all of them. Returns the first address. `note` tells the port from
    /// the server's others, in the log, and in the path of a Unix socket: all but the first port have it
    /// behind the path.
    ///
    /// # Errors
    /// If a place cannot be listened at.
    pub fn listen(
        &mut self,
        port: u16,
        note: &'static str,
        protocols: impl Into<Switch>,
    ) -> Result<Address, StartError> {
        let protocols = protocols.into();
        let first = self.listeners.len();
        let suffix = if first == 0 { "" } else { note };
        let Some(inherited) = &mut self.inherited else {
            return self.at_one_port(port, |daemon, port| {
                let port = daemon.bind_tcp(port, note, &protocols)?;
                daemon.bind_unix(suffix, note, &protocols)?;
                Ok(port)
            });
        };
        let listeners = inherited.next_port();
        let listening = listeners.map(|one| Listening::stream(one, note, &protocols));
        self.listeners.extend(listening);
        Ok(self.listeners[first].address.clone())
    }

    /// Receives on a UDP port at each address that the options name; 0 is any that is free at all of
    /// them. Returns the first address.
    ///
    /// # Errors
    /// If an address cannot be bound, or sockets were passed to this process.
    pub fn listen_udp(
        &mut self,
        port: u16,
        service: impl Into<Switch<dyn DatagramService>>,
    ) -> Result<Address, StartError> {
        let service = service.into();
        self.at_one_port(port, |daemon, port| daemon.bind_udp(port, &service))
    }

    /// Counts what a service does that receives on a UDP port.
    pub fn datagram_counter(&self) -> DatagramCounter {
        DatagramCounter::new(&self.registry.metrics)
    }

    /// Listens on a TCP port and receives on the UDP port of the same number; 0 is a number that
    /// is free for both. Returns the first address.
    ///
    /// # Errors
    /// Those of [`Daemon::listen_udp`].
    pub fn listen_both(
        &mut self,
        port: u16,
        protocols: impl Into<Switch>,
        udp: impl Into<Switch<dyn DatagramService>>,
    ) -> Result<Address, StartError> {
        let (protocols, udp) = (protocols.into(), udp.into());
        self.at_one_port(port, |daemon, port| {
            let port = daemon.bind_tcp(port, "", &protocols)?;
            daemon.bind_udp(port, &udp)
        })
    }

    /// Binds sockets to a port, and returns the address of the first. If any is to be found and the first
    /// socket's is not free for the others, looks for another.
    fn at_one_port(
        &mut self,
        port: u16,
        bind: impl Fn(&mut Self, u16) -> Result<u16, StartError>,
    ) -> Result<Address, StartError> {
        let mut tries = if port == 0 { PORT_TRIES } else { 1 };
        let before = self.listeners.len();
        loop {
            tries -= 1;
            match bind(self, port) {
                Err(StartError::Bind {
                    address: Address::Ip(_),
                    source,
                }) if tries > 0 && source.kind() == io::ErrorKind::AddrInUse => {
                    self.listeners.truncate(before);
                }
                bound => return bound.map(|_| self.listeners[before].address.clone()),
            }
        }
    }

    fn bind_tcp(
        &mut self,
        port: u16,
        note: &'static str,
        protocols: &Switch,
    ) -> Result<u16, StartError> {
        self.bind_addresses(port, |host| {
            let listener = listen::tcp(host)?;
            Ok(Listening::stream(listener, note, protocols))
        })
    }

    fn bind_udp(
        &mut self,
        port: u16,
        service: &Switch<dyn DatagramService>,
    ) -> Result<u16, StartError> {
        if self.inherited.is_some() {
            return Err(StartError::InheritedAndUdp);
        }
        self.bind_addresses(port, |host| Listening::udp(listen::udp(host)?, service))
    }

    /// Binds a socket to each address that the options name, all to the port of the first.
    fn bind_addresses(
        &mut self,
        mut port: u16,
        bind: impl Fn(HostAddress) -> io::Result<Listening>,
    ) -> Result<u16, StartError> {
        for host in listen::hosts(&self.options.binds)? {
            let before = self.listeners.len();
            let mut lacking = None;
            for address in host {
                let address = address.at(port);
                let failed = |source| StartError::Bind {
                    address: Address::Ip(address.address),
                    source,
                };
                match bind(address) {
                    Ok(listening) => {
                        port = listening.address.port().unwrap_or(port);
                        self.listeners.push(listening);
                    }
                    // A name may stand for more addresses than this machine has.
                    Err(error) if listen::is_lacking(&error) => lacking = Some(failed(error)),
                    Err(error) => return Err(failed(error)),
                }
            }
            if let Some(error) = lacking {
                if self.listeners.len() == before {
                    return Err(error);
                }
                log::warn!("{error}: this machine lacks the address");
            }
        }
        Ok(port)
    }

    /// Listens at each path that the options name, with this suffix.
    fn bind_unix(
        &mut self,
        suffix: &str,
        note: &'static str,
        protocols: &Switch,
    ) -> Result<(), StartError> {
        for bind in &self.options.binds {
            let Bind::Unix(path) = bind else { continue };
            let mut path = path.clone();
            if !suffix.is_empty() {
                path.as_mut_os_string().push(format!("-{suffix}"));
            }
            let listener = SocketFile::listen(&path, self.options.socket_mode)
                .and_then(|(socket, file)| Listener::unix(socket, file));
            let listener = listener.map_err(|source| StartError::Bind {
                address: Address::Unix(path),
                source,
            })?;
            let listening = Listening::stream(listener, note, protocols);
            self.listeners.push(listening);
        }
        Ok(())
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

    /// Serves until [`Handle::stop`] is called, the server was idle for too long, or its time is over; then
    /// waits for the requests in flight, at most 10 s. Logs when it has started.
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
        self.registry.status.ready(self.addresses());
        self.registry
            .wait_until_stopped(self.idle_exit, self.exit_after);
        log::info!("Shutting down server");
        self.registry.status.stopping();
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
            Socket::Stream(listener, protocols) => {
                let (listener, protocols) = (Arc::clone(listener), protocols.clone());
                let spare = self.descriptors_spare.min(ACCEPTED_MAX) / self.listeners.len();
                let (accepted, admitted) = sync_channel(spare.max(ACCEPTED_MIN));
                let admitting = Arc::clone(&registry);
                let admit = move || admitting.admit_all(&admitted, &protocols);
                let accept = move || registry.accept_all(&listener, &accepted);
                let name = match address {
                    Address::Ip(_) => format!("tcp {address}"),
                    Address::Unix(_) => address.to_string(),
                };
                vec![(name.clone(), Box::new(admit)), (name, Box::new(accept))]
            }
            Socket::Udp(socket, service) => {
                let (socket, service) = (Arc::clone(socket), service.clone());
                let receive = move || registry.receive_all(&socket, &service);
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
            let after = |time: Option<Duration>, note: &str| {
                let secs = time.map(|time| time.as_secs_f64());
                secs.map_or(String::new(), |secs| format!("ends after {secs}s{note}"))
            };
            let ends = after(self.exit_after, "");
            let ends_idle = after(self.idle_exit, " without a request");
            let is_encrypted = match (address, socket) {
                (Address::Ip(_), Socket::Stream(..)) => self.options.tls.is_some(),
                (Address::Ip(_), Socket::Udp(..)) | (Address::Unix(_), _) => false,
            };
            let tls = if is_encrypted { "tls" } else { "" };
            let notes = [*note, tls, &ends, &ends_idle];
            let notes: Vec<_> = notes.into_iter().filter(|note| !note.is_empty()).collect();
            match notes.join(", ").as_str() {
                "" => log::info!("Server started on {address}"),
                notes => log::info!("Server started on {address} ({notes})"),
            }
        }
    }
}
