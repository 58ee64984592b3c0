//! The options of a command line, each known by name until the program reads it.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::value::{Number, duration, number, size, value};
use crate::UsageError;

/// An option that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// Its name, with its dashes.
    pub name: &'static str,
    pub(super) short: Option<char>,
    pub(super) has_value: bool,
    /// Whether the value may be left out. Then only `=` stands before one.
    pub(super) is_optional: bool,
    pub(super) may_repeat: bool,
    /// What an option is told that is no longer there.
    pub(crate) gone: Option<&'static str>,
}

impl Opt {
    /// An option without a value. To give it twice is to give it once.
    pub const fn flag(name: &'static str) -> Self {
        Self {
            name,
            short: None,
            has_value: false,
            is_optional: false,
            may_repeat: false,
            gone: None,
        }
    }

    /// An option with a value, which can be given once.
    pub const fn value(name: &'static str) -> Self {
        Self {
            has_value: true,
            ..Self::flag(name)
        }
    }

    /// An option whose value can be left out, and is empty then; with one it is `--name=value`.
    pub const fn optional(name: &'static str) -> Self {
        Self {
            is_optional: true,
            ..Self::value(name)
        }
    }

    /// An option with a value, which can be given several times.
    pub const fn list(name: &'static str) -> Self {
        Self {
            may_repeat: true,
            ..Self::value(name)
        }
    }

    /// An option that is no longer there; the sentence names what is there instead.
    pub const fn gone(name: &'static str, sentence: &'static str) -> Self {
        Self {
            gone: Some(sentence),
            ..Self::flag(name)
        }
    }

    /// The same with a letter that stands for it.
    pub const fn short(self, letter: char) -> Self {
        Self {
            short: Some(letter),
            ..self
        }
    }
}

/// The options that were given and not read yet. Each method reads one and removes it; `None` means
/// that it was not given.
#[derive(Debug, Default)]
pub struct Options(Vec<(&'static str, OsString)>);

impl Options {
    pub(super) fn add(&mut self, option: &Opt, value: OsString) -> Result<(), UsageError> {
        if self.has(option.name) && !option.may_repeat {
            return Err(UsageError::Twice(option.name));
        }
        self.0.push((option.name, value));
        Ok(())
    }

    pub(super) fn add_flag(&mut self, option: &Opt) {
        if !self.has(option.name) {
            self.0.push((option.name, OsString::new()));
        }
    }

    /// Whether an option was given and not read yet.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    /// An option's value as it stands. For an option that may be repeated, the first that is left.
    pub fn raw(&mut self, name: &str) -> Option<OsString> {
        let index = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.remove(index).1)
    }

    /// Whether an option without a value was given.
    pub fn flag(&mut self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A path.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// A value that `FromStr` parses; `want` says what would be right.
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn value<T: FromStr>(
        &mut self,
        name: &'static str,
        want: &str,
    ) -> Result<Option<T>, UsageError> {
        let word = self.raw(name);
        word.map(|word| value(name, &word, want)).transpose()
    }

    /// A whole number within a range.
    ///
    /// # Errors
    /// [`UsageError::Value`], with the range.
    pub fn number<N: Number>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<N>,
    ) -> Result<Option<N>, UsageError> {
        let word = self.raw(name);
        word.map(|word| number(name, &word, range)).transpose()
    }

    /// A number of bytes within a range.
    ///
    /// # Errors
    /// [`UsageError::Value`], with the range.
    pub fn size<N: Number>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<N>,
    ) -> Result<Option<N>, UsageError> {
        let word = self.raw(name);
        word.map(|word| size(name, &word, range)).transpose()
    }

    /// A duration within a range.
    ///
    /// # Errors
    /// [`UsageError::Value`], with the range.
    pub fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, UsageError> {
        let word = self.raw(name);
        word.map(|word| duration(name, &word, range)).transpose()
    }

    /// Ends the options: one that is left is none of this verb's.
    ///
    /// # Errors
    /// [`UsageError::Misplaced`].
    pub(super) fn end(mut self, verb: Option<&'static str>) -> Result<(), UsageError> {
        match self.0.pop() {
            None => Ok(()),
            Some((option, _)) => Err(UsageError::Misplaced { option, verb }),
        }
    }
}
