//! A message's row: how it is written, and how it is checked when it is read.

use std::sync::Arc;
use std::time::Duration;

use proto::queue::{Key, MessageId, QueueName, Token};
use rusqlite::types::{FromSqlError, FromSqlResult, Value, ValueRef};
use rusqlite::{Statement, Transaction, params};

use crate::clock::{Micros, micros};
use crate::keys::{self, Keyed};
use crate::message::{Extras, Lease, Message, Reserved};
use crate::position::Position;

/// The longest that a delay, a lease or an expiry can have left when it is read: the milliseconds of a request
/// have 32 bits.
pub(super) const REMAINING_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// The highest id that is believed when it is read. The ids that follow must be below SQLite's highest.
pub(super) const ID_MAX: i64 = 1 << 62;

/// What the database has of a message, beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    id: MessageId,
    queue: Arc<str>,
    position: Position,
    is_delayed: bool,
    attempts: u32,
    lease: Option<Lease>,
    /// How much of the lease or the delay was left when this was written, in microseconds.
    remaining: Option<u64>,
    body_crc: u32,
    extras: Option<Box<Extras>>,
    /// How much of the expiry was left when this was written, in microseconds.
    expires_left: Option<u64>,
}

/// A message as it was found.
pub(super) struct Found {
    /// In its queue, unless it is leased.
    pub(super) reserved: Reserved,
    pub(super) is_delayed: bool,
    /// How much of its lease or delay is left at most, in microseconds.
    pub(super) remaining_max: u64,
    /// How much of its expiry is.
    pub(super) expires_left_max: u64,
}

impl Row {
    /// The row of a message that is reserved.
    pub(crate) fn of(reserved: &Reserved, now: Micros) -> Self {
        Self::new(
            &reserved.queue,
            &reserved.message,
            false,
            reserved.lease,
            now,
        )
    }

    /// The row of a message that was found, as it is now.
    pub(super) fn found(found: &Found, now: Micros) -> Self {
        let Reserved {
            queue,
            message,
            lease,
            ..
        } = &found.reserved;
        Self::new(queue, message, found.is_delayed, *lease, now)
    }

    /// The row of a message that goes to a position in a queue.
    pub(crate) fn moved(
        message: &Message,
        queue: &Arc<str>,
        position: Position,
        is_delayed: bool,
        now: Micros,
    ) -> Self {
        Self {
            position,
            remaining: is_delayed.then(|| position.moment().saturating_sub(now)),
            ..Self::new(queue, message, is_delayed, None, now)
        }
    }

    /// The row of a message in a queue, or of one that is leased.
    pub(crate) fn new(
        queue: &Arc<str>,
        message: &Message,
        is_delayed: bool,
        lease: Option<Lease>,
        now: Micros,
    ) -> Self {
        let due = match lease {
            Some(lease) => Some(lease.expires_at),
            None => is_delayed.then_some(message.position.moment()),
        };
        Self {
            id: message.id,
            queue: Arc::clone(queue),
            position: message.position,
            is_delayed,
            attempts: message.attempts,
            lease,
            remaining: due.map(|due| due.saturating_sub(now)),
            body_crc: message.body_crc,
            extras: message.extras.clone(),
            expires_left: message.expires_at().map(|at| at.saturating_sub(now)),
        }
    }

