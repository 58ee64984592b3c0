//! The queues' database in a file: SQLite.
//!
//! A full disk still lets messages be received and acknowledged: room for that is kept.
//!
//! [`open`] opens a database, [`load`] reads and mends it, [`schema`] is its tables, [`messages`] and [`tables`] are
//! the statements that read and write them. [`files`] locks, watches and allocates the files, [`wal`] is the
//! write-ahead log, [`shrink`] gives room back to the disk, [`causes`] says what an error of SQLite means.

mod causes;
mod files;
mod load;
mod messages;
mod open;
mod schema;
mod shrink;
mod tables;
mod wal;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::queue::MessageId;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use storage::CommitError;

use super::answers::Answers;
use super::batch::Part;
use super::change::Written;
use super::database::{Database, Failed};
use super::live::LiveQueues;
use super::row::Row;
use super::state::State;
use super::totals::Totals;
use causes::{WriteError, io_error, is_failed_sync, is_lack_of_room, is_locked};
use files::Files;
use messages::INSERT;
use shrink::COUNT_BYTES;
use wal::{Stuck, checkpoint};

pub(super) use open::OpenedFile;

/// How long a change waits at most while another program has locked the database.
const LOCKED_WAIT: Duration = Duration::from_secs(20);

/// How long a server that ends waits for such a program at most.
const END_WAIT: Duration = Duration::from_secs(1);

/// What is said when the database is not complete without its log.
const KEPT_LOG: &str = "The database needs its log, which stays beside it";

/// How many ids are recorded as given at once, before the first of them is.
const IDS_RESERVED: u64 = 1024;

/// A database that the writer thread owns.
struct Sqlite {
    // Closed before the descriptor in `files`.
    db: Connection,
    files: Files,
    queues: Arc<dyn LiveQueues>,
    /// The last id that was given.
    last_id: MessageId,
    /// The ids up to this one are recorded as given.
    reserved_id: MessageId,
    /// How long the write-ahead log was after the last commit.
    log_pages: Arc<AtomicUsize>,
    stuck: Option<Stuck>,
    answers: Answers,
    totals: Totals,
    /// What was deleted since free pages were counted, in bytes.
    freed_bytes: u64,
    is_shrinking: bool,
}

impl Sqlite {
    /// Writes a part of a batch in one transaction, and tries once more if a shorter log may make room.
    fn transact(&mut self, part: &Part) -> Result<(), Failed> {
        let written = self.try_transact(part);
        match written.map_err(|error| self.failed(error)) {
            Err(Failed::NoRoom(_)) if self.log_pages.load(Ordering::Relaxed) > 0 => {
                // There may be room when the log is written from its start again.
                self.shorten_log(0)?;
                let written = self.try_transact(part);
                written.map_err(|error| self.failed(error))
            }
            written => written,
        }
    }

    fn try_transact(&mut self, part: &Part) -> Result<(), WriteError> {
        let locked_until = part.since().map(|since| since + LOCKED_WAIT);
        let is_short_of_ids = self.last_id > self.reserved_id;
        let reserved_id = self.last_id + IDS_RESERVED;
        let clock = self.queues.clock();
        let state = is_short_of_ids.then(|| State::now(reserved_id, clock));
        let now = clock.now();
        let transaction = begin(&self.db, &*self.queues, locked_until)?;
        if let Some(state) = &state {
            tables::write_state(&transaction, state)?;
        }
        let totals = self.totals.is_due().then(|| Totals::next(&*self.queues));
        if let Some(totals) = &totals {
            tables::write_totals(&transaction, totals.changed_since(&self.totals))?;
        }
        let mut insert = transaction.prepare_cached(INSERT)?;
        for (queue, message, is_delayed) in part.inserted() {
            let row = Row::new(queue, message, *is_delayed, None, now);
            messages::insert(&transaction, &mut insert, &row, &message.body)?;
        }
        drop(insert);
        for change in part.changed() {
            tables::write_change(&transaction, change)?;
        }
        let has_acked = |one: &&Written| matches!(one, Written::Delete(_, _, Some(_)));
        let acked = part.changed().iter().filter(has_acked).count();
        if acked > 0 {
            tables::remove_free_keys(&transaction, now, acked)?;
        }
        let step = self.answers.step(&*self.queues, part.answers());
        let step = step
            .map(|step| tables::write_answers(&transaction, step, &*self.queues))
            .transpose()?;
        let pages = schema::number(&transaction, "page_count")?;
        let has_messages = !part.inserted().is_empty();
        self.files
            .grow(pages.unsigned_abs(), has_messages)
            .map_err(WriteError::NoRoom)?;
        transaction.commit()?;
        if let Some(step) = step {
            self.answers.note(&step);
        }
        if let Some(totals) = totals {
            self.totals = totals;
        }
        if is_short_of_ids {
            self.reserved_id = reserved_id;
        }
        Ok(())
    }

