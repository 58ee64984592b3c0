//! What an error of PostgreSQL means for a transaction.

use std::io;

use postgres::Error;
use postgres::error::SqlState;

use crate::journal::database;

/// The state of a transaction that was not committed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is undone, and may succeed if it is tried again at once.
    Again(Error),
    /// It is undone, because there was no room for it.
    NoRoom(io::Error),
    /// It is undone for another reason.
    Refused(io::Error),
    /// It is not known whether it is committed, or the connection is of no more use.
    Lost(io::Error),
}

impl Failed {
    /// What an error in front of COMMIT means. Nothing is committed then.
    pub(super) fn before_commit(error: Error) -> Self {
        let Some(code) = error.code().filter(|_| !error.is_closed()) else {
            return Self::Lost(told(error));
        };
        if is_retryable(code) {
            return Self::Again(error);
        }
        // The first two characters of a code are its class (PostgreSQL manual, appendix A).
        match code.code().get(..2) {
            // Insufficient resources.
            Some("53") => Self::NoRoom(told(error)),
            // Connection exception, operator intervention, and a transaction in a state that only ends it:
            // a primary that has become a replica refuses to write with 25006.
            Some("08" | "25" | "57") => Self::Lost(told(error)),
            // An error of the server's system or of the server itself, with damaged files for example: the
            // transaction is undone as after any other.
            Some("58" | "XX") => Self::Refused(told(error)),
            // There may be more classes than a manual knows.
            Some(_) | None => Self::Refused(told(error)),
        }
    }

    /// What an error of COMMIT means: nothing certain, unless the database says that it has undone it.
    pub(super) fn in_commit(error: Error) -> Self {
        match error.code() {
            Some(code) if is_retryable(code) => Self::Again(error),
            Some(_) | None => Self::Lost(told(error)),
        }
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Again(cause) => told(cause),
            Failed::NoRoom(cause) | Failed::Refused(cause) | Failed::Lost(cause) => cause,
        }
    }
}

impl From<Failed> for database::Failed {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Again(cause) => Self::Refused(told(cause)),
            Failed::NoRoom(cause) => Self::NoRoom(cause),
            Failed::Refused(cause) => Self::Refused(cause),
            Failed::Lost(cause) => Self::Lost(cause),
        }
    }
}

/// Whether it was undone because of another transaction.
fn is_retryable(code: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .contains(code)
}

/// In the database's words.
pub(super) fn told(error: Error) -> io::Error {
    match error.as_db_error() {
        Some(of_database) => io::Error::other(of_database.message().to_owned()),
        None => io::Error::other(error),
    }
}
