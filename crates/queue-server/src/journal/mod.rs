//! The queues' database: SQLite, written by one thread, a transaction for each batch.
//!
//! The queues in memory decide who gets what. The database has every message that is not acknowledged,
//! and is read once, at the start. So receiving costs no disk access, and a message that was handed out
//! but not acknowledged when the server dies is still there. What must outlive the server is written
//! when it happens: a lease, a message's new position, how often it was tried.
//!
//! Every message has a CRC-32 over its whole row. One that does not match at the start is set aside
//! in the table `damaged` and reported, never delivered.
//!
//! [`open`] opens and reads the database, [`change`] is what is written, [`schema`] its tables,
//! [`row`] one row of them, [`answers`] what was answered to whom, [`totals`] what happened in each
//! queue, [`timeline`] the queues' clock from one run to the next. [`files`]
//! locks, watches and allocates the files, [`wal`] is the write-ahead log, [`shrink`] gives room back to
//! the disk, [`causes`] says what an error of SQLite means. [`live`] is what the journal knows of the
//! queues.

mod answers;
mod batch;
mod causes;
mod change;
mod files;
mod keys;
mod live;
mod open;
mod row;
mod schema;
mod shrink;
mod timeline;
mod totals;
mod wal;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::queue::MessageId;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use storage::{CommitError, NotStored, Store};

use crate::keys::Holder;
use crate::message::Lease;
use crate::sessions::{Answer, Answered};
use answers::Answers;
use batch::{Batch, Part};
use causes::{Failed, WriteError, io_error, is_failed_sync, is_lack_of_room, is_locked};
use change::Written;
use files::Files;
use row::INSERT;
use shrink::COUNT_BYTES;
use totals::Totals;
use wal::{Stuck, checkpoint};

pub(crate) use change::{Applied, Change, Submission};
pub(crate) use live::LiveQueues;
pub(crate) use open::Opened;
pub(crate) use row::Row;

/// The bodies in one commit, in bytes. A batch that reaches this is committed at once.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How long a change waits at most while another program has locked the database.
const LOCKED_WAIT: Duration = Duration::from_secs(20);

/// How long a server that ends waits for such a program at most.
const END_WAIT: Duration = Duration::from_secs(1);

/// What is said when the database is not complete without its log.
const KEPT_LOG: &str = "The database needs its log, which stays beside it";

/// How many ids are recorded as given at once, before the first of them is.
const IDS_RESERVED: u64 = 1024;

/// What of the last batch was refused; the rest is written.
#[derive(Default)]
struct Refused {
    why: String,
    /// All of its messages.
    messages: bool,
    /// These of its changes, in their order.
    changes: Vec<usize>,
}

/// What the writer thread owns.
pub(crate) struct Journal {
    // Closed before the descriptor in `files`.
    db: Connection,
    files: Files,
    queues: Arc<dyn LiveQueues>,
    next_id: MessageId,
    /// The ids up to this one are recorded as given.
    reserved_id: MessageId,
    batch: Batch,
    refused: Refused,
    /// How long the write-ahead log was after the last commit.
    log_pages: Arc<AtomicUsize>,
    stuck: Option<Stuck>,
    answers: Answers,
    totals: Totals,
    /// It is not known what is on the disk.
    is_lost: bool,
    /// What was deleted since free pages were counted, in bytes.
    freed_bytes: u64,
    is_shrinking: bool,
}

impl Journal {
    /// Writes a batch. If there is no room for all of it, the messages are refused and the other
    /// changes written without them, so that a full queue can be emptied.
    fn write(&mut self, batch: &Batch) -> Result<(), Failed> {
        self.refused = Refused::default();
        let locked_until = batch.since.map(|since| since + LOCKED_WAIT);
        if !batch.inserted.is_empty() || !batch.sent.is_empty() {
            let written = self
                .make_room()
                .and_then(|()| self.transact(batch, batch.changes(), locked_until));
            match written {
                Err(Failed::NoRoom(cause)) if !batch.changed.is_empty() => {
                    let messages = batch.inserted.len();
                    log::error!("{messages} messages were refused, cannot write: {cause}");
                    self.refused.messages = true;
                    self.refused.why = cause.to_string();
                }
                written => return written,
            }
        }
        self.write_changes(batch, 0..batch.changed.len(), locked_until)?;
        let changes = self.refused.changes.len();
        if changes > 0 {
            let why = &self.refused.why;
            log::error!("{changes} changes were refused, cannot write: {why}");
        }
        Ok(())
    }

