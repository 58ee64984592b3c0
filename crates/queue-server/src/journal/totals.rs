//! What happened to the messages of each queue, from one run to the next.
//!
//! It is written with a commit, but at most once in [`EVERY`], because each commit would grow by a page for it, and
//! when the server ends. So a server that is killed has forgotten the counts of its last second, and no message.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, Transaction, params};

use super::LiveQueues;
use crate::totals::{Counts, CountsByName};

/// How often the counts are written at most.
const EVERY: Duration = Duration::from_secs(1);

/// What the database has of the counts.
#[derive(Default)]
pub(super) struct Totals {
    written: CountsByName,
    written_at: Option<Instant>,
}

impl Totals {
    /// Reads what is there, and leaves out what is damaged. Returns how many rows are.
    pub(super) fn read(db: &Connection) -> rusqlite::Result<(Self, usize)> {
        let mut totals = Self::default();
        let mut damaged = 0;
        let mut select =
            db.prepare("SELECT queue, sent, acked, failed, died, expired, crc FROM totals")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            match read(row) {
                Ok((queue, counts, crc)) if crc == crc_of(&queue, counts) => {
                    totals.written.add(&queue.into(), counts);
                }
                Ok(_) | Err(_) => damaged += 1,
            }
        }
        Ok((totals, damaged))
    }

    /// What was read.
    pub(super) fn counts(&self) -> &CountsByName {
        &self.written
    }

    /// Writes the counts that have changed, if it is time for that. Returns what is written if the transaction is
    /// committed.
    pub(super) fn write_if_due(
        &self,
        transaction: &Transaction,
        queues: &dyn LiveQueues,
    ) -> rusqlite::Result<Option<Self>> {
        if self.written_at.is_none_or(|at| at.elapsed() >= EVERY) {
            self.write(transaction, queues).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(super) fn write(
        &self,
        transaction: &Transaction,
        queues: &dyn LiveQueues,
    ) -> rusqlite::Result<Self> {
        let counts = queues.counts();
        let replace = "INSERT OR REPLACE INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let mut replace = transaction.prepare_cached(replace)?;
        for (queue, counts) in counts.changed_since(&self.written) {
            let [sent, acked, failed, died, expired] = counts.to_array().map(u64::cast_signed);
            let crc = crc_of(queue, *counts);
            replace.execute(params![queue, sent, acked, failed, died, expired, crc])?;
        }
        Ok(Self {
            written: counts,
            written_at: Some(Instant::now()),
        })
    }
}

fn read(row: &Row) -> rusqlite::Result<(String, Counts, i64)> {
    let mut counts = [0; 5];
    for (at, count) in (1..).zip(&mut counts) {
        *count = row.get::<_, i64>(at)?.cast_unsigned();
    }
    Ok((row.get(0)?, Counts::from_array(counts), row.get(6)?))
}

fn crc_of(queue: &str, counts: Counts) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    for count in counts.to_array() {
        crc.update(&count.to_be_bytes());
    }
    crc.update(queue.as_bytes());
    i64::from(crc.finalize())
}
