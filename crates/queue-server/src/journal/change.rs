//! The changes that the queues submit, and what is written of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::queue::{MessageId, Token};

use super::row::Row;
use crate::clock::Micros;
use crate::error::QueueError;
use crate::keys::Acked;
use crate::message::{Lease, Message};
use crate::sessions::Answered;

/// A change that is to be made durable. It is small, because it goes from thread to thread: what few changes
/// have is behind a pointer.
pub(crate) enum Change {
    /// A message that is put into this queue, after a delay, when it is committed.
    Insert(Arc<str>, Message, Duration),
    /// A message is now as this row says.
    Update(Box<Row>),
    /// A lease expires at another time.
    Extend(Lease),
    /// A message is deleted that costs this many bytes. If it was acknowledged and has a key, that is held on.
    Delete(MessageId, usize, Option<Box<Acked>>),
    /// A queue is paused, or resumed.
    Pause(Arc<str>, bool),
    /// What a request has asked is done already, and only its answer is written.
    Nothing,
}

/// A change, and when it was submitted.
pub(crate) struct Submission {
    pub(crate) change: Change,
    /// The answer to its request, if that is remembered. It is written together with the change.
    pub(crate) answered: Option<Answered>,
    pub(crate) since: Instant,
}

/// The outcome of a change, if its batch is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A message is stored, with this id.
    Stored(MessageId),
    /// The change has this number in its batch.
    Changed(usize),
    /// The message with this id was stored before with the same key.
    StoredBefore(MessageId),
    /// There is no such lease.
    NoLease,
    /// The message is not stored, because of its key.
    Refused(Box<QueueError>),
}

/// What is written to a row or beside the rows.
pub(super) enum Written {
    Update(Box<Row>),
    /// The row of a lease that would have expired at `before`. In memory it expires as its row says.
    Extend {
        row: Box<Row>,
        token: Token,
        before: Micros,
    },
    Delete(MessageId, usize, Option<Box<Acked>>),
    Pause(Arc<str>, bool),
    Nothing,
}
