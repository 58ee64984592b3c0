//! Frames: how the queue and the history service cut a byte stream into messages.
//!
//! ```text
//!  0      1        4      5
//!  +------+--------+------+----------------------+
//!  | 0x00 | length | kind | payload              |
//!  +------+--------+------+----------------------+
//!    u8     u24 BE   u8     length - 1 bytes
//! ```
//!
//! The first byte is always 0, and text never starts with NUL, so the first byte of a connection tells
//! which of the two protocols of a port it speaks. `length` counts the kind and the payload; with the
//! zero in front, the first four bytes read as one big-endian u32.
//!
//! A length is a claim of the peer. It is compared with the receiver's limit first, and then memory is
//! reserved only as the bytes arrive.

use std::io::{self, BufRead};

use crate::error::DecodeError;
pub use crate::error::FrameError;

/// The first byte of every frame.
pub const FIRST_BYTE: u8 = 0;

/// The longest payload a frame can carry, in bytes: `length` has 24 bits and counts the kind.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 24) - 2;

/// The bytes in front of a payload: the u32 and the kind.
pub const HEADER_BYTES: usize = 5;

/// A message that can stand in a frame. `'a` is the payload it borrows from.
pub trait Message<'a>: Sized {
    /// The kind of the frame the message stands in.
    fn kind(&self) -> u8;

    /// Appends the payload: the message's fields.
    fn encode_payload(&self, out: &mut Vec<u8>);

    /// The message that a frame of this kind and payload holds.
    ///
    /// # Errors
    /// If the payload is not exactly one message of that kind.
    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, DecodeError>;

    /// Appends the message as one frame.
    fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.kind(), |out| self.encode_payload(out));
    }
}

/// Appends one frame to `out`; `payload` appends the frame's payload.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_BYTES_MAX`]. The caller compares a message's length with the
/// service's own, lower limit first.
pub fn put(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    put_before(out, kind, 0, payload);
}

/// Appends the beginning of a frame to `out`: all but the last `rest_bytes` of its payload, which the
/// caller sends behind it.
///
/// # Panics
/// As [`put`].
pub fn put_before(
    out: &mut Vec<u8>,
    kind: u8,
    rest_bytes: usize,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[FIRST_BYTE, 0, 0, 0, kind]);
    payload(out);
    let length = out.len() - start - 4 + rest_bytes;
    assert!(length <= PAYLOAD_BYTES_MAX + 1, "a frame of {length} bytes");
    out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
}

/// Reads one frame: returns its kind, and replaces the contents of `payload` with its payload.
/// `None` is the end of the stream between two frames.
///
/// # Errors
/// [`FrameError::TooLong`] comes before anything is reserved for the payload, which grows only as
/// its bytes arrive: an announcement costs no memory.
pub fn read(
    input: &mut impl BufRead,
    payload_bytes_max: usize,
    payload: &mut Vec<u8>,
) -> Result<Option<u8>, FrameError> {
    read_within(input, payload_bytes_max, payload, |_| true)
}

/// Like [`read`], where memory is short: before the payload grows to a number of bytes, `has_room` says
/// whether it may.
///
/// # Errors
/// As [`read`]. After [`FrameError::NoRoom`] the frame has been skipped, and the next one can be read.
pub fn read_within(
    input: &mut impl BufRead,
    payload_bytes_max: usize,
    payload: &mut Vec<u8>,
    has_room: impl FnMut(usize) -> bool,
) -> Result<Option<u8>, FrameError> {
    payload.clear();
    let first = loop {
        match input.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(buffered) => break buffered[0],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    };
    if first != FIRST_BYTE {
        return Err(FrameError::NotAFrame(first));
    }
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    let Some(payload_bytes) = length.checked_sub(1) else {
        return Err(FrameError::NoKind);
    };
    if payload_bytes > payload_bytes_max {
        return Err(FrameError::TooLong {
            payload_bytes,
            payload_bytes_max,
        });
    }
    let mut kind = [0];
    input.read_exact(&mut kind)?;
    if read_payload(input, payload_bytes, payload, has_room)? {
        Ok(Some(kind[0]))
    } else {
        Err(FrameError::NoRoom)
    }
}

/// Whether a whole frame is at the start of these bytes, so that reading it will not have to wait.
pub fn starts_with_whole(bytes: &[u8]) -> bool {
    bytes
        .first_chunk::<4>()
        .is_some_and(|length| bytes.len() - 4 >= u32::from_be_bytes(*length) as usize)
}

/// Takes apart bytes that are exactly one frame: its kind and its payload.
///
/// # Errors
/// If the bytes are less or more than one frame.
pub fn split(bytes: &[u8]) -> Result<(u8, &[u8]), FrameError> {
    match split_first(bytes)? {
        (kind, payload, []) => Ok((kind, payload)),
        (_, _, rest) => Err(DecodeError::LeftOver(rest.len()).into()),
    }
}

/// Takes apart bytes that begin with a frame: its kind, its payload, and what follows it.
///
/// # Errors
/// If the bytes are less than one frame.
pub fn split_first(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), FrameError> {
    let incomplete = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (header, payload) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(incomplete)?;
    let [first, length @ .., kind] = *header;
    if first != FIRST_BYTE {
        return Err(FrameError::NotAFrame(first));
    }
    let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
    let payload_bytes = length.checked_sub(1).ok_or(FrameError::NoKind)?;
    let (payload, rest) = payload
        .split_at_checked(payload_bytes)
        .ok_or_else(incomplete)?;
    Ok((kind, payload, rest))
}

