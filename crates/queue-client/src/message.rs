//! Messages as a client gets them.

use proto::queue::{Claim, MessageId, MessageState, Priority};

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a message is requeued unless it is acknowledged"]
pub struct Received {
    /// The number that the server has given it.
    pub id: MessageId,
    /// The queue that it comes from.
    pub queue: String,
    /// How often it was handed out, this time included.
    pub attempt: u32,
    /// What was sent.
    pub body: Vec<u8>,
    /// What acknowledges it.
    pub claim: Claim,
}

impl From<&Received> for Claim {
    fn from(message: &Received) -> Self {
        message.claim
    }
}

/// Where a released message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Back to its queue.
    Queued,
    /// To the dead letters, because it was handed out too often.
    Dead,
}

impl Released {
    /// What a count of messages says that are in their queue again.
    pub(crate) fn of(messages: u64) -> Self {
        match messages {
            0 => Self::Dead,
            1.. => Self::Queued,
        }
    }
}

/// Who has a reserved message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReservedBy {
    /// A connection.
    Connection {
        /// Its number, for [`crate::Client::release_holder`].
        id: u64,
        /// Its other end, for people.
        peer: String,
    },
    /// Anyone who knows the token.
    Lease {
        /// What is left of the lease, in milliseconds.
        left_millis: u32,
    },
}

/// A message that was looked at, and stays in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// The queue that it is in.
    pub queue: String,
    /// Its position in the queue; the next message has a higher one.
    pub position: u64,
    /// Where it is on its way.
    pub state: MessageState,
    /// Who has it, if it is reserved.
    pub holder: Option<ReservedBy>,
    /// The number that the server has given it.
    pub id: MessageId,
    /// How often it was handed out.
    pub attempts: u32,
    /// How long it has been in the queue, in milliseconds; 0 if it is delayed.
    pub age_millis: u64,
    /// How long it is still delayed, in milliseconds.
    pub delay_millis: u32,
    /// How urgent it is.
    pub priority: Priority,
    /// What makes it the same message when it is sent again.
    pub key: Option<String>,
    /// How long until it becomes a dead letter if nobody receives it, in milliseconds; 0 is for ever.
    pub expiry_millis: u32,
    /// How often it is handed out at most; 0 is as often as any other.
    pub attempts_max: u32,
    /// Why its last attempt ended without an acknowledgement; empty if that is not known.
    pub reason: String,
    /// What was sent.
    pub body: Vec<u8>,
}
