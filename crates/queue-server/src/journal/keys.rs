//! The keys of acknowledged messages: the table `keys`. Those of other messages are in their rows.

use std::sync::Arc;

use proto::queue::{Key, QueueName};
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Row, Transaction, params};

use super::live::LiveQueues;
use super::row::ID_MAX;
use crate::clock::Micros;
use crate::keys::{Acked, Keyed};

/// Adds a key, and removes those that are free by the moment at which it was acknowledged.
pub(super) fn insert(acked: &Acked, transaction: &Transaction) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO keys (id, queue, account, key, digest, until, crc)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.prepare_cached(insert)?.execute(params![
        acked.id.cast_signed(),
        acked.queue,
        acked.keyed.account,
        acked.keyed.key,
        acked.keyed.digest,
        acked.until.cast_signed(),
        crc(acked)
    ])?;
    Ok(())
}

/// How many keys are removed in one commit at most, beside as many as it adds.
const REMOVED_MAX: usize = 1000;

/// Removes keys that are free by now, some at once.
pub(super) fn remove_free(
    transaction: &Transaction,
    now: Micros,
    added: usize,
) -> rusqlite::Result<()> {
    let delete = "DELETE FROM keys WHERE id IN
                  (SELECT id FROM keys WHERE until <= ?1 ORDER BY until LIMIT ?2)";
    let mut delete = transaction.prepare_cached(delete)?;
    let limit = REMOVED_MAX + added;
    delete
        .execute(params![now.cast_signed(), limit as i64])
        .map(drop)
}

/// Tells the queues which keys are held. Returns the ids of the rows that are damaged.
pub(super) fn read(db: &Connection, queues: &dyn LiveQueues) -> rusqlite::Result<Vec<i64>> {
    let mut damaged = Vec::new();
    let select = "SELECT id, queue, account, key, digest, until, crc FROM keys ORDER BY until";
    let mut select = db.prepare(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        match read_one(row) {
            Ok(acked) => queues.restore_key(&acked),
            Err(_) => damaged.push(row.get(0)?),
        }
    }
    Ok(damaged)
}

fn read_one(row: &Row) -> FromSqlResult<Acked> {
    let column = |at| row.get_ref(at).map_err(|_| FromSqlError::InvalidType);
    let id = column(0)?.as_i64()?;
    if !(1..=ID_MAX).contains(&id) {
        return Err(FromSqlError::OutOfRange(id));
    }
    let invalid = |_| FromSqlError::InvalidType;
    let queue = QueueName::new(column(1)?.as_str()?).map_err(invalid)?;
    let account = match column(2)? {
        ValueRef::Null => None,
        account => Some(account.as_str()?),
    };
    let key = Key::new(column(3)?.as_str()?).ok_or(FromSqlError::InvalidType)?;
    let digest = column(4)?.as_blob()?.try_into();
    let acked = Acked {
        queue: queue.as_str().into(),
        keyed: Arc::new(Keyed::found(
            key,
            account,
            digest.map_err(|_| FromSqlError::InvalidType)?,
        )),
        id: id.cast_unsigned(),
        until: column(5)?.as_i64()?.cast_unsigned(),
    };
    if column(6)?.as_i64()? == crc(&acked) {
        Ok(acked)
    } else {
        Err(FromSqlError::InvalidType)
    }
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