fn read_payload(
    input: &mut impl BufRead,
    payload_bytes: usize,
    payload: &mut Vec<u8>,
    mut has_room: impl FnMut(usize) -> bool,
) -> io::Result<bool> {
    let mut is_kept = true;
    let mut read_bytes = 0;
    while read_bytes < payload_bytes {
        let buffered = match input.fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(buffered) => buffered,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let taken = buffered.len().min(payload_bytes - read_bytes);
        read_bytes += taken;
        if is_kept && payload.capacity() < read_bytes {
            // It never grows beyond what was announced.
            let bytes = (2 * payload.capacity()).max(read_bytes).min(payload_bytes);
            is_kept = has_room(bytes);
            if is_kept {
                payload.reserve_exact(bytes - payload.len());
            } else {
                *payload = Vec::new();
            }
        }
        if is_kept {
            payload.extend_from_slice(&buffered[..taken]);
        }
        input.consume(taken);
    }
    Ok(is_kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, kind, |out| out.extend_from_slice(payload));
        out
    }

    #[test]
    fn frames_follow_one_another() {
        let mut stream = frame_of(7, b"hello");
        stream.extend(frame_of(8, b""));
        assert_eq!(stream, b"\0\0\0\x06\x07hello\0\0\0\x01\x08");
        let mut input = stream.as_slice();
        let mut payload = Vec::new();
        assert_eq!(read(&mut input, 5, &mut payload).unwrap(), Some(7));
        assert_eq!(payload, b"hello");
        assert_eq!(read(&mut input, 5, &mut payload).unwrap(), Some(8));
        assert_eq!(payload, b"");
        assert_eq!(read(&mut input, 5, &mut payload).unwrap(), None);
    }

    #[test]
    fn every_proper_prefix_is_an_unexpected_end() {
        let whole = frame_of(7, b"hello");
        assert!(starts_with_whole(&[&whole[..], b"\0"].concat()));
        assert!((0..whole.len()).all(|length| !starts_with_whole(&whole[..length])));
        for length in 1..whole.len() {
            match read(&mut &whole[..length], 5, &mut Vec::new()) {
                Err(FrameError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {}
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_a_frame_is_refused() {
        let refused = |bytes: &[u8]| {
            read(&mut &bytes[..], 100, &mut Vec::new())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(b"GET "),
            "a frame starts with byte 0x00, this with 0x47"
        );
        assert_eq!(refused(&[0; 9]), "a frame has the length 0, the least is 1");
        assert_eq!(
            refused(b"\0\xff\xff\xff\x01"),
            "a frame of 16777214 bytes exceeds the limit of 100 bytes"
        );
    }

    #[test]
    fn a_frame_without_room_is_passed_over() {
        let mut stream = frame_of(7, &[b'x'; 100_000]);
        stream.extend(frame_of(8, b"next"));
        let mut payload = Vec::new();
        let mut asked = 0;
        let mut input = io::BufReader::new(&stream[..]);
        let refused = read_within(&mut input, 1 << 20, &mut payload, |bytes| {
            asked = bytes;
            bytes < 50_000
        });
        assert!(matches!(refused, Err(FrameError::NoRoom)));
        assert!(payload.capacity() == 0 && asked >= 50_000);
        assert_eq!(read(&mut input, 1 << 20, &mut payload).unwrap(), Some(8));
        assert_eq!(payload, b"next");
        let all = read_within(&mut &stream[..], 1 << 20, &mut payload, |b| b <= 100_000);
        assert_eq!((all.unwrap(), payload.len()), (Some(7), 100_000));
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut payload = Vec::new();
        let cut = b"\0\xff\xff\xff\x01only this";
        read(&mut &cut[..], PAYLOAD_BYTES_MAX, &mut payload).unwrap_err();
        assert!(payload.capacity() < 1024, "{}", payload.capacity());
    }
}

/// What every message type must stand: it round-trips, every proper prefix of its payload is
/// refused or (where the last field is the rest) is another message, one byte too many likewise,
/// and no flipped byte makes decoding panic.
#[cfg(test)]
pub(crate) mod check {
    use super::*;

    #[track_caller]
    pub(crate) fn message<'a, M>(message: M, want: &[u8])
    where
        M: for<'b> SameMessage<'b> + Message<'a> + std::fmt::Debug,
    {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded, want, "{message:?} encodes differently");
        let (kind, payload) = (encoded[4], &encoded[HEADER_BYTES..]);
        assert!(message.decodes_to_itself(kind, payload), "{message:?}");
        for length in 0..payload.len() {
            assert!(
                !message.decodes_to_itself(kind, &payload[..length]),
                "{message:?} cut to {length} bytes"
            );
        }
        for at in 0..payload.len() {
            for bit in 0..8 {
                let mut flipped = payload.to_vec();
                flipped[at] ^= 1 << bit;
                message.decodes_to_itself(kind, &flipped);
            }
        }
        for kind in 0..=u8::MAX {
            message.decodes_to_itself(kind, payload);
        }
    }

    /// Decodes a payload of any lifetime and compares.
    pub(crate) trait SameMessage<'b> {
        fn decodes_to_itself(&self, kind: u8, payload: &'b [u8]) -> bool;
    }

    macro_rules! same_message {
        ($($message:ident),*) => {$(
            impl<'b> $crate::frame::check::SameMessage<'b> for $message<'_> {
                fn decodes_to_itself(&self, kind: u8, payload: &'b [u8]) -> bool {
                    <$message<'b> as $crate::frame::Message<'b>>::decode(kind, payload)
                        .is_ok_and(|decoded| decoded == *self)
                }
            }
        )*};
    }
    pub(crate) use same_message;
}
