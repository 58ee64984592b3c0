//! Helpers over `lexopt` for reading a command line.
//!
//! Every binary's `parse` function is one `while let Some(arg) = parser.next()?` with a `match`;
//! what stands here turns the values it finds into types, with one kind of error sentence.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<C> {
    /// To run.
    Run {
        /// With what.
        config: C,
        /// Whether to log a line for every request (`-v`).
        verbose: bool,
    },
    /// To print the help.
    Help,
    /// To print the version.
    Version,
}

/// What is wrong with a command line.
#[derive(Debug)]
#[non_exhaustive]
pub enum UsageError {
    /// An option is unknown, or lacks its value.
    Option(lexopt::Error),
    /// A value is not what its place wants.
    Value {
        /// The option or argument.
        what: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        want: String,
    },
    /// An argument is missing.
    Missing(&'static str),
    /// There is an argument too many.
    Unexpected(String),
    /// The option is one of another verb's.
    Misplaced {
        /// The option, with its dashes.
        option: String,
        /// The verb.
        verb: String,
    },
    /// Two things do not go together, or one needs another; the sentence says which.
    Conflict(&'static str),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(error) => error.fmt(f),
            Self::Value { what, value, want } => {
                write!(f, "{what} must be {want}, not '{}'", value.escape_debug())
            }
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Unexpected(word) => {
                write!(
                    f,
                    "there is one argument too many: '{}'",
                    word.escape_debug()
                )
            }
            Self::Misplaced { option, verb } => write!(f, "{option} does not go with {verb}"),
            Self::Conflict(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for UsageError {}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self::Option(error)
    }
}

/// Parses a value with `FromStr`; `want` says what would be right ("a port from 0 to 65535").
///
/// # Errors
/// [`UsageError::Value`].
pub fn value<T: FromStr>(
    what: &'static str,
    value: &OsStr,
    want: impl Into<String>,
) -> Result<T, UsageError> {
    let parsed = value.to_str().and_then(|value| value.parse().ok());
    parsed.ok_or_else(|| UsageError::Value {
        what,
        value: value.to_string_lossy().into_owned(),
        want: want.into(),
    })
}

/// Parses a whole number within a range.
///
/// # Errors
/// [`UsageError::Value`], with the range.
pub fn number(
    what: &'static str,
    word: &OsStr,
    range: RangeInclusive<u64>,
) -> Result<u64, UsageError> {
    let want = || format!("a number from {} to {}", range.start(), range.end());
    let number: u64 = value(what, word, want())?;
    if range.contains(&number) {
        return Ok(number);
    }
    Err(UsageError::Value {
        what,
        value: number.to_string(),
        want: want(),
    })
}

/// Parses a port; 0 lets a server take a free one.
///
/// # Errors
/// [`UsageError::Value`].
pub fn port(what: &'static str, word: &OsStr) -> Result<u16, UsageError> {
    value(what, word, "a port from 0 to 65535")
}

/// Parses a number of seconds; a fraction is allowed.
///
/// # Errors
/// [`UsageError::Value`].
pub fn seconds(what: &'static str, word: &OsStr) -> Result<Duration, UsageError> {
    /// A year: as good as forever, and far from where a sum with a clock could overflow.
    const SECONDS_MAX: f64 = 365.0 * 24.0 * 3600.0;
    let want = "a number of seconds from 0 to 31536000";
    let seconds: f64 = value(what, word, want)?;
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(UsageError::Value {
        what,
        value: seconds.to_string(),
        want: want.to_owned(),
    })
}

/// Parses the value of `--timeout`: seconds, more than 0.
///
/// # Errors
/// [`UsageError::Value`].
pub fn timeout(word: &OsStr) -> Result<Duration, UsageError> {
    positive_seconds("--timeout", word)
}

/// Parses a number of seconds that is not 0.
///
/// # Errors
/// [`UsageError::Value`].
pub fn positive_seconds(what: &'static str, word: &OsStr) -> Result<Duration, UsageError> {
    let time = seconds(what, word)?;
    match time.is_zero() {
        true => Err(UsageError::Value {
            what,
            value: word.to_string_lossy().into_owned(),
            want: "more than 0 seconds".to_owned(),
        }),
        false => Ok(time),
    }
}

/// The arguments of a command line that are not options, in order.
#[derive(Debug, Default)]
pub struct Words(VecDeque<OsString>);

impl Words {
    /// Appends one.
    pub fn push(&mut self, word: OsString) {
        self.0.push_back(word);
    }

    /// Takes the next word, if there is one.
    pub fn take(&mut self) -> Option<OsString> {
        self.0.pop_front()
    }

    /// Takes the next word.
    ///
    /// # Errors
    /// [`UsageError::Missing`], naming `what`.
    pub fn required(&mut self, what: &'static str) -> Result<OsString, UsageError> {
        self.take().ok_or(UsageError::Missing(what))
    }

    /// Takes the next word as text.
    ///
    /// # Errors
    /// [`UsageError::Missing`] or, if it is not UTF-8, [`UsageError::Value`].
    pub fn required_text(&mut self, what: &'static str) -> Result<String, UsageError> {
        value(what, &self.required(what)?, "valid UTF-8")
    }

    /// Takes a port.
    ///
    /// # Errors
    /// [`UsageError::Missing`] or [`UsageError::Value`].
    pub fn required_port(&mut self, what: &'static str) -> Result<u16, UsageError> {
        port(what, &self.required(what)?)
    }

    /// Whether the next word starts an endpoint: there is one, and it is none of the verbs, in
    /// any case.
    pub fn starts_with_host(&self, verbs: &[&str]) -> bool {
        self.0
            .front()
            .is_some_and(|word| !verbs.iter().any(|verb| word.eq_ignore_ascii_case(verb)))
    }

    /// Ends the command line.
    ///
    /// # Errors
    /// [`UsageError::Unexpected`] if a word is left.
    pub fn end(mut self) -> Result<(), UsageError> {
        match self.take() {
            None => Ok(()),
            Some(word) => Err(UsageError::Unexpected(word.to_string_lossy().into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_their_range() {
        let parse = |word: &str| number("N", OsStr::new(word), 1..=9).map_err(|e| e.to_string());
        assert_eq!(parse("9"), Ok(9));
        for bad in ["0", "10", "", "x", "1.5"] {
            assert_eq!(
                parse(bad),
                Err(format!("N must be a number from 1 to 9, not '{bad}'"))
            );
        }
    }

    #[test]
    fn seconds_are_bounded() {
        let parse = |word: &str| seconds("SECS", OsStr::new(word)).ok();
        assert_eq!(parse("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("0"), Some(Duration::ZERO));
        for bad in ["-1", "NaN", "inf", "1e99", "x", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_are_taken_in_order() {
        let mut words = Words::default();
        for word in ["localhost", "80", "extra"] {
            words.push(word.into());
        }
        assert!(words.starts_with_host(&["send"]));
        assert!(!words.starts_with_host(&["LOCALHOST"]));
        assert_eq!(words.required_text("HOST").unwrap(), "localhost");
        assert_eq!(words.required_port("PORT").unwrap(), 80);
        assert_eq!(
            words.end().unwrap_err().to_string(),
            "there is one argument too many: 'extra'"
        );
        assert_eq!(
            Words::default().required("VERB").unwrap_err().to_string(),
            "VERB is missing"
        );
    }
}
