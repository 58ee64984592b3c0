//! Wakes those who follow the history when lines are committed.
//!
//! The writer thread only says that there is something new. To wake a thousand followers takes
//! longer than a commit, so a thread of its own does that, and then pauses for as long as it may take
//! them to read and send. What is committed meanwhile is read with the next wake.
//!
//! **Appends come first.** A follower that is woken reads a few blocks at most. In a flood of lines it reads
//! one, and the pauses are longer: all followers together are sent about 20 MB a second then. So however
//! many follow, appends keep most of the processors. The followers lag, and catch up after the flood.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use storage::lock;

/// How long the pause is for each follower.
const PAUSE_EACH: Duration = Duration::from_micros(100);

/// The longest pause: what is committed is on its way to all after this, however many they are.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// From this many appended bytes a second on, it is a flood: well above a thousand lines.
const FLOOD_BYTES: u64 = 128 * 1024;

/// How many times longer the pauses are in a flood.
const FLOOD_FACTOR: u32 = 4;

/// How many blocks a follower reads for each wake, so that it keeps up when there is no flood.
const BLOCKS_MAX: usize = 4;

/// What wakes a follower.
type Wake = Box<dyn Fn() + Send + Sync>;

/// Those who follow.
#[derive(Clone, Default)]
pub(super) struct Followers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    is_flood: AtomicBool,
}

#[derive(Default)]
struct State {
    followers: HashMap<u64, Wake>,
    next: u64,
    has_news: bool,
    /// What was appended since the last wake, in bytes.
    appended_bytes: u64,
    is_over: bool,
}

/// A follower that is woken until this is dropped.
#[must_use = "nobody is woken when it is dropped"]
pub(crate) struct Following {
    shared: Arc<Shared>,
    key: u64,
}

impl Followers {
    /// Has a follower woken when there are new lines. `wake` must not block.
    pub(super) fn add(&self, wake: Wake) -> Following {
        let mut state = lock(&self.0.state);
        let key = state.next;
        state.next += 1;
        state.followers.insert(key, wake);
        Following {
            shared: Arc::clone(&self.0),
            key,
        }
    }

    /// Says that there is something new.
    pub(super) fn announce(&self) {
        let mut state = lock(&self.0.state);
        if !state.followers.is_empty() && !state.has_news {
            state.has_news = true;
            self.0.changed.notify_one();
        }
    }

    /// Counts what was appended.
    pub(super) fn appended(&self, bytes: usize) {
        lock(&self.0.state).appended_bytes += bytes as u64;
    }

    /// The life of the thread that wakes.
    fn run(&self) {
        let mut woken = Instant::now();
        let mut state = lock(&self.0.state);
        loop {
            let is_idle = |state: &mut State| !state.has_news && !state.is_over;
            let waited = self.0.changed.wait_while(state, is_idle);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return;
            }
            state.has_news = false;
            state.followers.values().for_each(|wake| wake());
            let followers = u32::try_from(state.followers.len()).unwrap_or(u32::MAX);
            let millis = u64::try_from(woken.elapsed().as_millis()).unwrap_or(u64::MAX);
            woken = Instant::now();
            let bytes = std::mem::take(&mut state.appended_bytes);
            let is_flood = bytes.saturating_mul(1000) > FLOOD_BYTES.saturating_mul(millis);
            self.0.is_flood.store(is_flood, Ordering::Relaxed);
            let factor = if is_flood { FLOOD_FACTOR } else { 1 };
            let pause = PAUSE_EACH.saturating_mul(followers).min(PAUSE_MAX) * factor;
            let waited = (self.0.changed).wait_timeout_while(state, pause, |state| !state.is_over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Following {
    /// How many blocks the follower may read before it is woken again.
    pub(super) fn blocks_max(&self) -> usize {
        match self.shared.is_flood.load(Ordering::Relaxed) {
            true => 1,
            false => BLOCKS_MAX,
        }
    }

    /// Has it woken again after the pause.
    pub(super) fn wake_again(&self) {
        Followers(Arc::clone(&self.shared)).announce();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        lock(&self.shared.state).followers.remove(&self.key);
    }
}

/// The thread that wakes. Dropping it ends the thread.
pub(super) struct Announcer {
    followers: Followers,
    thread: Option<JoinHandle<()>>,
}

impl Announcer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start(followers: Followers) -> std::io::Result<Self> {
        let theirs = followers.clone();
        let thread = thread::Builder::new().name("followers".to_owned());
        Ok(Self {
            followers,
            thread: Some(thread.spawn(move || theirs.run())?),
        })
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        lock(&self.followers.0.state).is_over = true;
        self.followers.0.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there is in the log, and followers are not woken any more.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn followers_are_woken_until_they_leave() {
        let followers = Followers::default();
        let announcer = Announcer::start(followers.clone()).unwrap();
        followers.announce();
        let (sender, woken) = mpsc::channel();
        let follow = |name| {
            let sender = sender.clone();
            followers.add(Box::new(move || sender.send(name).unwrap()))
        };
        let next = || woken.recv_timeout(Duration::from_secs(20)).unwrap();
        let [first, second] = [follow("first"), follow("second")];
        followers.announce();
        let mut both = [next(), next()];
        both.sort_unstable();
        assert_eq!(both, ["first", "second"]);
        drop(first);
        followers.announce();
        assert_eq!(next(), "second");
        drop((second, announcer));
        assert!(woken.try_recv().is_err());
    }
}
