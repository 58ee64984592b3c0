//! The thread that does what is due: messages that were kept back, and leases that run out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::queues::Queues;

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

impl Drop for Alarm {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.queues.wake_alarm();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::error!("the alarm's thread panicked");
        }
    }
}
