//! Waiting for a message.

use std::sync::Arc;

use proto::queue::{QueueName, QueueNames};

use super::queue::Wake;
use super::shared::Shared;
use crate::error::QueueError;

/// One of the waiters of some queues. Dropping it ends that, and wakes the next one of a queue if it was
/// woken for that and the message is still there.
#[must_use = "a waiter that is dropped is not woken"]
pub(crate) struct Waiter<'q> {
    shared: &'q Shared,
    names: Vec<Arc<str>>,
    wake: Arc<dyn Wake>,
}

impl<'q> Waiter<'q> {
    /// Waits for a message of any of these queues; `None` if there is one.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub(super) fn new(
        shared: &'q Shared,
        queues: &QueueNames,
        wake: Arc<dyn Wake>,
    ) -> Result<Option<Self>, QueueError> {
        let mut state = shared.lock();
        let names: Result<Vec<_>, _> = queues.iter().map(|queue| state.make(queue)).collect();
        let mut must_wait = |name| state.entry(name).queue.must_wait();
        let names = match names {
            Ok(names) if names.iter().all(&mut must_wait) => names,
            names => {
                let made = queues.iter().map(QueueName::as_str);
                made.for_each(|name| state.remove_if_unused(name));
                return names.map(|_| None);
            }
        };
        for name in &names {
            state.entry(name).queue.add_waiter(Arc::clone(&wake));
        }
        // Only made when it is needed, because dropping it takes the lock.
        Ok(Some(Self {
            shared,
            names,
            wake,
        }))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for name in &self.names {
            let next = state
                .find(name)
                .and_then(|entry| entry.queue.remove_waiter(&self.wake));
            state.common.woken.extend(next);
            state.remove_if_unused(name);
        }
    }
}
