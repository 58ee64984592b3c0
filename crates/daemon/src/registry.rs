//! The open connections of a server: the count behind `--max-connections`, what one connection takes from the
//! others, and the list that a shutdown needs.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cli::Socket;
use cli::exit::with_causes;
use rustix::time::{ClockId, clock_gettime};

use crate::access::Access;
use crate::accounts::{Account, Accounts};
use crate::entry::Entry;
use crate::eviction::{SLOW_MILLIS, State};
use crate::lock;
use crate::metrics::{Metrics, Shard};
use crate::peer::Peer;
use crate::places::Places;
use crate::service_manager;
use crate::shares::Scarce;
use crate::threads::Permits;
use crate::tls::Tls;

/// All connections of one server, over all its ports.
pub(crate) struct Registry {
    connections_max: usize,
    /// Who may use the server.
    pub(crate) access: Access,
    open: AtomicUsize,
    /// For connections over the limit that wait for a place...
    pub(crate) waiting_for_place: Arc<Permits>,
    /// ...and those that are told that there is none.
    pub(crate) turned_away: Arc<Permits>,
    stopping: AtomicBool,
    /// Whether the time of the newest request matters.
    watches_requests: AtomicBool,
    /// When that was, by [`Registry::millis`].
    last_request_millis: AtomicU64,
    places: Mutex<Places>,
    changed: Condvar,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: service_manager::Status,
    tls: Option<Arc<Tls>>,
}

/// A connection for which there is no room.
#[derive(Debug)]
pub(crate) struct Surplus {
    pub(crate) socket: Socket,
    /// Whether its source has less than its share, so that it may wait for a place.
    pub(crate) may_wait: bool,
}

/// How many connections over the limit get a short-lived thread that waits for a place...
pub(crate) const WAITING_FOR_PLACE_MAX: usize = 64;

/// ...and how many one that waits for their first byte, to answer in their protocol. Any more are answered and
/// closed on the spot.
pub(crate) const TURNED_AWAY_MAX: usize = 16;

/// The most connections that were evicted and have not gone yet.
pub(crate) const LEAVING_MAX: usize = 48;

/// How often one that waits for a place looks whether another can be evicted. Those that end tell it, but one
/// that becomes idle does not: with each request that would cost a lock.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A connection that is counted. Dropping it takes it off the count.
#[must_use = "the connection counts as long as this lives"]
pub(crate) struct Registration {
    pub(crate) registry: Arc<Registry>,
    pub(crate) entry: Arc<Entry>,
    id: u64,
}

