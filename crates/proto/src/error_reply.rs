//! How a server says in a frame that it refuses a request; the same for the queue and the history.

use crate::error::{DecodeError, FrameError};
use crate::fields::{Field, Fields};
use crate::frame;
use crate::message::{Tagged, tagged};

tagged! {
    /// Why a server refused a framed request. Programs branch on this; the sentence beside it is for
    /// people.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum ErrorCode {
        /// The server does not understand the request.
        1 => BadRequest,
        /// The request is well formed, but this server does not know its kind or one of its options.
        2 => Unsupported,
        /// A message or a frame exceeds the server's limit.
        3 => TooLarge,
        /// The server has as many connections as it accepts.
        4 => Busy,
        /// The server could not write to its disk. The request was not carried out.
        5 => Storage,
        /// The user may not do this.
        6 => Forbidden,
        /// The request names something that does not exist: a line, a message or a lease.
        7 => NotFound,
        /// The queue, or all queues together, hold as much as they may.
        8 => Full,
        /// The server accepts no new messages.
        9 => Draining,
        /// The server is shutting down. The request was not carried out.
        10 => ShuttingDown,
        /// The queue is paused: it hands out no messages.
        11 => Paused,
        /// The server has accounts, and the connection is not logged in; or its login is wrong.
        12 => Unauthorized,
        /// Too many wrong logins came from this address. The sentence says how long to wait.
        13 => TooManyLogins,
        /// A message with the same key was sent with another body.
        14 => Conflict,
        /// The server stands by; another one on the same data is active. The request was not carried out.
        15 => Standby,
        /// It is not known whether the request was carried out, because its commit had no certain answer. It may
        /// be asked again where that does not do it twice: in the same session, or with the same key.
        16 => InDoubt,
        /// A code that this version does not know. The sentence says what it means.
        255 => Unknown,
    }
}

impl ErrorCode {
    /// The number on the wire.
    pub fn number(self) -> u8 {
        self.tag()
    }

    /// The name, as it is declared here.
    pub fn name(self) -> &'static str {
        <Self as Tagged>::name(self.tag()).unwrap_or_default()
    }
}

/// An error reply: a code and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReply<'a> {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub sentence: &'a str,
}

impl ErrorReply<'_> {
    /// The kind of its frame, in both services.
    const KIND: u8 = 0x7f;

    /// The reply as one frame.
    pub fn to_frame(self) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put(&mut out, Self::KIND, |out| self.write(out));
        out
    }
}

impl<'a> Field<'a> for ErrorReply<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        self.code.write(out);
        self.sentence.write(out);
    }

    fn read(fields: &mut Fields<'a>, _: &'static str) -> Result<Self, DecodeError> {
        let code = Field::read(fields, "code")?;
        Ok(Self {
            code: ErrorCode::read_fields(code, fields)?.unwrap_or(ErrorCode::Unknown),
            sentence: Field::read(fields, "sentence")?,
        })
    }
}

impl FrameError {
    /// The code of the reply to bytes that are no message.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLong { .. } => ErrorCode::TooLarge,
            Self::NoRoom => ErrorCode::Full,
            Self::Payload(DecodeError::UnknownKind(_)) => ErrorCode::Unsupported,
            Self::Payload(
                DecodeError::Incomplete(_)
                | DecodeError::Invalid(_)
                | DecodeError::DurationTooLong(_)
                | DecodeError::LeftOver(_),
            )
            | Self::Io(_)
            | Self::NotAFrame(_)
            | Self::NoKind => ErrorCode::BadRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_says_is_still_shown() {
        let decode = |payload| ErrorReply::read(&mut Fields::new(payload), "error").unwrap();
        let refused = decode(b"\x0bthe queue is paused");
        assert_eq!(refused.code, ErrorCode::Paused);
        let refused = decode(b"\x0fthis server stands by; another one is active");
        assert_eq!(
            (refused.code, refused.code.name()),
            (ErrorCode::Standby, "Standby")
        );
        let in_doubt = decode(b"\x10nobody knows");
        assert_eq!(
            (in_doubt.code, in_doubt.code.name()),
            (ErrorCode::InDoubt, "InDoubt")
        );
        let refused = decode(b"\xc8the moon is full");
        assert_eq!(refused.code, ErrorCode::Unknown);
        assert_eq!(refused.sentence, "the moon is full");
    }
}
