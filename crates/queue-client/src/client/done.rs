//! Messages for which all is done, but whose acknowledgement came too late: the server was lost meanwhile,
//! and has requeued them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use proto::queue::MessageId;

/// How many of them are known. Beyond, the first is forgotten, and done once more if it comes again.
const DONE_MAX: usize = 1024;

/// A message, and in which epoch of the server it has that id: in another one it is another message.
type Known = (Option<u64>, MessageId);

/// The messages that are acknowledged without anything else when they come again. A clone shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done(Arc<Mutex<VecDeque<Known>>>);

impl Done {
    pub(super) fn insert(&self, epoch: Option<u64>, id: MessageId) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if done.len() >= DONE_MAX {
            done.pop_front();
        }
        done.push_back((epoch, id));
    }

    /// Whether this is one of them. It is not any more.
    pub(super) fn remove(&self, epoch: Option<u64>, id: MessageId) -> bool {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = done.iter().position(|one| *one == (epoch, id));
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
        let epoch = Some(7);
        (0..=DONE_MAX as u64).for_each(|id| done.insert(epoch, id));
        assert!(!other.remove(epoch, 0), "the first is forgotten");
        assert!(!other.remove(Some(8), 1), "it is another message");
        assert!(other.remove(epoch, 1) && !done.remove(epoch, 1));
    }
}
