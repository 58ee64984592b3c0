//! The statements for what is beside the messages: the tables `keys`, `answers`, `totals` and `paused`.

use postgres::{Client, Error, Row, Statement};

use crate::clock::Micros;
use crate::journal::answers::{self, Step};
use crate::journal::live::LiveQueues;
use crate::journal::{keys, totals};
use crate::keys::Acked;

/// A key of the same message takes the place of the one before.
const INSERT_KEYS: &str = "
    INSERT INTO keys (id, queue, account, key, digest, until, crc)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])
    ON CONFLICT (id) DO UPDATE
    SET queue = excluded.queue, account = excluded.account, key = excluded.key, digest = excluded.digest,
        until = excluded.until, crc = excluded.crc";

const DELETE_FREE_KEYS: &str = "
    DELETE FROM keys WHERE id IN (SELECT id FROM keys WHERE until <= $1 ORDER BY until LIMIT $2)";

const SELECT_ANSWERS: &str = "SELECT answers FROM answers WHERE number = ANY($1) ORDER BY number";
const DELETE_ANSWERS: &str = "DELETE FROM answers WHERE number = ANY($1)";
const INSERT_ANSWERS: &str = "INSERT INTO answers (number, crc, answers) VALUES ($1, $2, $3)";

const INSERT_TOTALS: &str = "
    INSERT INTO totals (queue, sent, acked, failed, died, expired, crc)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::bigint[])
    ON CONFLICT (queue) DO UPDATE
    SET sent = excluded.sent, acked = excluded.acked, failed = excluded.failed, died = excluded.died,
        expired = excluded.expired, crc = excluded.crc";

const PAUSE: &str = "INSERT INTO paused SELECT unnest($1::text[]) ON CONFLICT (queue) DO NOTHING";
const RESUME: &str = "DELETE FROM paused WHERE queue = ANY($1)";

/// The statements, prepared.
pub(super) struct Tables {
    insert_keys: Statement,
    delete_free_keys: Statement,
    select_answers: Statement,
    delete_answers: Statement,
    insert_answers: Statement,
    insert_totals: Statement,
    pause: Statement,
    resume: Statement,
}

impl Tables {
    pub(super) fn prepare(client: &mut Client) -> Result<Self, Error> {
        Ok(Self {
            insert_keys: client.prepare(INSERT_KEYS)?,
            delete_free_keys: client.prepare(DELETE_FREE_KEYS)?,
            select_answers: client.prepare(SELECT_ANSWERS)?,
            delete_answers: client.prepare(DELETE_ANSWERS)?,
            insert_answers: client.prepare(INSERT_ANSWERS)?,
            insert_totals: client.prepare(INSERT_TOTALS)?,
            pause: client.prepare(PAUSE)?,
            resume: client.prepare(RESUME)?,
        })
    }

    /// Adds keys that are held on, and removes some that are free by now.
    pub(super) fn insert_keys(
        &self,
        client: &mut Client,
        acked: &[&Acked],
        now: Micros,
    ) -> Result<(), Error> {
        if acked.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = acked.iter().map(|acked| keys::columns(acked)).collect();
        let numbers = |of: fn(&keys::Columns) -> i64| -> Vec<i64> { rows.iter().map(of).collect() };
        let queues: Vec<_> = rows.iter().map(|of| of.queue).collect();
        let accounts: Vec<_> = rows.iter().map(|of| of.account).collect();
        let texts: Vec<_> = rows.iter().map(|of| of.key).collect();
        let digests: Vec<_> = rows.iter().map(|of| of.digest).collect();
        client.execute(
            &self.insert_keys,
            &[
                &numbers(|of| of.id),
                &queues,
                &accounts,
                &texts,
                &digests,
                &numbers(|of| of.until),
                &numbers(|of| of.crc),
            ],
        )?;
        self.delete_free_keys(client, now, acked.len())
    }

