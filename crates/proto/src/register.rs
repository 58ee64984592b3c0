//! Asking the history for a user name that nobody has.
//!
//! A [`Register`] is no [`Request`](crate::history::Request), because the client has no name yet.
//! The reply is the same: [`About`](crate::history::Reply::About), and then
//! [`Done`](crate::history::Reply::Done) with the name alone, or
//! [`Error`](crate::history::Reply::Error).

use crate::error::DecodeError;
use crate::fields::{Field, Fields};
use crate::frame::Message;
use crate::history::is_user_name;

/// The longest prefix, in bytes. What is left of a user name's 64 is for a hyphen and digits.
pub const PREFIX_BYTES_MAX: usize = 40;

/// Whether a name can be made of this prefix: none, or 1 to 40 of `A-Z a-z 0-9 . _ -`.
pub fn is_prefix(prefix: &str) -> bool {
    prefix.is_empty() || (prefix.len() <= PREFIX_BYTES_MAX && is_user_name(prefix))
}

/// Asks for a name. It begins with the prefix, or with two words that the server chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register<'a> {
    /// The prefix, which may be empty; see [`is_prefix`]. It is the rest of the frame.
    pub prefix: &'a str,
}

impl Register<'_> {
    /// The kind of its frame.
    pub const KIND: u8 = 0x26;
}

impl<'a> Message<'a> for Register<'a> {
    fn kind(&self) -> u8 {
        Self::KIND
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        self.prefix.write(out);
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, DecodeError> {
        if kind != Self::KIND {
            return Err(DecodeError::UnknownKind(kind));
        }
        let mut fields = Fields::new(payload);
        let prefix = Field::read(&mut fields, "prefix")?;
        fields.end()?;
        if is_prefix(prefix) {
            Ok(Self { prefix })
        } else {
            Err(DecodeError::Invalid("prefix"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::check::{self, same_message};

    same_message!(Register);

    #[test]
    fn a_register_on_the_wire() {
        check::message(Register { prefix: "al" }, b"\0\0\0\x03\x26al");
        check::message(Register { prefix: "" }, b"\0\0\0\x01\x26");
    }

    #[test]
    fn a_prefix_is_the_start_of_a_user_name() {
        let longest = "x".repeat(PREFIX_BYTES_MAX);
        for good in ["", "a", "A.b_c-9", longest.as_str()] {
            let decoded = Register::decode(Register::KIND, good.as_bytes());
            assert_eq!(decoded, Ok(Register { prefix: good }));
        }
        let too_long = "x".repeat(PREFIX_BYTES_MAX + 1);
        for bad in ["a b", "ä", "a\n", "a/b", too_long.as_str()] {
            let decoded = Register::decode(Register::KIND, bad.as_bytes());
            assert_eq!(decoded, Err(DecodeError::Invalid("prefix")), "{bad}");
        }
    }
}
