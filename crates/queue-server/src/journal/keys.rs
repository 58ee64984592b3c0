//! The keys of acknowledged messages: the table `keys`. Those of other messages are in their rows.

use std::sync::Arc;

use proto::queue::{Key, QueueName};

use super::row::ID_MAX;
use crate::keys::{Acked, Keyed};

/// How many keys are removed in one commit at most, beside as many as it adds.
const REMOVED_MAX: usize = 1000;

/// The values of one row, borrowed from what is written or read.
pub(super) struct Columns<'r> {
    /// Of the message.
    pub(super) id: i64,
    pub(super) queue: &'r str,
    pub(super) account: Option<&'r str>,
    pub(super) key: &'r str,
    /// The first half of the SHA-256 of the body.
    pub(super) digest: &'r [u8],
    /// When it is free.
    pub(super) until: i64,
    /// The CRC-32 of all the rest.
    pub(super) crc: i64,
}

/// How many keys that are free are removed in a commit that adds this many.
pub(super) fn removed_max(added: usize) -> i64 {
    i64::try_from(REMOVED_MAX + added).unwrap_or(i64::MAX)
}

/// What is written of a key.
pub(super) fn columns(acked: &Acked) -> Columns<'_> {
    let keyed = &*acked.keyed;
    Columns {
        id: acked.id.cast_signed(),
        queue: &acked.queue,
        account: keyed.account.as_deref(),
        key: &keyed.key,
        digest: &keyed.digest,
        until: acked.until.cast_signed(),
        crc: crc(acked),
    }
}

/// The key of a row; `None` if its checksum is wrong, or if it has a value that none can have.
pub(super) fn read(columns: &Columns) -> Option<Acked> {
    if !(1..=ID_MAX).contains(&columns.id) {
        return None;
    }
    let queue = QueueName::new(columns.queue).ok()?;
    let digest = columns.digest.try_into().ok()?;
    let keyed = Keyed::found(Key::new(columns.key)?, columns.account, digest);
    let acked = Acked {
        queue: queue.as_str().into(),
        keyed: Arc::new(keyed),
        id: columns.id.cast_unsigned(),
        until: columns.until.cast_unsigned(),
    };
    (crc(&acked) == columns.crc).then_some(acked)
}

fn crc(acked: &Acked) -> i64 {
    let Keyed {
        key,
        account,
        digest,
        ..
    } = &*acked.keyed;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&acked.id.to_be_bytes());
    crc.update(&acked.until.to_be_bytes());
    crc.update(digest);
    for text in [&*acked.queue, key, account.as_deref().unwrap_or_default()] {
        crc.update(&(text.len() as u64).to_be_bytes());
        crc.update(text.as_bytes());
    }
    i64::from(crc.finalize())
}
