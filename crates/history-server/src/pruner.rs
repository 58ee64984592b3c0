//! Forgets the oldest lines of the history: what the options `--keep-lines` and `--keep-days` are for.
//!
//! A thread of its own makes the copies, as the thread of a user does who deletes lines. Commits wake
//! it when there are too many lines. That lines grow old is no event, so it also looks once an hour.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cli::exit::with_causes;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use storage::lock;

use crate::history::{Following, History, Keep};

/// How often it looks for lines that have grown old.
const LOOK_EVERY: Duration = HOUR;

const HOUR: Duration = Duration::from_secs(3600);

/// How long it waits after a failure, which may be a full disk.
const RETRY_WAIT: Duration = Duration::from_secs(60);

/// The thread that prunes. Dropping it ends the thread.
#[must_use = "nothing is pruned after it is dropped"]
pub(crate) struct Pruner {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
    _following: Option<Following>,
}

/// What the thread waits for.
#[derive(Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    has_news: bool,
    is_over: bool,
}

impl Signal {
    fn change(&self, change: impl FnOnce(&mut SignalState)) {
        change(&mut lock(&self.state));
        self.changed.notify_one();
    }

    /// Waits, at most this long. Returns whether the thread is to continue.
    fn wait(&self, timeout: Duration, is_over: impl Fn(&SignalState) -> bool) -> bool {
        let state = lock(&self.state);
        let waited = (self.changed).wait_timeout_while(state, timeout, |state| !is_over(state));
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }
}

/// The time of day, unless the clock was set forward since the start. Then it is what it would be
/// otherwise, so that lines do not grow old at once.
struct Clock {
    start: Timestamp,
    uptime_at_start: Duration,
    /// Whether the log says that it was set forward.
    is_told: AtomicBool,
}

impl Clock {
    fn start() -> Self {
        Self {
            start: Timestamp::now(),
            uptime_at_start: uptime(),
            is_told: AtomicBool::new(false),
        }
    }

    /// The time, if the clock shows `shown` after the machine was up for `uptime`.
    fn time(&self, shown: Timestamp, uptime: Duration) -> Timestamp {
        let time = self.start + uptime.saturating_sub(self.uptime_at_start);
        let is_forward = shown.duration_since(time).as_secs() >= HOUR.as_secs().cast_signed();
        if is_forward && !self.is_told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "The clock was set forward to {shown:.0}; for --keep-days it is {time:.0}, until the \
                 server starts again"
            );
        }
        shown.min(time)
    }

    fn now(&self) -> Timestamp {
        self.time(Timestamp::now(), uptime())
    }
}

/// How long the machine has been up, also when it slept.
fn uptime() -> Duration {
    let uptime = clock_gettime(ClockId::Boottime);
    uptime.try_into().unwrap_or_default()
}

impl Pruner {
    /// Starts the thread, which prunes at once what has gathered. When the server stops, a copy that is
    /// being made is given up.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(
        history: Arc<History>,
        keep: Keep,
        is_stopping: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let signal = Arc::new(Signal::default());
        let (wakes, waits) = (Arc::clone(&signal), Arc::clone(&signal));
        let wake = move || wakes.change(|state| state.has_news = true);
        let following = history.wake_to_prune(&keep, wake);
        let clock = Clock::start();
        let run = move || {
            let is_over = || is_stopping() || lock(&waits.state).is_over;
            run(&waits, &history, &keep, &clock, RETRY_WAIT, &is_over);
        };
        let thread = thread::Builder::new().name("pruner".to_owned());
        Ok(Self {
            signal,
            thread: Some(thread.spawn(run)?),
            _following: following,
        })
    }
}

impl Drop for Pruner {
    fn drop(&mut self) {
        self.signal.change(|state| state.is_over = true);
        if let Some(thread) = self.thread.take() {
            // A panic there is in the log, and nothing is pruned any more.
            let _ = thread.join();
        }
    }
}

