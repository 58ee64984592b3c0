//! Outcomes and refusals as replies, the same over TCP and UDP.

use std::sync::Arc;

use proto::frame::Message as _;
use proto::queue::{Name, Properties, QueueName, QueueStats, Reason, Reply};
use proto::{ErrorCode, ErrorReply};
use storage::NotStored;

use crate::clock::Micros;
use crate::error::QueueError;
use crate::memory::{Body, LongBody};
use crate::message::{Holder, Reserved};
use crate::queues::{Figures, Outcome, Peeked};

/// The reply that tells an outcome.
pub(crate) fn reply(outcome: &Outcome) -> Reply<'_> {
    match outcome {
        Outcome::Stored(id) => Reply::Stored { id: *id },
        Outcome::StoredBefore(id) => Reply::StoredBefore { id: *id },
        Outcome::Delivered(message, queue_index)
        | Outcome::Reserved(Reserved {
            message,
            queue_index,
            lease: None,
            ..
        })
        | Outcome::LeasedBefore(Reserved {
            message,
            queue_index,
            lease: None,
            ..
        }) => Reply::Message {
            id: message.id,
            queue_index: *queue_index,
            attempt: message.attempts,
            body: &message.body,
        },
        Outcome::Reserved(Reserved {
            message,
            queue_index,
            lease: Some(lease),
            ..
        })
        | Outcome::LeasedBefore(Reserved {
            message,
            queue_index,
            lease: Some(lease),
            ..
        }) => Reply::Leased {
            token: lease.token,
            id: message.id,
            queue_index: *queue_index,
            attempt: message.attempts,
            body: &message.body,
        },
        Outcome::Empty => Reply::Empty,
        Outcome::Done(messages) => Reply::Done {
            messages: *messages,
        },
        Outcome::Peeked(one) => peeked(one),
        Outcome::Stats(stats) => Reply::Stats {
            totals: stats.totals,
            queues: stats.queues.iter().map(queue_stats).collect(),
        },
    }
}

fn peeked(peeked: &Peeked) -> Reply<'_> {
    let message = &peeked.message;
    let now = peeked.now;
    let moment = message.position.moment();
    let left = |until: Micros| u32::try_from(until.saturating_sub(now) / 1000).unwrap_or(u32::MAX);
    let properties = Properties {
        delay_millis: left(moment),
        priority: message.position.priority(),
        key: message.key(),
        // It is there, though it may be over: 0 would be none.
        expiry_millis: message.expires_at().map_or(0, |at| left(at).max(1)),
        attempts_max: message.attempts_max().unwrap_or(0),
    };
    let holder = match &peeked.holder {
        None => proto::queue::Holder::default(),
        Some(Holder::Connection(connected)) => proto::queue::Holder {
            id: connected.id,
            peer: Name(&connected.peer),
            lease_millis: 0,
        },
        Some(Holder::Lease(lease)) => proto::queue::Holder {
            lease_millis: left(lease.expires_at).max(1),
            ..proto::queue::Holder::default()
        },
    };
    Reply::Peeked {
        queue: QueueName::new(&peeked.queue).unwrap_or(QueueName::DEFAULT),
        position: message.position.to_wire(),
        state: peeked.state,
        holder,
        id: message.id,
        attempts: message.attempts,
        age_millis: now.saturating_sub(moment) / 1000,
        properties,
        reason: Reason::new(message.reason()),
        body: &message.body,
    }
}

pub(crate) fn queue_stats(figures: &Figures) -> QueueStats<'_> {
    QueueStats {
        name: (&*figures.name).into(),
        ready: figures.ready as u64,
        reserved: figures.reserved as u64,
        delayed: figures.delayed as u64,
        dead: figures.dead_letters as u64,
        waiters: figures.waiters as u64,
        oldest_millis: figures.oldest_millis,
        oldest_reserved_millis: figures.oldest_reserved_millis,
        is_paused: figures.is_paused,
    }
}

/// The body of an outcome's message, if it is long. It is sent behind the rest of its reply, so nobody
/// copies it.
pub(crate) fn long_body(outcome: &Outcome) -> Option<Arc<LongBody>> {
    let body = match outcome {
        Outcome::Delivered(message, _)
        | Outcome::Reserved(Reserved { message, .. })
        | Outcome::LeasedBefore(Reserved { message, .. }) => &message.body,
        Outcome::Peeked(peeked) => &peeked.message.body,
        Outcome::Stored(_)
        | Outcome::StoredBefore(_)
        | Outcome::Empty
        | Outcome::Done(_)
        | Outcome::Stats(_) => return None,
    };
    match body {
        Body::Short(_) => None,
        Body::Long(long) => Some(Arc::clone(long)),
    }
}

/// Appends the reply to a request, without its body if that is long.
pub(crate) fn put_reply(result: Result<&Outcome, &QueueError>, out: &mut Vec<u8>) {
    match result {
        Ok(outcome) if long_body(outcome).is_some() => reply(outcome).encode_before_body(out),
        Ok(outcome) => reply(outcome).encode(out),
        Err(error) => put_error(code(error), &error.to_string(), out),
    }
}

/// Appends the reply to a request that is refused.
pub(crate) fn put_error(code: ErrorCode, sentence: &str, out: &mut Vec<u8>) {
    log::debug!("Refused: {sentence}");
    Reply::Error(ErrorReply { code, sentence }).encode(out);
}

/// The code of a refusal.
pub(crate) fn code(error: &QueueError) -> ErrorCode {
    match error {
        QueueError::TooLarge { .. } | QueueError::TooLong { .. } => ErrorCode::TooLarge,
        QueueError::TooManyMessages(_)
        | QueueError::TooManyBytes(_)
        | QueueError::NoMemory(_)
        | QueueError::TooManyQueues
        | QueueError::TooManyReserved
        | QueueError::TooManyKeys
        | QueueError::TooManySessions => ErrorCode::Full,
        QueueError::TakenOver | QueueError::KeyTaken { .. } => ErrorCode::Conflict,
        QueueError::CannotWait(_) | QueueError::SessionBusy => ErrorCode::Busy,
        QueueError::Draining => ErrorCode::Draining,
        QueueError::NotReservedHere(_)
        | QueueError::NoLongerReserved(_)
        | QueueError::NoMessage { .. }
        | QueueError::NotKickable { .. }
        | QueueError::NotReserved(_)
        | QueueError::NoHolder(_)
        | QueueError::TooOld(_)
        | QueueError::ReplyGone(_)
        | QueueError::NoLease
        | QueueError::NoQueue(_)
        | QueueError::OfDeadLetters { .. } => ErrorCode::NotFound,
        QueueError::NumberTooHigh(_) | QueueError::NoKeys(_) => ErrorCode::BadRequest,
        QueueError::Paused(_) => ErrorCode::Paused,
        QueueError::Unsupported(_) => ErrorCode::Unsupported,
        QueueError::Standby => ErrorCode::Standby,
        QueueError::ShuttingDown => ErrorCode::ShuttingDown,
        QueueError::NotStored(NotStored::Refused(_)) => ErrorCode::Storage,
        QueueError::NotStored(NotStored::Unknown) => ErrorCode::InDoubt,
    }
}
