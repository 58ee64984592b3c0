//! What a message has beside its body.

use crate::error::DecodeError;
use crate::fields::{Field, Fields, put_name};
use crate::message::record;

/// The longest key, in bytes: its length is a u8.
pub const KEY_BYTES_MAX: usize = u8::MAX as usize;

record! {
    /// What a sender says of a message beside its body. By default it is nothing.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Properties<'a> {
        /// How long the message is delayed before it is ready.
        pub delay_millis: u32,
        /// How urgent it is.
        pub priority: Priority,
        /// What makes it the same message when it is sent again.
        pub key: Option<Key<'a>>,
        /// It becomes a dead letter if it was not handed out by then; 0 is never.
        pub expiry_millis: u32,
        /// How often it is handed out before it becomes a dead letter; 0 is as often as the server's
        /// `--max-attempts` says.
        pub attempts_max: u32,
    }
}

impl Properties<'_> {
    /// A delay, and nothing else.
    pub fn delayed(delay_millis: u32) -> Self {
        Self {
            delay_millis,
            ..Self::default()
        }
    }
}

/// How urgent a message is: 0 to 9, the higher first. Within one priority the first in is the first out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// That of a message of which none is said.
    pub const NORMAL: Self = Self(0);

    /// The highest.
    pub const MAX: u8 = 9;

    /// `None` if it exceeds [`Priority::MAX`].
    pub fn new(priority: u8) -> Option<Self> {
        (priority <= Self::MAX).then_some(Self(priority))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Field<'_> for Priority {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        let priority = u8::read(fields, name)?;
        Self::new(priority).ok_or(DecodeError::Invalid(name))
    }
}

/// What makes a message that is sent again the same message: 1 to 255 bytes of UTF-8 without control
/// characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// `None` if this text can be no key.
    pub fn new(key: &'a str) -> Option<Self> {
        let is_key = (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.contains(char::is_control);
        is_key.then_some(Self(key))
    }

    /// The key as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// An empty one is none.
impl<'a> Field<'a> for Option<Key<'a>> {
    fn write(&self, out: &mut Vec<u8>) {
        put_name(out, self.map(Key::as_str).unwrap_or_default());
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        match fields.name(name)? {
            "" => Ok(None),
            key => Key::new(key).map(Some).ok_or(DecodeError::Invalid(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_a_digit() {
        assert_eq!(Priority::new(9).map(Priority::get), Some(9));
        assert_eq!(Priority::new(10), None);
    }

    #[test]
    fn a_key_is_short_and_of_one_line() {
        let longest = "x".repeat(KEY_BYTES_MAX);
        for good in ["a", "Rechnung 2026-11 für Ä", &longest] {
            assert_eq!(Key::new(good).map(Key::as_str), Some(good));
        }
        let too_long = format!("{longest}x");
        for bad in ["", "a\nb", "\u{7f}", &too_long] {
            assert_eq!(Key::new(bad), None, "{bad:?}");
        }
    }
}
