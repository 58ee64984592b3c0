//! The queue service's framed messages.
//!
//! Over TCP each frame is one message, and replies come in the order of the requests.
//!
//! Over UDP a datagram is one frame of the kind [`DATAGRAM`], padded with zeros if it has to be longer.
//! The frame wraps a message together with a [`RequestId`], which the reply repeats. A client that gets no
//! reply sends the same datagram again, and the server answers as it did, instead of acting twice. Over TCP
//! [`Request::Session`] does the same: a client that has lost its connection says its session on the next
//! one, and asks again what has no reply.

mod datagram;
mod message_json;
mod name;
mod properties;
mod reason;
mod reply;
mod request;

use crate::frame;

pub use crate::fields::{DURATION_MAX, Name};
pub use datagram::{
    DATAGRAM, DATAGRAM_BYTES_MAX, PADDED_BYTES, REPLY_BYTES_FACTOR, RequestId, is_reply,
    pad_datagram, put_datagram, split_datagram,
};
pub use message_json::MessageJson;
pub use name::{BadName, NAME_BYTES_MAX, QUEUES_ASKED_MAX, QueueName, QueueNames};
pub use properties::{KEY_BYTES_MAX, Key, Priority, Properties};
pub use reason::{REASON_BYTES_MAX, Reason};
pub use reply::{Holder, QueueStats, Reply, Totals};
pub use request::{Claim, Delivery, MessageState, Request, Retry};

/// The longest message body that a server can be configured to accept, in bytes: what a frame can carry,
/// less the room for the fields in front of the body.
pub const BODY_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX - FIELD_BYTES_MAX;

/// Room for the fields that stand in front of a body, in bytes: a reason is the longest of them. Also a
/// request without a body is no longer.
pub const FIELD_BYTES_MAX: usize = 4096;

/// The longest message body unless configured otherwise, in bytes.
pub const BODY_BYTES_DEFAULT: usize = 3000;

/// How many requests of a session a server remembers: as many as a client may have without a reply.
pub const REMEMBERED_MAX: usize = 256;

/// The number of a message. A server never gives the same number to two messages.
pub type MessageId = u64;

/// What acknowledges, releases or extends a lease: 122 random bits that nobody can guess, written like
/// `0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f`. It is a fencing token: after the lease has expired it is
/// refused, so a client that was too slow cannot acknowledge what another one has received by then.
pub type Token = uuid::Uuid;
