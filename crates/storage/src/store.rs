//! What the writer thread owns and commits: a file or a database.

use std::io;

use crate::error::{CommitError, NotStored};

/// A file or a database that one thread writes, with what is known of its contents.
pub trait Store: Send + 'static {
    /// A change that a connection submits.
    type Change: Send + 'static;
    /// What the store's own rules make of a change, an id for example.
    type Outcome: Send + 'static;

    /// Applies one change. The changes behind it see it, and nobody else does before
    /// [`Store::commit`] has succeeded.
    ///
    /// # Errors
    /// [`NotStored::Refused`] if there is no space for it. Then nothing has changed, and the other
    /// changes of the batch are committed without it.
    fn apply(&mut self, change: Self::Change) -> Result<Self::Outcome, NotStored>;

    /// Whether the changes applied since the last commit are enough for one batch.
    fn is_batch_full(&self) -> bool {
        false
    }

    /// Makes durable what was applied since the last commit, which may be nothing. After
    /// [`CommitError::Refused`] the store is as it was before the batch.
    ///
    /// # Errors
    /// See [`CommitError`].
    fn commit(&mut self) -> Result<(), CommitError>;

    /// The outcome of one change of the batch that [`Store::commit`] has just committed.
    ///
    /// # Errors
    /// [`NotStored::Refused`] if this change was left out because there was no space for it.
    fn confirm(&self, outcome: Self::Outcome) -> Result<Self::Outcome, NotStored> {
        Ok(outcome)
    }

    /// Whether there is maintenance to do while no change waits.
    fn needs_maintenance(&self) -> bool {
        false
    }

    /// Does one short step of maintenance.
    ///
    /// # Errors
    /// If it is not known what is on the disk, as with [`CommitError::Lost`].
    fn maintain(&mut self) -> io::Result<()> {
        Ok(())
    }
}
