//! Framed error replies, the same for the queue and the history service.

use crate::fields::{Fields, PayloadError};

/// Why a server refused a framed request. The sentence that travels beside it is for people;
/// programs branch on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// The request could not be understood.
    BadRequest = 1,
    /// The request is well formed, but this server does not know its kind or one of its options.
    Unsupported = 2,
    /// A message or frame is over the server's limit.
    TooLarge = 3,
    /// The server has as many connections as it accepts.
    Busy = 4,
    /// The server could not write to its disk; what was asked for was not done.
    Storage = 5,
    /// The user is not allowed to do this.
    Authentication = 6,
    /// The request names something that does not exist (a line number, a message, a lease).
    NotFound = 7,
    /// The queue, or all queues together, hold as much as they may.
    Full = 8,
    /// The server takes no new messages.
    Draining = 9,
    /// The server is shutting down; what was asked for was not done.
    ShuttingDown = 10,
    /// The queue is paused: it hands out no messages.
    Paused = 11,
    /// One that this version does not know. What it means, the sentence says.
    Unknown = 255,
}

impl ErrorCode {
    /// The code a byte stands for.
    pub fn from_byte(byte: u8) -> Self {
        use ErrorCode::*;
        [
            BadRequest,
            Unsupported,
            TooLarge,
            Busy,
            Storage,
            Authentication,
            NotFound,
            Full,
            Draining,
            ShuttingDown,
            Paused,
        ]
        .into_iter()
        .find(|code| *code as u8 == byte)
        .unwrap_or(Unknown)
    }
}

/// A framed error reply: a code (u8) and a sentence (the rest of the frame, UTF-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub sentence: &'a str,
}

impl<'a> ErrorReply<'a> {
    pub(crate) const KIND: u8 = 0x7f;

    /// The reply as one frame.
    pub fn to_frame(self) -> Vec<u8> {
        let mut out = Vec::new();
        crate::frame::put(&mut out, Self::KIND, |out| self.put_fields(out));
        out
    }

    pub(crate) fn put_fields(&self, out: &mut Vec<u8>) {
        out.push(self.code as u8);
        out.extend_from_slice(self.sentence.as_bytes());
    }

    pub(crate) fn decode(mut fields: Fields<'a>) -> Result<Self, PayloadError> {
        let code = fields.u8("code")?;
        Ok(Self {
            code: ErrorCode::from_byte(code),
            sentence: fields.rest_text("sentence")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_says_is_still_shown() {
        let decode = |payload| ErrorReply::decode(Fields::new(payload)).unwrap();
        let refused = decode(b"\x0bthe queue is paused");
        assert_eq!(refused.code, ErrorCode::Paused);
        let refused = decode(b"\xc8the moon is full");
        assert_eq!(refused.code, ErrorCode::Unknown);
        assert_eq!(refused.sentence, "the moon is full");
    }
}
