//! Why a row, or the whole run, came to nothing.

use std::fmt;
use std::io;

use cli::{Exit, Failure};

use crate::conversation::Wrong;

/// What can go wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No row is called so.
    NoRow(String),
    /// A program is not installed. The rows that need it are skipped.
    Missing(&'static str),
    /// A program of ours is not beside the bench.
    NotBuilt(&'static str),
    /// The system allows fewer descriptors than a row needs. It is skipped.
    Descriptors {
        /// How many it needs.
        needed: u64,
        /// How many a process may have.
        allowed: u64,
    },
    /// The temporary folder is in memory, where a sync costs nothing. The row is skipped.
    NotOnDisk,
    /// A system call failed.
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// A server ended by itself.
    Ended {
        /// Its command line.
        command: String,
        /// The end of its log.
        log: String,
    },
    /// A server did not answer in time.
    Silent {
        /// Its command line, or who waited.
        who: String,
        /// For how long it was waited, in seconds.
        secs: u64,
    },
    /// Not one operation was finished in the time that counts, so there is nothing to compare.
    NoOperation,
    /// A server gave a wrong answer.
    Wrong(Wrong),
    /// One side of a row failed.
    Side {
        /// "ours" or "theirs".
        side: &'static str,
        /// How.
        cause: Box<Error>,
    },
    /// The run is over, and some rows are not as they should be.
    Unmet {
        /// Bars missed.
        missed: usize,
        /// Rows without a result, for something failed.
        failed: usize,
    },
}

impl Error {
    /// Turns the failure of a system call into an error that says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }

    /// Says which side of a row it was.
    pub fn of(side: &'static str) -> impl FnOnce(Self) -> Self {
        move |cause| Self::Side {
            side,
            cause: Box::new(cause),
        }
    }

    /// Whether the row is skipped, which is no failure of the run.
    pub fn is_skip(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::Descriptors { .. } | Self::NotOnDisk
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRow(pattern) => write!(f, "no row has '{pattern}' in its name (see --list)"),
            Self::Missing(program) => write!(f, "no {program}"),
            Self::NotBuilt(program) => write!(f, "{program} is not built (see scripts/bench.sh)"),
            Self::Descriptors { needed, allowed } => {
                write!(f, "needs {needed} descriptors, ulimit -Hn is {allowed}")
            }
            Self::NotOnDisk => f.write_str("the temporary folder is in memory (see --dir)"),
            Self::Io { what, .. } => f.write_str(what),
            Self::Ended { command, log } => write!(f, "'{command}' ended: {}", log.trim_end()),
            Self::Silent { who, secs } => write!(f, "'{who}': no answer within {secs} s"),
            Self::NoOperation => f.write_str("no operation in the measured time"),
            Self::Wrong(wrong) => write!(f, "wrong answer: {wrong}"),
            Self::Side { side, .. } => f.write_str(side),
            Self::Unmet { missed, failed } => {
                write!(f, "bars missed: {missed}, rows that failed: {failed}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Side { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Side { cause, .. } => cause.exit(),
            Self::Unmet { .. } | Self::Wrong(_) => Exit::Refused,
            Self::Silent { .. } | Self::NoOperation | Self::Ended { .. } => Exit::Network,
            _ => Exit::Local,
        }
    }
}
