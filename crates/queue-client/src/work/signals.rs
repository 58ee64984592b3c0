//! The signals that stop a worker or tell of its children, and the thread that waits for them.

use std::fs;
use std::io;
use std::process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::pool::Pool;

/// The exit code when a third signal ends the program.
const EXIT_ABORTED: i32 = 2;

/// Signals that are no further apart count as one: `timeout`, for one, sends its signal to the worker
/// and then to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// The signals that stop a worker. SIGHUP is not one of them if it is ignored, as under `nohup`.
pub(super) fn stop_signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether a signal is ignored. Without /proc it is taken not to be.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The thread that waits for the signals. Dropping this ends it.
#[must_use]
pub(super) struct StopOnSignals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl StopOnSignals {
    /// From now on the first signal stops the worker, the second one ends its commands too, and the
    /// third one ends the program at once.
    pub(super) fn new(pool: Arc<Pool>) -> io::Result<Self> {
        let mut listened_to = stop_signals();
        listened_to.push(SIGCHLD);
        let mut signals = Signals::new(listened_to)?;
        let handle = signals.handle();
        let wait = move || {
            let mut last: Option<Instant> = None;
            for signal in signals.forever() {
                if signal == SIGCHLD {
                    pool.reap();
                    continue;
                }
                if last.is_some_and(|last| last.elapsed() < SAME_SIGNAL) {
                    continue;
                }
                if last.replace(Instant::now()).is_none() {
                    pool.stop();
                    log::info!("Receiving no more messages");
                } else if pool.is_aborting() {
                    process::exit(EXIT_ABORTED);
                } else {
                    pool.abort();
                    log::warn!("Aborting the commands that run");
                }
            }
        };
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for StopOnSignals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic of it is logged already, and concerns no job.
            let _ = thread.join();
        }
    }
}
