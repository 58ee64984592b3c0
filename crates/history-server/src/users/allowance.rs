//! How many names one source may ask for: enough for a class behind one address, and too few to use up
//! all names, or the memory that they take.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use daemon::Source;
use storage::lock;

/// The names that a source gets at once...
const AT_ONCE: u32 = 128;

/// ...of which it has one back after this.
const BACK_AFTER: Duration = Duration::from_secs(10);

/// The most sources that are remembered. While that many have asked lately, no other gets a name.
const SOURCES_MAX: usize = 4096;

/// The names that each source may still ask for.
#[derive(Default)]
pub(super) struct Allowance(Mutex<HashMap<Source, FullAt>>);

/// When a source has all of its names back.
type FullAt = Instant;

impl Allowance {
    /// Spends one name of a source; returns whether it had one left.
    pub(super) fn spend(&self, source: Source, now: Instant) -> bool {
        let mut sources = lock(&self.0);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            sources.retain(|_, full_at| *full_at > now);
            if sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let full_at = sources.entry(source).or_insert(now);
        let then = now.max(*full_at) + BACK_AFTER;
        let is_left = then <= now + BACK_AFTER * AT_ONCE;
        if is_left {
            *full_at = then;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_some_names_at_once_and_then_one_after_the_other() {
        let (allowance, now) = (Allowance::default(), Instant::now());
        let spend = |source, at| (0..1000).filter(|_| allowance.spend(source, at)).count();
        let [one, other] = [Source::User(1), Source::User(2)];
        assert_eq!(spend(one, now), AT_ONCE as usize);
        assert_eq!(spend(one, now + BACK_AFTER / 2), 0);
        assert_eq!(spend(one, now + BACK_AFTER), 1);
        assert_eq!(spend(other, now), AT_ONCE as usize);
        assert_eq!(spend(one, now + 2 * BACK_AFTER * AT_ONCE), AT_ONCE as usize);
    }

    #[test]
    fn the_number_of_sources_that_are_remembered_is_limited() {
        let (allowance, now) = (Allowance::default(), Instant::now());
        for source in 0..SOURCES_MAX as u32 {
            assert!(allowance.spend(Source::User(source), now));
        }
        assert!(!allowance.spend(Source::User(u32::MAX), now));
        assert!(allowance.spend(Source::User(0), now));
        // All but the one that has asked twice have their names back.
        assert!(allowance.spend(Source::User(u32::MAX), now + BACK_AFTER));
        assert_eq!(lock(&allowance.0).len(), 2);
    }
}
