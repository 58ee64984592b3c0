//! Why bytes are not a frame, or a frame is not a message.
//!
//! The errors of the other formats stand beside them, in [`crate::http`], [`crate::code`] and
//! [`crate::text`].

use std::io;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The stream failed, or ended inside a frame ([`io::ErrorKind::UnexpectedEof`]).
    #[error("{0}")]
    Io(io::Error),
    /// The first byte was not 0: this is not a frame.
    #[error("a frame starts with byte 0x00, this with 0x{0:02x}")]
    NotAFrame(u8),
    /// The length was 0; every frame has at least a kind.
    #[error("a frame has the length 0, the least is 1")]
    NoKind,
    /// The frame announces a longer payload than the receiver accepts. Nothing was reserved for it.
    #[error("a frame of {payload_bytes} bytes exceeds the limit of {payload_bytes_max} bytes")]
    TooLong {
        /// The payload's announced length.
        payload_bytes: usize,
        /// The receiver's limit.
        payload_bytes_max: usize,
    },
    /// There was no memory for the payload, which was skipped.
    #[error("there is no room for the frame")]
    NoRoom,
    /// The frame is whole, but what it holds is not a message.
    #[error("{0}")]
    Payload(DecodeError),
}

/// Why a payload is not the message that its kind announces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The payload ended inside the named field.
    #[error("the frame ends inside its field '{0}'")]
    Incomplete(&'static str),
    /// The named field holds a value that it may not hold.
    #[error("the frame's field '{0}' has no valid value")]
    Invalid(&'static str),
    /// The named field holds a time longer than [`DURATION_MAX`](crate::queue::DURATION_MAX).
    #[error("the {0} exceeds 49 days")]
    DurationTooLong(&'static str),
    /// This many bytes follow the last field.
    #[error("the frame has {0} bytes too many")]
    LeftOver(usize),
    /// No message has this kind.
    #[error("no message has the kind 0x{0:02x}")]
    UnknownKind(u8),
}

impl From<DecodeError> for FrameError {
    fn from(error: DecodeError) -> Self {
        Self::Payload(error)
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// For a client, to which both mean that no reply comes: bytes that are not a frame are
/// [`io::ErrorKind::InvalidData`].
impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}
