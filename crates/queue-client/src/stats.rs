//! How a server and its queues are.

use proto::queue::Totals;

/// How a server and its queues are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Over all queues, since the server started.
    pub totals: Totals,
    /// One by one, by name.
    pub queues: Vec<QueueStats>,
}

/// One queue; what [`proto::queue::QueueStats`] borrows from a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Messages that can be received.
    pub ready: u64,
    /// Messages that somebody holds or has leased.
    pub held: u64,
    /// Messages that are kept back.
    pub delayed: u64,
    /// Messages in the queue of its dead.
    pub dead: u64,
    /// Receivers that wait for a message.
    pub waiting: u64,
    /// How long the message at the front has been in the queue, in milliseconds.
    pub oldest_millis: u64,
    /// Whether it hands out nothing.
    pub is_paused: bool,
}

impl From<&proto::queue::QueueStats<'_>> for QueueStats {
    fn from(queue: &proto::queue::QueueStats) -> Self {
        Self {
            name: queue.name.to_owned(),
            ready: queue.ready,
            held: queue.held,
            delayed: queue.delayed,
            dead: queue.dead,
            waiting: queue.waiting,
            oldest_millis: queue.oldest_millis,
            is_paused: queue.is_paused,
        }
    }
}
