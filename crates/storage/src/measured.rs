//! A store whose commits are measured.

use std::io;
use std::time::Instant;

use prometheus_client::metrics::histogram::exponential_buckets;

use crate::error::{CommitError, NotStored};
use crate::store::Store;

pub use prometheus_client::metrics::histogram::Histogram;

/// A histogram for the time that writing to a disk takes, in seconds: 0.1 ms to 26 s.
pub fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 4.0, 10))
}

/// What was measured of all commits of a store so far.
#[derive(Debug, Clone)]
pub struct CommitFigures {
    /// How many changes one commit made durable.
    pub changes: Histogram,
    /// How long one took, in seconds, with its sync.
    pub seconds: Histogram,
}

impl CommitFigures {
    pub(crate) fn new() -> Self {
        Self {
            // Up to the largest batch.
            changes: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            seconds: seconds_histogram(),
        }
    }
}

/// A store, with the measurements of its commits. A commit without a change is none.
pub(crate) struct Measured<S> {
    store: S,
    figures: CommitFigures,
    /// The changes since the last commit.
    changes: u32,
}

impl<S> Measured<S> {
    pub(crate) fn new(store: S, figures: CommitFigures) -> Self {
        Self {
            store,
            figures,
            changes: 0,
        }
    }
}

impl<S: Store> Store for Measured<S> {
    type Change = S::Change;
    type Outcome = S::Outcome;

    fn apply(&mut self, change: S::Change) -> Result<S::Outcome, NotStored> {
        let applied = self.store.apply(change);
        self.changes += u32::from(applied.is_ok());
        applied
    }

    fn is_batch_full(&self) -> bool {
        self.store.is_batch_full()
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let begun = Instant::now();
        let committed = self.store.commit();
        let changes = std::mem::take(&mut self.changes);
        if changes > 0 && committed.is_ok() {
            self.figures.changes.observe(changes.into());
            self.figures.seconds.observe(begun.elapsed().as_secs_f64());
        }
        committed
    }

    fn confirm(&self, outcome: S::Outcome) -> Result<S::Outcome, NotStored> {
        self.store.confirm(outcome)
    }

    fn needs_maintenance(&self) -> bool {
        self.store.needs_maintenance()
    }

    fn maintain(&mut self) -> io::Result<()> {
        self.store.maintain()
    }
}
