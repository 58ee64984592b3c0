//! The open connections: the count behind `--max-connections`, the choice of one to evict at the limit,
//! and the list that a shutdown needs.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cli::Socket;
use cli::exit::with_causes;
use rustix::net::{RecvFlags, Shutdown};
use rustix::time::{ClockId, clock_gettime};

use crate::access::Access;
use crate::accounts::{Account, Accounts};
use crate::eviction::{Eviction, SLOW_MILLIS, State};
use crate::lock;
use crate::metrics::{Metrics, Shard};
use crate::peer::{Peer, Source};
use crate::tls::Tls;
use crate::waiters::{Room, Waiters};

/// All connections of one server, over all its ports.
pub(crate) struct Registry {
    connections_max: usize,
    /// Who may use the server.
    pub(crate) access: Access,
    open: AtomicUsize,
    /// How many connections over the limit are being turned away.
    pub(crate) turned_away: AtomicUsize,
    stopping: AtomicBool,
    /// Whether the time of the newest request matters.
    watches_requests: AtomicBool,
    /// When that was, by [`Registry::millis`].
    last_request_millis: AtomicU64,
    connected: Mutex<Connected>,
    changed: Condvar,
    pub(crate) metrics: Arc<Metrics>,
    tls: Option<Arc<Tls>>,
}

struct Connected {
    next_id: u64,
    places: HashMap<u64, Place>,
    waiters: Waiters,
}

/// What one connection takes up.
struct Place {
    entry: Arc<Entry>,
    /// Where it comes from, if it counts as one that may wait.
    waits_from: Option<Source>,
}

/// One connection, as its own thread and those that may end it share it.
pub(crate) struct Entry {
    pub(crate) socket: Socket,
    pub(crate) peer: Peer,
    pub(crate) eviction: Eviction,
    /// Whom it acts for.
    account: Mutex<Option<Arc<Account>>>,
    is_aborted: AtomicBool,
    /// Whether it works on a request that does not keep a server from being idle.
    pub(crate) is_probing: AtomicBool,
}

/// The most connections that were evicted and have not gone yet.
pub(crate) const LEAVING_MAX: usize = 64;

