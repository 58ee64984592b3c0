//! A message's row: its values as a database has them, and how they are checked when they are read.

use std::sync::Arc;
use std::time::Duration;

use proto::queue::{Key, MessageId, QueueName, Token};

use super::timeline::Resumed;
use crate::clock::{Micros, micros};
use crate::keys::{self, Keyed};
use crate::message::{Extras, Lease, Message, Reserved};
use crate::position::Position;

/// The longest that a delay, a lease or an expiry can have left when it is read: the milliseconds of a request
/// have 32 bits.
pub(super) const REMAINING_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// The highest id that is believed when it is read. The ids that follow must be below the highest that a
/// database can have.
pub(super) const ID_MAX: i64 = 1 << 62;

/// What the database has of a message, beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(super) id: MessageId,
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

/// The values of one row, borrowed from what is written or read. A database has numbers of 64 bits with a
/// sign, so they are that here. Those of a row of a wrong type are not made at all: it is damaged.
pub(super) struct Columns<'r> {
    pub(super) id: i64,
    pub(super) queue: &'r str,
    /// The lowest is next.
    pub(super) position: i64,
    pub(super) is_delayed: bool,
    pub(super) attempts: i64,
    /// The lease, if there is one...
    pub(super) token: Option<&'r [u8]>,
    /// ...and when it expires.
    pub(super) lease_expires: Option<i64>,
    pub(super) remaining: Option<i64>,
    /// The CRC-32 of all the rest.
    pub(super) crc: i64,
    pub(super) body: &'r [u8],
    pub(super) key: Option<&'r str>,
    pub(super) account: Option<&'r str>,
    pub(super) attempts_max: Option<i64>,
    pub(super) expires: Option<i64>,
    pub(super) expires_left: Option<i64>,
    pub(super) reason: Option<&'r str>,
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

    /// Whether it has any of what few messages have.
    pub(super) fn has_extras(&self) -> bool {
        self.extras.is_some()
    }

    /// What is written of it. The body never changes, so a change of the row needs none.
    pub(super) fn columns<'r>(&'r self, body: &'r [u8]) -> Columns<'r> {
        let number = |number: Option<u64>| number.map(u64::cast_signed);
        let extras = self.extras.as_deref();
        let keyed = extras.and_then(|extras| extras.keyed.as_deref());
        let attempts_max = extras.map_or(0, |extras| extras.attempts_max);
        let reason = extras.map_or("", |extras| &extras.reason);
        let lease = self.lease.as_ref();
        Columns {
            id: self.id.cast_signed(),
            queue: &self.queue,
            position: self.position.to_number(),
            is_delayed: self.is_delayed,
            attempts: self.attempts.into(),
            token: lease.map(|lease| &lease.token.as_bytes()[..]),
            lease_expires: number(lease.map(|lease| lease.expires_at)),
            remaining: number(self.remaining),
            crc: self.crc(),
            body,
            key: keyed.map(|keyed| &*keyed.key),
            account: keyed.and_then(|keyed| keyed.account.as_deref()),
            attempts_max: (attempts_max > 0).then_some(attempts_max.into()),
            expires: number(extras.and_then(|extras| extras.expires_at)),
            expires_left: number(self.expires_left),
            reason: (!reason.is_empty()).then_some(reason),
        }
    }

    /// The message of a row; `None` if its checksum is wrong, or if it has a value that none can have.
    pub(super) fn read(columns: &Columns) -> Option<Found> {
        let Columns {
            is_delayed, body, ..
        } = *columns;
        if !(1..=ID_MAX).contains(&columns.id) {
            return None;
        }
        let number = |number: Option<i64>| number.map(i64::cast_unsigned);
        let lease = match (columns.token, number(columns.lease_expires)) {
            (None, None) => None,
            (token, expires_at) => Some(Lease {
                token: Token::from_slice(token?).ok()?,
                expires_at: expires_at?,
            }),
        };
        let keyed = match columns.key {
            Some(key) => {
                let digest = keys::digest(body);
                let keyed = Keyed::found(Key::new(key)?, columns.account, digest);
                Some(Arc::new(keyed))
            }
            None => None,
        };
        let extras = Extras {
            keyed,
            attempts_max: u32::try_from(columns.attempts_max.unwrap_or(0)).ok()?,
            expires_at: number(columns.expires),
            reason: columns.reason.unwrap_or_default().into(),
        };
        let message = Message {
            id: columns.id.cast_unsigned(),
            position: Position::from_number(columns.position)?,
            attempts: u32::try_from(columns.attempts).ok()?,
            extras: extras.boxed(),
            ..Message::plain(body).with_checksum()
        };
        let queue = QueueName::new(columns.queue).ok()?.as_str().into();
        let row = Self {
            remaining: number(columns.remaining),
            expires_left: number(columns.expires_left),
            ..Self::new(&queue, &message, is_delayed, lease, 0)
        };
        if row.crc() != columns.crc {
            return None;
        }
        let bounded = |left: Option<u64>| left.unwrap_or(u64::MAX).min(micros(REMAINING_MAX));
        Some(Found {
            reserved: Reserved {
                queue,
                queue_index: 0,
                message,
                was_delayed: false,
                lease,
            },
            is_delayed,
            remaining_max: bounded(row.remaining),
            expires_left_max: bounded(row.expires_left),
        })
    }
}

impl Found {
    /// Moves what is due to when that is by the clock of this run, and no later than it can be. Returns the
    /// row that says so, if that is another moment.
    pub(super) fn resume(&mut self, resumed: Resumed) -> Option<Row> {
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
