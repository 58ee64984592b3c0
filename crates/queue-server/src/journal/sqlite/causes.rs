//! What an error of SQLite means.

use std::io;

use rusqlite::{ErrorCode, ffi};
use rustix::io::Errno;

/// Why a transaction was not committed.
pub(super) enum WriteError {
    /// The database cannot grow.
    NoRoom(io::Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Whether there is no room, or a write failed. Nothing that was committed is in doubt then.
pub(super) fn is_lack_of_room(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_FULL | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE)
    )
}

/// Whether a sync failed. Nobody knows what is on the disk then.
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    )
}

/// Whether another program has locked the database.
pub(super) fn is_locked(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// The cause in the system's words. If SQLite only says that a write failed, `write_error` finds out
/// why.
pub(super) fn io_error(
    error: rusqlite::Error,
    write_error: impl FnOnce() -> Option<io::Error>,
) -> io::Error {
    let of_write = match error.sqlite_error() {
        Some(sqlite) if sqlite.extended_code == ffi::SQLITE_IOERR_WRITE => write_error(),
        Some(_) | None => None,
    };
    if let Some(cause) = of_write {
        return cause;
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Errno::NOSPC.into(),
        Some(ErrorCode::ReadOnly) => io::Error::new(io::ErrorKind::ReadOnlyFilesystem, error),
        Some(ErrorCode::DatabaseBusy) => io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the database is locked by another program",
        ),
        Some(_) | None => io::Error::other(error),
    }
}
