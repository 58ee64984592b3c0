//! What each request does, one function a verb, over TCP, UDP and HTTP alike.
//!
//! [`apply`] is the table of verbs. What differs between the transports is the [`Requester`]: a
//! connection of frames can reserve and wait, HTTP can wait and lease, a datagram can only lease.

use std::time::Duration;

use daemon::Role;
use proto::frame::Message as _;
use proto::queue::{Claim, Delivery, QueueName, QueueNames, Request};

use crate::error::{QueueError, RESERVED_MAX};
use crate::keys::Sender;
use crate::memory::{FREE_BYTES, Room};
use crate::message::Reserved;
use crate::position::Position;
use crate::queues::{Handout, Operation, Outcome, Prepared, Queues, Receive, Reservations, millis};

const NO_RESERVING: &str = "only a connection can reserve a message; lease it";
const NO_SESSION: &str = "each datagram says its session; only a connection begins one";
const NO_WAITING: &str = "only a connection can wait for a message";

/// Where a request comes from.
pub(crate) enum Requester<'r, 'q> {
    /// A TCP connection.
    Connection {
        /// What it has reserved.
        reservations: &'r mut Reservations<'q>,
        /// The room on the account that its frame takes.
        room: &'r mut Room,
    },
    /// A request over HTTP, whose connection can wait, and reserves nothing.
    Http {
        /// The room on the account that its body takes.
        room: &'r mut Room,
    },
    /// A datagram.
    Datagram {
        /// The longest body that fits into the reply, in bytes.
        body_bytes_max: usize,
    },
}

impl Requester<'_, '_> {
    fn room(&mut self) -> Option<&mut Room> {
        match self {
            Self::Connection { room, .. } | Self::Http { room } => Some(room),
            Self::Datagram { .. } => None,
        }
    }
}

type Applied = Result<Prepared, QueueError>;

/// Does what a request asks, or submits it to the journal.
pub(crate) fn apply(
    queues: &Queues,
    sender: &Sender,
    request: &Request,
    requester: &mut Requester,
) -> Applied {
    match *request {
        Request::Send {
            queue,
            ref properties,
            body,
        } => queues.send(sender, queue, properties, body, requester.room()),
        Request::Receive {
            queues: ref asked,
            wait_millis,
            delivery,
        } => receive(queues, asked, millis(wait_millis), delivery, requester),
        Request::Ack { claim } => Ok(queues.ack(claimed(queues, claim, requester)?)),
        Request::Release {
            claim,
            retry,
            reason,
        } => {
            let reserved = claimed(queues, claim, requester)?;
            Ok(queues.release(reserved, retry, reason))
        }
        Request::Unreserve { claim } => Ok(queues.unreserve(claimed(queues, claim, requester)?)),
        Request::UnreserveAll => {
            let messages = unreserve_all(queues, requester)?;
            Ok(Prepared::Done(Outcome::Done(messages)))
        }
        Request::Extend {
            token,
            lease_millis,
        } => queues.extend(token, millis(lease_millis)),
        Request::Peek {
            queue,
            state,
            after,
        } => {
            let after = Position::from_wire(after);
            Ok(Prepared::Done(queues.peek(queue, state, after)))
        }
        Request::Stats => stats(queues, requester),
        Request::Purge { queue } => queues.purge(queue),
        Request::Pause { queue } => queues.pause(queue, true),
        Request::Resume { queue } => queues.pause(queue, false),
        Request::Kick { queue } => queues.kick(queue),
        Request::Drain { on } => {
            queues.drain(on);
            Ok(Prepared::Done(Outcome::Done(0)))
        }
        Request::PeekOne { queue, id } => {
            let peeked = queues.peek_one(queue, id)?;
            Ok(Prepared::Done(Outcome::Peeked(Box::new(peeked))))
        }
        Request::Delete { queue, id } => queues.delete(queue, id),
        Request::KickOne { queue, id } => queues.kick_one(queue, id),
        Request::Move { queue, id, to } => queues.move_one(queue, id, to),
        Request::ReleaseOne { queue, id } => queues.release_one(queue, id),
        Request::ReleaseHolder { holder } => queues.release_holder(holder),
        // A connection begins one itself.
        Request::Session { .. } => Err(QueueError::Unsupported(NO_SESSION)),
    }
}

/// Receives without waiting. A connection waits itself, and then asks again.
fn receive(
    queues: &Queues,
    asked: &QueueNames,
    wait: Duration,
    delivery: Delivery,
    requester: &mut Requester,
) -> Applied {
    let body_bytes_max = match requester {
        Requester::Connection { reservations, .. } => {
            if delivery == Delivery::AtLeastOnce && reservations.len() >= RESERVED_MAX {
                return Err(QueueError::TooManyReserved);
            }
            usize::MAX
        }
        Requester::Http { .. } | Requester::Datagram { .. }
            if delivery == Delivery::AtLeastOnce =>
        {
            return Err(QueueError::Unsupported(NO_RESERVING));
        }
        Requester::Http { .. } => usize::MAX,
        Requester::Datagram { .. } if !wait.is_zero() => {
            return Err(QueueError::Unsupported(NO_WAITING));
        }
        Requester::Datagram { body_bytes_max } => *body_bytes_max,
    };
    queues.receive(asked, delivery, body_bytes_max)
}

/// The message that a requester was handed.
fn claimed(
    queues: &Queues,
    claim: Claim,
    requester: &mut Requester,
) -> Result<Reserved, QueueError> {
    match (claim, requester) {
        (Claim::Leased(token), _) => queues.claim(token),
        (Claim::Reserved(id), Requester::Connection { reservations, .. }) => reservations.claim(id),
        (Claim::Reserved(_), Requester::Http { .. } | Requester::Datagram { .. }) => {
            Err(QueueError::Unsupported(NO_RESERVING))
        }
    }
}