impl Registry {
    /// One of a server without TLS and accounts.
    #[cfg(test)]
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        Self::with(connections_max, Access::default(), None)
    }

    pub(crate) fn with(connections_max: usize, access: Access, tls: Option<Arc<Tls>>) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            access,
            open: AtomicUsize::new(0),
            waiting_for_place: Permits::new(WAITING_FOR_PLACE_MAX),
            turned_away: Permits::new(TURNED_AWAY_MAX),
            stopping: AtomicBool::new(false),
            watches_requests: AtomicBool::new(false),
            last_request_millis: AtomicU64::new(0),
            places: Mutex::new(Places::new(connections_max)),
            changed: Condvar::new(),
            metrics: Arc::default(),
            status: service_manager::Status::new(),
            tls,
        })
    }

    /// How connections of this peer are encrypted. A socket in the file system is not: its mode says who
    /// may connect, and nobody can listen in.
    pub(crate) fn tls(&self, peer: Peer) -> Option<&Arc<Tls>> {
        match peer {
            Peer::Ip(_) => self.tls.as_ref(),
            Peer::Unix { .. } => None,
        }
    }

    /// Reads again what new connections need; what cannot be read stays as it is. Returns whether there
    /// is anything of that kind.
    pub(crate) fn reload(&self) -> bool {
        if let Some(accounts) = &self.access.accounts {
            self.reload_accounts(accounts);
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => log::info!("Read the certificate and the key again"),
                Err(error) => log::error!(
                    "The certificate and the key stay as they were: {}",
                    with_causes(&error)
                ),
            }
        }
        self.tls.is_some() || self.access.accounts.is_some()
    }

    /// Reads the accounts again, and aborts the connections whose account is gone or has changed.
    fn reload_accounts(&self, accounts: &Accounts) {
        if let Err(error) = accounts.reload() {
            log::error!("The accounts stay as they were: {}", with_causes(&error));
            return;
        }
        let is_gone = |account: &Arc<Account>| !accounts.has(account);
        self.abort_those(|entry| {
            let is_over = entry.account().as_ref().is_some_and(is_gone);
            if is_over {
                log::info!("{} is disconnected: its account has changed", entry.peer);
            }
            is_over
        });
    }

    /// Aborts every connection that is registered at this moment.
    pub(crate) fn abort_all(&self) {
        self.abort_those(|_| true);
    }

    fn abort_those(&self, is_over: impl Fn(&Entry) -> bool) {
        // An abort may take a moment, in which nobody else should wait for the lock.
        let entries: Vec<_> = lock(&self.places).entries().cloned().collect();
        for entry in entries.iter().filter(|entry| is_over(entry)) {
            entry.abort();
        }
        self.wake_waiting(&lock(&self.places));
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// If there is no room, and no other connection can be evicted.
    pub(crate) fn register(
        self: &Arc<Self>,
        socket: Socket,
        peer: Peer,
    ) -> Result<Registration, Surplus> {
        let mut places = lock(&self.places);
        self.register_in(&mut places, socket, peer)
            .map_err(|socket| Surplus {
                socket,
                may_wait: places.shares.is_within(Scarce::Place, peer.into()),
            })
    }

    /// The same, and waits for a place to become free, at most this long, if the source has less than its
    /// share.
    pub(crate) fn register_within(
        self: &Arc<Self>,
        mut socket: Socket,
        peer: Peer,
        wait: Duration,
    ) -> Result<Registration, Socket> {
        let deadline = Instant::now() + wait;
        let mut places = lock(&self.places);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_within = places.shares.is_within(Scarce::Place, peer.into());
            if !is_within || left.is_zero() || self.is_stopping() {
                return Err(socket);
            }
            places = self.wait_for_change(places, left.min(LOOK_AGAIN));
            socket = match self.register_in(&mut places, socket, peer) {
                Err(socket) => socket,
                registered => return registered,
            };
        }
    }

    /// Waits until a place is free, or something else that is scarce.
    fn wait_for_change<'a>(
        &self,
        mut places: MutexGuard<'a, Places>,
        wait: Duration,
    ) -> MutexGuard<'a, Places> {
        places.waiting += 1;
        let waited = self.changed.wait_timeout(places, wait);
        let mut places = waited.unwrap_or_else(|e| e.into_inner()).0;
        places.waiting -= 1;
        places
    }

    fn register_in(
        self: &Arc<Self>,
        places: &mut Places,
        socket: Socket,
        peer: Peer,
    ) -> Result<Registration, Socket> {
        let open = places.len();
        let has_room = open < self.connections_max
            || (open < self.connections_max + LEAVING_MAX
                && places.evict_for(peer.into(), self.millis()));
        if !has_room {
            return Err(socket);
        }
        if open >= self.connections_max {
            self.note_evicted(places);
        }
        let entry = Arc::new(Entry::new(socket, peer));
        // Its thread may be slow to start.
        let from = self.millis() + SLOW_MILLIS;
        entry.eviction.set(State::Resting(from));
        let id = places.add(&entry);
        self.open.store(places.len(), Ordering::Relaxed);
        Metrics::count(&self.metrics.accepted);
        Ok(Registration {
            registry: Arc::clone(self),
            entry,
            id,
        })
    }

    /// A connection was evicted.
    fn note_evicted(&self, places: &Places) {
        Metrics::count(&self.metrics.evicted);
        self.wake_waiting(places);
    }

    /// Has the threads look again that wait for something scarce.
    fn wake_waiting(&self, places: &Places) {
        if places.waiting > 0 {
            self.changed.notify_all();
        }
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) -> bool {
        let first = !self.stopping.swap(true, Ordering::SeqCst);
        // Under the lock, or a waiter between its check and its wait would miss the call.
        let _places = lock(&self.places);
        self.changed.notify_all();
        first
    }

    /// Has the server end when there are no requests.
    pub(crate) fn watch_requests(&self) {
        self.watches_requests.store(true, Ordering::Relaxed);
        self.note_request();
    }

    /// Notes that a request was made, for the server that ends when there are none.
    pub(crate) fn note_request(&self) {
        if self.watches_requests.load(Ordering::Relaxed) {
            let millis = self.millis();
            self.last_request_millis.store(millis, Ordering::Relaxed);
        }
    }

    /// The time in milliseconds, as coarse as the kernel's ticks, which costs next to nothing.
    pub(crate) fn millis(&self) -> u64 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }

    /// Waits until [`Registry::stop`], until no request was made or under way for `idle_exit`, or for
    /// `exit_after`.
    pub(crate) fn wait_until_stopped(
        &self,
        idle_exit: Option<Duration>,
        exit_after: Option<Duration>,
    ) {
        let begun = Instant::now();
        let mut places = lock(&self.places);
        while !self.is_stopping() {
            if idle_exit.is_some() && places.entries().any(|entry| entry.works_on_request()) {
                self.note_request();
            }
            let last = self.last_request_millis.load(Ordering::Relaxed);
            let idle = Duration::from_millis(self.millis().saturating_sub(last));
            let idle_left = idle_exit.map(|most| most.saturating_sub(idle));
            let time_left = exit_after.map(|most| most.saturating_sub(begun.elapsed()));
            let is_over = |left: Option<Duration>| left.is_some_and(|left| left.is_zero());
            if let Some(most) = idle_exit.filter(|_| is_over(idle_left)) {
                log::info!("No request for {} s", most.as_secs_f64());
                self.stopping.store(true, Ordering::SeqCst);
            } else if is_over(time_left) {
                log::info!("The time of this server is over");
                self.stopping.store(true, Ordering::SeqCst);
            } else if let Some(left) = idle_left.into_iter().chain(time_left).min() {
                let waited = self.changed.wait_timeout(places, left);
                places = waited.unwrap_or_else(|e| e.into_inner()).0;
            } else {
                let waited = self.changed.wait(places);
                places = waited.unwrap_or_else(|e| e.into_inner());
            }
        }
    }

    /// Waits for `pause`, or less if the server stops.
    pub(crate) fn pause(&self, pause: Duration) {
        let goes_on = |_: &mut Places| !self.is_stopping();
        let places = lock(&self.places);
        drop(self.changed.wait_timeout_while(places, pause, goes_on));
    }

    /// Closes the idle connections at once and waits for the others, at most `grace`. Then aborts those
    /// too, and gives their threads a moment to clean up.
    pub(crate) fn close_all(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let unfinished = loop {
            let now = self.millis();
            for entry in lock(&self.places).entries() {
                entry.end_wait(now);
            }
            // By then, the moment is over that a new connection has for its first request.
            let left = deadline.saturating_duration_since(Instant::now());
            let unfinished = self.wait_until_empty(left.min(Duration::from_millis(SLOW_MILLIS)));
            if unfinished == 0 || left.is_zero() {
                break unfinished;
            }
        };
        if unfinished > 0 {
            log::warn!("{unfinished} requests were not finished");
            for entry in lock(&self.places).entries() {
                entry.abort();
            }
            self.wait_until_empty(CLEAN_UP_WAIT);
        }
    }

    /// Waits until no connection is left; returns how many are after `wait`.
    fn wait_until_empty(&self, wait: Duration) -> usize {
        let deadline = Instant::now() + wait;
        let mut places = lock(&self.places);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if places.len() == 0 || left.is_zero() {
                return places.len();
            }
            let waited = self.changed.wait_timeout(places, left);
            places = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl Registration {
    /// Where this connection counts what it does.
    pub(crate) fn shard(&self) -> &Shard {
        self.registry.metrics.shard(self.id)
    }

    /// Counts that this connection has one of what is scarce, until it ends or [`Registration::release`]. If
    /// there is no room, a connection that has one and is idle or slow is evicted.
    ///
    /// # Errors
    /// If there is no room and none can be evicted: [`io::ErrorKind::QuotaExceeded`], with a sentence.
    pub(crate) fn acquire(&self, what: Scarce) -> io::Result<()> {
        self.acquire_in(&mut lock(&self.registry.places), what)
    }

    fn acquire_in(&self, places: &mut Places, what: Scarce) -> io::Result<()> {
        if places.has(self.id, what) {
            return Ok(());
        }
        let registry = &self.registry;
        match places.make_room(what, self.entry.peer.into(), registry.millis()) {
            Ok(false) => {}
            Ok(true) => registry.note_evicted(places),
            Err(full) => {
                let sentence = places.shares.refusal(what, full);
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, sentence));
            }
        }
        places.acquire(self.id, what);
        Ok(())
    }

    /// Counts that this connection waits now and then, and is kept for that.
    ///
    /// # Errors
    /// As [`Registration::acquire`].
    pub(crate) fn become_waiter(&self) -> io::Result<()> {
        let mut places = lock(&self.registry.places);
        let is_kept = places.has(self.id, Scarce::Kept);
        self.acquire_in(&mut places, Scarce::Kept)?;
        let counted = self.acquire_in(&mut places, Scarce::Wait);
        if counted.is_err() && !is_kept {
            places.release(self.id, Scarce::Kept);
        }
        counted
    }

    /// The same, and waits for it, at most this long, unless the connection is aborted or the server stops.
    ///
    /// # Errors
    /// As [`Registration::acquire`].
    pub(crate) fn wait_to_acquire(&self, what: Scarce, wait: Duration) -> io::Result<()> {
        let registry = &self.registry;
        let deadline = Instant::now() + wait;
        let mut places = lock(&registry.places);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Many may wait: each change wakes them all, so they look for one to evict at the end alone.
            let has_room = places.shares.room(what, self.entry.peer.into()).is_ok();
            let is_over = left.is_zero() || registry.is_stopping();
            if self.entry.is_aborted() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if has_room || is_over {
                return self.acquire_in(&mut places, what);
            }
            places = registry.wait_for_change(places, left);
        }
    }

    /// Ends what [`Registration::acquire`] began.
    pub(crate) fn release(&self, what: Scarce) {
        let mut places = lock(&self.registry.places);
        places.release(self.id, what);
        self.registry.wake_waiting(&places);
    }

    /// Says that every message that the connection owes is sent. One that waits now and then stays kept.
    pub(crate) fn has_arrived(&self) {
        if self.entry.must_arrive.swap(false, Ordering::SeqCst) {
            let mut places = lock(&self.registry.places);
            if !places.has(self.id, Scarce::Wait) {
                places.release(self.id, Scarce::Kept);
                self.registry.wake_waiting(&places);
            }
        }
    }
}

/// How long a connection that was aborted may take to undo what it had begun.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(1);

impl Drop for Registration {
    fn drop(&mut self) {
        let mut places = lock(&self.registry.places);
        places.remove(self.id);
        let open = places.len();
        self.registry.open.store(open, Ordering::Relaxed);
        if open == 0 {
            self.registry.changed.notify_all();
        }
        self.registry.wake_waiting(&places);
    }
}

#[cfg(test)]
mod tests;
