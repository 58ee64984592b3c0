//! Waiting for a message.

use std::sync::Arc;

use proto::queue::QueueName;

use super::queue::Wake;
use super::shared::Shared;
use crate::error::QueueError;

/// One of the waiters of a queue. Dropping it ends that, and wakes the next one if it was woken and its
/// message is still there.
#[must_use = "a waiter that is dropped is not woken"]
pub(crate) struct Waiter<'q> {
    shared: &'q Shared,
    name: Arc<str>,
    wake: Arc<dyn Wake>,
}

impl<'q> Waiter<'q> {
    /// Waits for a message of this queue; `None` if there is one.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub(super) fn new(
        shared: &'q Shared,
        queue: QueueName,
        wake: Arc<dyn Wake>,
    ) -> Result<Option<Self>, QueueError> {
        let mut state = shared.lock();
        let name = state.make(queue)?;
        let queue = state.entry(&name).queue;
        if !queue.must_wait() {
            return Ok(None);
        }
        queue.add_waiter(Arc::clone(&wake));
        // Only made when it is needed, because dropping it takes the lock.
        Ok(Some(Self { shared, name, wake }))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let next = state
            .find(&self.name)
            .and_then(|entry| entry.queue.remove_waiter(&self.wake));
        state.common.woken.extend(next);
        state.remove_if_unused(&self.name);
    }
}
