//! What happened to the messages of each queue, from one run to the next.
//!
//! It is written with a commit, but at most once in [`EVERY`], because each commit would grow by a page for it, and
//! when the server ends. So a server that is killed has forgotten the counts of its last second, and no message.

use std::time::{Duration, Instant};

use super::live::LiveQueues;
use crate::totals::{Counts, CountsByName};

/// How often the counts are written at most.
const EVERY: Duration = Duration::from_secs(1);

/// What the database has of the counts.
#[derive(Default)]
pub(super) struct Totals {
    written: CountsByName,
    written_at: Option<Instant>,
}

/// The values of one row, borrowed from what is written or read.
pub(super) struct Columns<'r> {
    pub(super) queue: &'r str,
    /// In the order of the fields of [`Counts`].
    pub(super) counts: [i64; 5],
    /// The CRC-32 of all the rest.
    pub(super) crc: i64,
}

impl Totals {
    /// Adds a row that was found at the start. Returns whether it is undamaged.
    pub(super) fn restore(&mut self, columns: &Columns) -> bool {
        let counts = Counts::from_array(columns.counts.map(i64::cast_unsigned));
        let is_whole = columns.crc == crc_of(columns.queue, counts);
        if is_whole {
            self.written.add(&columns.queue.into(), counts);
        }
        is_whole
    }

    /// What is there.
    pub(super) fn counts(&self) -> &CountsByName {
        &self.written
    }

    /// Whether it is time to write the counts.
    pub(super) fn is_due(&self) -> bool {
        self.written_at.is_none_or(|at| at.elapsed() >= EVERY)
    }

    /// What is there when the transaction is committed that writes the counts as they are now.
    pub(super) fn next(queues: &dyn LiveQueues) -> Self {
        Self {
            written: queues.counts(),
            written_at: Some(Instant::now()),
        }
    }

    /// The rows that are new, or not the same as before.
    pub(super) fn changed_since(&self, before: &Self) -> impl Iterator<Item = Columns<'_>> {
        let changed = self.written.changed_since(&before.written);
        changed.map(|(queue, counts)| Columns {
            queue,
            counts: counts.to_array().map(u64::cast_signed),
            crc: crc_of(queue, *counts),
        })
    }
}

fn crc_of(queue: &str, counts: Counts) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    for count in counts.to_array() {
        crc.update(&count.to_be_bytes());
    }
    crc.update(queue.as_bytes());
    i64::from(crc.finalize())
}