/// How many connections are tried until one can be evicted. It is unlikely that the next request of
/// all of them arrives at the same moment; the new connection is then turned away.
const EVICTIONS_TRIED_MAX: usize = 16;

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
            turned_away: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            watches_requests: AtomicBool::new(false),
            last_request_millis: AtomicU64::new(0),
            connected: Mutex::new(Connected::new(connections_max)),
            changed: Condvar::new(),
            metrics: Arc::default(),
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
        for place in lock(&self.connected).places.values() {
            let entry = &place.entry;
            let is_stale = |account: &Arc<Account>| !accounts.has(account);
            if lock(&entry.account).as_ref().is_some_and(is_stale) {
                log::info!("{} is disconnected: its account has changed", entry.peer);
                entry.abort();
            }
        }
    }

    /// Counts a connection. Returns its socket if there is no room, and no other connection can be evicted.
    pub(crate) fn register(
        self: &Arc<Self>,
        socket: Socket,
        peer: Peer,
    ) -> Result<Registration, Socket> {
        let mut connected = lock(&self.connected);
        let open = connected.places.len();
        let has_room = open < self.connections_max
            || (open < self.connections_max + LEAVING_MAX
                && self.evict_one(&mut connected, |_| true));
        if !has_room {
            return Err(socket);
        }
        let id = connected.next_id;
        connected.next_id += 1;
        let entry = Arc::new(Entry::new(socket, peer));
        let place = Place {
            entry: Arc::clone(&entry),
            waits_from: None,
        };
        connected.places.insert(id, place);
        let open = connected.places.len();
        self.open.store(open, Ordering::Relaxed);
        Metrics::count(&self.metrics.accepted);
        Ok(Registration {
            registry: Arc::clone(self),
            entry,
            id,
        })
    }

    /// Evicts one of these connections; returns whether there was one that could be.
    fn evict_one(&self, connected: &mut Connected, may_be: impl Fn(&Place) -> bool) -> bool {
        let is_evicted = connected.evict_one(self.millis(), may_be);
        if is_evicted {
            Metrics::count(&self.metrics.evicted);
        }
        is_evicted
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
        let _connected = lock(&self.connected);
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

    /// Waits until [`Registry::stop`], or until no request was made or under way for `idle_exit`.
    pub(crate) fn wait_until_stopped(&self, idle_exit: Option<Duration>) {
        let mut connected = lock(&self.connected);
        while !self.is_stopping() {
            let Some(idle_exit) = idle_exit else {
                let waited = self.changed.wait(connected);
                connected = waited.unwrap_or_else(|e| e.into_inner());
                continue;
            };
            if connected
                .places
                .values()
                .any(|place| place.entry.works_on_request())
            {
                self.note_request();
            }
            let last = self.last_request_millis.load(Ordering::Relaxed);
            let idle = Duration::from_millis(self.millis().saturating_sub(last));
            let left = idle_exit.saturating_sub(idle);
            if left.is_zero() {
                log::info!("No request for {} s", idle_exit.as_secs_f64());
                self.stopping.store(true, Ordering::SeqCst);
                return;
            }
            let waited = self.changed.wait_timeout(connected, left);
            connected = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Waits for `pause`, or less if the server stops.
    pub(crate) fn pause(&self, pause: Duration) {
        let goes_on = |_: &mut Connected| !self.is_stopping();
        let connected = lock(&self.connected);
        drop(self.changed.wait_timeout_while(connected, pause, goes_on));
    }

    /// Closes the idle connections at once and waits for the others, at most `grace`. Then aborts those
    /// too, and gives their threads a moment to clean up.
    pub(crate) fn close_all(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let unfinished = loop {
            let now = self.millis();
            for place in lock(&self.connected).places.values() {
                place.entry.end_wait(now);
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
            for place in lock(&self.connected).places.values() {
                place.entry.abort();
            }
            self.wait_until_empty(CLEAN_UP_WAIT);
        }
    }

    /// Waits until no connection is left; returns how many are after `wait`.
    fn wait_until_empty(&self, wait: Duration) -> usize {
        let deadline = Instant::now() + wait;
        let mut connected = lock(&self.connected);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if connected.places.is_empty() || left.is_zero() {
                return connected.places.len();
            }
            let waited = self.changed.wait_timeout(connected, left);
            connected = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl Connected {
    fn new(connections_max: usize) -> Self {
        Self {
            next_id: 0,
            places: HashMap::new(),
            waiters: Waiters::new(connections_max),
        }
    }

    /// See [`Registry::evict_one`].
    fn evict_one(&mut self, now: u64, may_be: impl Fn(&Place) -> bool) -> bool {
        let mut tried = None;
        for _ in 0..EVICTIONS_TRIED_MAX {
            let evictable = self.places.iter_mut().filter_map(|(id, place)| {
                let state = place.entry.eviction.state();
                let rank = (state.rank(now)?, *id);
                (Some(rank) > tried && may_be(place)).then_some((rank, state, place))
            });
            let Some((rank, state, place)) = evictable.min_by_key(|(rank, ..)| *rank) else {
                return false;
            };
            if place.entry.end(state) {
                log::debug!("{} is evicted for another", place.entry.peer);
                place.entry.abort();
                if let Some(from) = place.waits_from.take() {
                    self.waiters.remove(from);
                }
                return true;
            }
            tried = Some(rank);
        }
        false
    }
}

impl Registration {
    /// Where this connection counts what it does.
    pub(crate) fn shard(&self) -> &Shard {
        self.registry.metrics.shard(self.id)
    }

    /// Counts this connection once among those that may wait, until it ends. If there is no room, a
    /// connection that once waited and is idle now is evicted.
    ///
    /// # Errors
    /// If there is no room and none is idle: [`io::ErrorKind::QuotaExceeded`], with a sentence.
    pub(crate) fn become_waiter(&self) -> io::Result<()> {
        let from = Source::from(self.entry.peer);
        let registry = &self.registry;
        let mut connected = lock(&registry.connected);
        let room = connected.waiters.room(from);
        let has_room = match room {
            Room::Some => true,
            Room::NoneForThis => {
                registry.evict_one(&mut connected, |place| place.waits_from == Some(from))
            }
            Room::None => registry.evict_one(&mut connected, |place| place.waits_from.is_some()),
        };
        if !has_room {
            let sentence = connected.waiters.refusal(room);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, sentence));
        }
        if let Some(place) = connected.places.get_mut(&self.id) {
            place.waits_from = Some(from);
            connected.waiters.add(from);
        }
        Ok(())
    }
}

/// How long a connection that was aborted may take to undo what it had begun.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(1);

impl Entry {
    fn new(socket: Socket, peer: Peer) -> Self {
        Self {
            socket,
            peer,
            eviction: Eviction::new(),
            account: Mutex::default(),
            is_aborted: AtomicBool::new(false),
            is_probing: AtomicBool::new(false),
        }
    }

    /// Says whom the connection acts for from now on. The caller then looks whether the accounts still
    /// have the account: they are changed first, and the connections looked at then, so one of the two
    /// sees the other.
    pub(crate) fn set_account(&self, account: Option<Arc<Account>>) {
        *lock(&self.account) = account;
    }

    /// Whether a request is under way, or what may become one. A probe is none.
    fn works_on_request(&self) -> bool {
        match self.eviction.state() {
            State::Resting(_) | State::Kept | State::Waiting => false,
            State::Busy | State::Slow(_) | State::Claimed | State::Ended => {
                !self.is_probing.load(Ordering::Relaxed)
            }
        }
    }

    /// Whether its next request has arrived, though its thread may not know yet.
    ///
    /// Over TLS these bytes may be something else, or a part of a request: then its thread reads them,
    /// and the connection can be ended in the next moment. What is decrypted is not looked at, because
    /// the thread does not rest while there is any.
    fn has_input(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.socket
            .receive(&mut [0], peek)
            .is_ok_and(|bytes| bytes > 0)
    }

    /// Ends the connection if its state is still `seen` and, unless it is slow, no request has arrived.
    /// Returns whether it was ended: its thread then does nothing more.
    fn end(&self, seen: State) -> bool {
        let Some(claim) = self.eviction.claim(seen) else {
            return false;
        };
        if !matches!(seen, State::Slow(_)) && self.has_input() {
            claim.release();
            return false;
        }
        claim.end()
    }

    /// Ends the connection's wait because the server stops, unless it waits for the rest of a request, or
    /// is so new that its first request may be on its way. The connection can still write.
    pub(crate) fn end_wait(&self, now: u64) {
        let is_over = match self.eviction.state() {
            // Its thread is woken, and finds out why.
            State::Waiting => true,
            State::Resting(from) if from > now => false,
            seen @ (State::Resting(_) | State::Kept) => self.end(seen),
            State::Busy | State::Slow(_) | State::Claimed | State::Ended => false,
        };
        if is_over {
            // An error means that the peer was faster.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
    }

    /// Makes every read and write of the connection fail from now on.
    pub(crate) fn abort(&self) {
        // Before the stream, so that a thread that reads its end knows that the peer did not end it.
        self.is_aborted.store(true, Ordering::SeqCst);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whether that was done.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::SeqCst)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut connected = lock(&self.registry.connected);
        let place = connected.places.remove(&self.id);
        if let Some(from) = place.and_then(|place| place.waits_from) {
            connected.waiters.remove(from);
        }
        let open = connected.places.len();
        self.registry.open.store(open, Ordering::Relaxed);
        if open == 0 {
            self.registry.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
