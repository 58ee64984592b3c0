//! Names of queues.

use std::borrow::Cow;
use std::fmt;
use std::iter;

use crate::error::DecodeError;
use crate::fields::{Field, Fields, put_name};

/// The longest name of a queue, in bytes, not counting a [`QueueName::DEAD_SUFFIX`].
pub const NAME_BYTES_MAX: usize = 64;

/// The name of a queue: 1 to 64 of `A-Z a-z 0-9 . _ -`. The dead letters of the queue `NAME` are in the
/// queue `NAME.dead`, so a name may be longer by that suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueName<'a>(&'a str);

/// Text that is no name of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a queue's name is 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
pub struct BadName;

impl<'a> QueueName<'a> {
    /// The queue of a client that names none.
    pub const DEFAULT: QueueName<'static> = QueueName("default");

    /// What the name of a queue of dead letters ends with.
    pub const DEAD_SUFFIX: &'static str = ".dead";

    /// Checks a name.
    ///
    /// # Errors
    /// If it is empty, too long, or has a character that no name may have.
    pub fn new(name: &'a str) -> Result<Self, BadName> {
        let counted = name.strip_suffix(Self::DEAD_SUFFIX).unwrap_or(name);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=NAME_BYTES_MAX).contains(&counted.len()) && name.bytes().all(is_allowed);
        is_name.then_some(Self(name)).ok_or(BadName)
    }

    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether this is a queue of dead letters: nothing moves on from it by itself.
    pub fn is_dead(self) -> bool {
        self.0.ends_with(Self::DEAD_SUFFIX)
    }

    /// The name of the queue that holds this one's dead letters.
    pub fn dead(self) -> String {
        format!("{}{}", self.0, Self::DEAD_SUFFIX)
    }
}

impl fmt::Display for QueueName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'a> Field<'a> for QueueName<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        put_name(out, self.as_str());
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        Self::new(fields.name(name)?).map_err(|_| DecodeError::Invalid(name))
    }
}

/// The most queues that one request may name.
pub const QUEUES_ASKED_MAX: usize = 16;

/// The queues that a receiver asks, in this order: 1 to [`QUEUES_ASKED_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueNames<'a> {
    first: QueueName<'a>,
    /// Nearly always empty, and then it takes no memory.
    others: Vec<QueueName<'a>>,
}

impl<'a> QueueNames<'a> {
    /// `None` if there are none, or too many.
    pub fn new(names: impl IntoIterator<Item = QueueName<'a>>) -> Option<Self> {
        let mut names = names.into_iter();
        let first = names.next()?;
        let others: Vec<_> = names.take(QUEUES_ASKED_MAX).collect();
        (others.len() < QUEUES_ASKED_MAX).then_some(Self { first, others })
    }

    /// The one that is asked first.
    pub fn first(&self) -> QueueName<'a> {
        self.first
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = QueueName<'a>> + '_ {
        iter::once(self.first).chain(self.others.iter().copied())
    }

    /// The only one, if there are no others.
    pub fn only(&self) -> Option<QueueName<'a>> {
        self.others.is_empty().then_some(self.first)
    }
}

impl<'a> From<QueueName<'a>> for QueueNames<'a> {
    fn from(first: QueueName<'a>) -> Self {
        let others = Vec::new();
        Self { first, others }
    }
}

/// A u8 with how many there are, and that many names.
impl<'a> Field<'a> for QueueNames<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        let count = u8::try_from(1 + self.others.len()).expect("there are at most 16");
        count.write(out);
        self.iter().for_each(|name| name.write(out));
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        let count = usize::from(u8::read(fields, name)?);
        if !(1..=QUEUES_ASKED_MAX).contains(&count) {
            return Err(DecodeError::Invalid(name));
        }
        Ok(Self {
            first: QueueName::read(fields, name)?,
            others: (1..count)
                .map(|_| QueueName::read(fields, name))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The name of a queue, once it has been checked.
impl<'a> Field<'a> for Cow<'a, str> {
    fn write(&self, out: &mut Vec<u8>) {
        put_name(out, self);
    }

    fn read(fields: &mut Fields<'a>, name: &'static str) -> Result<Self, DecodeError> {
        QueueName::read(fields, name).map(|name| name.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let long = "x".repeat(NAME_BYTES_MAX);
        let dead = format!("{long}.dead");
        for good in ["default", "a", "A-Z_0.9", long.as_str(), dead.as_str()] {
            assert_eq!(QueueName::new(good).map(QueueName::as_str), Ok(good));
        }
        let too_long = format!("{long}x");
        let dead = format!("{too_long}.dead");
        for bad in ["", ".dead", "a b", "a/b", "ä", "a\n", &too_long, &dead] {
            assert_eq!(QueueName::new(bad), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn as_many_queues_are_asked_as_may() {
        let names = |count| QueueNames::new(iter::repeat_n(QueueName::DEFAULT, count));
        assert_eq!(names(0), None);
        assert_eq!(names(1), Some(QueueName::DEFAULT.into()));
        assert_eq!(names(1).unwrap().only(), Some(QueueName::DEFAULT));
        let most = names(QUEUES_ASKED_MAX).unwrap();
        assert_eq!((most.iter().count(), most.only()), (QUEUES_ASKED_MAX, None));
        assert_eq!(names(QUEUES_ASKED_MAX + 1), None);
    }

    #[test]
    fn a_dead_queue_has_a_name_of_its_own() {
        let jobs = QueueName::new("jobs").unwrap();
        let dead = jobs.dead();
        let dead = QueueName::new(&dead).unwrap();
        assert_eq!(dead.as_str(), "jobs.dead");
        assert!(dead.is_dead() && !jobs.is_dead());
    }
}
