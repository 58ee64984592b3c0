//! Why a row has no result, or the whole run failed.

use std::io;

use cli::{Exit, Failure};
use thiserror::Error;

use crate::conversation::Wrong;

/// What can go wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// `--only` leaves no row.
    #[error("no row has '{0}' in its name (see --list)")]
    NoRow(String),
    /// A program is not installed. The rows that need it are skipped.
    #[error("no {0}")]
    Missing(&'static str),
    /// A program of ours is not beside the bench.
    #[error("{0} is not built (see scripts/bench.sh)")]
    NotBuilt(&'static str),
    /// The system allows fewer descriptors than a row needs. The row is skipped.
    #[error("needs {needed} descriptors, ulimit -Hn is {allowed}")]
    Descriptors {
        /// How many it needs.
        needed: u64,
        /// How many a process may have.
        allowed: u64,
    },
    /// A system call failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A server ended by itself.
    #[error("'{command}' ended: {}", log.trim_end())]
    Ended {
        /// Its command line.
        command: String,
        /// The end of its log.
        log: String,
    },
    /// A server did not answer in time.
    #[error("'{who}': no answer within {secs} s")]
    Silent {
        /// Its command line, or who waited.
        who: String,
        /// How long it had, in seconds.
        secs: u64,
    },
    /// No operation was completed in the measured time, so there is nothing to compare.
    #[error("no operation in the measured time")]
    NoOperation,
    /// A server gave a wrong answer.
    #[error("wrong answer")]
    Wrong(#[from] Wrong),
    /// One side of a row failed.
    #[error("{side}")]
    Side {
        /// "ours" or "theirs".
        side: &'static str,
        /// How.
        #[source]
        cause: Box<Error>,
    },
    /// The run is over, and some rows are not as they should be.
    #[error("bars missed: {missed}, rows that failed: {failed}")]
    Unmet {
        /// Bars missed.
        missed: usize,
        /// Rows without a result.
        failed: usize,
    },
}

impl Error {
    /// Turns the failure of a system call into an error that says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }

    /// Says which side of a row failed.
    pub fn of(side: &'static str) -> impl FnOnce(Self) -> Self {
        move |cause| Self::Side {
            side,
            cause: Box::new(cause),
        }
    }

    /// Whether the row is skipped, which is no failure of the run.
    pub fn is_skip(&self) -> bool {
        match self {
            Self::Side { cause, .. } => cause.is_skip(),
            other => matches!(other, Self::Missing(_) | Self::Descriptors { .. }),
        }
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Side { cause, .. } => cause.exit(),
            Self::Unmet { .. } | Self::Wrong(_) => Exit::Refused,
            Self::Silent { .. } | Self::NoOperation | Self::Ended { .. } => Exit::Network,
            Self::NoRow(_)
            | Self::Missing(_)
            | Self::NotBuilt(_)
            | Self::Descriptors { .. }
            | Self::Io { .. } => Exit::Local,
        }
    }
}