    pub(super) fn crc(&self) -> i64 {
        let Lease { token, expires_at } = self.lease.unwrap_or_default();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.id.to_be_bytes());
        crc.update(&self.position.to_number().to_be_bytes());
        crc.update(&[u8::from(self.is_delayed), u8::from(self.lease.is_some())]);
        crc.update(&self.attempts.to_be_bytes());
        crc.update(token.as_bytes());
        crc.update(&expires_at.to_be_bytes());
        // Rows of schema 2 have none.
        if let Some(remaining) = self.remaining {
            crc.update(&remaining.to_be_bytes());
        }
        crc.update(&self.body_crc.to_be_bytes());
        crc.update(self.queue.as_bytes());
        self.update_with_extras(&mut crc);
        i64::from(crc.finalize())
    }

    /// Covers what is there. Rows of schema 3 have none, and keep their CRC-32. Each part has a number in
    /// front that no queue's name has in it, so that none passes for another.
    fn update_with_extras(&self, crc: &mut crc32fast::Hasher) {
        let Some(extras) = &self.extras else {
            return;
        };
        let attempts_max = u64::from(extras.attempts_max);
        let numbers = [
            (1, (attempts_max > 0).then_some(attempts_max)),
            (2, extras.expires_at),
            (3, self.expires_left),
        ];
        for (part, number) in numbers {
            if let Some(number) = number {
                crc.update(&[part]);
                crc.update(&number.to_be_bytes());
            }
        }
        let reason = (!extras.reason.is_empty()).then_some(&*extras.reason);
        let keyed = extras.keyed.as_deref();
        let key = keyed.map(|keyed| &*keyed.key);
        let account = keyed.and_then(|keyed| keyed.account.as_deref());
        for (part, text) in [(4, key), (5, reason), (6, account)] {
            if let Some(text) = text {
                crc.update(&[part]);
                crc.update(&(text.len() as u64).to_be_bytes());
                crc.update(text.as_bytes());
            }
        }
    }

    /// The values of the columns that schema 4 has added, in the order of [`COLUMNS`].
    fn extras(&self) -> [Value; 6] {
        let Some(extras) = &self.extras else {
            return [const { Value::Null }; 6];
        };
        let number = |number: Option<u64>| number.map(u64::cast_signed).into();
        let text = |text: &str| Value::Text(text.to_owned());
        let attempts_max = extras.attempts_max;
        let keyed = extras.keyed.as_deref();
        [
            keyed.map_or(Value::Null, |keyed| text(&keyed.key)),
            keyed
                .and_then(|keyed| keyed.account.as_deref())
                .map_or(Value::Null, text),
            number((attempts_max > 0).then_some(attempts_max.into())),
            number(extras.expires_at),
            number(self.expires_left),
            match &*extras.reason {
                "" => Value::Null,
                reason => text(reason),
            },
        ]
    }

    fn token(&self) -> Option<&[u8; 16]> {
        self.lease.as_ref().map(|lease| lease.token.as_bytes())
    }

    fn expires_at(&self) -> Option<i64> {
        self.lease.map(|lease| lease.expires_at.cast_signed())
    }

    fn remaining(&self) -> Option<i64> {
        self.remaining.map(u64::cast_signed)
    }

    /// Adds a message. The statement is [`INSERT`], which most messages need.
    pub(super) fn insert(
        &self,
        transaction: &Transaction,
        insert: &mut Statement,
        body: &[u8],
    ) -> rusqlite::Result<()> {
        if self.extras.is_none() {
            insert.execute(params![
                self.id.cast_signed(),
                self.queue,
                self.position.to_number(),
                self.is_delayed,
                self.attempts,
                self.remaining(),
                self.crc(),
                body
            ])?;
            return Ok(());
        }
        let [key, account, attempts_max, expires, expires_left, reason] = self.extras();
        transaction.prepare_cached(INSERT_ALL)?.execute(params![
            self.id.cast_signed(),
            self.queue,
            self.position.to_number(),
            self.is_delayed,
            self.attempts,
            self.remaining(),
            self.crc(),
            body,
            key,
            account,
            attempts_max,
            expires,
            expires_left,
            reason
        ])?;
        Ok(())
    }

    pub(super) fn update(&self, transaction: &Transaction) -> rusqlite::Result<()> {
        let update = "UPDATE messages SET queue = ?2, place = ?3, delayed = ?4, attempts = ?5,
                      token = ?6, until = ?7, remaining = ?8, crc = ?9, expires = ?10,
                      expires_left = ?11, reason = ?12, key = ?13, account = ?14 WHERE id = ?1";
        // The other one is as it was sent.
        let [key, account, _, expires, expires_left, reason] = self.extras();
        transaction.prepare_cached(update)?.execute(params![
            self.id.cast_signed(),
            self.queue,
            self.position.to_number(),
            self.is_delayed,
            self.attempts,
            self.token(),
            self.expires_at(),
            self.remaining(),
            self.crc(),
            expires,
            expires_left,
            reason,
            key,
            account
        ])?;
        Ok(())
    }

    /// Reads a message: the columns are those of [`COLUMNS`].
    ///
    /// # Errors
    /// If its checksum is wrong, or a column is of another type.
    pub(super) fn read(id: i64, row: &rusqlite::Row) -> FromSqlResult<Found> {
        if !(1..=ID_MAX).contains(&id) {
            return Err(FromSqlError::OutOfRange(id));
        }
        let column = |at| row.get_ref(at).map_err(|_| FromSqlError::InvalidType);
        let moment = |at| -> FromSqlResult<Option<u64>> {
            Ok(option(column(at)?, ValueRef::as_i64)?.map(i64::cast_unsigned))
        };
        let queue = column(1)?.as_str()?;
        let position = column(2)?.as_i64()?;
        let position = Position::from_number(position).ok_or(FromSqlError::OutOfRange(position))?;
        let delayed = column(3)?.as_i64()?;
        let attempts = column(4)?.as_i64()?;
        let lease = match (column(5)?, column(6)?) {
            (ValueRef::Null, ValueRef::Null) => None,
            (token, expires_at) => {
                let token = Token::from_slice(token.as_blob()?);
                let token = token.map_err(|_| FromSqlError::InvalidType)?;
                let expires_at = expires_at.as_i64()?.cast_unsigned();
                Some(Lease { token, expires_at })
            }
        };
        let remaining = moment(7)?;
        let crc = column(8)?.as_i64()?;
        let expires_left = moment(13)?;
        let message = Message {
            id: id.cast_unsigned(),
            position,
            attempts: count(attempts)?,
            extras: Extras {
                keyed: match option(column(10)?, ValueRef::as_str)? {
                    None => None,
                    Some(key) => {
                        let key = Key::new(key).ok_or(FromSqlError::InvalidType)?;
                        let account = option(column(15)?, ValueRef::as_str)?;
                        let digest = keys::digest(column(9)?.as_blob()?);
                        Some(Arc::new(Keyed::found(key, account, digest)))
                    }
                },
                attempts_max: count(option(column(11)?, ValueRef::as_i64)?.unwrap_or(0))?,
                expires_at: moment(12)?,
                reason: (option(column(14)?, ValueRef::as_str)?.unwrap_or_default()).into(),
            }
            .boxed(),
            ..Message::plain(column(9)?.as_blob()?).with_checksum()
        };
        let is_delayed = delayed == 1;
        let name = QueueName::new(queue).map_err(|_| FromSqlError::InvalidType)?;
        let queue = name.as_str().into();
        let row = Self {
            remaining,
            expires_left,
            ..Self::new(&queue, &message, is_delayed, lease, 0)
        };
        if row.crc() != crc || !(0..=1).contains(&delayed) {
            return Err(FromSqlError::InvalidType);
        }
        let reserved = Reserved {
            queue,
            queue_index: 0,
            message,
            was_delayed: false,
            lease,
        };
        let bounded = |left: Option<u64>| left.unwrap_or(u64::MAX).min(micros(REMAINING_MAX));
        Ok(Found {
            reserved,
            is_delayed,
            remaining_max: bounded(remaining),
            expires_left_max: bounded(expires_left),
        })
    }
}

/// What a column holds, if it is not NULL.
fn option<'r, T>(
    column: ValueRef<'r>,
    read: impl FnOnce(&ValueRef<'r>) -> FromSqlResult<T>,
) -> FromSqlResult<Option<T>> {
    match column {
        ValueRef::Null => Ok(None),
        column => read(&column).map(Some),
    }
}

fn count(number: i64) -> FromSqlResult<u32> {
    u32::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))
}

/// The columns of a message, in the order in which [`Row::read`] has them.
pub(super) const COLUMNS: &str =
    "id, queue, place, delayed, attempts, token, until, remaining, crc,
    body, key, attempts_max, expires, expires_left, reason, account";

/// The statement that adds a message without [`Extras`]. Six columns of nothing would take time too.
pub(super) const INSERT: &str = "
    INSERT INTO messages (id, queue, place, delayed, attempts, remaining, crc, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// The one that adds a message with them.
const INSERT_ALL: &str = "
    INSERT INTO messages (id, queue, place, delayed, attempts, remaining, crc, body, key, account,
                          attempts_max, expires, expires_left, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
