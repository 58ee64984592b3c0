//! The queue service's framed messages.
//!
//! Over TCP each frame is one message, and replies come in the order of the requests. Over UDP a
//! datagram holds exactly one frame of the kind [`DATAGRAM`], which wraps a message together with
//! an id chosen by the client; the reply repeats the id, so that a late reply to an earlier try
//! is never taken for the answer to the present question.

use crate::error::ErrorReply;
use crate::fields::{Fields, PayloadError};
use crate::frame::{self, FrameError, Message};

/// The longest message body a server can be configured to take, in bytes. A little under what a
/// frame can carry, so that there is room for the fields in front of the body.
pub const BODY_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX - FIELD_BYTES_MAX;

/// Room for the fields that stand in front of a body, in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;

/// The limit on a message's body unless configured otherwise, in bytes.
pub const BODY_BYTES_DEFAULT: usize = 3000;

/// The largest payload of a UDP datagram over IPv4, in bytes (RFC 768, RFC 791).
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The kind of the frame a datagram consists of: `id` (u64), then a message's kind and payload.
pub const DATAGRAM: u8 = 0x10;

/// Numbers a message for as long as the server runs.
pub type MessageId = u64;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Put `body` at the end of the queue.
    Send {
        /// The message, at most the server's `--max-message` bytes.
        body: &'a [u8],
    },
    /// Hand out the message at the front of the queue.
    Receive {
        /// When the server may forget the message.
        delivery: Delivery,
    },
    /// Forget a message that was handed out on this connection.
    Ack {
        /// The id that came with the message.
        id: MessageId,
    },
}

/// When the server forgets a message it hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Delivery {
    /// When the client acknowledges it; until then it belongs to the connection, and it goes back
    /// to the front of the queue if the connection ends.
    HoldUntilAcked = 0,
    /// As it is sent, like Redis' `LPOP`: it is lost if the reply does not arrive.
    ForgetWhenSent = 1,
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The message is in the queue.
    Stored {
        /// The message's id.
        id: MessageId,
    },
    /// The oldest message.
    Message {
        /// What to acknowledge.
        id: MessageId,
        /// What was sent.
        body: &'a [u8],
    },
    /// There is no message in the queue.
    Empty,
    /// The message is forgotten.
    Acked,
    /// The request was refused.
    Error(ErrorReply<'a>),
}

const SEND: u8 = 0x01;
const RECEIVE: u8 = 0x02;
const ACK: u8 = 0x03;

/// The options byte of `Send`: none is defined yet, and a server refuses those it does not know.
const NO_OPTIONS: u8 = 0;

impl<'a> Message<'a> for Request<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Send { .. } => SEND,
            Self::Receive { .. } => RECEIVE,
            Self::Ack { .. } => ACK,
        }
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        match self {
            Self::Send { body } => {
                out.push(NO_OPTIONS);
                out.extend_from_slice(body);
            }
            Self::Receive { delivery } => out.push(*delivery as u8),
            Self::Ack { id } => out.extend_from_slice(&id.to_be_bytes()),
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        Ok(match kind {
            SEND => {
                if fields.u8("options")? != NO_OPTIONS {
                    return Err(PayloadError::Invalid("options"));
                }
                Self::Send {
                    body: fields.rest(),
                }
            }
            RECEIVE => {
                let delivery = match fields.u8("delivery")? {
                    0 => Delivery::HoldUntilAcked,
                    1 => Delivery::ForgetWhenSent,
                    _ => return Err(PayloadError::Invalid("delivery")),
                };
                fields.end()?;
                Self::Receive { delivery }
            }
            ACK => {
                let id = fields.u64("id")?;
                fields.end()?;
                Self::Ack { id }
            }
            other => return Err(PayloadError::UnknownKind(other)),
        })
    }
}

const STORED: u8 = 0x41;
const MESSAGE: u8 = 0x42;
const EMPTY: u8 = 0x43;
const ACKED: u8 = 0x44;

