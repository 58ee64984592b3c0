//! What the journal knows of the queues it writes for.

use std::sync::Arc;

use proto::queue::{MessageId, Token};

use super::row::Row;
use crate::clock::{Clock, Micros};
use crate::error::QueueError;
use crate::keys::{Acked, Holder, Keyed};
use crate::message::{Arriving, Reserved};
use crate::sessions::Answered;
use crate::totals::CountsByName;

/// The queues in memory. The journal tells them what it found at the start and what it has committed.
pub(crate) trait LiveQueues: Send + Sync {
    /// The clock that gives messages their positions.
    fn clock(&self) -> &Clock;

    /// Whether a peer may have been told that something is stored.
    fn is_serving(&self) -> bool;

    /// Whether the server is shutting down.
    fn is_stopping(&self) -> bool;

    /// Puts a message into its queue that was found at the start.
    fn restore(&self, found: Reserved, is_delayed: bool);

    /// Puts committed messages into their queues.
    fn arrived(&self, messages: Vec<Arriving>);

    /// Takes messages off the account that were not committed.
    fn refused(&self, messages: Vec<Arriving>);

    /// Makes a lease expire at another time. Returns the row that says so, and when the lease would have
    /// expired; `None` if there is no such lease.
    fn extend(&self, token: Token, expires_at: Micros) -> Option<(Row, Micros)>;

    /// Has a message that is about to be stored hold its key, if no other does.
    ///
    /// # Errors
    /// [`QueueError::KeyTaken`]; [`QueueError::TooManyKeys`].
    fn claim_key(
        &self,
        queue: &Arc<str>,
        keyed: &Arc<Keyed>,
        id: MessageId,
    ) -> Result<Holder, QueueError>;

    /// Holds the key of an acknowledged message that was found at the start.
    fn restore_key(&self, found: &Acked);

    /// Remembers the answer to a request that was found at the start.
    fn restore_answer(&self, found: &Answered);

    /// Whether that request may still be asked again.
    fn may_repeat(&self, answered: &Answered) -> bool;

    /// How many of those there are at most.
    fn answers_max(&self) -> usize;

    /// What happened to the messages of each queue.
    fn counts(&self) -> CountsByName;

    /// Adds what happened in earlier runs.
    fn restore_counts(&self, counts: &CountsByName);

    /// Pauses or resumes a queue.
    fn pause(&self, queue: &Arc<str>, is_paused: bool);
}
