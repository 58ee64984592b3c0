//! The fields a frame's payload is made of: big-endian integers, names, and the rest.

use std::fmt;

use crate::queue::DURATION_DAYS_MAX;

/// Reads the fields of one payload in order. Every `Err` means that the payload ended early or
/// holds something the field does not allow.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// Why a payload is not the message its kind says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadError {
    /// The payload ended inside the named field.
    Incomplete(&'static str),
    /// The named field holds a value it may not hold.
    Invalid(&'static str),
    /// The named field holds a time longer than [`crate::queue::DURATION_MAX`].
    DurationTooLong(&'static str),
    /// Bytes were left over behind the last field.
    LeftOver(usize),
    /// No message has this kind.
    UnknownKind(u8),
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete(field) => write!(f, "the frame ends inside its field '{field}'"),
            Self::Invalid(field) => write!(f, "the frame's field '{field}' has no valid value"),
            Self::DurationTooLong(field) => {
                write!(f, "the {field} exceeds {DURATION_DAYS_MAX} days")
            }
            Self::LeftOver(bytes) => write!(f, "the frame has {bytes} bytes too many"),
            Self::UnknownKind(kind) => write!(f, "no message has the kind 0x{kind:02x}"),
        }
    }
}

impl std::error::Error for PayloadError {}

impl<'a> Fields<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    pub(crate) fn take<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], PayloadError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(PayloadError::Incomplete(field))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, PayloadError> {
        Ok(u8::from_be_bytes(self.take(field)?))
    }

    /// A u8 that is 0 or 1.
    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, PayloadError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(PayloadError::Invalid(field)),
        }
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, PayloadError> {
        Ok(u32::from_be_bytes(self.take(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, PayloadError> {
        Ok(u64::from_be_bytes(self.take(field)?))
    }

    /// A u8 length and that many bytes of UTF-8.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<&'a str, PayloadError> {
        let length = usize::from(self.u8(field)?);
        let (name, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(PayloadError::Incomplete(field))?;
        self.rest = rest;
        std::str::from_utf8(name).map_err(|_| PayloadError::Invalid(field))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left, as the last field of a message.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Everything that is left, as UTF-8.
    pub(crate) fn rest_text(self, field: &'static str) -> Result<&'a str, PayloadError> {
        std::str::from_utf8(self.rest).map_err(|_| PayloadError::Invalid(field))
    }

    /// Ends a message that has no `rest`: nothing may be left over.
    pub(crate) fn end(self) -> Result<(), PayloadError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(PayloadError::LeftOver(bytes)),
        }
    }
}

/// Appends a name: its length as a u8, then its bytes.
///
/// # Panics
/// If the name is longer than 255 bytes; names are checked where they are made.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    let length = u8::try_from(name.len()).expect("a name is at most 69 bytes");
    out.push(length);
    out.extend_from_slice(name.as_bytes());
}