impl<'a> Message<'a> for Reply<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Stored { .. } => STORED,
            Self::Message { .. } => MESSAGE,
            Self::Empty => EMPTY,
            Self::Acked => ACKED,
            Self::Error(_) => ErrorReply::KIND,
        }
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored { id } => out.extend_from_slice(&id.to_be_bytes()),
            Self::Message { id, body } => {
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(body);
            }
            Self::Empty | Self::Acked => {}
            Self::Error(error) => error.put_fields(out),
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        Ok(match kind {
            STORED => {
                let id = fields.u64("id")?;
                fields.end()?;
                Self::Stored { id }
            }
            MESSAGE => Self::Message {
                id: fields.u64("id")?,
                body: fields.rest(),
            },
            EMPTY => {
                fields.end()?;
                Self::Empty
            }
            ACKED => {
                fields.end()?;
                Self::Acked
            }
            ErrorReply::KIND => Self::Error(ErrorReply::decode(fields)?),
            other => return Err(PayloadError::UnknownKind(other)),
        })
    }
}

/// Appends the one frame that a datagram consists of: `message`, wrapped with the request's id.
pub fn put_datagram<'a>(out: &mut Vec<u8>, id: u64, message: &impl Message<'a>) {
    frame::put(out, DATAGRAM, |out| {
        out.extend_from_slice(&id.to_be_bytes());
        out.push(message.kind());
        message.put_fields(out);
    });
}

/// Takes a datagram apart: the request's id, and the kind and payload of the message.
///
/// # Errors
/// If the datagram is not exactly one frame of the kind [`DATAGRAM`].
pub fn split_datagram(datagram: &[u8]) -> Result<(u64, u8, &[u8]), FrameError> {
    match frame::split(datagram)? {
        (DATAGRAM, payload) => {
            let mut fields = Fields::new(payload);
            Ok((fields.u64("id")?, fields.u8("kind")?, fields.rest()))
        }
        (other, _) => Err(PayloadError::UnknownKind(other).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;
    use crate::frame::check::{self, same_message};

    same_message!(Request, Reply);

    #[test]
    fn requests_on_the_wire() {
        check::message(Request::Send { body: b"hi" }, b"\0\0\0\x04\x01\0hi");
        check::message(Request::Send { body: b"" }, b"\0\0\0\x02\x01\0");
        let delivery = Delivery::HoldUntilAcked;
        check::message(Request::Receive { delivery }, b"\0\0\0\x02\x02\0");
        let delivery = Delivery::ForgetWhenSent;
        check::message(Request::Receive { delivery }, b"\0\0\0\x02\x02\x01");
        let id = 0x0102;
        check::message(Request::Ack { id }, b"\0\0\0\x09\x03\0\0\0\0\0\0\x01\x02");
    }

    #[test]
    fn replies_on_the_wire() {
        let id = 0x0102;
        check::message(Reply::Stored { id }, b"\0\0\0\x09\x41\0\0\0\0\0\0\x01\x02");
        let message = Reply::Message { id, body: b"hi" };
        check::message(message, b"\0\0\0\x0b\x42\0\0\0\0\0\0\x01\x02hi");
        check::message(Reply::Empty, b"\0\0\0\x01\x43");
        check::message(Reply::Acked, b"\0\0\0\x01\x44");
        let error = ErrorReply {
            code: ErrorCode::TooLarge,
            sentence: "no",
        };
        check::message(Reply::Error(error), b"\0\0\0\x04\x7f\x03no");
    }

    #[test]
    fn a_datagram_is_exactly_one_wrapped_message() {
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, 0x0a, &Request::Send { body: b"hi" });
        assert_eq!(datagram, b"\0\0\0\x0d\x10\0\0\0\0\0\0\0\x0a\x01\0hi");
        let (id, kind, payload) = split_datagram(&datagram).unwrap();
        assert_eq!(id, 0x0a);
        let request = Request::decode(kind, payload).unwrap();
        assert_eq!(request, Request::Send { body: b"hi" });
        for length in 0..datagram.len() {
            split_datagram(&datagram[..length]).unwrap_err();
        }
        datagram.push(0);
        split_datagram(&datagram).unwrap_err();
    }

    #[test]
    fn options_not_yet_defined_are_refused() {
        let error = Request::decode(SEND, b"\x01hi").unwrap_err();
        assert_eq!(error, PayloadError::Invalid("options"));
    }
}
