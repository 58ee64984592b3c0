//! The wrong passwords that an address may send: 16 at once, then one a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::{Source, lock};

/// The wrong passwords that an address may send before it has to wait...
const WRONG_MAX: u32 = 16;
/// ...for this long, until one of them is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);

/// The most addresses that are remembered. One more replaces another.
const NETWORKS_MAX: usize = 4096;

/// The wrong guesses of all addresses.
#[derive(Default)]
pub(super) struct Guesses(Mutex<HashMap<Source, Arc<Mutex<Wrong>>>>);

/// The wrong guesses of one address.
#[derive(Default)]
pub(super) struct Wrong {
    /// The time when all of them are forgiven.
    forgiven_at: Option<Instant>,
}

impl Guesses {
    /// The wrong guesses of an address. Its lock is held while a guess is checked.
    pub(super) fn of(&self, from: Source) -> Arc<Mutex<Wrong>> {
        let mut all = lock(&self.0);
        if all.len() >= NETWORKS_MAX && !all.contains_key(&from) {
            let other = all.keys().next().copied();
            other.and_then(|other| all.remove(&other));
        }
        Arc::clone(all.entry(from).or_default())
    }
}

impl Wrong {
    /// How long this address must wait before it may guess; `None` if it need not.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.forgiven_at?.saturating_duration_since(now);
        let wait = left.saturating_sub(FORGIVEN_AFTER * (WRONG_MAX - 1));
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a wrong guess.
    pub(super) fn add(&mut self, now: Instant) {
        let from = self.forgiven_at.map_or(now, |at| at.max(now));
        self.forgiven_at = Some(from + FORGIVEN_AFTER);
    }

    /// Takes the last guess off the count: it was right.
    pub(super) fn forgive_last(&mut self) {
        self.forgiven_at = self
            .forgiven_at
            .and_then(|at| at.checked_sub(FORGIVEN_AFTER));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn network(number: u32) -> Source {
        Source::Ip(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn sixteen_may_be_wrong_and_then_one_a_second() {
        let start = Instant::now();
        let mut wrong = Wrong::default();
        for _ in 0..WRONG_MAX {
            assert_eq!(wrong.wait(start), None);
            wrong.add(start);
        }
        assert_eq!(wrong.wait(start), Some(FORGIVEN_AFTER));
        assert_eq!(
            wrong.wait(start + FORGIVEN_AFTER / 4),
            Some(FORGIVEN_AFTER * 3 / 4)
        );
        let later = start + FORGIVEN_AFTER;
        assert_eq!(wrong.wait(later), None);
        wrong.add(later);
        assert_eq!(wrong.wait(later), Some(FORGIVEN_AFTER));
        // What is right does not count.
        wrong.forgive_last();
        assert_eq!(wrong.wait(later), None);
        let much_later = start + FORGIVEN_AFTER * 1000;
        for _ in 0..WRONG_MAX {
            assert_eq!(wrong.wait(much_later), None);
            wrong.add(much_later);
        }
        assert!(wrong.wait(much_later).is_some());
    }

    #[test]
    fn the_number_of_addresses_is_limited() {
        let guesses = Guesses::default();
        let one = guesses.of(network(1));
        assert!(Arc::ptr_eq(&one, &guesses.of(network(1))));
        assert!(!Arc::ptr_eq(&one, &guesses.of(network(2))));
        for number in 3..NETWORKS_MAX as u32 + 99 {
            let _ = guesses.of(network(number));
        }
        assert_eq!(lock(&guesses.0).len(), NETWORKS_MAX);
    }
}
