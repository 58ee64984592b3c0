//! The history service's framed messages.
//!
//! A reply is a sequence of frames: one [`Reply::About`], then any number of [`Reply::Text`] that
//! together are the history, and at last [`Reply::Done`] or [`Reply::Error`]. So a history of any
//! size arrives whole, and the server never holds more of it than one frame.

use std::fmt;

use crate::error::DecodeError;
use crate::error_reply::ErrorReply;
use crate::fields::{Fields, put_name};
use crate::frame::{self, Message};
use crate::message::{Tagged, tagged};

/// The longest user name, in bytes.
pub const USER_BYTES_MAX: usize = 64;

/// The longest piece of the history in one [`Reply::Text`], in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The longest payload of a request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1 + USER_BYTES_MAX + 1 + 8;

/// Whether `user` can be a user name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub fn is_user_name(user: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&user.len())
        && user
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What a user asks. On the wire the operation's kind is the frame's, and the user name stands in front
/// of the operation's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Who asks; see [`is_user_name`].
    pub user: &'a str,
    /// What for.
    pub operation: Operation,
}

tagged! {
    /// What a user can ask for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Operation {
        /// Nothing but the greeting.
        0x20 => Hello,
        /// `1 N`: delete line N, counted from 1.
        0x21 => Delete(line: u64),
        /// `2`: show the history.
        0x22 => Get,
        /// `3`: delete everything.
        0x23 => Clear,
    }
}

tagged! {
    /// One frame of a reply.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Reply<'a> {
        /// Where the source is and which operations there are.
        0x61 => About(text: &'a str),
        /// A piece of the history: numbered lines, cut anywhere.
        0x62 => Text(text: &'a [u8]),
        /// The end of the reply: what was done, in one sentence; empty if nothing was asked for.
        0x63 => Done(sentence: &'a str),
        /// The end of the reply: why nothing was done.
        0x7f => Error(error: ErrorReply<'a>),
    }
}

impl fmt::Display for Operation {
    /// As the text protocol writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => Ok(()),
            Self::Delete(line) => write!(f, "1 {line}"),
            Self::Get => f.write_str("2"),
            Self::Clear => f.write_str("3"),
        }
    }
}

impl<'a> Message<'a> for Request<'a> {
    fn kind(&self) -> u8 {
        self.operation.tag()
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        put_name(out, self.user);
        self.operation.write_fields(out);
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(payload);
        let user = fields.name("user")?;
        if !is_user_name(user) {
            return Err(DecodeError::Invalid("user"));
        }
        let operation = Operation::read_fields(kind, &mut fields)?;
        let operation = operation.ok_or(DecodeError::UnknownKind(kind))?;
        fields.end()?;
        Ok(Self { user, operation })
    }
}

/// Appends a [`Reply::Text`] of what `text` appends, at most [`TEXT_BYTES_MAX`] bytes, without a copy in
/// between. Appends nothing if `text` appends nothing or fails.
///
/// # Errors
/// That of `text`.
pub fn put_text<E>(
    out: &mut Vec<u8>,
    text: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let before = out.len();
    let mut appended = Ok(());
    frame::put(out, Reply::Text(&[]).tag(), |out| appended = text(out));
    if appended.is_err() || out.len() == before + frame::HEADER_BYTES {
        out.truncate(before);
    }
    appended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;
    use crate::frame::check::{self, same_message};

    same_message!(Request, Reply);

    fn ask(operation: Operation) -> Request<'static> {
        Request {
            user: "al",
            operation,
        }
    }

    #[test]
    fn requests_on_the_wire() {
        check::message(ask(Operation::Hello), b"\0\0\0\x04\x20\x02al");
        let delete = b"\0\0\0\x0c\x21\x02al\0\0\0\0\0\0\0\x07";
        check::message(ask(Operation::Delete(7)), delete);
        check::message(ask(Operation::Get), b"\0\0\0\x04\x22\x02al");
        check::message(ask(Operation::Clear), b"\0\0\0\x04\x23\x02al");
    }

    #[test]
    fn replies_on_the_wire() {
        check::message(Reply::About("hi"), b"\0\0\0\x03\x61hi");
        check::message(Reply::Text(b"\xff\n"), b"\0\0\0\x03\x62\xff\n");
        check::message(Reply::Done(""), b"\0\0\0\x01\x63");
        let error = ErrorReply {
            code: ErrorCode::NotFound,
            sentence: "no",
        };
        check::message(Reply::Error(error), b"\0\0\0\x04\x7f\x07no");
    }

    #[test]
    fn user_names() {
        let longest = "x".repeat(USER_BYTES_MAX);
        for good in ["a", "A.b_c-9", longest.as_str()] {
            assert!(is_user_name(good), "{good}");
        }
        let too_long = "x".repeat(USER_BYTES_MAX + 1);
        for bad in ["", "a b", "ä", "a\n", "a/b", too_long.as_str()] {
            assert!(!is_user_name(bad), "{bad}");
        }
    }
}
