//! Who is connected: the count behind `--max-connections`, who makes way when it is reached, and
//! the list that shutting down needs.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use rustix::time::{ClockId, clock_gettime};

use crate::lock;

/// All connections of one server, over all its ports.
#[derive(Debug)]
pub(crate) struct Registry {
    connections_max: usize,
    /// Descriptors that connections and what they are woken by may take.
    descriptors_max: usize,
    wakeups: AtomicUsize,
    open: AtomicUsize,
    /// Connections over the limit that are being told so.
    pub(crate) turned_away: AtomicUsize,
    stopping: AtomicBool,
    /// Whether anybody wants to know when the newest request was made.
    watches_requests: AtomicBool,
    /// When that was, by [`Registry::millis`].
    last_request_millis: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    next_id: u64,
    entries: HashMap<u64, Arc<Entry>>,
}

/// One connection, as its own thread and the thread that shuts down share it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// Whether it waits for a request, so that closing it interrupts nothing.
    idle: AtomicBool,
    /// From when on it makes way for a new connection if there are too many, by
    /// [`Registry::millis`], or [`NEVER`].
    gives_way_at: AtomicU64,
}

/// For [`Entry::gives_way_at`].
const NEVER: u64 = u64::MAX;

/// Connections that were told to make way, and have not gone yet, at the most.
const LEAVING_MAX: usize = 64;

/// A connection that is counted. Dropping it takes it off the count.
#[must_use = "the connection counts as long as this lives"]
pub(crate) struct Registration {
    pub(crate) registry: Arc<Registry>,
    pub(crate) entry: Arc<Entry>,
    id: u64,
}

