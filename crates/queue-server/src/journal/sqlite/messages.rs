//! The statements for the table `messages`, of which each row is one [`Row`].

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Statement, Transaction, params};

use crate::journal::row::{Columns, Row};

/// The columns of a message, in the order in which [`columns`] has them.
pub(super) const COLUMNS: &str =
    "id, queue, place, delayed, attempts, token, until, remaining, crc,
    body, key, attempts_max, expires, expires_left, reason, account";

/// The statement that adds a message without extras. Six columns of nothing would take time too.
pub(super) const INSERT: &str = "
    INSERT INTO messages (id, queue, place, delayed, attempts, remaining, crc, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// The one that adds a message with them.
const INSERT_ALL: &str = "
    INSERT INTO messages (id, queue, place, delayed, attempts, remaining, crc, body, key, account,
                          attempts_max, expires, expires_left, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// Adds a message. The statement is [`INSERT`], which most messages need.
pub(super) fn insert(
    transaction: &Transaction,
    insert: &mut Statement,
    row: &Row,
    body: &[u8],
) -> rusqlite::Result<()> {
    let of = row.columns(body);
    if !row.has_extras() {
        insert.execute(params![
            of.id,
            of.queue,
            of.position,
            of.is_delayed,
            of.attempts,
            of.remaining,
            of.crc,
            of.body
        ])?;
        return Ok(());
    }
    transaction.prepare_cached(INSERT_ALL)?.execute(params![
        of.id,
        of.queue,
        of.position,
        of.is_delayed,
        of.attempts,
        of.remaining,
        of.crc,
        of.body,
        of.key,
        of.account,
        of.attempts_max,
        of.expires,
        of.expires_left,
        of.reason
    ])?;
    Ok(())
}

/// Changes a message, whose body and limit of attempts stay as they were sent.
pub(super) fn update(transaction: &Transaction, row: &Row) -> rusqlite::Result<()> {
    let update = "UPDATE messages SET queue = ?2, place = ?3, delayed = ?4, attempts = ?5,
                  token = ?6, until = ?7, remaining = ?8, crc = ?9, expires = ?10,
                  expires_left = ?11, reason = ?12, key = ?13, account = ?14 WHERE id = ?1";
    let of = row.columns(&[]);
    transaction.prepare_cached(update)?.execute(params![
        of.id,
        of.queue,
        of.position,
        of.is_delayed,
        of.attempts,
        of.token,
        of.lease_expires,
        of.remaining,
        of.crc,
        of.expires,
        of.expires_left,
        of.reason,
        of.key,
        of.account
    ])?;
    Ok(())
}

/// The values of a row with this id: its columns are those of [`COLUMNS`].
///
/// # Errors
/// If one is of a wrong type.
pub(super) fn columns<'r>(id: i64, row: &'r rusqlite::Row) -> FromSqlResult<Columns<'r>> {
    let column = |at| value(row, at);
    let number = |at| column(at)?.as_i64();
    let some_number = |at| column(at)?.as_i64_or_null();
    let some_text = |at| column(at)?.as_str_or_null();
    Ok(Columns {
        id,
        queue: column(1)?.as_str()?,
        position: number(2)?,
        is_delayed: match number(3)? {
            0 => false,
            1 => true,
            other => return Err(FromSqlError::OutOfRange(other)),
        },
        attempts: number(4)?,
        token: column(5)?.as_blob_or_null()?,
        lease_expires: some_number(6)?,
        remaining: some_number(7)?,
        crc: number(8)?,
        body: column(9)?.as_blob()?,
        key: some_text(10)?,
        attempts_max: some_number(11)?,
        expires: some_number(12)?,
        expires_left: some_number(13)?,
        reason: some_text(14)?,
        account: some_text(15)?,
    })
}

/// One value of a row.
pub(super) fn value<'r>(row: &'r rusqlite::Row, at: usize) -> FromSqlResult<ValueRef<'r>> {
    row.get_ref(at).map_err(|_| FromSqlError::InvalidType)
}
