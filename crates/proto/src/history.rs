//! The history service's framed messages.
//!
//! A reply is a sequence of frames: one [`Reply::About`], then any number of [`Reply::Text`] that
//! together are the history, and at last [`Reply::Done`] or [`Reply::Error`]. So a history of any
//! size arrives whole, and the server never holds more of it than one frame. One that follows gets
//! [`Reply::Line`] and [`Reply::Deleted`] instead, and an empty [`Reply::Text`] now and then; its reply
//! ends with an error or with the connection.

use std::fmt;

use crate::error::DecodeError;
use crate::error_reply::ErrorReply;
use crate::fields::{Fields, Name, put_name};
use crate::frame::{self, Message};
use crate::message::{Tagged, record, tagged};

/// The longest user name, in bytes.
pub const USER_BYTES_MAX: usize = 64;

/// The longest piece of the history in one [`Reply::Text`], in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 8 * 1024;

/// The longest text that lines can be asked to contain, in bytes.
pub const MATCH_BYTES_MAX: usize = 1024;

/// The longest payload of a request, in bytes: that of a note.
pub const REQUEST_BYTES_MAX: usize = 1 + USER_BYTES_MAX + NOTE_BYTES_MAX;

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
    pub operation: Operation<'a>,
}

record! {
    /// Which lines are shown: those that meet all of it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Filter<'a> {
        /// Only this many, the last of those that meet the rest; 0 for all.
        pub last: u64,
        /// Only those of this time or later, in milliseconds since 1970.
        pub since: u64,
        /// Only those before this time.
        pub until: u64,
        /// Only the records of this user; empty for all users.
        pub by: Name<'a>,
        /// Only those that contain this text, at most [`MATCH_BYTES_MAX`].
        pub contains: &'a str,
    }
}

impl Filter<'_> {
    /// All lines.
    pub const ALL: Self = Self {
        last: 0,
        since: 0,
        until: u64::MAX,
        by: Name(""),
        contains: "",
    };

    /// Whether it asks for more than a number of lines.
    pub fn is_search(&self) -> bool {
        let last = self.last;
        *self
            != Filter {
                last,
                ..Filter::ALL
            }
    }
}

impl fmt::Display for Filter<'_> {
    /// Each part behind a space, as the options of `history-client get`; nothing for all lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            last,
            since,
            until,
            by: Name(by),
            contains,
        } = *self;
        if last > 0 {
            write!(f, " last {last}")?;
        }
        if since > 0 {
            write!(f, " since {since}")?;
        }
        if until < u64::MAX {
            write!(f, " until {until}")?;
        }
        if !by.is_empty() {
            write!(f, " by {by}")?;
        }
        if !contains.is_empty() {
            write!(f, " match {contains}")?;
        }
        Ok(())
    }
}