/// Unreserves all that a connection has reserved, in one commit. Returns how many messages that were.
fn unreserve_all(queues: &Queues, requester: &mut Requester) -> Result<u64, QueueError> {
    match requester {
        Requester::Connection { reservations, .. } => {
            let unreserve = |one| queues.unreserve(one);
            queues.wait_for_all(
                reservations
                    .claim_all()
                    .into_iter()
                    .map(unreserve)
                    .collect(),
            )
        }
        Requester::Http { .. } | Requester::Datagram { .. } => {
            Err(QueueError::Unsupported(NO_RESERVING))
        }
    }
}

fn stats(queues: &Queues, requester: &mut Requester) -> Applied {
    if let Some(room) = requester.room()
        && !room.grow_for_stats(queues.count())
    {
        return Err(queues.memory().full());
    }
    Ok(Prepared::Done(Outcome::Stats(Box::new(queues.stats()))))
}

/// What a request touches.
#[derive(PartialEq, Eq)]
enum Scope {
    /// One message, whose changes reach the journal in their order.
    OneMessage,
    /// Whatever its connection has changed before.
    All,
    /// The same, but it only reads.
    Reads,
}

/// What each verb touches; a new one is named here.
fn scope(request: &Request) -> Scope {
    match request {
        Request::Send { .. }
        | Request::Ack { .. }
        | Request::Release { .. }
        | Request::Unreserve { .. }
        | Request::Extend { .. } => Scope::OneMessage,
        Request::Receive { delivery, .. } => match delivery {
            Delivery::AtMostOnce | Delivery::Lease { .. } => Scope::OneMessage,
            Delivery::AtLeastOnce => Scope::All,
        },
        Request::Peek { .. }
        | Request::PeekOne { .. }
        | Request::Stats
        | Request::Session { .. } => Scope::Reads,
        Request::Purge { .. }
        | Request::Delete { .. }
        | Request::KickOne { .. }
        | Request::Move { .. }
        | Request::ReleaseOne { .. }
        | Request::ReleaseHolder { .. }
        | Request::Pause { .. }
        | Request::Resume { .. }
        | Request::Kick { .. }
        | Request::Drain { .. }
        | Request::UnreserveAll => Scope::All,
    }
}

/// The role that a frame needs. One that cannot be read is refused.
pub(crate) fn needs(kind: u8, payload: &[u8]) -> Role {
    Request::decode(kind, payload).map_or(Role::Read, |request| role(&request))
}

/// The role that each verb needs; a new one is named here.
pub(crate) fn role(request: &Request) -> Role {
    match request {
        Request::Peek { .. }
        | Request::PeekOne { .. }
        | Request::Stats
        | Request::Session { .. } => Role::Read,
        Request::Send { .. }
        | Request::Receive { .. }
        | Request::Ack { .. }
        | Request::Release { .. }
        | Request::Unreserve { .. }
        | Request::UnreserveAll
        | Request::Extend { .. } => Role::Write,
        Request::Purge { .. }
        | Request::Pause { .. }
        | Request::Resume { .. }
        | Request::Kick { .. }
        | Request::Drain { .. }
        | Request::Delete { .. }
        | Request::KickOne { .. }
        | Request::Move { .. }
        | Request::ReleaseOne { .. }
        | Request::ReleaseHolder { .. } => Role::Admin,
    }
}

/// Whether a request must see all changes that its connection has submitted before it.
pub(crate) fn sees_all(request: &Request) -> bool {
    scope(request) != Scope::OneMessage
}

/// Whether a request only reads, so that doing it twice does no harm.
pub(crate) fn changes_nothing(request: &Request) -> bool {
    scope(request) == Scope::Reads
}

/// Whether the answer is remembered in its session. What only reads is done again; and what a connection
/// has reserved is requeued when it ends, so that a request that comes again over another one finds it in
/// its queue.
pub(crate) fn is_remembered(request: &Request) -> bool {
    let ends_with_connection = matches!(
        request,
        Request::UnreserveAll
            | Request::Receive {
                delivery: Delivery::AtLeastOnce,
                ..
            }
    );
    !ends_with_connection && !changes_nothing(request)
}

/// The request as an operation that can wait for others of the same queue, to be acted on together: in
/// memory, with a short message and nothing to wait for.
pub(crate) fn batchable<'r>(
    queues: &Queues,
    sender: &Sender,
    request: &Request<'r>,
) -> Option<(QueueName<'r>, Operation)> {
    if queues.is_durable() {
        return None;
    }
    if let Request::Send {
        queue,
        ref properties,
        body,
    } = *request
        && properties.delay_millis == 0
        && body.len() <= FREE_BYTES
    {
        Some((queue, queues.send_operation(sender, body, properties).ok()?))
    } else if let Request::Receive {
        queues: asked,
        wait_millis: 0,
        delivery: Delivery::AtMostOnce,
    } = request
    {
        let receive = Receive::any(Handout::AtMostOnce);
        Some((asked.only()?, Operation::Receive(receive)))
    } else {
        None
    }
}

/// A request for the log, with the length of its body or its reason instead of the text.
pub(crate) fn shown(request: &Request) -> String {
    match request {
        Request::Send { queue, body, .. } => format!("Send to {queue}: {} bytes", body.len()),
        Request::Release {
            claim,
            retry,
            reason,
        } => {
            let bytes = reason.as_str().len();
            format!("Release {claim:?}, {retry:?}, a reason of {bytes} bytes")
        }
        other => format!("{other:?}"),
    }
}
