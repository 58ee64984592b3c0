//! The options of a command line, until somebody takes them.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{DURATION_MAX, UsageError, duration, number, size, value};
use crate::Endpoint;

/// An option that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// Its name, with its dashes.
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) has_value: bool,
    pub(super) may_repeat: bool,
}

impl Opt {
    /// An option without a value. To give it twice is to give it once.
    pub const fn flag(name: &'static str) -> Self {
        Self {
            name,
            short: None,
            has_value: false,
            may_repeat: false,
        }
    }

    /// An option with a value, which can be given once.
    pub const fn value(name: &'static str) -> Self {
        Self {
            has_value: true,
            ..Self::flag(name)
        }
    }

    /// An option with a value, which can be given several times.
    pub const fn list(name: &'static str) -> Self {
        Self {
            may_repeat: true,
            ..Self::value(name)
        }
    }

    /// The same with a letter that stands for it.
    pub const fn short(self, letter: char) -> Self {
        Self {
            short: Some(letter),
            ..self
        }
    }

    /// What every client takes; see [`Given::patience`].
    pub const CLIENT: &[Self] = &[
        Self::value("--timeout"),
        Self::value("--wait-for-server"),
        Self::flag("--quiet").short('q'),
    ];
}

/// The options that were given, until they are taken.
#[derive(Debug, Default)]
pub struct Given(Vec<(&'static str, OsString)>);

impl Given {
    pub(super) fn add(&mut self, option: &Opt, value: OsString) -> Result<(), UsageError> {
        if self.has(option.name) && !option.may_repeat {
            return Err(UsageError::Twice(option.name));
        }
        self.0.push((option.name, value));
        Ok(())
    }

    pub(super) fn add_flag(&mut self, name: &'static str) {
        if !self.has(name) {
            self.0.push((name, OsString::new()));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    /// Takes the value of an option, as it stands.
    pub fn take(&mut self, name: &str) -> Option<OsString> {
        let at = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.remove(at).1)
    }

    /// Takes an option without a value; whether it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    /// Takes the path that an option names.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.take(name).map(PathBuf::from)
    }

    /// Takes a value that `FromStr` parses; `want` says what would be right.
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn value<T: FromStr>(
        &mut self,
        name: &'static str,
        want: &str,
    ) -> Result<Option<T>, UsageError> {
        let given = self.take(name);
        given.map(|word| value(name, &word, want)).transpose()
    }

    /// Takes a whole number within a range.
    ///
    /// # Errors
    /// [`UsageError::Value`], with the range.
    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, UsageError> {
        let given = self.take(name);
        given.map(|word| number(name, &word, range)).transpose()
    }

    /// Takes a number of bytes within a range.
    ///
    /// # Errors
    /// [`UsageError::Value`], with the range.
    pub fn size(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, UsageError> {
        let given = self.take(name);
        given.map(|word| size(name, &word, range)).transpose()
    }

    /// Takes a duration within a range.
    ///
    /// # Errors
    /// [`UsageError::Value`], with the range.
    pub fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, UsageError> {
        let given = self.take(name);
        given.map(|word| duration(name, &word, range)).transpose()
    }

    /// Takes the names of the hosts that a server answers for over HTTP (`--host`).
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn hosts(&mut self) -> Result<Vec<String>, UsageError> {
        const NAME: &str = "--host";
        let mut hosts = Vec::new();
        while let Some(word) = self.take(NAME) {
            let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
            let host = word.to_str().filter(|host| !host.is_empty());
            let Some(host) = host.filter(|host| host.bytes().all(is_host_byte)) else {
                let want = "the name of a host, without a port, such as files.example.com";
                return Err(UsageError::value(NAME, &word, want));
            };
            hosts.push(host.to_owned());
        }
        Ok(hosts)
    }

    /// Takes how long a client waits: `--timeout` and `--wait-for-server`.
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn patience(&mut self, server: &mut Endpoint) -> Result<(), UsageError> {
        /// The shortest timeout: none is zero.
        const TIMEOUT_MIN: Duration = Duration::from_millis(1);
        if let Some(timeout) = self.duration("--timeout", TIMEOUT_MIN..=DURATION_MAX)? {
            server.timeout = timeout;
        }
        if let Some(wait) = self.duration("--wait-for-server", Duration::ZERO..=DURATION_MAX)? {
            server.wait_for_server = wait;
        }
        Ok(())
    }

    /// Ends the options: what is left is none of this verb's.
    ///
    /// # Errors
    /// [`UsageError::Misplaced`].
    pub fn end(mut self, verb: Option<&'static str>) -> Result<(), UsageError> {
        match self.0.pop() {
            None => Ok(()),
            Some((option, _)) => Err(UsageError::Misplaced { option, verb }),
        }
    }
}