fn run(
    signal: &Signal,
    history: &History,
    keep: &Keep,
    clock: &Clock,
    retry_wait: Duration,
    is_over: &dyn Fn() -> bool,
) {
    loop {
        lock(&signal.state).has_news = false;
        match history.prune(keep, clock.now(), is_over) {
            Ok(0) => {}
            Ok(1) => log::info!("Pruned the oldest line"),
            Ok(lines) => log::info!("Pruned the oldest {lines} lines"),
            Err(_) if is_over() => {}
            Err(error) => {
                log::error!("The oldest lines are not pruned: {}", with_causes(&error));
                if !signal.wait(retry_wait, |state| state.is_over) {
                    return;
                }
                // Nobody may add a line for long.
                continue;
            }
        }
        if !signal.wait(LOOK_EVERY, |state| state.has_news || state.is_over) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    use storage::{DataFolder, Fsync, Limits, Space};

    use super::*;
    use crate::history::{Condition, Lines};

    fn open(dir: &Path) -> Arc<History> {
        let limits = Limits::default();
        let history = History::open(
            &mut DataFolder::create(dir).unwrap(),
            Fsync::Never,
            limits,
            || panic!("the disk failed"),
        );
        Arc::new(history.unwrap())
    }

    fn lines(lines: u64) -> Keep {
        Keep {
            lines: Some(lines),
            days: None,
        }
    }

    fn start(history: &Arc<History>, keep: Keep) -> Pruner {
        Pruner::start(Arc::clone(history), keep, || false).unwrap()
    }

    /// Follows the history until it has this many lines.
    #[track_caller]
    fn wait_for(history: &History, lines: u64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while history.lines() != lines {
            assert!(Instant::now() < deadline, "{} lines", history.lines());
            thread::yield_now();
        }
    }

    fn text(dir: &Path) -> String {
        let text = fs::read_to_string(dir.join("history.txt")).unwrap();
        let records = text.lines().map(|line| line.split_once(' ').unwrap().1);
        records.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commits_wake_it_and_the_newest_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let history = open(dir.path());
        let pruner = start(&history, lines(8));
        for n in 1..=9 {
            history.append(&n.to_string(), Space::Usual).unwrap();
        }
        assert_eq!(history.lines(), 9);
        history.append("10", Space::Usual).unwrap();
        wait_for(&history, 8);
        assert_eq!(text(dir.path()), "3 4 5 6 7 8 9 10");
        drop(pruner);
        for n in 11..=20 {
            history.append(&n.to_string(), Space::Usual).unwrap();
        }
        assert_eq!(history.lines(), 18);
        // What has gathered is pruned at the start.
        let _pruner = start(&history, lines(1));
        wait_for(&history, 1);
        assert_eq!(text(dir.path()), "20");
    }

    #[test]
    fn nobody_loses_a_wrong_line_to_it() {
        const LINES: u64 = 2000;
        const LEFT: u64 = 40;
        let dir = tempfile::tempdir().unwrap();
        let history = open(dir.path());
        let _pruner = start(&history, lines(50));
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=LINES {
                    history.append(&n.to_string(), Space::Usual).unwrap();
                }
            });
            // Another deletes meanwhile, which shifts the numbers that it counts, but leaves some.
            scope.spawn(|| {
                for _ in 0..200 {
                    if history.lines() > LEFT {
                        let (first, any) = (Lines::one(1), Condition::default());
                        history.delete(first, &any, || false).unwrap();
                    }
                }
            });
        });
        let eighth_more = 50 + 50 / 8;
        let deadline = Instant::now() + Duration::from_secs(30);
        while history.lines() > eighth_more {
            assert!(Instant::now() < deadline, "{} lines", history.lines());
            thread::yield_now();
        }
        let text = text(dir.path());
        let left: Vec<u64> = text.split(' ').map(|n| n.parse().unwrap()).collect();
        assert!(left.is_sorted_by(|one, next| one + 1 == *next), "{text}");
        assert_eq!(left.last(), Some(&LINES));
        assert!(left.len() as u64 >= LEFT, "{text}");
    }

    #[test]
    fn it_tries_again_after_a_failure_though_nobody_adds_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let history = open(dir.path());
        for n in 1..=20 {
            history.append(&n.to_string(), Space::Usual).unwrap();
        }
        // A folder in the new file's place cannot be overwritten.
        let obstacle = dir.path().join(".history.txt.new");
        fs::create_dir(&obstacle).unwrap();
        let (signal, failures) = (Signal::default(), AtomicUsize::new(0));
        // It asks this after a failure.
        let is_over = || {
            failures.fetch_add(1, Ordering::SeqCst);
            false
        };
        let (clock, retry_wait) = (Clock::start(), Duration::from_millis(10));
        thread::scope(|scope| {
            let run = || run(&signal, &history, &lines(8), &clock, retry_wait, &is_over);
            scope.spawn(run);
            let deadline = Instant::now() + Duration::from_secs(30);
            while failures.load(Ordering::SeqCst) == 0 && Instant::now() < deadline {
                thread::yield_now();
            }
            fs::remove_dir(&obstacle).unwrap();
            while history.lines() != 8 && Instant::now() < deadline {
                thread::yield_now();
            }
            signal.change(|state| state.is_over = true);
        });
        assert!(failures.load(Ordering::SeqCst) > 0);
        assert_eq!(history.lines(), 8);
    }

    #[test]
    fn a_clock_that_jumps_makes_no_line_old() {
        let clock = Clock::start();
        let time = |shown_hours: i64, uptime_hours: u32| {
            let shown = clock.start + HOUR * u32::try_from(shown_hours.abs()).unwrap();
            let shown = match shown_hours < 0 {
                true => clock.start - shown.duration_since(clock.start),
                false => shown,
            };
            let time = clock.time(shown, clock.uptime_at_start + HOUR * uptime_hours);
            time.duration_since(clock.start).as_hours()
        };
        assert_eq!(time(5, 5), 5);
        assert!(!clock.is_told.load(Ordering::Relaxed));
        assert_eq!(time(5000, 5), 5);
        assert!(clock.is_told.load(Ordering::Relaxed), "once is enough");
        assert_eq!(time(-5000, 5), -5000);
        assert_eq!(time(4, 5), 4);
    }

    #[test]
    fn it_gives_up_at_once_when_the_server_stops() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        fs::write(dir.path().join("history.txt"), line.repeat(16 << 10)).unwrap();
        let history = open(dir.path());
        let outcome = history.prune(&lines(14_000), Timestamp::now(), &|| true);
        let want = "The request is not stored: the server is shutting down.";
        assert_eq!(outcome.unwrap_err().to_string(), want);
        assert_eq!(history.lines(), 16 << 10);
        drop(Pruner::start(Arc::clone(&history), lines(14_000), || true).unwrap());
        assert_eq!(history.lines(), 16 << 10);
    }
}
