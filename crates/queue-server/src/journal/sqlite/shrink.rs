//! Giving room back to the disk. When most of the database is free, its free pages are cut off at the
//! end, a few at a time, while no change waits.

use std::time::Duration;

use super::{Sqlite, schema};
use crate::journal::database::Failed;

/// How many bytes are deleted before the free pages are counted again.
pub(super) const COUNT_BYTES: u64 = 1 << 20;

/// How many free pages are always kept: 1 MiB.
const FREE_PAGES_MIN: i64 = 256;

/// How many pages are given back in one step at most...
const STEP_PAGES_MAX: usize = 64;

/// ...and of the pages that the log may have, one part in this many: each may take a few pages in the log.
const STEP_PART: usize = 16;

impl Sqlite {
    /// Gives one step of pages back, if there are too many.
    pub(super) fn shrink(&mut self) -> Result<(), Failed> {
        self.freed_bytes = 0;
        let was_shrinking = self.is_shrinking;
        let freed = self.free_pages();
        self.is_shrinking = freed.map_err(|error| self.failed(error.into()))?;
        // The file gets shorter when the log is copied into it.
        if was_shrinking && !self.is_shrinking {
            self.shorten_log(0)
        } else {
            self.shorten_log(self.files.log_pages_max())
        }
    }

    /// Cuts some free pages off, if there are too many. Returns whether there were.
    fn free_pages(&self) -> rusqlite::Result<bool> {
        let free = schema::number(&self.db, "freelist_count")?;
        let pages = schema::number(&self.db, "page_count")?;
        let used = pages - free;
        let kept = if self.is_shrinking {
            used / 4
        } else {
            used + FREE_PAGES_MIN
        };
        if free <= kept || !schema::can_shrink(&self.db)? {
            return Ok(false);
        }
        // It waits for nobody.
        self.db.busy_timeout(Duration::ZERO)?;
        let step_pages = self
            .files
            .log_pages_max()
            .div_ceil(STEP_PART)
            .min(STEP_PAGES_MAX);
        let mut vacuum = self
            .db
            .prepare(&format!("PRAGMA incremental_vacuum({step_pages})"))?;
        // It makes a row of each page, and is committed behind the last: only then, SQLite says how long
        // the log is.
        let mut given_back = vacuum.query([])?;
        while given_back.next()?.is_some() {}
        Ok(true)
    }
}