    /// Writes the changes with these numbers: all at once, or in halves if there is no room for that. What
    /// cannot be written alone either is refused.
    fn write_changes(
        &mut self,
        batch: &Batch,
        numbers: Range<usize>,
        locked_until: Option<Instant>,
    ) -> Result<(), Failed> {
        let part = batch.part(numbers.clone());
        match self.transact(&Batch::default(), part, locked_until) {
            Err(Failed::NoRoom(_)) if numbers.len() > 1 => {
                let half = numbers.start + numbers.len() / 2;
                self.write_changes(batch, numbers.start..half, locked_until)?;
                self.write_changes(batch, half..numbers.end, locked_until)
            }
            Err(Failed::NoRoom(cause) | Failed::Refused(cause)) => {
                self.refused.changes.extend(numbers);
                self.refused.why = cause.to_string();
                Ok(())
            }
            written => written,
        }
    }

    /// Writes the messages of a batch and some changes in one transaction, and tries once more if a
    /// shorter log may make room.
    fn transact(
        &mut self,
        messages: &Batch,
        changes: Part,
        locked_until: Option<Instant>,
    ) -> Result<(), Failed> {
        let written = self.try_transact(messages, changes, locked_until);
        match written.map_err(|error| self.failed(error)) {
            Err(Failed::NoRoom(_)) if self.log_pages.load(Ordering::Relaxed) > 0 => {
                // There may be room when the log is written from its start again.
                self.shorten_log(0)?;
                let written = self.try_transact(messages, changes, locked_until);
                written.map_err(|error| self.failed(error))
            }
            written => written,
        }
    }

