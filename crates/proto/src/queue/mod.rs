//! The queue service's framed messages.
//!
//! Over TCP each frame is one message, and replies come in the order of the requests. Over UDP a
//! datagram holds exactly one frame of the kind [`DATAGRAM`], and zeros if it has to be longer; the
//! frame wraps a message together with an id chosen by the client, and the reply repeats the id. A client that gets no reply sends the
//! same datagram again, and the server, which remembers its replies for a while, repeats its reply
//! without acting twice.

mod datagram;
mod name;
mod reply;
mod request;

use crate::frame;

pub use crate::fields::DURATION_MAX;
pub use datagram::{
    DATAGRAM, DATAGRAM_BYTES_MAX, PADDED_BYTES, REPLY_BYTES_FACTOR, is_reply, pad_datagram,
    put_datagram, split_datagram,
};
pub use name::{BadName, NAME_BYTES_MAX, QueueName};
pub use reply::{QueueStats, Reply, Totals};
pub use request::{Claim, Delivery, Request};

/// The longest message body a server can be configured to take, in bytes. A little under what a
/// frame can carry, so that there is room for the fields in front of the body.
pub const BODY_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX - FIELD_BYTES_MAX;

/// Room for the fields that stand in front of a body, in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;

/// The limit on a message's body unless configured otherwise, in bytes.
pub const BODY_BYTES_DEFAULT: usize = 3000;

/// Numbers a message.
pub type MessageId = u64;

/// What a leased message is acknowledged, released and kept by: 122 random bits that nobody can
/// guess, written like `0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f`.
pub type Token = uuid::Uuid;