    /// The state of a transaction that failed: it is undone, unless it failed in a sync, or SQLite is
    /// still inside it.
    fn failed(&mut self, error: WriteError) -> Failed {
        match error {
            WriteError::NoRoom(cause) => Failed::NoRoom(cause),
            WriteError::Sqlite(error) if is_failed_sync(&error) || !self.db.is_autocommit() => {
                Failed::Lost(io_error(error, || None))
            }
            WriteError::Sqlite(error) if is_lack_of_room(&error) => {
                Failed::NoRoom(self.cause(error))
            }
            WriteError::Sqlite(error) => Failed::Refused(self.cause(error)),
        }
    }

    fn cause(&mut self, error: rusqlite::Error) -> io::Error {
        let (db, files) = (&mut self.db, &self.files);
        io_error(error, || {
            // With the lock, so that nobody else writes there.
            let immediate = TransactionBehavior::Immediate;
            let _alone = db.transaction_with_behavior(immediate).ok()?;
            files.write_error()
        })
    }

    /// Records the last id and the time, and copies the log into the database. Returns whether the
    /// database is complete without its log.
    fn close(&mut self) -> rusqlite::Result<bool> {
        self.db.busy_timeout(END_WAIT)?;
        let state = State::now(self.last_id, self.queues.clock());
        let immediate = TransactionBehavior::Immediate;
        let transaction = self.db.transaction_with_behavior(immediate)?;
        tables::write_state(&transaction, &state)?;
        let totals = Totals::next(&*self.queues);
        tables::write_totals(&transaction, totals.changed_since(&self.totals))?;
        transaction.commit()?;
        checkpoint(&self.db, "TRUNCATE")
    }
}

impl Database for Sqlite {
    fn write(&mut self, part: &Part, last_id: MessageId) -> Result<(), Failed> {
        if part.is_empty() {
            return Ok(());
        }
        self.files.database.is_unused = false;
        self.last_id = last_id;
        if part.has_messages {
            self.make_room()?;
        }
        self.transact(part)?;
        // The next server would not find a file that was moved away.
        self.files.check().map_err(Failed::Lost)?;
        for change in part.changed() {
            if let Written::Delete(_, bytes, _) = change {
                self.freed_bytes = self.freed_bytes.saturating_add(*bytes as u64);
            }
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), CommitError> {
        Ok(self.shorten_log(self.files.log_pages_max())?)
    }

    fn needs_maintenance(&self) -> bool {
        self.is_shrinking || self.freed_bytes >= COUNT_BYTES
    }

    fn maintain(&mut self) -> io::Result<()> {
        match self.shrink() {
            Ok(()) => Ok(()),
            // It is tried again when more was deleted.
            Err(Failed::NoRoom(cause) | Failed::Refused(cause)) => {
                log::debug!("No room is given back to the disk: {cause}");
                self.is_shrinking = false;
                self.freed_bytes = COUNT_BYTES - 1;
                Ok(())
            }
            Err(Failed::Lost(cause)) => Err(cause),
        }
    }

    fn end(&mut self, last_id: MessageId) {
        self.last_id = last_id;
        match self.close() {
            Ok(true) => {}
            Ok(false) => log::warn!("{KEPT_LOG}: another program reads it"),
            Err(error) => log::warn!("{KEPT_LOG}: {error}"),
        }
        if let Err(error) = self.files.reserve_log(0) {
            log::warn!("No room can be reserved for a full disk: {error}");
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.files.database.is_unused &= !self.queues.is_serving();
    }
}

/// Begins a transaction. Waits while another program has locked the database, but not for long when
/// the server ends. There is no other transaction.
fn begin<'a>(
    db: &'a Connection,
    queues: &dyn LiveQueues,
    locked_until: Option<Instant>,
) -> rusqlite::Result<Transaction<'a>> {
    let until = locked_until.unwrap_or_else(|| Instant::now() + LOCKED_WAIT);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        db.busy_timeout(left.min(END_WAIT))?;
        match Transaction::new_unchecked(db, TransactionBehavior::Immediate) {
            Err(error) if is_locked(&error) && left > END_WAIT && !queues.is_stopping() => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
