//! What is asked of a queue, and its outcome.

use std::time::Duration;

use proto::queue::{Delivery, MessageId, Token};

use super::figures::{Peeked, Stats};
use crate::clock::Clock;
use crate::message::{Lease, Message, Reserved};
use crate::sessions::Answer;

/// What is asked of a queue. Those that arrive together are acted on together.
pub(crate) enum Operation {
    /// Put a message at the end of the queue, after a delay.
    Send(Message, Duration),
    /// Hand out the oldest message.
    Receive(Receive),
}

/// How a message is to be received.
#[derive(Clone, Copy)]
pub(crate) struct Receive {
    pub(crate) handout: Handout,
    /// The longest body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// Which of the queues that are asked this is, counted from 0.
    pub(crate) queue_index: u8,
}

impl Receive {
    /// Receives from the only queue that is asked, whatever there is.
    pub(crate) fn any(handout: Handout) -> Self {
        Self {
            handout,
            body_bytes_max: usize::MAX,
            queue_index: 0,
        }
    }
}

impl Operation {
    pub(crate) fn is_send(&self) -> bool {
        matches!(self, Self::Send(..))
    }
}

/// How a message is handed out: a [`Delivery`] whose lease has its token and its end.
#[derive(Clone, Copy)]
pub(crate) enum Handout {
    AtMostOnce,
    /// It stays reserved, for a connection or under a lease.
    Reserve(Option<Lease>),
}

impl Handout {
    pub(super) fn new(delivery: Delivery, clock: &Clock) -> Self {
        match delivery {
            Delivery::AtLeastOnce => Self::Reserve(None),
            Delivery::AtMostOnce => Self::AtMostOnce,
            Delivery::Lease { lease_millis } => Self::Reserve(Some(Lease {
                token: Token::new_v4(),
                expires_at: clock.after(Duration::from_millis(lease_millis.into())),
            })),
        }
    }
}

/// The outcome of what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The message is in the queue.
    Stored(MessageId),
    /// A message with this key was stored before.
    StoredBefore(MessageId),
    /// A message that needs no acknowledgement, from which of the queues that were asked.
    Delivered(Message, u8),
    /// A message for the caller to acknowledge or requeue. If it is leased, the caller writes the
    /// reply, and then starts the lease ([`super::Queues::start_lease`]).
    Reserved(Reserved),
    /// A message that is leased already: a copy, for the reply to a request that came again.
    LeasedBefore(Reserved),
    /// There is no message.
    Empty,
    /// It is done, to this many messages. A release says 0 if the message is among the dead letters.
    Done(u64),
    /// A message that stays where it is.
    Peeked(Box<Peeked>),
    /// The figures of all queues.
    Stats(Box<Stats>),
}

impl Outcome {
    /// What is remembered of it, in case its request comes again. What changes nothing, or ends with its
    /// connection, is not.
    pub(crate) fn answer(&self) -> Option<Answer> {
        match self {
            Self::Stored(id) => Some(Answer::Stored(*id)),
            Self::StoredBefore(id) => Some(Answer::StoredBefore(*id)),
            Self::Done(messages) => Some(Answer::Done(*messages)),
            Self::Delivered(message, _) => Some(Answer::Delivered(message.id)),
            Self::Reserved(Reserved {
                lease: Some(lease),
                queue_index,
                ..
            }) => Some(Answer::Leased(lease.token, *queue_index)),
            Self::Reserved(_)
            | Self::LeasedBefore(_)
            | Self::Empty
            | Self::Peeked(..)
            | Self::Stats(_) => None,
        }
    }
}
