//! Why a message moves, and what is counted for that.

use std::sync::Arc;

use super::state::{Entry, State};

/// Why a message moves, which is counted when that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its receiver has released it.
    Released,
    /// The same, and the attempt does not count.
    Uncounted,
    /// Its receiver is gone.
    Requeued,
    /// Nobody has received it in time.
    Expired,
    /// An operator moves it. That is no attempt, so it is not counted.
    Operator,
}

impl Why {
    /// Whether a message that leaves its queue becomes a dead letter by that.
    pub(super) fn is_burial(self, from: &Arc<str>, to: &Arc<str>) -> bool {
        self != Self::Operator && from != to
    }
}

impl State {
    /// Counts what happened to a message of this queue.
    pub(super) fn count(&mut self, queue: &Arc<str>, why: Why, is_buried: bool) {
        let Entry { queue, common, .. } = self.entry(queue);
        let (counts, totals) = (&mut queue.counts, &mut common.totals);
        match why {
            Why::Released => {
                totals.released += 1;
                counts.failed += 1;
            }
            Why::Uncounted => totals.released += 1,
            Why::Requeued => {
                totals.requeued += 1;
                counts.failed += 1;
            }
            Why::Expired => counts.expired += u64::from(is_buried),
            Why::Operator => {}
        }
        totals.dead_lettered += u64::from(is_buried);
        counts.died += u64::from(is_buried);
    }
}
