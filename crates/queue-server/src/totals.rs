//! What happened to the messages of each queue, counted since it was first used.
//!
//! A queue is forgotten when it is empty, and its counts are not. So that names that are never used again do not
//! fill the memory, only [`NAMED_MAX`] queues are counted by name; all others are counted together.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The most queues that are counted, and told, by name.
pub(crate) const NAMED_MAX: usize = 1000;

/// The name of all other queues together, which no queue can have.
pub(crate) const REST: &str = "(other)";

/// What happened to the messages of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Sent to it.
    pub(crate) sent: u64,
    /// Acknowledged, or delivered at most once.
    pub(crate) acked: u64,
    /// Attempts that ended without an acknowledgement, and count.
    pub(crate) failed: u64,
    /// Became dead letters.
    pub(crate) died: u64,
    /// Of these, because nobody received them in time.
    pub(crate) expired: u64,
}

impl Counts {
    /// All of them, in the order of the fields.
    pub(crate) fn to_array(self) -> [u64; 5] {
        [self.sent, self.acked, self.failed, self.died, self.expired]
    }

    pub(crate) fn from_array([sent, acked, failed, died, expired]: [u64; 5]) -> Self {
        Self {
            sent,
            acked,
            failed,
            died,
            expired,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        let (mut sums, others) = (self.to_array(), other.to_array());
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum = sum.saturating_add(other);
        }
        *self = Self::from_array(sums);
    }
}

/// The counts of queues by name, the rest under [`REST`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CountsByName(BTreeMap<Arc<str>, Counts>);

impl CountsByName {
    /// Adds to the counts of a queue; of one too many, to those of the rest.
    pub(crate) fn add(&mut self, queue: &Arc<str>, counts: Counts) {
        if counts == Counts::default() {
            return;
        }
        let is_named = self.0.contains_key(queue) || !self.is_full();
        let name = if is_named { queue } else { &REST.into() };
        self.0.entry(Arc::clone(name)).or_default().add(counts);
    }

    /// Has these queues counted by their names from now on, the first of them if there is no room for all.
    pub(crate) fn name<'q>(&mut self, queues: impl Iterator<Item = &'q Arc<str>>) {
        if self.is_full() {
            return;
        }
        let is_new = |queue: &&Arc<str>| !self.0.contains_key(*queue);
        let mut new: Vec<_> = queues.filter(is_new).map(Arc::clone).collect();
        new.sort_unstable();
        for queue in new {
            if self.is_full() {
                return;
            }
            self.0.insert(queue, Counts::default());
        }
    }

    /// Whether it has all the names that it may have, beside that of the rest.
    fn is_full(&self) -> bool {
        self.0.len() - usize::from(self.0.contains_key(REST)) >= NAMED_MAX
    }

    /// Those of one queue.
    #[cfg(test)]
    pub(crate) fn get(&self, queue: &str) -> Counts {
        self.0.get(queue).copied().unwrap_or_default()
    }

    /// Sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Counts)> {
        self.0.iter()
    }

    /// Those that are not the same as before.
    pub(crate) fn changed_since(
        &self,
        before: &Self,
    ) -> impl Iterator<Item = (&Arc<str>, &Counts)> {
        self.iter()
            .filter(|(queue, counts)| before.0.get(*queue) != Some(*counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_queue_too_many_is_counted_with_the_rest() {
        let sent = |sent| Counts {
            sent,
            ..Counts::default()
        };
        let mut all = CountsByName::default();
        all.add(&"none".into(), Counts::default());
        for number in 0..NAMED_MAX + 5 {
            all.add(&number.to_string().into(), sent(1));
        }
        let before = all.clone();
        all.add(&"7".into(), sent(2));
        assert_eq!(all.iter().count(), NAMED_MAX + 1);
        assert_eq!((all.get("7"), all.get(REST)), (sent(3), sent(5)));
        assert_eq!(all.get("1004"), Counts::default());
        let changed: Vec<_> = all.changed_since(&before).collect();
        assert_eq!(changed, [(&"7".into(), &sent(3))]);
    }
}
