//! The write-ahead log: when it is copied into the database, and what is refused while it cannot be
//! copied.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;

use super::causes::{io_error, is_lack_of_room, is_locked};
use super::{LOCKED_WAIT, Sqlite};
use crate::journal::database::Failed;

/// While another program reads the database, the log cannot be written from its start again. At this
/// many times its usual length, no new messages are taken.
const READ_LOG_FACTOR: usize = 16;

/// Why the log could not be copied into the database.
pub(super) struct Stuck {
    /// With more pages than this, no new messages are taken.
    pages_max: usize,
    why: String,
}

impl Sqlite {
    /// Notes whether the log was copied, and logs the first time that it was not.
    fn note_checkpoint(&mut self, copied: rusqlite::Result<bool>) {
        let was_stuck = self.stuck.is_some();
        let log_pages_max = self.files.log_pages_max();
        self.stuck = match copied {
            Ok(true) => {
                self.log_pages.store(0, Ordering::Relaxed);
                None
            }
            Ok(false) => {
                if !was_stuck {
                    log::warn!("The log grows because another program reads the database");
                }
                Some(Stuck {
                    pages_max: READ_LOG_FACTOR * log_pages_max,
                    why: "another program reads the database".to_owned(),
                })
            }
            Err(error) => {
                if !was_stuck {
                    log::error!("The log cannot be copied into the database: {error}");
                }
                Some(Stuck {
                    pages_max: log_pages_max,
                    why: error.to_string(),
                })
            }
        };
    }

    /// Copies the log into the database when it has more pages than this.
    pub(super) fn shorten_log(&mut self, pages: usize) -> Result<(), Failed> {
        if self.log_pages.load(Ordering::Relaxed) <= pages {
            return Ok(());
        }
        match checkpoint(&self.db, "PASSIVE") {
            Err(error) if !is_lack_of_room(&error) && !is_locked(&error) => {
                Err(Failed::Lost(io_error(error, || None)))
            }
            copied => {
                self.note_checkpoint(copied);
                Ok(())
            }
        }
    }

    /// Refuses new messages while the log is too long and cannot be copied, or while the room that
    /// acknowledgements need cannot be reserved.
    pub(super) fn make_room(&mut self) -> Result<(), Failed> {
        if self.stuck.is_some() {
            self.shorten_log(self.files.log_pages_max())?;
        }
        let log_pages = self.log_pages.load(Ordering::Relaxed);
        if let Some(Stuck { pages_max, why }) = &self.stuck
            && log_pages > *pages_max
        {
            let why = format!("the database's log is full and cannot be copied: {why}");
            let cause = io::Error::new(io::ErrorKind::StorageFull, why);
            return Err(Failed::NoRoom(cause));
        }
        self.files.reserve_log(log_pages).map_err(Failed::NoRoom)
    }
}

/// Copies the log into the database. Returns whether all of it could be copied.
pub(super) fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<bool> {
    // It waits for nobody: what cannot be copied now is copied later.
    db.busy_timeout(Duration::ZERO)?;
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    let copied = db.query_row(&pragma, [], |row| {
        let (busy, log, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == copied)
    });
    db.busy_timeout(LOCKED_WAIT)?;
    copied
}
