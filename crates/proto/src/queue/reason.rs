//! Why a message was given up.

use std::fmt;

use crate::error::DecodeError;
use crate::fields::{Field, Fields};

/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 2048;

/// Why a message was given up, in the words of the client that had it. Empty if that was not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reason<'a>(&'a str);

impl<'a> Reason<'a> {
    /// The reason that this text gives; of a text that exceeds [`REASON_BYTES_MAX`], its beginning.
    pub fn new(text: &'a str) -> Self {
        let mut bytes = text.len().min(REASON_BYTES_MAX);
        while !text.is_char_boundary(bytes) {
            bytes -= 1;
        }
        Self(&text[..bytes])
    }

    /// The reason as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether none was given.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A u16 length and that many bytes of UTF-8.
impl<'a> Field<'a> for Reason<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        let length = u16::try_from(self.0.len()).expect("a reason is at most 2048 bytes");
        length.write(out);
        out.extend_from_slice(self.0.as_bytes());
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        let length = usize::from(u16::read(fields, name)?);
        if length > REASON_BYTES_MAX {
            return Err(DecodeError::Invalid(name));
        }
        fields.text(length, name).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let text = format!("x{}", "ä".repeat(REASON_BYTES_MAX));
        let reason = Reason::new(&text);
        assert_eq!(reason.as_str().len(), REASON_BYTES_MAX - 1);
        assert!(text.starts_with(reason.as_str()));
        assert_eq!(Reason::new("why").to_string(), "why");
        assert!(Reason::default().is_empty());
    }

    #[test]
    fn a_longer_one_is_refused_on_the_wire() {
        let mut wire = Vec::new();
        Reason::new(&"x".repeat(REASON_BYTES_MAX)).write(&mut wire);
        assert!(Reason::read(&mut Fields::new(&wire), "reason").is_ok());
        wire[..2].copy_from_slice(&2049_u16.to_be_bytes());
        wire.push(b'x');
        let refused = Reason::read(&mut Fields::new(&wire), "reason");
        assert_eq!(refused, Err(DecodeError::Invalid("reason")));
    }
}
