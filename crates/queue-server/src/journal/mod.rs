//! The queues' database, written by one thread, a transaction for each batch.
//!
//! The queues in memory decide who gets what. The database has every message that is not acknowledged,
//! and is read once, at the start. So receiving costs no disk access, and a message that was handed out
//! but not acknowledged when the server dies is still there. What must outlive the server is written
//! when it happens: a lease, a message's new position, how often it was tried.
//!
//! Every message has a CRC-32 over its whole row. One that does not match at the start is set aside
//! in the table `damaged` and reported, never delivered.
//!
//! Here is the writer: what it does with a change, a batch and its outcome. [`database`] says what a database must
//! do for that, and [`sqlite`] does it, or `postgres`, which several servers can reach. [`load`] reads one at the start, [`batch`] and [`change`] are what is
//! written, [`row`] is one message, [`keys`] a key that is held on, [`answers`] what was answered to whom,
//! [`totals`] what happened in each queue, [`state`] the last id, and [`timeline`] the queues' clock from one run to
//! the next. [`live`] is what the journal knows of the queues.

mod answers;
mod batch;
mod change;
mod database;
mod keys;
mod live;
mod load;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
mod sqlite;
mod state;
mod timeline;
mod totals;

use std::io;
use std::sync::Arc;

use proto::queue::MessageId;
use storage::{CommitError, NotStored, Store};

use crate::keys::Holder;
use crate::message::Lease;
use crate::sessions::{Answer, Answered};
use batch::{Batch, Part};
use change::Written;
use database::{Database, Failed};

pub(crate) use change::{Applied, Change, Submission};
pub(crate) use live::LiveQueues;
pub(crate) use load::Opened;
#[cfg(feature = "postgres")]
pub(crate) use postgres::Candidate;
#[cfg(all(test, feature = "postgres"))]
pub(crate) use postgres::testing;
pub(crate) use row::Row;

/// The bodies in one commit, in bytes. A batch that reaches this is committed at once.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What the writer thread owns.
pub(crate) struct Journal {
    database: Box<dyn Database>,
    queues: Arc<dyn LiveQueues>,
    next_id: MessageId,
    batch: Batch,
    /// What of the last batch was refused.
    refused: Refused,
    /// It is not known what the database has.
    is_lost: bool,
}

impl Journal {
    /// Of a database whose messages are in these queues.
    fn new(database: Box<dyn Database>, queues: Arc<dyn LiveQueues>, next_id: MessageId) -> Self {
        Self {
            database,
            queues,
            next_id,
            batch: Batch::default(),
            refused: Refused::default(),
            is_lost: false,
        }
    }

    /// The last id that was given.
    fn last_id(&self) -> MessageId {
        self.next_id - 1
    }

    /// Does in memory what was written, and undoes what was refused.
    fn conclude(&self, changed: Vec<Written>) {
        let mut undone = Vec::new();
        for (number, change) in changed.into_iter().enumerate() {
            let is_refused = self.refused.has_change(number);
            match change {
                Written::Extend { token, before, .. } if is_refused => undone.push((token, before)),
                Written::Pause(queue, is_paused) if !is_refused => {
                    self.queues.pause(&queue, is_paused);
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

    fn commit_batch(&mut self, batch: Batch) -> Result<(), CommitError> {
        let whole = batch.whole();
        self.refused = Refused::default();
        let written = match self.write(&whole) {
            Ok(()) => self.refused.check(&whole),
            Err(cause) => {
                self.refused = Refused::all(&whole);
                Err(CommitError::Lost(cause))
            }
        };
        self.conclude(batch.changed);
        // What was written is durable, also if the database cannot be tidied.
        let tidied = written.and_then(|()| self.database.tidy());
        if self.refused.messages {
            self.queues.refused(batch.inserted);
        } else {
            self.queues.arrived(batch.inserted);
        }
        tidied
    }

    /// Writes a part of a batch. If there is no room for it, its messages are refused and its changes written without
    /// them, so that a full queue can be emptied: in halves if there is no room for all of them, until what cannot be
    /// written alone is refused.
    ///
    /// # Errors
    /// If it is not known what is written.
    fn write(&mut self, part: &Part) -> io::Result<()> {
        match self.database.write(part, self.last_id()) {
            Ok(()) => Ok(()),
            Err(Failed::NoRoom(cause)) if part.has_messages && !part.numbers.is_empty() => {
                let [messages, changes] = part.apart();
                self.refused.add(&messages, cause.to_string());
                self.write(&changes)
            }
            Err(Failed::NoRoom(_)) if part.numbers.len() > 1 => {
                let [first, second] = part.halves();
                self.write(&first)?;
                self.write(&second)
            }
            Err(Failed::NoRoom(cause) | Failed::Refused(cause)) => {
                self.refused.add(part, cause.to_string());
                Ok(())
            }
            Err(Failed::Lost(cause)) => Err(cause),
        }
    }
}

/// What of a batch was refused; the rest is written.
#[derive(Default)]
struct Refused {
    /// Why the last of it was.
    why: Option<String>,
    /// All of its messages, and what was to be answered to those who have sent them.
    messages: bool,
    /// The numbers of these of its changes, in their order.
    changes: Vec<usize>,
}

impl Refused {
    fn all(part: &Part) -> Self {
        let mut refused = Self::default();
        refused.add(part, String::new());
        refused
    }

    /// Tells what was.
    ///
    /// # Errors
    /// [`CommitError::Refused`] if all of this was.
    fn check(&self, part: &Part) -> Result<(), CommitError> {
        let Some(why) = &self.why else { return Ok(()) };
        let changes = self.changes.len();
        if self.messages == part.has_messages && changes == part.numbers.len() {
            return Err(CommitError::Refused(io::Error::other(why.clone())));
        }
        let messages = if self.messages {
            part.inserted().len()
        } else {
            0
        };
        log::error!("{messages} messages and {changes} changes were refused, cannot write: {why}");
        Ok(())
    }

    fn add(&mut self, part: &Part, why: String) {
        self.why = Some(why);
        self.messages |= part.has_messages;
        self.changes.extend(part.numbers.clone());
    }

    /// Whether the change with this number was.
    fn has_change(&self, number: usize) -> bool {
        self.changes.binary_search(&number).is_ok()
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
        let committed = self.commit_batch(batch);
        self.is_lost |= matches!(committed, Err(CommitError::Lost(_)));
        committed
    }

    fn confirm(&self, applied: Applied) -> Result<Applied, NotStored> {
        let is_refused = match &applied {
            Applied::Stored(_) | Applied::StoredBefore(_) => self.refused.messages,
            Applied::Changed(number) => self.refused.has_change(*number),
            Applied::NoLease | Applied::Refused(_) => false,
        };
        if is_refused {
            let why = self.refused.why.clone();
            Err(NotStored::Refused(why.unwrap_or_default()))
        } else {
            Ok(applied)
        }
    }

    fn needs_maintenance(&self) -> bool {
        self.database.needs_maintenance()
    }

    fn maintain(&mut self) -> io::Result<()> {
        let maintained = self.database.maintain();
        self.is_lost |= maintained.is_err();
        maintained
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Nothing may be written when it is not known what the database has.
        if !self.is_lost {
            self.database.end(self.last_id());
        }
    }
}

#[cfg(test)]
mod tests;
