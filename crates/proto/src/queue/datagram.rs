//! The frame that a UDP datagram consists of, and its padding.
//!
//! The source address of a datagram may be forged. A server that replied with more bytes than it got
//! could be used to flood a third party (an amplification attack). So a reply to another machine is at
//! most [`REPLY_BYTES_FACTOR`] times as long as its request, and a client that expects a longer reply
//! pads its request with zeros behind the frame.

use crate::error::{DecodeError, FrameError};
use crate::fields::{Field as _, Fields};
use crate::frame::{self, Message};
use crate::message::record;

record! {
    /// What makes a request that comes again the same request: its session, and its number in that. The
    /// reply repeats it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RequestId {
        /// 128 bits that a client chooses at random, once.
        pub session: uuid::Uuid,
        /// It grows from request to request.
        pub number: u64,
    }
}

/// The largest payload of a UDP datagram over IPv4, in bytes (RFC 768, RFC 791).
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// How many times as long as its request a reply to another machine may be.
pub const REPLY_BYTES_FACTOR: usize = 3;

/// The lengths that a client pads a request to when the server asks it to, in bytes: the first leaves
/// room for a message of the usual length, the second for the longest datagram.
pub const PADDED_BYTES: [usize; 2] = [1200, DATAGRAM_BYTES_MAX.div_ceil(REPLY_BYTES_FACTOR)];

/// The kind of the frame a datagram consists of: a [`RequestId`], then a message's kind and payload.
pub const DATAGRAM: u8 = 0x10;

/// Whether a message of this kind is a reply. A server drops replies: otherwise a datagram with the forged
/// source address of another server would make the two reply to each other for ever.
pub fn is_reply(kind: u8) -> bool {
    kind & REPLY_BIT != 0
}

/// Every reply's kind has this bit, and no request's.
const REPLY_BIT: u8 = 0x40;

/// Appends the one frame that a datagram consists of: `message`, wrapped with the request's id.
pub fn put_datagram<'a>(out: &mut Vec<u8>, id: RequestId, message: &impl Message<'a>) {
    frame::put(out, DATAGRAM, |out| {
        id.write(out);
        out.push(message.kind());
        message.encode_payload(out);
    });
}

/// Pads a datagram with zeros to `bytes`, if it is shorter.
pub fn pad_datagram(datagram: &mut Vec<u8>, bytes: usize) {
    datagram.resize(datagram.len().max(bytes), 0);
}

/// Takes a datagram apart: the request's id, and the kind and payload of the message.
///
/// # Errors
/// If the datagram is not exactly one frame of the kind [`DATAGRAM`] and zeros.
pub fn split_datagram(datagram: &[u8]) -> Result<(RequestId, u8, &[u8]), FrameError> {
    match frame::split_first(datagram)? {
        (DATAGRAM, payload, padding) if padding.iter().all(|byte| *byte == 0) => {
            let mut fields = Fields::new(payload);
            let id = RequestId::read(&mut fields, "id")?;
            Ok((id, u8::read(&mut fields, "kind")?, fields.rest()))
        }
        (DATAGRAM, _, padding) => Err(DecodeError::LeftOver(padding.len()).into()),
        (other, _, _) => Err(DecodeError::UnknownKind(other).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;
    use crate::error_reply::ErrorReply;
    use crate::queue::{Reply, Request};

    #[test]
    fn a_reply_is_told_from_a_request() {
        let error = ErrorReply {
            code: ErrorCode::Unsupported,
            sentence: "",
        };
        for reply in [Reply::Stored { id: 1 }, Reply::Empty, Reply::Error(error)] {
            assert!(is_reply(reply.kind()), "{reply:?}");
        }
        for request in [Request::Stats, Request::Drain { on: true }] {
            assert!(!is_reply(request.kind()), "{request:?}");
        }
    }

    #[test]
    fn a_datagram_is_exactly_one_wrapped_message() {
        let mut datagram = Vec::new();
        let want = RequestId {
            session: uuid::Uuid::from_bytes(*b"abcdefghijklmnop"),
            number: 0x0a,
        };
        put_datagram(&mut datagram, want, &Request::Drain { on: true });
        assert_eq!(
            datagram,
            b"\0\0\0\x1b\x10abcdefghijklmnop\0\0\0\0\0\0\0\x0a\x0c\x01"
        );
        let (id, kind, payload) = split_datagram(&datagram).unwrap();
        assert_eq!(id, want);
        let request = Request::decode(kind, payload).unwrap();
        assert_eq!(request, Request::Drain { on: true });
        for length in 0..datagram.len() {
            split_datagram(&datagram[..length]).unwrap_err();
        }
        let length = datagram.len();
        pad_datagram(&mut datagram, 10);
        assert_eq!(datagram.len(), length);
        pad_datagram(&mut datagram, 100);
        assert_eq!(datagram.len(), 100);
        let (id, kind, payload) = split_datagram(&datagram).unwrap();
        assert_eq!((id, kind, payload), (want, 0x0c, &[1_u8][..]));
        datagram.push(1);
        split_datagram(&datagram).unwrap_err();
    }
}
