//! A message, and the reservation of one.

use std::sync::Arc;

use proto::queue::{Key, MessageId, Priority, Properties, Token};

use crate::clock::Micros;
use crate::keys::{Acked, Keyed, Sender};
use crate::memory::{Body, Memory};
use crate::position::Position;

/// What a message costs beside its body, in bytes: its fields, its slot in a queue, and the
/// allocator's share.
const OVERHEAD_BYTES: usize = 64;

/// What a priority costs, because such a message is kept in a tree...
const PRIORITY_BYTES: usize = 80;

/// ...what [`Extras`] cost beside their texts...
const EXTRAS_BYTES: usize = 80;

/// ...and what an expiry costs: a place in the tree, and one in the schedule.
const EXPIRY_BYTES: usize = 160;

/// What a delay costs while it lasts, because such a message is kept in a tree and has a place in the
/// schedule.
const DELAY_BYTES: usize = 176;

/// What it costs to know who has reserved a message: its places among the reserved ones, among the leases and in
/// the schedule.
pub(crate) const RESERVATION_BYTES: usize = 352;

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
    pub(crate) extras: Option<Box<Extras>>,
}

/// What few messages have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    /// What makes it the same message when it is sent again.
    pub(crate) keyed: Option<Arc<Keyed>>,
    /// How often it is handed out at most; 0 is as often as any other.
    pub(crate) attempts_max: u32,
    /// When it becomes a dead letter if it was not handed out by then.
    pub(crate) expires_at: Option<Micros>,
    /// Why its last attempt ended without an acknowledgement; empty if that is not known.
    pub(crate) reason: Box<str>,
}

impl Extras {
    /// The same behind a pointer, if there is anything.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    fn cost(&self) -> usize {
        let expiry = self.expires_at.map_or(0, |_| EXPIRY_BYTES);
        // A key is on an account of its own.
        EXTRAS_BYTES + expiry + self.reason.len()
    }
}

/// What a message costs more while it is delayed.
pub(crate) fn delay_cost(is_delayed: bool) -> usize {
    if is_delayed { DELAY_BYTES } else { 0 }
}

impl Message {
    /// A new message. Its id and the moment of its position are given later, and when it expires.
    pub(crate) fn new(body: &[u8], properties: &Properties, sender: &Sender) -> Self {
        let keyed = |key| Arc::new(Keyed::new(key, body, sender));
        let extras = Extras {
            keyed: properties.key.map(keyed),
            attempts_max: properties.attempts_max,
            ..Extras::default()
        };
        Self {
            id: 0,
            position: Position::new(properties.priority, 0),
            body: Body::Short(Box::from(body)),
            attempts: 0,
            body_crc: 0,
            extras: extras.boxed(),
        }
    }

    /// A message that has nothing but its body.
    pub(crate) fn plain(body: &[u8]) -> Self {
        Self::new(body, &Properties::default(), &Sender::default())
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
        self.overhead() + self.body.len()
    }

    /// What it takes while it is delayed, or while it is not.
    pub(crate) fn cost_while(&self, is_delayed: bool) -> usize {
        self.cost() + delay_cost(is_delayed)
    }

    /// What of the cost its queue takes off the account, in bytes; a long body does the rest itself.
    pub(crate) fn own_cost(&self) -> usize {
        match &self.body {
            Body::Short(bytes) => self.overhead() + bytes.len(),
            Body::Long(_) => self.overhead(),
        }
    }

    fn overhead(&self) -> usize {
        let extras = self.extras.as_ref().map_or(0, |extras| extras.cost());
        let priority = if self.position.priority() == Priority::NORMAL {
            0
        } else {
            PRIORITY_BYTES
        };
        OVERHEAD_BYTES + priority + extras
    }

    /// What makes it the same message when it is sent again.
    pub(crate) fn key(&self) -> Option<Key<'_>> {
        self.keyed().and_then(|keyed| Key::new(&keyed.key))
    }

    /// The same, with whose it is.
    pub(crate) fn keyed(&self) -> Option<&Arc<Keyed>> {
        self.extras.as_ref()?.keyed.as_ref()
    }

    /// What it holds its key by after it was acknowledged, if it has one.
    pub(crate) fn acked_key(&self, queue: &Arc<str>, until: Micros) -> Option<Acked> {
        self.keyed().map(|keyed| Acked {
            queue: Arc::clone(queue),
            keyed: Arc::clone(keyed),
            id: self.id,
            until,
        })
    }

    /// How often it is handed out at most, if that is said of this one.
    pub(crate) fn attempts_max(&self) -> Option<u32> {
        let attempts_max = self.extras.as_ref()?.attempts_max;
        (attempts_max > 0).then_some(attempts_max)
    }

    /// When it becomes a dead letter if it was not handed out by then.
    pub(crate) fn expires_at(&self) -> Option<Micros> {
        self.extras.as_ref()?.expires_at
    }

    /// Why its last attempt ended without an acknowledgement; empty if that is not known.
    pub(crate) fn reason(&self) -> &str {
        self.extras.as_ref().map_or("", |extras| &extras.reason)
    }

    /// Changes what few messages have.
    pub(crate) fn change_extras(&mut self, change: impl FnOnce(&mut Extras)) {
        let mut extras = self.extras.take().map(|extras| *extras).unwrap_or_default();
        change(&mut extras);
        self.extras = extras.boxed();
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
    /// Which of the queues that were asked that is, counted from 0.
    pub(crate) queue_index: u8,
    pub(crate) message: Message,
    /// Whether it was delayed when it was reserved. It is again if what was to be done to it is refused.
    pub(crate) was_delayed: bool,
    /// `None` if it belongs to a connection.
    pub(crate) lease: Option<Lease>,
}

/// A connection that has reserved messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    /// Its number, which no other has.
    pub(crate) id: u64,
    /// Who is at the other end, for people.
    pub(crate) peer: Box<str>,
}

/// Who has reserved a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A connection, until it ends.
    Connection(Arc<Connected>),
    /// Anyone who knows the token, until the lease expires.
    Lease(Lease),
}

/// A reserved message in its queue, while its holder has it.
pub(crate) struct ReservedMessage {
    pub(crate) message: Message,
    pub(crate) holder: Holder,
}

/// Where a message is found while its holder has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) queue: Arc<str>,
    pub(crate) position: Position,
    pub(crate) id: MessageId,
}

impl Reserved {
    /// A copy for a reply; a long body is shared.
    pub(crate) fn copy(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            message: self.message.clone(),
            ..*self
        }
    }

    /// Where it is found once its holder has it.
    pub(crate) fn reservation(&self) -> Reservation {
        Reservation {
            queue: Arc::clone(&self.queue),
            position: self.message.position,
            id: self.message.id,
        }
    }
}
