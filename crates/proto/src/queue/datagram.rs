//! The frame that a UDP datagram consists of.

use crate::fields::{Fields, PayloadError};
use crate::frame::{self, FrameError, Message};

/// The largest payload of a UDP datagram over IPv4, in bytes (RFC 768, RFC 791).
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The kind of the frame a datagram consists of: `id` (u64), then a message's kind and payload.
pub const DATAGRAM: u8 = 0x10;

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
    use crate::queue::Request;

    #[test]
    fn a_datagram_is_exactly_one_wrapped_message() {
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, 0x0a, &Request::Drain { on: true });
        assert_eq!(datagram, b"\0\0\0\x0b\x10\0\0\0\0\0\0\0\x0a\x0c\x01");
        let (id, kind, payload) = split_datagram(&datagram).unwrap();
        assert_eq!(id, 0x0a);
        let request = Request::decode(kind, payload).unwrap();
        assert_eq!(request, Request::Drain { on: true });
        for length in 0..datagram.len() {
            split_datagram(&datagram[..length]).unwrap_err();
        }
        datagram.push(0);
        split_datagram(&datagram).unwrap_err();
    }
}
