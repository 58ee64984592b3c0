//! What a message has beside its body.

use crate::error::DecodeError;
use crate::fields::{Field, Fields};

/// How urgent a message is: 0 to 9, the higher first. Within one priority the first in is the first out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
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
