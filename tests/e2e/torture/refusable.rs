//! What a server may refuse when others do something else at the same time, but what may not fail.

use proto::ErrorCode;
use queue_client::Error;

/// What was done, or `None` if it was refused.
pub fn refusable<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Refused {
            code: ErrorCode::ShuttingDown,
            ..
        }) => result.map(Some),
        Err(Error::Refused { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The same for what has nothing to tell.
pub fn done<T>(result: Result<T, Error>) -> Result<(), Error> {
    refusable(result).map(drop)
}

/// What was done over HTTP, where a refusal is a reply too.
pub fn said<T>(done: Result<Option<T>, Error>) -> Result<T, Error> {
    done?.ok_or_else(|| Error::Refused {
        code: ErrorCode::NotFound,
        sentence: "it says no".to_owned(),
    })
}
