//! The counts of a server and of its queues.

use proto::queue::{QueueStats, Totals};

/// The counts of a server and of its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Over all queues, since the server started.
    pub totals: Totals,
    /// Each queue, sorted by name.
    pub queues: Vec<QueueStats<'static>>,
}
