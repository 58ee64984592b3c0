//! What is asked of a queue, and its outcome.

use std::time::Duration;

use proto::queue::{Delivery, MessageId, Token};

use super::figures::{Peeked, Stats};
use crate::clock::Clock;
use crate::memory::Body;
use crate::message::{Lease, Message, Reserved};

/// What is asked of a queue. Those that arrive together are acted on together.
pub(crate) enum Operation {
    /// Put a message at the end of the queue, after a delay.
    Send(Message, Duration),
    /// Hand out the oldest message, if its body is at most this long.
    Receive(Handout, usize),
}

impl Operation {
    pub(super) fn is_send(&self) -> bool {
        matches!(self, Self::Send(..))
    }
}

/// How a message is handed out: a [`Delivery`] of which the lease has its token and its end.
#[derive(Clone, Copy)]
pub(crate) enum Handout {
    AtLeastOnce,
    AtMostOnce,
    Lease(Lease),
}

impl Handout {
    pub(super) fn new(delivery: Delivery, clock: &Clock) -> Self {
        match delivery {
            Delivery::AtLeastOnce => Self::AtLeastOnce,
            Delivery::AtMostOnce => Self::AtMostOnce,
            Delivery::Lease { lease_millis } => Self::Lease(Lease {
                token: Token::new_v4(),
                expires_at: clock.after(Duration::from_millis(lease_millis.into())),
            }),
        }
    }
}

/// The outcome of what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The message is in the queue.
    Stored(MessageId),
    /// A message for a receiver that is told nothing more: it is acknowledged, or leased.
    Delivered(Delivered),
    /// A message that the caller has to acknowledge or requeue.
    Reserved(Reserved),
    /// There is no message.
    Empty,
    /// It is done, to this many messages. A release says 0 if the message is among the dead letters.
    Done(u64),
    /// A message that stays where it is.
    Peeked(Peeked),
    /// The figures of all queues.
    Stats(Stats),
}

/// What a receiver is told of its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// If it is leased, what it is acknowledged by.
    pub(crate) token: Option<Token>,
    pub(crate) id: MessageId,
    /// How often it was handed out, this time included.
    pub(crate) attempt: u32,
    pub(crate) body: Body,
}

impl Delivered {
    pub(crate) fn new(message: &Message, token: Option<Token>) -> Self {
        Self {
            token,
            id: message.id,
            attempt: message.attempts,
            body: message.body.clone(),
        }
    }
}
