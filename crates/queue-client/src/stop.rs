//! How workers are stopped: by a signal, or because one of them failed.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::Closer;

/// The exit code when a third signal ends the program.
const EXIT_CUT_SHORT: i32 = 2;

/// Signals that are no further apart are one wish to stop: `timeout`, for one, sends its signal to
/// the worker and then to its group.
const ONE_WISH: Duration = Duration::from_millis(500);

/// The signals that stop a worker. SIGHUP is not among them if it is ignored, as `nohup` has it.
pub(crate) fn stop_signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether a signal is ignored; where nothing says so, it is not.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether the workers are to stop, the connections of those who do nothing but wait, and the jobs
/// that run.
#[derive(Default)]
pub(crate) struct Stop {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    is_cut_short: bool,
    next_id: u64,
    waiting: Vec<(u64, Closer)>,
    running: Vec<(u64, Arc<UnixStream>)>,
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for (_, closer) in state.waiting.drain(..) {
            closer.end_wait();
        }
        self.stopped.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Ends the jobs that run, instead of waiting for them.
    fn cut_short(&self) {
        let mut state = self.lock();
        state.is_cut_short = true;
        for (_, guardian) in state.running.drain(..) {
            end(&guardian);
        }
    }

    pub(crate) fn is_cut_short(&self) -> bool {
        self.lock().is_cut_short
    }

    /// Notes that a connection does nothing but wait, until the guard is dropped.
    pub(crate) fn waiting(&self, closer: Option<Closer>) -> Noted<'_> {
        let mut state = self.lock();
        let id = state.next_id();
        match closer {
            Some(closer) if state.is_stopping => closer.close(),
            Some(closer) => state.waiting.push((id, closer)),
            None => {}
        }
        drop(state);
        Noted { stop: self, id }
    }

    /// Notes that a job runs whose guardian has the other end of this, until the guard is dropped.
    pub(crate) fn running(&self, guardian: Arc<UnixStream>) -> Noted<'_> {
        let mut state = self.lock();
        let id = state.next_id();
        match state.is_cut_short {
            true => end(&guardian),
            false => state.running.push((id, guardian)),
        }
        drop(state);
        Noted { stop: self, id }
    }

    /// Waits for `pause`, or less if the workers are to stop.
    pub(crate) fn pause(&self, pause: Duration) {
        let state = self.lock();
        let paused = self
            .stopped
            .wait_timeout_while(state, pause, |state| !state.is_stopping);
        drop(paused);
    }
}

/// Has a guardian end its command, as if we were gone. It can still tell us how that has ended.
fn end(guardian: &UnixStream) {
    // An error means that it is gone.
    let _ = guardian.shutdown(Shutdown::Write);
}

/// A connection that is ended when the workers are to stop, or a job that is ended when that is cut
/// short, as long as this lives.
#[must_use]
pub(crate) struct Noted<'s> {
    stop: &'s Stop,
    id: u64,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let mut state = self.stop.lock();
        state.waiting.retain(|(id, _)| *id != self.id);
        state.running.retain(|(id, _)| *id != self.id);
    }
}

/// Stops the other workers when dropped by a panic.
#[must_use]
pub(crate) struct StopOnPanic<'s>(pub(crate) &'s Stop);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// The thread that waits for the signals to stop. Dropping this ends it.
#[must_use]
pub(crate) struct StopOnSignals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl StopOnSignals {
    /// From now on the first signal stops the workers, the second one ends their commands too, and
    /// the third one ends the program at once.
    pub(crate) fn new(stop: Arc<Stop>) -> io::Result<Self> {
        let mut signals = Signals::new(stop_signals())?;
        let handle = signals.handle();
        let wait = move || {
            let mut last: Option<Instant> = None;
            for _ in signals.forever() {
                if last.is_some_and(|last| last.elapsed() < ONE_WISH) {
                    continue;
                }
                if last.replace(Instant::now()).is_none() {
                    stop.stop();
                    log::info!("Taking no more messages");
                } else if stop.is_cut_short() {
                    process::exit(EXIT_CUT_SHORT);
                } else {
                    stop.cut_short();
                    log::warn!("Ending the commands that run");
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
            // Its panic is logged already, and changes nothing about what the workers have done.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_a_pause() {
        let stop = Stop::default();
        thread::scope(|scope| {
            scope.spawn(|| stop.pause(Duration::MAX));
            stop.stop();
        });
        assert!(stop.is_stopping());
    }

    #[test]
    fn a_panic_stops_the_others() {
        let stop = Stop::default();
        let panicked = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let _guard = StopOnPanic(&stop);
                panic!("on purpose");
            });
            worker.join()
        });
        panicked.unwrap_err();
        assert!(stop.is_stopping());
    }
}
