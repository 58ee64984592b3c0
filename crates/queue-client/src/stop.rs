//! How workers are stopped: by a signal, or because one of them failed.

use std::io;
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::Closer;

/// The exit code when a second signal ends the program.
const EXIT_CUT_SHORT: i32 = 2;

/// Whether the workers are to stop, and the connections of those who do nothing but wait.
#[derive(Default)]
pub(crate) struct Stop {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    next_wait: u64,
    waiting: Vec<(u64, Closer)>,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for (_, closer) in state.waiting.drain(..) {
            closer.close();
        }
        self.stopped.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Notes that a connection does nothing but wait, until the guard is dropped.
    pub(crate) fn waiting(&self, closer: Option<Closer>) -> Waiting<'_> {
        let mut state = self.lock();
        let id = state.next_wait;
        state.next_wait += 1;
        match closer {
            Some(closer) if state.is_stopping => closer.close(),
            Some(closer) => state.waiting.push((id, closer)),
            None => {}
        }
        drop(state);
        Waiting { stop: self, id }
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

/// A connection that is ended when the workers are to stop, as long as this lives.
#[must_use]
pub(crate) struct Waiting<'s> {
    stop: &'s Stop,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stop.lock().waiting.retain(|(id, _)| *id != self.id);
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

/// The thread that waits for SIGINT and SIGTERM. Dropping this ends it.
#[must_use]
pub(crate) struct StopOnSignals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl StopOnSignals {
    /// From now on the first signal stops the workers, and the second one ends the program.
    pub(crate) fn new(stop: Arc<Stop>) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let wait = move || {
            for (earlier, _) in signals.forever().enumerate() {
                if earlier > 0 {
                    process::exit(EXIT_CUT_SHORT);
                }
                log::info!("Taking no more messages");
                stop.stop();
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
