//! Wakes those who follow the history when lines are committed.
//!
//! The writer thread only says that there is something new. To wake a thousand followers takes
//! longer than a commit, so a thread of its own does that, and then pauses for as long as it may take
//! them to read and send. So however many follow, appends keep most of the processors. What is
//! committed meanwhile is read with the next wake.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use storage::lock;

/// How long the pause is for each follower.
const PAUSE_EACH: Duration = Duration::from_micros(100);

/// The longest pause: what is committed is on its way to all after this, however many they are.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What wakes a follower.
type Wake = Box<dyn Fn() + Send + Sync>;

/// Those who follow.
#[derive(Clone, Default)]
pub(super) struct Followers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    followers: HashMap<u64, Wake>,
    next: u64,
    has_news: bool,
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

    /// The life of the thread that wakes.
    fn run(&self) {
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
            let until = Instant::now() + PAUSE_EACH.saturating_mul(followers).min(PAUSE_MAX);
            let left = until.saturating_duration_since(Instant::now());
            let waited = (self.0.changed).wait_timeout_while(state, left, |state| !state.is_over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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
