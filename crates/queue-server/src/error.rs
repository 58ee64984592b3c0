//! Why the queue refuses.

use std::fmt;

use proto::ErrorCode;
use proto::queue::{MessageId, QueueName};
use storage::NotStored;

/// How many queues there may be.
pub const QUEUES_MAX: usize = 10_000;

/// How many messages one connection may hold without acknowledging any.
pub const RESERVED_MAX: usize = 1024;

/// Why the queue refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// The message is longer than the limit.
    TooLarge {
        /// How long it is.
        body_bytes: usize,
        /// How long it may be.
        body_bytes_max: usize,
    },
    /// The queue has as many messages as it may have.
    TooManyMessages(usize),
    /// The messages of the queue take as many bytes as they may take.
    TooManyBytes(usize),
    /// The messages of all queues take as much memory as they may take, in bytes.
    NoMemory(usize),
    /// There are as many queues as there may be.
    TooManyQueues,
    /// As many connections wait, or have messages reserved, as may.
    CannotWait,
    /// No new messages are taken.
    Draining,
    /// The holder has as many messages as it may hold; it has to acknowledge some.
    TooManyReserved,
    /// The holder does not have that message.
    NotReserved(MessageId),
    /// No message is leased under that token.
    NoLease,
    /// There is no queue of this name.
    NoQueue(String),
    /// The queue of this name holds dead letters, and has none of its own.
    OfDeadLetters(String),
    /// The queue of this name hands out nothing.
    Paused(String),
    /// The server ends.
    ShuttingDown,
    /// The change is not on the disk, or not known to be.
    NotStored(NotStored),
}

impl QueueError {
    /// The code that goes with it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::TooManyMessages(_)
            | Self::TooManyBytes(_)
            | Self::NoMemory(_)
            | Self::TooManyQueues
            | Self::TooManyReserved => ErrorCode::Full,
            Self::CannotWait => ErrorCode::Busy,
            Self::Draining => ErrorCode::Draining,
            Self::NotReserved(_) | Self::NoLease | Self::NoQueue(_) | Self::OfDeadLetters(_) => {
                ErrorCode::NotFound
            }
            Self::Paused(_) => ErrorCode::Paused,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::NotStored(_) => ErrorCode::Storage,
        }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge {
                body_bytes,
                body_bytes_max,
            } => write!(
                f,
                "a message of {body_bytes} bytes is over the limit of {body_bytes_max} bytes"
            ),
            Self::TooManyMessages(max) => {
                write!(f, "the queue is full: --max-messages is {max}")
            }
            Self::TooManyBytes(max) => write!(f, "the queue is full: --max-bytes is {max}"),
            Self::NoMemory(max) => write!(f, "the server is full: --max-memory is {max}"),
            Self::TooManyQueues => write!(f, "there are {QUEUES_MAX} queues already"),
            Self::CannotWait => f.write_str(
                "too many receivers wait or have messages reserved (--max-connections of the \
                 server); try again later",
            ),
            Self::Draining => f.write_str("the server is draining and takes no new messages"),
            Self::TooManyReserved => write!(
                f,
                "this connection holds {RESERVED_MAX} messages and must acknowledge some first"
            ),
            Self::NotReserved(id) => write!(f, "this connection does not hold a message {id}"),
            Self::NoLease => f.write_str(
                "no message is leased under this token: it was acknowledged or released, or the \
                 lease ran out",
            ),
            Self::NoQueue(name) => write!(f, "there is no queue '{name}'"),
            Self::OfDeadLetters(name) => {
                let queue = name.trim_end_matches(QueueName::DEAD_SUFFIX);
                write!(f, "'{name}' has no dead letters of its own; kick '{queue}'")
            }
            Self::Paused(name) => write!(f, "the queue '{name}' is paused"),
            Self::ShuttingDown => f.write_str("the server is shutting down"),
            Self::NotStored(error) => write!(f, "the change is {error}"),
        }
    }
}

impl std::error::Error for QueueError {}
