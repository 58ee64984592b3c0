//! A change and where it is written, and the statements for what is beside the messages: the tables `keys`,
//! `answers`, `totals`, `paused` and `state`.

use rusqlite::types::FromSqlResult;
use rusqlite::{Connection, Row, Transaction, params};

use super::messages::{self, value};
use crate::clock::Micros;
use crate::journal::answers::{self, Step};
use crate::journal::change::Written;
use crate::journal::live::LiveQueues;
use crate::journal::state::State;
use crate::journal::timeline::{Moment, Note};
use crate::journal::{keys, totals};
use crate::keys::Acked;

/// Writes a change to where it belongs.
pub(super) fn write_change(transaction: &Transaction, change: &Written) -> rusqlite::Result<()> {
    match change {
        Written::Update(row) | Written::Extend { row, .. } => messages::update(transaction, row),
        Written::Delete(id, _, acked) => {
            let delete = "DELETE FROM messages WHERE id = ?1";
            let mut delete = transaction.prepare_cached(delete)?;
            delete.execute([id.cast_signed()])?;
            // Behind that, because it may take a page that is free now.
            let insert = |acked| insert_key(transaction, acked);
            acked.as_deref().map_or(Ok(()), insert)
        }
        Written::Pause(queue, is_paused) => {
            let pause = if *is_paused {
                "INSERT OR IGNORE INTO paused VALUES (?1)"
            } else {
                "DELETE FROM paused WHERE queue = ?1"
            };
            let mut pause = transaction.prepare_cached(pause)?;
            pause.execute([queue]).map(drop)
        }
        Written::Nothing => Ok(()),
    }
}

fn insert_key(transaction: &Transaction, acked: &Acked) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO keys (id, queue, account, key, digest, until, crc)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let of = keys::columns(acked);
    transaction.prepare_cached(insert)?.execute(params![
        of.id, of.queue, of.account, of.key, of.digest, of.until, of.crc
    ])?;
    Ok(())
}

/// Removes keys that are free by now, some at once. `added` is how many this transaction adds.
pub(super) fn remove_free_keys(
    transaction: &Transaction,
    now: Micros,
    added: usize,
) -> rusqlite::Result<()> {
    let delete = "DELETE FROM keys WHERE id IN
                  (SELECT id FROM keys WHERE until <= ?1 ORDER BY until LIMIT ?2)";
    let mut delete = transaction.prepare_cached(delete)?;
    let limit = keys::removed_max(added);
    delete.execute([now.cast_signed(), limit]).map(drop)
}

/// The values of a row: id, queue, account, key, digest, until, crc.
///
/// # Errors
/// If one is of a wrong type.
pub(super) fn key<'r>(id: i64, row: &'r Row) -> FromSqlResult<keys::Columns<'r>> {
    let column = |at| value(row, at);
    Ok(keys::Columns {
        id,
        queue: column(1)?.as_str()?,
        account: column(2)?.as_str_or_null()?,
        key: column(3)?.as_str()?,
        digest: column(4)?.as_blob()?,
        until: column(5)?.as_i64()?,
        crc: column(6)?.as_i64()?,
    })
}

/// Adds a row of answers, and removes the oldest. Returns the step to note when the transaction is committed.
pub(super) fn write_answers(
    transaction: &Transaction,
    mut step: Step,
    queues: &dyn LiveQueues,
) -> rusqlite::Result<Step> {
    for row in step.removed.clone() {
        let select = "SELECT answers FROM answers WHERE row = ?1";
        let mut select = transaction.prepare_cached(select)?;
        let answers: Vec<u8> = select.query_row([row], |row| row.get(0))?;
        step.keep(&answers, queues);
        let delete = "DELETE FROM answers WHERE row = ?1";
        transaction.prepare_cached(delete)?.execute([row])?;
    }
    let answers = step.encode();
    let of = step.columns(&answers);
    let insert = "INSERT INTO answers (row, crc, answers) VALUES (?1, ?2, ?3)";
    let mut insert = transaction.prepare_cached(insert)?;
    insert.execute(params![of.row, of.crc, of.answers])?;
    Ok(step)
}

/// The values of a row: row, crc, answers.
///
/// # Errors
/// If one is of a wrong type.
pub(super) fn answers<'r>(number: i64, row: &'r Row) -> FromSqlResult<answers::Columns<'r>> {
    Ok(answers::Columns {
        row: number,
        crc: value(row, 1)?.as_i64()?,
        answers: value(row, 2)?.as_blob()?,
    })
}

/// Writes the totals of some queues.
pub(super) fn write_totals<'c>(
    transaction: &Transaction,
    changed: impl Iterator<Item = totals::Columns<'c>>,
) -> rusqlite::Result<()> {
    let replace = "INSERT OR REPLACE INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut replace = transaction.prepare_cached(replace)?;
    for of in changed {
        let [sent, acked, failed, died, expired] = of.counts;
        replace.execute(params![
            of.queue, sent, acked, failed, died, expired, of.crc
        ])?;
    }
    Ok(())
}

/// The values of a row: queue, sent, acked, failed, died, expired, crc.
///
/// # Errors
/// If one is of a wrong type.
pub(super) fn totals<'r>(row: &'r Row) -> FromSqlResult<totals::Columns<'r>> {
    let mut counts = [0; 5];
    for (at, count) in (1..).zip(&mut counts) {
        *count = value(row, at)?.as_i64()?;
    }
    Ok(totals::Columns {
        queue: value(row, 0)?.as_str()?,
        counts,
        crc: value(row, 6)?.as_i64()?,
    })
}

/// Notes the last id and the time.
pub(super) fn write_state(transaction: &Transaction, state: &State) -> rusqlite::Result<()> {
    let Note { clock, moment } = &state.note;
    let replace = "INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.prepare_cached(replace)?.execute(params![
        state.last_id.cast_signed(),
        clock.cast_signed(),
        moment.boot,
        moment.uptime.cast_signed(),
        moment.wall.cast_signed(),
        state.crc()
    ])?;
    Ok(())
}

/// What was noted; `None` if that is damaged, or not there.
pub(super) fn read_state(db: &Connection) -> rusqlite::Result<Option<State>> {
    let mut select =
        db.prepare("SELECT last_id, clock, uptime, wall, boot, crc FROM state WHERE one = 1")?;
    let mut rows = select.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let read = || -> rusqlite::Result<(State, i64)> {
        let moment = Moment {
            boot: row.get(4)?,
            uptime: number(2)?,
            wall: number(3)?,
        };
        let note = Note {
            clock: number(1)?,
            moment,
        };
        let last_id = number(0)?;
        Ok((State { last_id, note }, row.get(5)?))
    };
    // Of another type is as damaged as of another value.
    Ok(read().ok().and_then(|(state, crc)| state.checked(crc)))
}
