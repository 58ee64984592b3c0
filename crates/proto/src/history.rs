//! The history service's framed messages.
//!
//! A reply is a sequence of frames: one [`Reply::About`], then any number of [`Reply::Text`] that
//! together are the history, and at last [`Reply::Done`] or [`Reply::Error`]. So a history of any
//! size arrives whole, and the server never holds more of it than one frame.

use std::fmt;

use crate::error::ErrorReply;
use crate::fields::{Fields, PayloadError, put_name};
use crate::frame::{self, Message};

/// The longest user name, in bytes.
pub const USER_BYTES_MAX: usize = 64;

/// How much of the history one [`Reply::Text`] carries at the most, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The largest payload of a request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1 + USER_BYTES_MAX + 1 + 8;

/// Whether `user` can be a user name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub fn is_user_name(user: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&user.len())
        && user
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What a user asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Who asks; see [`is_user_name`].
    pub user: &'a str,
    /// What for.
    pub operation: Operation,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Nothing but the greeting.
    Hello,
    /// `1 N`: delete line N, counted from 1.
    Delete(u64),
    /// `2`: show the history.
    Get,
    /// `3`: delete everything.
    Clear,
}

impl fmt::Display for Operation {
    /// As the plain dialect writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => Ok(()),
            Self::Delete(line) => write!(f, "1 {line}"),
            Self::Get => f.write_str("2"),
            Self::Clear => f.write_str("3"),
        }
    }
}

/// One frame of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Where the source is and which operations there are.
    About(&'a str),
    /// A piece of the history: numbered lines, cut anywhere.
    Text(&'a [u8]),
    /// The end of the answer: what was done, in one sentence; empty if nothing was asked for.
    Done(&'a str),
    /// The end of the answer: why nothing was done.
    Error(ErrorReply<'a>),
}

const HELLO: u8 = 0x20;
const DELETE: u8 = 0x21;
const GET: u8 = 0x22;
const CLEAR: u8 = 0x23;

impl<'a> Message<'a> for Request<'a> {
    fn kind(&self) -> u8 {
        match self.operation {
            Operation::Hello => HELLO,
            Operation::Delete(_) => DELETE,
            Operation::Get => GET,
            Operation::Clear => CLEAR,
        }
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        put_name(out, self.user);
        if let Operation::Delete(line) = self.operation {
            out.extend_from_slice(&line.to_be_bytes());
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        let user = fields.name("user")?;
        if !is_user_name(user) {
            return Err(PayloadError::Invalid("user"));
        }
        let operation = match kind {
            HELLO => Operation::Hello,
            DELETE => Operation::Delete(fields.u64("line")?),
            GET => Operation::Get,
            CLEAR => Operation::Clear,
            other => return Err(PayloadError::UnknownKind(other)),
        };
        fields.end()?;
        Ok(Self { user, operation })
    }
}

/// Appends a [`Reply::Text`] of what `text` appends, which is up to [`TEXT_BYTES_MAX`] bytes, without
/// a copy in between; nothing if that is nothing, or an error.
///
/// # Errors
/// That of `text`.
pub fn put_text<E>(
    out: &mut Vec<u8>,
    text: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let before = out.len();
    let mut appended = Ok(());
    frame::put(out, TEXT, |out| appended = text(out));
    if appended.is_err() || out.len() == before + frame::HEADER_BYTES {
        out.truncate(before);
    }
    appended
}

const ABOUT: u8 = 0x61;
const TEXT: u8 = 0x62;
const DONE: u8 = 0x63;

impl<'a> Message<'a> for Reply<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::About(_) => ABOUT,
            Self::Text(_) => TEXT,
            Self::Done(_) => DONE,
            Self::Error(_) => ErrorReply::KIND,
        }
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        match self {
            Self::About(text) | Self::Done(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(bytes) => out.extend_from_slice(bytes),
            Self::Error(error) => error.put_fields(out),
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let fields = Fields::new(payload);
        Ok(match kind {
            ABOUT => Self::About(fields.rest_text("text")?),
            TEXT => Self::Text(fields.rest()),
            DONE => Self::Done(fields.rest_text("sentence")?),
            ErrorReply::KIND => Self::Error(ErrorReply::decode(fields)?),
            other => return Err(PayloadError::UnknownKind(other)),
        })
    }
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
