//! Opening a database, and what is done before anything in it is served.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::queue::QueueName;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use storage::Fsync;

use super::answers::{self, Answers};
use super::causes::{is_failed_sync, is_lack_of_room};
use super::files::{Database, Files};
use super::keys;
use super::row::{COLUMNS, Found, Row};
use super::schema::{self, State};
use super::timeline::{Moment, Note, Resumed};
use super::totals::Totals;
use super::wal::checkpoint;
use super::{Batch, Journal, LOCKED_WAIT, LiveQueues, Refused};
use crate::clock::Clock;
use crate::error::Error;

/// A database that is open and not read yet.
pub(crate) struct Opened {
    // Closed before the descriptor in `files`.
    db: Connection,
    files: Files,
    log_pages: Arc<AtomicUsize>,
    state: Option<State>,
    resumed: Resumed,
}

impl Opened {
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
        let state = State::read(&db).map_err(&failed)?;
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
            log_pages,
            state,
            resumed,
        })
    }

    /// The clock that gave the messages their positions.
    pub(crate) fn clock(&self) -> Clock {
        Clock::starting_at(self.resumed.now)
    }

    /// Puts the messages into their queues.
    pub(crate) fn load(self, path: &Path, queues: Arc<dyn LiveQueues>) -> Result<Journal, Error> {
        let failed = Error::sqlite(path);
        let mut journal = Journal {
            stuck: None,
            totals: Totals::default(),
            db: self.db,
            files: self.files,
            queues,
            log_pages: self.log_pages,
            next_id: 1,
            reserved_id: 0,
            batch: Batch::default(),
            refused: Refused::default(),
            answers: Answers::default(),
            is_lost: false,
            // The free pages are counted at once.
            freed_bytes: u64::MAX,
            is_shrinking: false,
        };
        if let Err(error) = journal.load(path, self.state, self.resumed) {
            // It writes nothing more.
            journal.is_lost = true;
            return Err(failed(error));
        }
        Ok(journal)
    }
}

impl Found {
    /// Moves what is due to when that is by the clock of this run, and no later than it can be. Returns the
    /// row that says so, if that is another moment.
    fn resume(&mut self, resumed: Resumed) -> Option<Row> {
        let now = resumed.now;
        let due_max = now.saturating_add(self.remaining_max);
        let expires_max = now.saturating_add(self.expires_left_max);
        let message = &mut self.reserved.message;
        let mut is_moved = false;
        if let Some(lease) = &mut self.reserved.lease {
            let due = lease.expires_at.saturating_add(resumed.lease_pause);
            let due = due.min(due_max);
            is_moved |= std::mem::replace(&mut lease.expires_at, due) != due;
        } else if self.is_delayed && message.position.moment() > due_max {
            message.position = message.position.at(due_max);
            is_moved = true;
        }
        if message.expires_at() > Some(expires_max) {
            message.change_extras(|extras| extras.expires_at = Some(expires_max));
            is_moved = true;
        }
        is_moved.then(|| Row::found(self, now))
    }
}

/// What was found in a database.
#[derive(Default)]
struct Loaded {
    messages: usize,
    last_id: u64,
    /// The ids of damaged rows.
    damaged: Vec<i64>,
    /// The ids of messages whose keys are damaged.
    damaged_keys: Vec<i64>,
    /// Rows of answers that are damaged.
    damaged_answers: Vec<i64>,
    /// Rows of leases and delays that are over at another moment than they say.
    moved: Vec<Row>,
}