    /// Removes keys that are free by now, some at once: this transaction adds that many.
    pub(super) fn delete_free_keys(
        &self,
        client: &mut Client,
        now: Micros,
        added: usize,
    ) -> Result<(), Error> {
        let limit = keys::removed_max(added);
        let now = now.cast_signed();
        client
            .execute(&self.delete_free_keys, &[&now, &limit])
            .map(drop)
    }

    /// Adds a row of answers, and removes the oldest. Returns the step to note when the transaction is committed.
    pub(super) fn write_answers(
        &self,
        client: &mut Client,
        mut step: Step,
        queues: &dyn LiveQueues,
    ) -> Result<Step, Error> {
        if !step.removed.is_empty() {
            for row in client.query(&self.select_answers, &[&step.removed])? {
                step.keep(row.try_get(0)?, queues);
            }
            self.delete_answers(client, &step.removed)?;
        }
        let answers = step.encode();
        let of = step.columns(&answers);
        client.execute(&self.insert_answers, &[&of.row, &of.crc, &of.answers])?;
        Ok(step)
    }

    /// Removes rows of answers.
    pub(super) fn delete_answers(&self, client: &mut Client, rows: &[i64]) -> Result<(), Error> {
        client.execute(&self.delete_answers, &[&rows]).map(drop)
    }

    /// Writes the totals of some queues.
    pub(super) fn write_totals<'c>(
        &self,
        client: &mut Client,
        changed: impl Iterator<Item = totals::Columns<'c>>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = changed.collect();
        if rows.is_empty() {
            return Ok(());
        }
        let queues: Vec<_> = rows.iter().map(|of| of.queue).collect();
        let crcs: Vec<_> = rows.iter().map(|of| of.crc).collect();
        let counts = |at: usize| -> Vec<i64> { rows.iter().map(|of| of.counts[at]).collect() };
        let [sent, acked, failed, died, expired] = std::array::from_fn(counts);
        client
            .execute(
                &self.insert_totals,
                &[&queues, &sent, &acked, &failed, &died, &expired, &crcs],
            )
            .map(drop)
    }

    /// Pauses some queues, and resumes others.
    pub(super) fn write_pauses(
        &self,
        client: &mut Client,
        paused: &[&str],
        resumed: &[&str],
    ) -> Result<(), Error> {
        if !paused.is_empty() {
            client.execute(&self.pause, &[&paused])?;
        }
        if !resumed.is_empty() {
            client.execute(&self.resume, &[&resumed])?;
        }
        Ok(())
    }
}

/// The values of a row: id, queue, account, key, digest, until, crc. `None` if one is of a wrong type.
pub(super) fn key(row: &Row) -> Option<keys::Columns<'_>> {
    Some(keys::Columns {
        id: row.try_get(0).ok()?,
        queue: row.try_get(1).ok()?,
        account: row.try_get(2).ok()?,
        key: row.try_get(3).ok()?,
        digest: row.try_get(4).ok()?,
        until: row.try_get(5).ok()?,
        crc: row.try_get(6).ok()?,
    })
}

/// The values of a row: number, crc, answers. `None` if one is of a wrong type.
pub(super) fn answers(row: &Row) -> Option<answers::Columns<'_>> {
    Some(answers::Columns {
        row: row.try_get(0).ok()?,
        crc: row.try_get(1).ok()?,
        answers: row.try_get(2).ok()?,
    })
}

/// The values of a row: queue, sent, acked, failed, died, expired, crc. `None` if one is of a wrong type.
pub(super) fn totals(row: &Row) -> Option<totals::Columns<'_>> {
    let mut counts = [0; 5];
    for (at, count) in (1..).zip(&mut counts) {
        *count = row.try_get(at).ok()?;
    }
    Some(totals::Columns {
        queue: row.try_get(0).ok()?,
        counts,
        crc: row.try_get(6).ok()?,
    })
}
