//! Whether this server may still act for the queues, where another one can take them over.

use super::Queues;
use crate::authority::Authority;

impl Queues {
    /// Whether this server may hand out messages: no other can have taken over yet.
    pub(crate) fn has_authority(&self) -> bool {
        self.shared.has_authority()
    }

    /// Has the journal commit, if the last commit is not so new any more, so that other servers see that this one
    /// lives.
    pub(crate) fn confirm_authority(&self) {
        let authority = self.shared.authority.as_deref();
        if let Some(journal) = &self.journal
            && authority.is_some_and(Authority::is_due)
        {
            journal.wake();
        }
    }
}