    fn try_transact(
        &mut self,
        messages: &Batch,
        changes: Part,
        locked_until: Option<Instant>,
    ) -> Result<(), WriteError> {
        let last_id = self.next_id - 1;
        let is_short_of_ids = last_id > self.reserved_id;
        let reserved_id = last_id + IDS_RESERVED;
        let state = is_short_of_ids.then(|| self.state(reserved_id));
        let now = self.queues.clock().now();
        let transaction = begin(&self.db, &*self.queues, locked_until)?;
        if let Some(state) = &state {
            state.write(&transaction)?;
        }
        let totals = self.totals.write_if_due(&transaction, &*self.queues)?;
        let mut insert = transaction.prepare_cached(INSERT)?;
        for (queue, message, is_delayed) in &messages.inserted {
            let row = Row::new(queue, message, *is_delayed, None, now);
            row.insert(&transaction, &mut insert, &message.body)?;
        }
        drop(insert);
        for change in changes.changed {
            change.write(&transaction)?;
        }
        let has_acked = |one: &Written| matches!(one, Written::Delete(_, _, Some(_)));
        let acked = changes.changed.iter().filter(|one| has_acked(one)).count();
        if acked > 0 {
            keys::remove_free(&transaction, now, acked)?;
        }
        let answers = messages.sent.iter().chain(changes.asked()).copied();
        let answers = answers.collect();
        let step = self.answers.write(&transaction, &*self.queues, answers)?;
        let pages = schema::number(&transaction, "page_count")?;
        let has_messages = !messages.inserted.is_empty();
        self.files
            .grow(pages.unsigned_abs(), has_messages)
            .map_err(WriteError::NoRoom)?;
        transaction.commit()?;
        self.answers.note(&step);
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

    /// Does in memory what was written, and undoes what was refused.
    fn conclude(&mut self, changed: Vec<Written>) {
        let mut undone = Vec::new();
        for (number, change) in changed.into_iter().enumerate() {
            let is_refused = self.refused.changes.binary_search(&number).is_ok();
            match change {
                Written::Extend { token, before, .. } if is_refused => undone.push((token, before)),
                Written::Pause(queue, is_paused) if !is_refused => {
                    self.queues.pause(&queue, is_paused);
                }
                Written::Delete(_, bytes, _) if !is_refused => {
                    self.freed_bytes = self.freed_bytes.saturating_add(bytes as u64);
                }
                Written::Update(_)
                | Written::Extend { .. }
                | Written::Delete(..)
                | Written::Pause(..)
                | Written::Nothing => {}
            }
        }
        // From the last to the first, so that the first state is restored.
        for (token, before) in undone.into_iter().rev() {
            // If the lease is still there.
            let _ = self.queues.extend(token, before);
        }
    }

    fn commit_batch(&mut self, batch: Batch) -> Result<(), Failed> {
        let written = self.write(&batch).and_then(|()| {
            // The next server would not find a file that was moved away.
            self.files.check().map_err(Failed::Lost)
        });
        if written.is_err() {
            self.refused.messages = true;
            self.refused.changes = (0..batch.changed.len()).collect();
        }
        self.conclude(batch.changed);
        // What was written is on the disk, also if the log cannot be shortened.
        let concluded = written.and_then(|()| self.shorten_log(self.files.log_pages_max()));
        if self.refused.messages {
            self.queues.refused(batch.inserted);
        } else {
            self.queues.arrived(batch.inserted);
        }
        concluded
    }

    /// Records the last id and the time, and copies the log into the database. Returns whether the
    /// database is complete without its log.
    fn end(&mut self) -> rusqlite::Result<bool> {
        self.db.busy_timeout(END_WAIT)?;
        let state = self.state(self.next_id - 1);
        let immediate = TransactionBehavior::Immediate;
        let transaction = self.db.transaction_with_behavior(immediate)?;
        state.write(&transaction)?;
        let _ = self.totals.write(&transaction, &*self.queues)?;
        transaction.commit()?;
        checkpoint(&self.db, "TRUNCATE")
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

impl Store for Journal {
    type Change = Submission;
    type Outcome = Applied;

    fn apply(&mut self, submission: Submission) -> Result<Applied, NotStored> {
        let batch = &mut self.batch;
        batch.since.get_or_insert(submission.since);
        let change = match submission.change {
            Change::Insert(queue, mut message, delay) => {
                message.id = self.next_id;
                let keyed = message.keyed();
                let claim = |keyed| self.queues.claim_key(&queue, keyed, message.id);
                let refused = match keyed.map(claim) {
                    None | Some(Ok(Holder::Itself)) => None,
                    // It is committed by then, or together with this.
                    Some(Ok(Holder::Before { id, .. })) => {
                        batch.sent.extend(submission.answered.map(|one| Answered {
                            answer: Answer::StoredBefore(id),
                            ..one
                        }));
                        Some(Applied::StoredBefore(id))
                    }
                    Some(Err(error)) => Some(Applied::Refused(Box::new(error))),
                };
                if let Some(refused) = refused {
                    self.queues
                        .refused(vec![(queue, message, !delay.is_zero())]);
                    return Ok(refused);
                }
                let moment = self.queues.clock().moment_after(delay);
                message.position = message.position.at(moment);
                let is_delayed = !delay.is_zero();
                let id = message.id;
                self.next_id += 1;
                batch.inserted_bytes += message.body.len();
                batch.inserted.push((queue, message, is_delayed));
                batch.sent.extend(submission.answered.map(|one| Answered {
                    answer: Answer::Stored(id),
                    ..one
                }));
                return Ok(Applied::Stored(id));
            }
            // Done here, so that there is one order in memory and on the disk.
            Change::Extend(Lease { token, expires_at }) => {
                match self.queues.extend(token, expires_at) {
                    Some((row, before)) => Written::Extend {
                        row: Box::new(row),
                        token,
                        before,
                    },
                    None => return Ok(Applied::NoLease),
                }
            }
            Change::Update(row) => Written::Update(row),
            Change::Delete(id, bytes, acked) => Written::Delete(id, bytes, acked),
            Change::Pause(queue, is_paused) => Written::Pause(queue, is_paused),
            Change::Nothing => Written::Nothing,
        };
        if let Some(answered) = submission.answered {
            batch.asked.insert(batch.changed.len(), answered);
        }
        batch.changed.push(change);
        Ok(Applied::Changed(batch.changed.len() - 1))
    }

    fn is_batch_full(&self) -> bool {
        self.batch.inserted_bytes >= BATCH_BYTES_MAX
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.inserted.is_empty() && batch.changed.is_empty() && batch.sent.is_empty() {
            self.refused = Refused::default();
            return Ok(());
        }
        self.files.database.is_unused = false;
        let committed = self.commit_batch(batch).map_err(CommitError::from);
        self.is_lost |= matches!(committed, Err(CommitError::Lost(_)));
        committed
    }

    fn confirm(&self, applied: Applied) -> Result<Applied, NotStored> {
        let is_refused = match &applied {
            Applied::Stored(_) | Applied::StoredBefore(_) => self.refused.messages,
            Applied::Changed(number) => self.refused.changes.binary_search(number).is_ok(),
            Applied::NoLease | Applied::Refused(_) => false,
        };
        if is_refused {
            Err(NotStored::Refused(self.refused.why.clone()))
        } else {
            Ok(applied)
        }
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
            Err(Failed::Lost(cause)) => {
                self.is_lost = true;
                Err(cause)
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.files.database.is_unused &= !self.queues.is_serving();
        // Nothing may be synced when it is not known what is on the disk.
        if self.is_lost {
            return;
        }
        match self.end() {
            Ok(true) => {}
            Ok(false) => log::warn!("{KEPT_LOG}: another program reads it"),
            Err(error) => log::warn!("{KEPT_LOG}: {error}"),
        }
        if let Err(error) = self.files.reserve_log(0) {
            log::warn!("No room can be reserved for a full disk: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