impl Journal {
    fn load(
        &mut self,
        path: &Path,
        state: Option<State>,
        resumed: Resumed,
    ) -> rusqlite::Result<()> {
        let shown = path.display();
        let mut loaded = self.read_messages(resumed)?;
        self.read_pauses(path)?;
        loaded.damaged_keys = keys::read(&self.db, &*self.queues)?;
        (self.answers, loaded.damaged_answers) = Answers::read(&self.db, &*self.queues)?;
        let (totals, damaged) = Totals::read(&self.db)?;
        if damaged > 0 {
            log::error!(
                "The totals of {damaged} queues in {shown} are damaged, and begin at 0 again"
            );
        }
        self.queues.restore_counts(totals.counts());
        self.totals = totals;
        match state {
            Some(state) => loaded.last_id = loaded.last_id.max(state.last_id),
            None => {
                log::error!(
                    "{shown} has lost its last id; ids of messages that are gone may be given again"
                );
                loaded.last_id = schema::last_id_there(&self.db)?;
            }
        }
        self.next_id = loaded.last_id + 1;
        self.record(&loaded, path)?;
        self.reserved_id = loaded.last_id;
        log::info!("{} messages read from {shown}", loaded.messages);
        Ok(())
    }

    /// Puts the messages into their queues.
    fn read_messages(&self, resumed: Resumed) -> rusqlite::Result<Loaded> {
        let mut loaded = Loaded::default();
        let select = format!("SELECT {COLUMNS} FROM messages ORDER BY id");
        let mut select = self.db.prepare(&select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let Ok(mut found) = Row::read(id, row) else {
                loaded.damaged.push(id);
                continue;
            };
            loaded.last_id = loaded.last_id.max(found.reserved.message.id);
            loaded.messages += 1;
            loaded.moved.extend(found.resume(resumed));
            self.queues.restore(found.reserved, found.is_delayed);
        }
        Ok(loaded)
    }

    fn read_pauses(&self, path: &Path) -> rusqlite::Result<()> {
        let mut select = self.db.prepare("SELECT queue FROM paused")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            match row.get_ref(0)?.as_str().map(QueueName::new) {
                Ok(Ok(name)) => self.queues.pause(&name.as_str().into(), true),
                Ok(Err(_)) | Err(_) => {
                    log::error!("A pause in {} has no queue", path.display());
                }
            }
        }
        Ok(())
    }

    /// Sets damaged rows aside, and records the others that have changed.
    fn record(&mut self, loaded: &Loaded, path: &Path) -> rusqlite::Result<()> {
        let state = self.state(loaded.last_id);
        let immediate = TransactionBehavior::Immediate;
        let transaction = self.db.transaction_with_behavior(immediate)?;
        let set_aside = format!(
            "INSERT INTO damaged ({COLUMNS}, found)
             SELECT {COLUMNS}, datetime('now') FROM messages WHERE id = ?1"
        );
        let shown = path.display();
        for id in &loaded.damaged {
            log::error!(
                "Message {id} in {shown} is damaged; it was set aside in the table 'damaged'"
            );
            transaction.execute(&set_aside, [id])?;
            transaction.execute("DELETE FROM messages WHERE id = ?1", [id])?;
        }
        if !loaded.damaged_answers.is_empty() {
            let rows = loaded.damaged_answers.len();
            log::error!(
                "{rows} rows of answers in {shown} are damaged; what was asked there acts again if it is asked again"
            );
            answers::remove(&transaction, &loaded.damaged_answers)?;
        }
        for id in &loaded.damaged_keys {
            log::error!("The key of message {id} in {shown} is damaged and free from now on");
            transaction.execute("DELETE FROM keys WHERE id = ?1", [id])?;
        }
        keys::remove_free(&transaction, self.queues.clock().now(), 0)?;
        for row in &loaded.moved {
            row.update(&transaction)?;
        }
        state.write(&transaction)?;
        match transaction.commit() {
            // The database is as it was, and can be read and emptied.
            Err(error) if is_lack_of_room(&error) => {
                log::error!("There is no room in {shown} to record what was found: {error}");
                Ok(())
            }
            committed => committed,
        }
    }

    /// What is recorded beside the messages, if this is the last id.
    pub(super) fn state(&self, last_id: u64) -> State {
        State {
            last_id,
            note: Note::of(self.queues.clock()),
        }
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
