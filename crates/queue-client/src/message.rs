//! What a client gets of a message.

use proto::queue::{Claim, MessageId};

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a message returns to its queue unless it is acknowledged"]
pub struct Received {
    /// What the server calls it.
    pub id: MessageId,
    /// How often it was handed out, this time included.
    pub attempt: u32,
    /// What was sent.
    pub body: Vec<u8>,
    /// What it is acknowledged by.
    pub claim: Claim,
}

impl From<&Received> for Claim {
    fn from(message: &Received) -> Self {
        message.claim
    }
}

/// Where a message went that was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Back to its queue.
    Queued,
    /// To the dead, because it was handed out too often.
    Dead,
}

/// A message that was looked at and stays in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// Where it is; the next one is behind this.
    pub position: u64,
    /// What the server calls it.
    pub id: MessageId,
    /// How often it was handed out.
    pub attempts: u32,
    /// What was sent.
    pub body: Vec<u8>,
}
