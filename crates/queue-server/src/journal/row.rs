//! A message's row: how it is written, and how it is checked when it is read.

use std::sync::Arc;
use std::time::Duration;

use proto::queue::{MessageId, QueueName, Token};
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Statement, Transaction, params};

use crate::message::{Message, Place, Taken, micros};

/// The longest that a delay or a lease can have left when it is read; a request has its milliseconds
/// in 32 bits.
pub(super) const REMAINING_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// The highest id that is believed when it is read, so that those that are given next are below SQLite's
/// highest.
pub(super) const ID_MAX: i64 = 1 << 62;

/// What the database has of a message, beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    id: MessageId,
    queue: Arc<str>,
    place: Place,
    is_delayed: bool,
    attempts: u32,
    lease: Option<(Token, Place)>,
    /// How much of the lease or the delay was left when this was written, in microseconds.
    remaining: Option<u64>,
    body_crc: u32,
}

/// A message as it was found.
pub(super) struct Found {
    pub(super) taken: Taken,
    pub(super) is_delayed: bool,
    /// How much of its lease or delay is left at the most.
    pub(super) remaining_max: u64,
}

impl Row {
    /// The row of a message that is in no queue at the moment.
    pub(crate) fn of(taken: &Taken, now: Place) -> Self {
        Self::new(&taken.queue, &taken.message, false, taken.lease, now)
    }

    /// The row of a message that is not leased any more, and is now at this place in a queue.
    pub(crate) fn moved(
        message: &Message,
        queue: &Arc<str>,
        place: Place,
        is_delayed: bool,
        now: Place,
    ) -> Self {
        Self {
            place,
            remaining: is_delayed.then(|| place.saturating_sub(now)),
            ..Self::new(queue, message, is_delayed, None, now)
        }
    }

    pub(super) fn new(
        queue: &Arc<str>,
        message: &Message,
        is_delayed: bool,
        lease: Option<(Token, Place)>,
        now: Place,
    ) -> Self {
        let due = match lease {
            Some((_, until)) => Some(until),
            None => is_delayed.then_some(message.place),
        };
        Self {
            id: message.id,
            queue: Arc::clone(queue),
            place: message.place,
            is_delayed,
            attempts: message.attempts,
            lease,
            remaining: due.map(|due| due.saturating_sub(now)),
            body_crc: message.body_crc,
        }
    }

    pub(super) fn crc(&self) -> i64 {
        let (token, until) = self.lease.unwrap_or_default();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.id.to_be_bytes());
        crc.update(&self.place.to_be_bytes());
        crc.update(&[u8::from(self.is_delayed), u8::from(self.lease.is_some())]);
        crc.update(&self.attempts.to_be_bytes());
        crc.update(token.as_bytes());
        crc.update(&until.to_be_bytes());
        // Rows of schema 2 have none.
        if let Some(remaining) = self.remaining {
            crc.update(&remaining.to_be_bytes());
        }
        crc.update(&self.body_crc.to_be_bytes());
        crc.update(self.queue.as_bytes());
        i64::from(crc.finalize())
    }

    fn token(&self) -> Option<&[u8; 16]> {
        self.lease.as_ref().map(|(token, _)| token.as_bytes())
    }

    fn until(&self) -> Option<i64> {
        self.lease.map(|(_, until)| until.cast_signed())
    }

    fn remaining(&self) -> Option<i64> {
        self.remaining.map(u64::cast_signed)
    }

    /// Adds a message; the statement is [`INSERT`].
    pub(super) fn insert(&self, insert: &mut Statement, body: &[u8]) -> rusqlite::Result<()> {
        insert.execute(params![
            self.id.cast_signed(),
            self.queue,
            self.place.cast_signed(),
            self.is_delayed,
            self.attempts,
            self.remaining(),
            self.crc(),
            body
        ])?;
        Ok(())
    }

    pub(super) fn update(&self, transaction: &Transaction) -> rusqlite::Result<()> {
        let update = "UPDATE messages SET queue = ?2, place = ?3, delayed = ?4, attempts = ?5,
                      token = ?6, until = ?7, remaining = ?8, crc = ?9 WHERE id = ?1";
        transaction.prepare_cached(update)?.execute(params![
            self.id.cast_signed(),
            self.queue,
            self.place.cast_signed(),
            self.is_delayed,
            self.attempts,
            self.token(),
            self.until(),
            self.remaining(),
            self.crc()
        ])?;
        Ok(())
    }

    /// Writes when a lease runs out, if it is still the same lease.
    pub(super) fn extend(&self, transaction: &Transaction) -> rusqlite::Result<()> {
        let update = "UPDATE messages SET until = ?3, remaining = ?4, crc = ?5
                      WHERE id = ?1 AND token = ?2";
        transaction.prepare_cached(update)?.execute(params![
            self.id.cast_signed(),
            self.token(),
            self.until(),
            self.remaining(),
            self.crc()
        ])?;
        Ok(())
    }

    /// Reads a message: the columns are those of [`COLUMNS`].
    ///
    /// # Errors
    /// If its checksum is not right, or a column has something of another type.
    pub(super) fn read(id: i64, row: &rusqlite::Row) -> FromSqlResult<Found> {
        if !(1..=ID_MAX).contains(&id) {
            return Err(FromSqlError::OutOfRange(id));
        }
        let column = |at| row.get_ref(at).map_err(|_| FromSqlError::InvalidType);
        let queue = column(1)?.as_str()?;
        let place = column(2)?.as_i64()?.cast_unsigned();
        let delayed = column(3)?.as_i64()?;
        let attempts = column(4)?.as_i64()?;
        let lease = match (column(5)?, column(6)?) {
            (ValueRef::Null, ValueRef::Null) => None,
            (token, until) => {
                let token = Token::from_slice(token.as_blob()?);
                let token = token.map_err(|_| FromSqlError::InvalidType)?;
                Some((token, until.as_i64()?.cast_unsigned()))
            }
        };
        let remaining = match column(7)? {
            ValueRef::Null => None,
            remaining => Some(remaining.as_i64()?.cast_unsigned()),
        };
        let crc = column(8)?.as_i64()?;
        let message = Message {
            id: id.cast_unsigned(),
            place,
            attempts: u32::try_from(attempts).map_err(|_| FromSqlError::OutOfRange(attempts))?,
            ..Message::new(column(9)?.as_blob()?).with_checksum()
        };
        let is_delayed = delayed == 1;
        let name = QueueName::new(queue).map_err(|_| FromSqlError::InvalidType)?;
        let queue = name.as_str().into();
        let row = Self {
            remaining,
            ..Self::new(&queue, &message, is_delayed, lease, 0)
        };
        if row.crc() != crc || !(0..=1).contains(&delayed) {
            return Err(FromSqlError::InvalidType);
        }
        let taken = Taken {
            queue,
            message,
            lease,
        };
        Ok(Found {
            taken,
            is_delayed,
            remaining_max: remaining.unwrap_or(u64::MAX).min(micros(REMAINING_MAX)),
        })
    }
}

/// The columns of a message, in the order in which [`Row::read`] has them.
pub(super) const COLUMNS: &str =
    "id, queue, place, delayed, attempts, token, until, remaining, crc, body";

/// The statement of [`Row::insert`].
pub(super) const INSERT: &str = "
    INSERT INTO messages (id, queue, place, delayed, attempts, remaining, crc, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
