//! Messages for which all is done, but whose acknowledgement came too late: the server was lost meanwhile,
//! and has requeued them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use proto::queue::MessageId;

/// How many of them are known. Beyond, the first is forgotten, and done once more if it comes again.
const DONE_MAX: usize = 1024;

/// The messages that are acknowledged without anything else when they come again. A clone shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done(Arc<Mutex<VecDeque<MessageId>>>);

impl Done {
    pub(super) fn insert(&self, id: MessageId) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if done.len() >= DONE_MAX {
            done.pop_front();
        }
        done.push_back(id);
    }

    /// Whether this is one of them. It is not any more.
    pub(super) fn remove(&self, id: MessageId) -> bool {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = done.iter().position(|one| *one == id);
        at.and_then(|at| done.remove(at)).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        done.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_known_once_and_by_all_clones() {
        let done = Done::default();
        let other = done.clone();
        (0..=DONE_MAX as u64).for_each(|id| done.insert(id));
        assert!(!other.remove(0), "the first is forgotten");
        assert!(other.remove(1) && !done.remove(1));
    }
}
