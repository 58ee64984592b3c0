//! Whoever waits for a message.

use std::sync::Arc;

use daemon::{Wakeup, lock};
use proto::queue::QueueName;

use crate::QueueError;
use crate::queues::Queues;
use crate::shared::wake;

/// Somebody in line. Dropping it takes him out, and passes on what he was woken for if it is still
/// there.
#[must_use = "whoever is dropped is not in line any more"]
pub struct InLine<'q> {
    queues: &'q Queues,
    name: Arc<str>,
    wakeup: &'q Arc<Wakeup>,
}

impl Queues {
    /// Gets in line for a message; `None` if there is one.
    ///
    /// # Errors
    /// [`QueueError::TooManyQueues`].
    pub fn get_in_line<'q>(
        &'q self,
        queue: QueueName<'q>,
        wakeup: &'q Arc<Wakeup>,
    ) -> Result<Option<InLine<'q>>, QueueError> {
        let mut state = lock(&self.shared.state);
        let name = state.name(queue)?;
        if !state.queue(&name).get_in_line(wakeup) {
            return Ok(None);
        }
        // Not made when it is not needed: dropping it takes the lock that is held here.
        Ok(Some(InLine {
            queues: self,
            name,
            wakeup,
        }))
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.queues.shared.state);
        let wakeup = match state.queues.get_mut(&self.name) {
            Some(queue) => queue.leave_line(self.wakeup),
            None => None,
        };
        state.remove_if_unused(&self.name);
        drop(state);
        wake(wakeup);
    }
}
