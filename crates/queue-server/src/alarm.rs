//! The thread that does what is due: messages that were kept back, and leases that run out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use daemon::lock;

use crate::queues::Queues;

/// How many messages are promoted, and how many leases are ended, under one lock: others wait for no
/// more than that.
const DUE_MAX: usize = 1000;

/// The running thread. Dropping it ends it.
pub(crate) struct Alarm {
    queues: Arc<Queues>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    /// Starts the thread.
    pub(crate) fn start(queues: &Arc<Queues>) -> io::Result<Self> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (watched, stop) = (Arc::clone(queues), Arc::clone(&is_stopped));
        let run = move || {
            while !stop.load(Ordering::SeqCst) {
                watched.wait_until_due(|| stop.load(Ordering::SeqCst));
            }
        };
        let thread = thread::Builder::new().name("alarm".to_owned()).spawn(run)?;
        Ok(Self {
            queues: Arc::clone(queues),
            is_stopped,
            thread: Some(thread),
        })
    }
}

impl Queues {
    /// Puts what is due into its queue: messages that were kept back, and those whose lease has run
    /// out. Then waits until something more is due, or `is_stopped` after [`Queues::wake_alarm`].
    pub(crate) fn wait_until_due(&self, is_stopped: impl Fn() -> bool) {
        let shared = &*self.shared;
        let mut ended = 0;
        while let done = self.do_what_is_due(&mut ended)
            && done > 0
            && !is_stopped()
        {}
        match ended {
            0 => {}
            1 => log::info!("A lease has run out"),
            _ => log::info!("{ended} leases have run out"),
        }
        let mut state = lock(&shared.state);
        state.next_due = state.first_due();
        let now = shared.clock.now();
        let wait = state
            .next_due
            .map(|due| Duration::from_micros(due.saturating_sub(now)));
        if is_stopped() || wait == Some(Duration::ZERO) {
            return;
        }
        match wait {
            Some(wait) => drop(shared.due_earlier.wait_timeout(state, wait)),
            None => drop(shared.due_earlier.wait(state)),
        }
    }

    /// Does some of what is due, and counts the leases that have run out. Returns how much there was.
    fn do_what_is_due(&self, ended: &mut usize) -> usize {
        let shared = &*self.shared;
        let ((promoted, wakeups), expired) = {
            let mut state = lock(&shared.state);
            let now = shared.clock.now();
            let promoted = state.promote(now, &shared.clock, DUE_MAX);
            (promoted, state.expire(now, DUE_MAX))
        };
        wakeups.into_iter().for_each(|wakeup| wakeup.wake());
        let expired_count = expired.len();
        for taken in expired {
            self.give_back(taken);
        }
        *ended += expired_count;
        promoted + expired_count
    }

    /// Ends the present [`Queues::wait_until_due`].
    fn wake_alarm(&self) {
        // Under the lock, or a waiter between its check and its wait would miss it.
        let _state = lock(&self.shared.state);
        self.shared.due_earlier.notify_all();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.queues.wake_alarm();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::error!("the alarm's thread panicked");
        }
    }
}
