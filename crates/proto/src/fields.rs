//! The fields that a message is made of, and how each type is written.
//!
//! Integers are big-endian. A name is a u8 length and that many bytes. Text and bytes without a length
//! are the last field of their message: they are the rest of the frame.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::error::DecodeError;

/// The longest delay, wait or lease: 49 days, a little less than the milliseconds of a u32 can say.
pub const DURATION_MAX: Duration = Duration::from_secs(49 * 24 * 3600);

/// What is left of a payload while its fields are read in order.
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// A type that can stand in a message.
pub(crate) trait Field<'a>: Sized {
    /// Appends the field.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads the next field. Its name is for the error: the payload ends inside the field, or the
    /// field holds a value that it may not hold.
    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError>;
}

impl<'a> Fields<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The next `N` bytes.
    fn array<const N: usize>(&mut self, name: &'static str) -> Result<[u8; N], DecodeError> {
        let split = self.rest.split_first_chunk();
        let (bytes, rest) = split.ok_or(DecodeError::Incomplete(name))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A u8 length and that many bytes of UTF-8.
    pub(crate) fn name(&mut self, name: &'static str) -> Result<&'a str, DecodeError> {
        let length = u8::read(self, name)?;
        self.text(length.into(), name)
    }

    /// This many bytes of UTF-8.
    pub(crate) fn text(
        &mut self,
        length: usize,
        name: &'static str,
    ) -> Result<&'a str, DecodeError> {
        let split = self.rest.split_at_checked(length);
        let (text, rest) = split.ok_or(DecodeError::Incomplete(name))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| DecodeError::Invalid(name))
    }

    /// Ends a message: no byte may be left over.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::LeftOver(bytes)),
        }
    }
}

/// Appends a name: its length as a u8, then its bytes.
///
/// # Panics
/// If the name is longer than 255 bytes; names are checked where they are made.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &str) {
    let length = u8::try_from(name.len()).expect("a name is at most 255 bytes");
    out.push(length);
    out.extend_from_slice(name.as_bytes());
}

impl Field<'_> for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        Ok(Self::from_be_bytes(fields.array(name)?))
    }
}

impl Field<'_> for u16 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        Ok(Self::from_be_bytes(fields.array(name)?))
    }
}

/// 0 or 1.
impl Field<'_> for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        match u8::read(fields, name)? {
            0 => Ok(false),
            1 => Ok(true),
            2.. => Err(DecodeError::Invalid(name)),
        }
    }
}

/// A count; or, if the field's name ends in `_millis`, a duration. One that exceeds the longest is
/// refused here, where every request comes through, and never cut.
impl Field<'_> for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        let value = Self::from_be_bytes(fields.array(name)?);
        match name.strip_suffix("_millis") {
            Some(duration) if u128::from(value) > DURATION_MAX.as_millis() => {
                Err(DecodeError::DurationTooLong(duration))
            }
            Some(_) | None => Ok(value),
        }
    }
}

impl Field<'_> for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        Ok(Self::from_be_bytes(fields.array(name)?))
    }
}

impl Field<'_> for Uuid {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(fields: &mut Fields, name: &'static str) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(fields.array(name)?))
    }
}

/// A text of at most 255 bytes that is not the last field: a name, or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Name<'a>(pub &'a str);

impl<'a> Field<'a> for Name<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        put_name(out, self.0);
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        fields.name(name).map(Self)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(fields: &mut Fields<'a>, _: &'static str) -> Result<Self, DecodeError> {
        Ok(fields.rest())
    }
}

impl<'a> Field<'a> for &'a str {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        std::str::from_utf8(fields.rest()).map_err(|_| DecodeError::Invalid(name))
    }
}

/// As many as fill the rest of the frame.
impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|field| field.write(out));
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        let mut all = Self::new();
        while !fields.rest.is_empty() {
            all.push(T::read(fields, name)?);
        }
        Ok(all)
    }
}