tagged! {
    /// What a user can ask for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Operation<'a> {
        /// Nothing but the greeting.
        0x20 => Hello,
        /// `1 N`: delete lines, counted from 1.
        0x21 => Delete {
            /// The first line.
            first: u64,
            /// The last line; not less than `first`.
            last: u64,
            /// What each of them must contain, at most [`MATCH_BYTES_MAX`]; empty for anything.
            contains: &'a str,
        },
        /// `2`: show the history, or some of its lines.
        0x22 => Get(filter: Filter<'a>),
        /// `3`: delete everything.
        0x23 => Clear,
        /// Add a line of text.
        0x24 => Note(text: &'a str),
        /// Show lines, and each new one when it is there. The reply ends only with the connection, or with
        /// an error. With nothing new for a while, it has empty [`Reply::Text`] frames.
        0x25 => Follow {
            /// Begin with this many of the last lines.
            last: u64,
            /// If it is not 0, begin behind the line with this sequence number instead.
            behind: u64,
        },
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
        /// A line, to one that follows.
        0x64 => Line {
            /// Its sequence number, which no other line ever has.
            sequence: u64,
            /// The line, without a line feed; of one that exceeds 64 KiB, the start.
            text: &'a [u8],
        },
        /// Lines were deleted, to one that follows.
        0x65 => Deleted {
            /// The sequence number of the first of them.
            first: u64,
            /// That of the last.
            last: u64,
        },
        /// The end of the reply: what was done, in one sentence; empty if nothing was asked for.
        0x63 => Done(sentence: &'a str),
        /// The end of the reply: why nothing was done.
        0x7f => Error(error: ErrorReply<'a>),
    }
}

impl fmt::Display for Operation<'_> {
    /// As the text protocol writes it, and what it cannot ask for in the same way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => Ok(()),
            Self::Delete {
                first,
                last,
                contains,
            } => {
                write!(f, "1 {first}")?;
                if last != first {
                    write!(f, "-{last}")?;
                }
                if !contains.is_empty() {
                    write!(f, " if {contains}")?;
                }
                Ok(())
            }
            Self::Note(text) => write!(f, "note {text}"),
            Self::Follow { last, behind: 0 } => write!(f, "follow last {last}"),
            Self::Follow { last: _, behind } => write!(f, "follow behind {behind}"),
            Self::Get(filter) => write!(f, "2{filter}"),
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
        operation.check()?;
        Ok(Self { user, operation })
    }
}

impl Operation<'_> {
    /// Deletes one line, whatever it contains.
    pub fn delete_line(line: u64) -> Self {
        Self::Delete {
            first: line,
            last: line,
            contains: "",
        }
    }

    /// Checks what the types of the fields cannot say.
    fn check(&self) -> Result<(), DecodeError> {
        match *self {
            Self::Delete { first, last, .. } if last < first => Err(DecodeError::Invalid("last")),
            Self::Delete { contains, .. } if contains.len() > MATCH_BYTES_MAX => {
                Err(DecodeError::Invalid("contains"))
            }
            Self::Note(text) if text.is_empty() || text.len() > NOTE_BYTES_MAX => {
                Err(DecodeError::Invalid("text"))
            }
            Self::Get(Filter { by, .. }) if !by.0.is_empty() && !is_user_name(by.0) => {
                Err(DecodeError::Invalid("by"))
            }
            Self::Get(Filter { contains, .. }) if contains.len() > MATCH_BYTES_MAX => {
                Err(DecodeError::Invalid("contains"))
            }
            Self::Hello
            | Self::Delete { .. }
            | Self::Get(_)
            | Self::Clear
            | Self::Note(_)
            | Self::Follow { .. } => Ok(()),
        }
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

    fn ask<'a>(operation: Operation<'a>) -> Request<'a> {
        Request {
            user: "al",
            operation,
        }
    }

    #[test]
    fn requests_on_the_wire() {
        check::message(ask(Operation::Hello), b"\0\0\0\x04\x20\x02al");
        let delete = b"\0\0\0\x16\x21\x02al\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09hi";
        let operation = Operation::Delete {
            first: 7,
            last: 9,
            contains: "hi",
        };
        check::message(ask(operation), delete);
        check::message(ask(Operation::Note("hi")), b"\0\0\0\x06\x24\x02alhi");
        let follow = b"\0\0\0\x14\x25\x02al\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x07";
        check::message(ask(Operation::Follow { last: 1, behind: 7 }), follow);
        let get = b"\0\0\0\x21\x22\x02al\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\x02bohi";
        let filter = Filter {
            last: 10,
            since: 1,
            by: Name("bo"),
            contains: "hi",
            ..Filter::ALL
        };
        check::message(ask(Operation::Get(filter)), get);
        assert_eq!(
            Operation::Get(filter).to_string(),
            "2 last 10 since 1 by bo match hi"
        );
        assert_eq!(Operation::Get(Filter::ALL).to_string(), "2");
        check::message(ask(Operation::Clear), b"\0\0\0\x04\x23\x02al");
    }

    #[test]
    fn replies_on_the_wire() {
        check::message(Reply::About("hi"), b"\0\0\0\x03\x61hi");
        check::message(Reply::Text(b"\xff\n"), b"\0\0\0\x03\x62\xff\n");
        check::message(Reply::Done(""), b"\0\0\0\x01\x63");
        let line = Reply::Line {
            sequence: 7,
            text: b"hi",
        };
        check::message(line, b"\0\0\0\x0b\x64\0\0\0\0\0\0\0\x07hi");
        let deleted = b"\0\0\0\x11\x65\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09";
        check::message(Reply::Deleted { first: 7, last: 9 }, deleted);
        let error = ErrorReply {
            code: ErrorCode::NotFound,
            sentence: "no",
        };
        check::message(Reply::Error(error), b"\0\0\0\x04\x7f\x07no");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        let delete = |first, last, contains| Operation::Delete {
            first,
            last,
            contains,
        };
        for (operation, field) in [
            (delete(2, 1, ""), "last"),
            (delete(1, 1, &long[..=MATCH_BYTES_MAX]), "contains"),
            (
                Operation::Get(Filter {
                    by: Name("a/b"),
                    ..Filter::ALL
                }),
                "by",
            ),
            (
                Operation::Get(Filter {
                    contains: &long[..=MATCH_BYTES_MAX],
                    ..Filter::ALL
                }),
                "contains",
            ),
            (Operation::Note(""), "text"),
            (Operation::Note(&long), "text"),
        ] {
            let mut payload = Vec::new();
            ask(operation).encode_payload(&mut payload);
            let decoded = Request::decode(operation.tag(), &payload);
            assert_eq!(decoded, Err(DecodeError::Invalid(field)));
        }
        let mut payload = Vec::new();
        ask(Operation::Note(&long[1..])).encode_payload(&mut payload);
        assert!(payload.len() <= REQUEST_BYTES_MAX);
        assert!(Request::decode(0x24, &payload).is_ok());
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
