//! Opening a database, and what is done before anything in it is served.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use storage::Fsync;

use super::causes::{is_failed_sync, is_lack_of_room};
use super::files::{Database, Files};
use super::wal::checkpoint;
use super::{LOCKED_WAIT, schema, tables};
use crate::error::Error;
use crate::journal::state::State;
use crate::journal::timeline::{Moment, Resumed};

/// A database that is open and not read yet.
pub(crate) struct OpenedFile {
    // Closed before the descriptor in `files`.
    pub(super) db: Connection,
    pub(super) files: Files,
    pub(super) path: PathBuf,
    pub(super) log_pages: Arc<AtomicUsize>,
    pub(super) state: Option<State>,
    pub(super) resumed: Resumed,
}

impl OpenedFile {
    /// Opens or makes a database.
    pub(crate) fn open(path: &Path, fsync: Fsync) -> Result<Self, Error> {
        let database = Database::open(path)?;
        let has_log = fs::metadata(database.log_path()).is_ok_and(|log| log.len() > 0);
        let failed = Error::sqlite(path);
        // Without SQLITE_OPEN_URI, no name means anything but a file.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(database.path(), flags).map_err(&failed)?;
        // The journal does itself what there is to do then.
        tidy_on_closing(&db, false).map_err(&failed)?;
        db.busy_timeout(LOCKED_WAIT).map_err(&failed)?;
        if let Err(error) = schema::prepare(&mut db, fsync, path) {
            let is_untouched = matches!(
                error,
                Error::NotOurs(_)
                    | Error::UnknownVersion { .. }
                    | Error::Damaged { .. }
                    | Error::ReadOnly(_)
            );
            if is_untouched && !has_log {
                // This removes the files that SQLite has made beside it.
                tidy_on_closing(&db, true).map_err(&failed)?;
            }
            return Err(error);
        }
        let unsynced = Error::open(path);
        {
            let immediate = TransactionBehavior::Immediate;
            let _alone = db.transaction_with_behavior(immediate).map_err(&failed)?;
            database.write_log_again().map_err(&unsynced)?;
        }
        // If the log cannot be copied now, that is tried again when it is long.
        match checkpoint(&db, "TRUNCATE") {
            Err(error) if !is_lack_of_room(&error) => return Err(failed(error)),
            Err(_) | Ok(_) => {}
        }
        // Nothing is served before it is synced.
        database.sync().map_err(&unsynced)?;
        let log_pages = Arc::new(AtomicUsize::new(0));
        let noted = Arc::clone(&log_pages);
        let note = move |_: &mut Wal, pages: i32| {
            noted.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        db.wal_hook(Some(note)).map_err(&failed)?;
        let page_bytes = schema::number(&db, "page_size").map_err(&failed)?;
        let files = Files::new(database, page_bytes.unsigned_abs()).map_err(&unsynced)?;
        let limit = format!("PRAGMA journal_size_limit = {}", files.log_bytes_kept());
        db.query_row(&limit, [], |_| Ok(())).map_err(&failed)?;
        if !schema::can_shrink(&db).map_err(&failed)? {
            make_shrinkable(&db, &files, path)?;
        }
        let state = tables::read_state(&db).map_err(&failed)?;
        let moment = Moment::now();
        let fresh = Resumed {
            now: moment.wall,
            lease_pause: 0,
        };
        let resumed = match &state {
            Some(state) => state.note.resume(&moment),
            None => fresh,
        };
        Ok(Self {
            db,
            files,
            path: path.to_owned(),
            log_pages,
            state,
            resumed,
        })
    }
}

/// Rewrites a database of an earlier version, once, so that it gives room back to the disk.
fn make_shrinkable(db: &Connection, files: &Files, path: &Path) -> Result<(), Error> {
    let shown = path.display();
    // For a moment there are three of it: a temporary file, the log, and the old one.
    let is_room = files
        .database
        .room()
        .is_ok_and(|(bytes, free)| bytes.saturating_mul(2) < free);
    let made = if is_room {
        match schema::make_shrinkable(db) {
            Err(error) if is_failed_sync(&error) => return Err(Error::sqlite(path)(error)),
            made => made.map_err(|error| error.to_string()),
        }
    } else {
        Err("the disk needs twice its size free".to_owned())
    };
    match made {
        Ok(()) => log::info!("{shown} was rewritten; it gives room back from now on"),
        Err(why) => log::warn!("{shown} does not get smaller when messages go: {why}"),
    }
    Ok(())
}

/// Says whether SQLite copies the log into the database, with a sync, and removes it on closing.
fn tidy_on_closing(db: &Connection, yes: bool) -> rusqlite::Result<()> {
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    db.set_db_config(no_checkpoint, !yes).map(drop)
}
