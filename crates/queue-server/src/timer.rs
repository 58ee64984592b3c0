//! The timer: the thread that promotes delayed messages and ends leases when that is due.
//!
//! It sleeps until the next moment at which something is due, and is woken when that moment comes
//! nearer. After a restart it finds what the journal has restored.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::queues::Queues;

/// The running thread. Dropping it ends it.
pub(crate) struct Timer {
    queues: Arc<Queues>,
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    /// Starts the thread.
    pub(crate) fn start(queues: &Arc<Queues>) -> io::Result<Self> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (watched, stop) = (Arc::clone(queues), Arc::clone(&is_stopped));
        let run = move || {
            while !stop.load(Ordering::SeqCst) {
                watched.wait_until_due(|| stop.load(Ordering::SeqCst));
            }
        };
        let thread = thread::Builder::new().name("timer".to_owned()).spawn(run)?;
        Ok(Self {
            queues: Arc::clone(queues),
            is_stopped,
            thread: Some(thread),
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.queues.wake_timer();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::error!("the timer's thread panicked");
        }
    }
}
