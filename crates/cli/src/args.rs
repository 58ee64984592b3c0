//! Reading a command line, over `lexopt`.
//!
//! [`split`] tells options from words by the program's tables of options, since a verb may stand
//! behind its options. A program then takes what it understands: options out of [`Given`], words out
//! of [`Words`]. What is left at the end is an error, and so no option is ever ignored.

mod given;
mod near;
mod quantity;
mod words;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use lexopt::Arg;

pub use given::{Given, Opt};
pub use quantity::{DURATION_MAX, duration, size};
pub use words::{Verbs, Words};

use near::nearest;

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<C> {
    /// To run.
    Run {
        /// With what.
        config: C,
        /// How much to say.
        verbosity: Verbosity,
    },
    /// To print the help.
    Help,
    /// To print the version.
    Version,
}

/// How much a program says on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors alone (`-q`).
    Quiet,
    /// What has been done, too.
    Normal,
    /// A line for every request, too (`-v`).
    Verbose,
}

impl<C> Parsed<C> {
    /// The same with another config.
    ///
    /// # Errors
    /// Those of `understand`.
    pub fn try_map<D>(
        self,
        understand: impl FnOnce(C) -> Result<D, UsageError>,
    ) -> Result<Parsed<D>, UsageError> {
        Ok(match self {
            Self::Run { config, verbosity } => Parsed::Run {
                config: understand(config)?,
                verbosity,
            },
            Self::Help => Parsed::Help,
            Self::Version => Parsed::Version,
        })
    }
}

/// What is wrong with a command line.
#[derive(Debug)]
#[non_exhaustive]
pub enum UsageError {
    /// An option lacks its value, or has one that it does not take.
    Option(lexopt::Error),
    /// There is no such option.
    UnknownOption {
        /// What was given, with its dashes.
        option: String,
        /// The one that is nearly the same.
        nearest: Option<&'static str>,
    },
    /// There is no such verb.
    UnknownVerb {
        /// What was given.
        verb: String,
        /// The one that is nearly the same, or all of them.
        verbs: Vec<&'static str>,
        /// How a server is named, if that is what the word may have been meant for.
        server: Option<String>,
    },
    /// An option has two values.
    Twice(&'static str),
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
    /// The verb does not use this option.
    Misplaced {
        /// The option, with its dashes.
        option: &'static str,
        /// The verb; `None` if there is none.
        verb: Option<&'static str>,
    },
    /// Two things do not go together, or one needs another; the sentence says which.
    Conflict(&'static str),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(error) => error.fmt(f),
            Self::UnknownOption { option, nearest } => {
                write!(f, "unknown option '{}'", option.escape_debug())?;
                match nearest {
                    Some(nearest) => write!(f, ", did you mean {nearest}?"),
                    None => Ok(()),
                }
            }
            Self::UnknownVerb {
                verb,
                verbs,
                server,
            } => {
                write!(f, "unknown verb '{}', ", verb.escape_debug())?;
                match verbs.as_slice() {
                    [nearest] => write!(f, "did you mean {nearest}?")?,
                    all => write!(f, "the verbs are {}", all.join(", "))?,
                }
                match server {
                    Some(server) if verbs.len() > 1 => write!(f, "; a server is {server}"),
                    Some(_) | None => Ok(()),
                }
            }
            Self::Twice(option) => write!(f, "{option} is given twice"),
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
            Self::Misplaced {
                option,
                verb: Some(verb),
            } => write!(f, "{option} does not go with {verb}"),
            Self::Misplaced { option, verb: None } => write!(f, "{option} needs a verb"),
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

impl UsageError {
    fn value(what: &'static str, value: &OsStr, want: impl Into<String>) -> Self {
        Self::Value {
            what,
            value: value.to_string_lossy().into_owned(),
            want: want.into(),
        }
    }
}

/// A command line, taken apart but not yet understood.
#[derive(Debug)]
pub struct Line {
    /// What is no option.
    pub words: Words,
    /// The options.
    pub given: Given,
    /// What stands behind `--`, if it is there: more words, or a command with options of its own.
    pub behind_dashes: Option<Vec<OsString>>,
    /// Whether to say nothing but errors.
    pub is_quiet: bool,
}

impl Line {
    /// The words, with those behind `--` among them, and the options.
    pub fn into_parts(mut self) -> (Words, Given) {
        for word in self.behind_dashes.into_iter().flatten() {
            self.words.push(word);
        }
        (self.words, self.given)
    }
}

/// Tells the options of a program from its words. `-h`, `-V` and `-v` are options of all programs.
///
/// # Errors
/// If an option is unknown, lacks its value, or has two.
pub fn split(
    mut parser: lexopt::Parser,
    tables: &[&'static [Opt]],
) -> Result<Parsed<Line>, UsageError> {
    const EVERYWHERE: &[Opt] = &[
        Opt::flag("--help").short('h'),
        Opt::flag("--version").short('V'),
        Opt::flag("--verbose").short('v'),
    ];
    let options = || tables.iter().copied().flatten().chain(EVERYWHERE);
    let mut line = Line {
        words: Words::default(),
        given: Given::default(),
        behind_dashes: None,
        is_quiet: false,
    };
    loop {
        if let Some(mut rest) = parser.try_raw_args()
            && rest.next_if(|word| word == "--").is_some()
        {
            line.behind_dashes = Some(rest.collect());
            break;
        }
        let (name, known) = match parser.next()? {
            None => break,
            Some(Arg::Value(word)) => {
                line.words.push(word);
                continue;
            }
            Some(Arg::Long(name)) => {
                let known = options().find(|option| option.name[2..] == *name);
                (format!("--{name}"), known)
            }
            Some(Arg::Short(short)) => {
                let known = options().find(|option| option.short == Some(short));
                (format!("-{short}"), known)
            }
        };
        match known {
            Some(option) if option.name == "--help" => return Ok(Parsed::Help),
            Some(option) if option.name == "--version" => return Ok(Parsed::Version),
            Some(option) if option.has_value => line.given.add(option, parser.value()?)?,
            Some(option) => line.given.add_flag(option.name),
            None => {
                let nearest = nearest(&name, options().map(|option| option.name));
                let option = name;
                return Err(UsageError::UnknownOption { option, nearest });
            }
        }
    }
    let verbosity = match (line.given.flag("--quiet"), line.given.flag("--verbose")) {
        (false, false) => Verbosity::Normal,
        (false, true) => Verbosity::Verbose,
        (true, false) => Verbosity::Quiet,
        (true, true) => {
            let sentence = "--quiet and --verbose exclude each other";
            return Err(UsageError::Conflict(sentence));
        }
    };
    line.is_quiet = verbosity == Verbosity::Quiet;
    Ok(Parsed::Run {
        config: line,
        verbosity,
    })
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
    parsed.ok_or_else(|| UsageError::value(what, value, want))
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
    Err(UsageError::value(what, word, want()))
}

/// Parses a port; 0 lets a server take a free one.
///
/// # Errors
/// [`UsageError::Value`].
pub fn port(what: &'static str, word: &OsStr) -> Result<u16, UsageError> {
    value(what, word, "a port from 0 to 65535")
}

#[cfg(test)]
mod tests;
