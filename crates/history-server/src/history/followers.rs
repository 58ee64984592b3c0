//! Wakes those who follow the history when lines are committed.
//!
//! The writer thread only says that there is something new. To wake a thousand followers takes
//! longer than a commit, so a thread of its own does that, and then pauses for as long as it may take
//! them to read and send. What is committed meanwhile is read with the next wake. A follower that has more
//! to read is woken again alone, and pauses for itself alone.
//!
//! **Appends come first.** A follower that is woken reads a few blocks at most. In a flood of lines it reads
//! one, and the pauses are longer: all followers together are sent about 20 MB a second then. So however
//! many follow, appends keep most of the processors. The followers lag, and catch up after the flood.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use storage::lock;

/// How long the pause is for each follower.
const PAUSE_EACH: Duration = Duration::from_micros(100);

/// The longest pause, however many follow: what is committed is on its way to all of them by then.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// From this many appended bytes a second on, it is a flood: well above a thousand lines.
const FLOOD_BYTES: u64 = 128 * 1024;

/// How long it is counted what is appended, at least.
const COUNT_FOR: Duration = Duration::from_millis(100);

/// How many times longer the pauses are in a flood.
const FLOOD_FACTOR: u32 = 4;

/// How many blocks a follower reads for each wake, so that it keeps up when there is no flood.
const BLOCKS_MAX: usize = 4;

/// What wakes a follower.
type Wake = Arc<dyn Fn() + Send + Sync>;

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
    /// Those that have more to read.
    again: HashSet<u64>,
    next: u64,
    has_news: bool,
    /// What was appended since it was last told whether that is a flood, in bytes.
    appended_bytes: u64,
    is_over: bool,
}

/// A follower that is woken until this is dropped, and perhaps once more then.
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
        let mut counted = Instant::now();
        let (mut next_all, mut next_again) = (counted, counted);
        let mut state = lock(&self.0.state);
        while !state.is_over {
            let now = Instant::now();
            let news_due = state.has_news.then_some(next_all);
            let again_due = (!state.again.is_empty()).then_some(next_again);
            let is_all = news_due.is_some_and(|due| due <= now);
            if !is_all && again_due.is_none_or(|due| due > now) {
                let due = [news_due, again_due].into_iter().flatten().min();
                state = self.wait(state, due);
                continue;
            }
            // Also when nothing is new: they catch up after a flood.
            if counted.elapsed() >= COUNT_FOR {
                self.tell_flood(mem::take(&mut state.appended_bytes), counted.elapsed());
                counted = Instant::now();
            }
            let wakes: Vec<Wake> = match is_all {
                true => {
                    state.has_news = false;
                    state.again.clear();
                    state.followers.values().cloned().collect()
                }
                false => {
                    let again = mem::take(&mut state.again);
                    let wakes = again.iter().filter_map(|key| state.followers.get(key));
                    wakes.cloned().collect()
                }
            };
            // The writer thread announces meanwhile.
            drop(state);
            wakes.iter().for_each(|wake| wake());
            let is_flood = self.0.is_flood.load(Ordering::Relaxed);
            let factor = if is_flood { FLOOD_FACTOR } else { 1 };
            let pause = |followers: usize| {
                let followers = u32::try_from(followers).unwrap_or(u32::MAX);
                Instant::now() + PAUSE_EACH.saturating_mul(followers).min(PAUSE_MAX) * factor
            };
            match is_all {
                true => {
                    next_all = pause(wakes.len());
                    // A few that are far behind need not wait as long as all.
                    next_again = if is_flood { next_all } else { pause(1) };
                }
                false => next_again = pause(wakes.len()),
            }
            state = lock(&self.0.state);
        }
    }

    /// Waits for a change, or until something is due.
    fn wait<'s>(
        &'s self,
        state: MutexGuard<'s, State>,
        due: Option<Instant>,
    ) -> MutexGuard<'s, State> {
        let changed = &self.0.changed;
        match due {
            None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now());
                let waited = changed.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Notes whether this much in this time is a flood.
    fn tell_flood(&self, bytes: u64, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let is_flood = bytes.saturating_mul(1000) > FLOOD_BYTES.saturating_mul(millis);
        self.0.is_flood.store(is_flood, Ordering::Relaxed);
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

    /// Has it alone woken again after a pause.
    pub(super) fn wake_again(&self) {
        lock(&self.shared.state).again.insert(self.key);
        self.shared.changed.notify_one();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.followers.remove(&self.key);
        state.again.remove(&self.key);
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
            followers.add(Arc::new(move || sender.send(name).unwrap()))
        };
        let next = || woken.recv_timeout(Duration::from_secs(20)).unwrap();
        let [first, second] = [follow("first"), follow("second")];
        followers.announce();
        let mut both = [next(), next()];
        both.sort_unstable();
        assert_eq!(both, ["first", "second"]);
        for _ in 0..5 {
            first.wake_again();
            assert_eq!(next(), "first");
        }
        drop(first);
        followers.announce();
        assert_eq!(next(), "second");
        drop((second, announcer));
        assert!(woken.try_recv().is_err());
    }

    #[test]
    fn a_flood_ends_though_nothing_is_new() {
        let followers = Followers::default();
        let _announcer = Announcer::start(followers.clone()).unwrap();
        let (sender, woken) = mpsc::channel();
        let following = followers.add(Arc::new(move || sender.send(()).unwrap()));
        let deadline = Instant::now() + Duration::from_secs(20);
        let next = || {
            assert!(Instant::now() < deadline, "it does not end");
            woken.recv_timeout(Duration::from_secs(20)).unwrap();
        };
        while following.blocks_max() > 1 {
            followers.appended(1 << 20);
            followers.announce();
            next();
        }
        // It catches up.
        while following.blocks_max() == 1 {
            following.wake_again();
            next();
        }
    }

    #[test]
    fn nobody_who_announces_waits_for_those_who_are_woken() {
        let followers = Followers::default();
        let _announcer = Announcer::start(followers.clone()).unwrap();
        let (begins, begun) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let released = Mutex::new(released);
        let _following = followers.add(Arc::new(move || {
            begins.send(()).unwrap();
            let released = lock(&released).recv_timeout(Duration::from_secs(5));
            ends.send(released.is_ok()).unwrap();
        }));
        followers.announce();
        begun.recv().unwrap();
        followers.appended(1);
        followers.announce();
        release.send(()).unwrap();
        assert!(ended.recv().unwrap(), "it waited");
        // What was announced meanwhile comes, too.
        begun.recv().unwrap();
        release.send(()).unwrap();
        assert!(ended.recv().unwrap());
    }
}