impl Registry {
    pub(crate) fn new(connections_max: usize, descriptors_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            descriptors_max,
            wakeups: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            turned_away: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            watches_requests: AtomicBool::new(false),
            last_request_millis: AtomicU64::new(0),
            state: Mutex::new(State {
                next_id: 0,
                entries: HashMap::new(),
            }),
            changed: Condvar::new(),
        })
    }

    /// Counts a connection in; gives it back if there are as many as may be.
    pub(crate) fn register(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Registration, TcpStream> {
        let mut state = lock(&self.state);
        let open = state.entries.len();
        let has_descriptor = open + self.wakeups.load(Ordering::Relaxed) < self.descriptors_max;
        let has_room = (open < self.connections_max && has_descriptor)
            || (open < self.connections_max + LEAVING_MAX && state.make_way(self.millis()));
        if !has_room {
            return Err(stream);
        }
        let id = state.next_id;
        state.next_id += 1;
        let entry = Arc::new(Entry {
            stream,
            peer,
            idle: AtomicBool::new(true),
            gives_way_at: AtomicU64::new(NEVER),
        });
        state.entries.insert(id, Arc::clone(&entry));
        self.open.store(state.entries.len(), Ordering::Relaxed);
        Ok(Registration {
            registry: Arc::clone(self),
            entry,
            id,
        })
    }

    /// Counts one more descriptor that a connection is woken by; `None` if there are as many as may
    /// be.
    pub(crate) fn count_wakeup(self: &Arc<Self>) -> Option<WakeupCount> {
        let wakeups = self.wakeups.fetch_add(1, Ordering::Relaxed);
        let count = WakeupCount(Arc::clone(self));
        // The rest is for connections that do not wait, and may be waited for.
        let descriptors_max = self.descriptors_max - self.descriptors_max / 8;
        match wakeups + self.open() < descriptors_max {
            true => Some(count),
            false => None,
        }
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
        let _state = lock(&self.state);
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
        let mut state = lock(&self.state);
        while !self.is_stopping() {
            let Some(idle_exit) = idle_exit else {
                state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
                continue;
            };
            if state.entries.values().any(|entry| !entry.is_idle()) {
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
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Waits for `pause`, or less if the server stops.
    pub(crate) fn pause(&self, pause: Duration) {
        let state = lock(&self.state);
        if !self.is_stopping() {
            drop(self.changed.wait_timeout(state, pause));
        }
    }

    /// Closes the idle connections at once and waits for the others, `grace` at most; then cuts
    /// those off too, and gives their threads a moment to clean up.
    pub(crate) fn close_all(&self, grace: Duration) {
        for entry in lock(&self.state).entries.values().filter(|e| e.is_idle()) {
            entry.wake();
        }
        let unfinished = self.wait_until_empty(grace);
        if unfinished > 0 {
            log::warn!("{unfinished} requests were not finished");
            for entry in lock(&self.state).entries.values() {
                entry.cut();
            }
            self.wait_until_empty(CLEAN_UP_WAIT);
        }
    }

    /// Waits until no connection is left; returns how many are after `wait`.
    fn wait_until_empty(&self, wait: Duration) -> usize {
        let deadline = Instant::now() + wait;
        let mut state = lock(&self.state);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.entries.is_empty() || left.is_zero() {
                return state.entries.len();
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl State {
    /// Cuts off the connection that should have made way the longest; one that waits for a request,
    /// if there is one, for of the others some may only be slow. Returns whether there was any.
    fn make_way(&self, now: u64) -> bool {
        let at = |entry: &Entry| entry.gives_way_at.load(Ordering::SeqCst);
        loop {
            let ready = self.entries.values().filter(|entry| at(entry) <= now);
            let Some(entry) = ready.min_by_key(|entry| (!entry.is_idle(), at(entry))) else {
                return false;
            };
            let (since, order) = (at(entry), Ordering::SeqCst);
            let has_input = entry.is_idle() && entry.has_input();
            // Unless its thread has set it anew meanwhile.
            let _ = (entry.gives_way_at).compare_exchange(since, NEVER, order, order);
            if !has_input {
                log::debug!("{} makes way for another", entry.peer);
                entry.cut();
                return true;
            }
        }
    }
}

/// Dropping it takes a descriptor off the count.
#[derive(Debug)]
pub(crate) struct WakeupCount(Arc<Registry>);

impl Drop for WakeupCount {
    fn drop(&mut self) {
        self.0.wakeups.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a connection that was cut off may take to undo what it had begun.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(1);

impl Entry {
    pub(crate) fn set_idle(&self, idle: bool) {
        // Whoever becomes idle then looks whether the server is stopping, and it must not happen that
        // neither that is seen by him, nor this by who stops it.
        let order = if idle {
            Ordering::SeqCst
        } else {
            Ordering::Release
        };
        self.idle.store(idle, order);
    }

    /// Has the connection make way for a new one from this moment on ([`Registry::millis`]), if it is
    /// still at what it does now.
    pub(crate) fn give_way(&self, at: u64) {
        self.gives_way_at.store(at, Ordering::Release);
    }

    /// Has the connection stay.
    pub(crate) fn stay(&self) {
        self.gives_way_at.store(NEVER, Ordering::Release);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::SeqCst)
    }

    /// Whether its next request has arrived, though its thread may not know yet.
    fn has_input(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut [0_u8; 1], peek).is_ok_and(|(_, bytes)| bytes > 0)
    }

    /// Makes a blocked read return as if the peer had closed. What the connection still has to
    /// write it can write.
    pub(crate) fn wake(&self) {
        // An error means that the peer was faster.
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Makes every read and write of the connection fail from now on.
    pub(crate) fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = lock(&self.registry.state);
        state.entries.remove(&self.id);
        let open = state.entries.len();
        self.registry.open.store(open, Ordering::Relaxed);
        if open == 0 {
            self.registry.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn idle_connections_make_way_before_slow_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let entry = |is_idle, gives_way_at| {
            Arc::new(Entry {
                stream: TcpStream::connect(addr).unwrap(),
                peer: addr,
                idle: AtomicBool::new(is_idle),
                gives_way_at: AtomicU64::new(gives_way_at),
            })
        };
        let entries = [
            entry(false, 10),
            entry(true, 50),
            entry(true, 30),
            entry(false, NEVER),
            entry(true, 70),
        ];
        let state = State {
            next_id: 0,
            entries: (0..).zip(entries.iter().cloned()).collect(),
        };
        let next = || {
            let before = entries
                .each_ref()
                .map(|e| e.gives_way_at.load(Ordering::SeqCst));
            let has_made_way = state.make_way(60);
            let gone = entries.iter().zip(before);
            let gone = gone.map(|(entry, at)| at != entry.gives_way_at.load(Ordering::SeqCst));
            let gone = gone.enumerate().find(|(_, is_gone)| *is_gone);
            assert_eq!(has_made_way, gone.is_some());
            gone.map(|(index, _)| index)
        };
        assert_eq!(
            [next(), next(), next(), next()],
            [Some(2), Some(1), Some(0), None]
        );
    }

    #[test]
    fn a_connection_whose_next_request_has_arrived_does_not_make_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut peer = TcpStream::connect(addr).unwrap();
        let (stream, from) = listener.accept().unwrap();
        let registry = Registry::new(1, 100);
        let registration = registry.register(stream, from).unwrap();
        registration.entry.give_way(0);
        peer.write_all(b"next").unwrap();
        assert_eq!(registration.entry.stream.peek(&mut [0; 4]).unwrap(), 4);
        let other = || TcpStream::connect(addr).unwrap();
        assert!(registry.register(other(), addr).is_err());
        // Its thread reads that, and waits for another request.
        (&registration.entry.stream)
            .read_exact(&mut [0; 4])
            .unwrap();
        registration.entry.give_way(0);
        assert!(registry.register(other(), addr).is_ok());
        assert_eq!(peer.read(&mut [0; 4]).unwrap(), 0);
    }
}
