//! A message, and the reservation of one.

use std::sync::Arc;

use proto::queue::{MessageId, Priority, Token};

use crate::clock::Micros;
use crate::memory::{Body, Memory};
use crate::position::Position;

/// What a message costs beside its body, in bytes: its fields, its slot in a queue, and the
/// allocator's share.
const OVERHEAD_BYTES: usize = 64;

/// A message. There may be millions, so it is small. A clone shares a long body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// What it is acknowledged by; ids grow in the order of arrival.
    pub(crate) id: MessageId,
    pub(crate) position: Position,
    pub(crate) body: Body,
    /// How often it was handed out.
    pub(crate) attempts: u32,
    /// The CRC-32 of the body; 0 without a database.
    pub(crate) body_crc: u32,
}

impl Message {
    /// A new message. Its id and the moment of its position are given later.
    pub(crate) fn new(body: &[u8]) -> Self {
        Self {
            id: 0,
            position: Position::new(Priority::default(), 0),
            body: Body::Short(Box::from(body)),
            attempts: 0,
            body_crc: 0,
        }
    }

    /// The same message with its body's CRC-32, for the database.
    pub(crate) fn with_checksum(self) -> Self {
        Self {
            body_crc: crc32fast::hash(&self.body),
            ..self
        }
    }

    /// The same message, after its cost was put on the account.
    pub(crate) fn counted(self, memory: &Arc<Memory>) -> Self {
        Self {
            body: self.body.counted(memory),
            ..self
        }
    }

    /// What it takes, in bytes of memory.
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD_BYTES + self.body.len()
    }

    /// What of the cost its queue takes off the account, in bytes; a long body does the rest itself.
    pub(crate) fn own_cost(&self) -> usize {
        match &self.body {
            Body::Short(bytes) => OVERHEAD_BYTES + bytes.len(),
            Body::Long(_) => OVERHEAD_BYTES,
        }
    }
}

/// A message that waits for its commit: the queue it goes to, and whether it is delayed.
pub(crate) type Arriving = (Arc<str>, Message, bool);

/// Who may acknowledge a message, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lease {
    /// The fencing token: the message belongs to the worker that knows it.
    pub(crate) token: Token,
    pub(crate) expires_at: Micros,
}

/// A message that was handed out and is not acknowledged. It is in no queue, so nobody else can change
/// it.
#[must_use = "a reserved message that is dropped is lost"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// The queue that counts it.
    pub(crate) queue: Arc<str>,
    pub(crate) message: Message,
    /// `None` if it belongs to a connection.
    pub(crate) lease: Option<Lease>,
}
