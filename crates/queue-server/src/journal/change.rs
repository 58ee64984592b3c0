//! What the queues ask to be made durable, and how it is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::queue::{MessageId, Token};
use rusqlite::Transaction;

use super::row::Row;
use crate::message::{Message, Place};

/// What the queues ask to be made durable.
pub(crate) enum Change {
    /// A message, which is put into this queue when it is committed; its place comes after a delay.
    Insert(Arc<str>, Message, Duration),
    /// That a message is now as this row says.
    Update(Row),
    /// That a lease now runs out at this time.
    Extend(Token, Place),
    /// That a message is forgotten, whose body has so many bytes.
    Delete(MessageId, usize),
    /// That a queue is paused, or not any more.
    Pause(Arc<str>, bool),
}

/// A change, and since when somebody waits for it.
pub(crate) struct Asked {
    pub(crate) change: Change,
    pub(crate) since: Instant,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A message is stored, with this id.
    Stored(MessageId),
    /// It is the change with this number in its batch.
    Changed(usize),
    /// There is no such lease.
    NoLease,
}

/// What is written to a row, or beside them.
pub(super) enum Written {
    Update(Row),
    /// The row of a lease that ran out at `before`, and in memory runs out when its row says.
    Extend {
        row: Row,
        token: Token,
        before: Place,
    },
    Delete(MessageId, usize),
    Pause(Arc<str>, bool),
}

impl Written {
    pub(super) fn write(&self, transaction: &Transaction) -> rusqlite::Result<()> {
        match self {
            Self::Update(row) => row.update(transaction),
            Self::Extend { row, .. } => row.extend(transaction),
            Self::Delete(id, _) => {
                let delete = "DELETE FROM messages WHERE id = ?1";
                let mut delete = transaction.prepare_cached(delete)?;
                delete.execute([id.cast_signed()]).map(drop)
            }
            Self::Pause(queue, true) => {
                let pause = "INSERT OR IGNORE INTO paused VALUES (?1)";
                transaction
                    .prepare_cached(pause)?
                    .execute([queue])
                    .map(drop)
            }
            Self::Pause(queue, false) => {
                let resume = "DELETE FROM paused WHERE queue = ?1";
                transaction
                    .prepare_cached(resume)?
                    .execute([queue])
                    .map(drop)
            }
        }
    }
}
