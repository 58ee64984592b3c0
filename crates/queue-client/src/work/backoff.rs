//! How long a message is delayed whose command has failed: longer after each attempt, and never for two
//! messages alike, so that what has failed together is not tried again together.

use std::time::Duration;

use uuid::Uuid;

/// The shortest delay and the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first attempt is at least this long.
    pub min: Duration,
    /// None is longer than this.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(5 * 60),
        }
    }
}

impl Backoff {
    /// The same delay after each attempt.
    pub fn constant(delay: Duration) -> Self {
        Self {
            min: delay,
            max: delay,
        }
    }

    /// The delay after this attempt, counted from 1: at random between the shortest, doubled for each
    /// attempt before, and twice that.
    pub(super) fn delay(&self, attempt: u32) -> Duration {
        let random = Uuid::new_v4().as_u64_pair().0;
        self.delay_at(attempt, random as f64 / u64::MAX as f64)
    }

    /// The delay for a random number from 0 to 1.
    fn delay_at(&self, attempt: u32, random: f64) -> Duration {
        let doubled = 2_u32.checked_pow(attempt).unwrap_or(u32::MAX);
        let high = self.min.saturating_mul(doubled).min(self.max);
        let low = self.min.max(high / 2).min(high);
        low + (high - low).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(backoff: Backoff, attempt: u32, low: u64, high: u64) {
        let delays = [0.0, 1.0].map(|random| backoff.delay_at(attempt, random));
        assert_eq!(delays, [low, high].map(Duration::from_secs), "{attempt}");
        let delay = backoff.delay(attempt);
        assert!((delays[0]..=delays[1]).contains(&delay), "{delay:?}");
    }

    #[test]
    fn the_delay_doubles_up_to_the_longest() {
        let backoff = Backoff {
            min: Duration::from_secs(5),
            max: Duration::from_secs(600),
        };
        check(backoff, 1, 5, 10);
        check(backoff, 2, 10, 20);
        check(backoff, 6, 160, 320);
        check(backoff, 7, 300, 600);
        for attempt in [8, 31, 32, u32::MAX] {
            check(backoff, attempt, 300, 600);
        }
    }

    #[test]
    fn a_constant_delay_has_no_jitter() {
        for secs in [0, 7] {
            let backoff = Backoff::constant(Duration::from_secs(secs));
            check(backoff, 1, secs, secs);
            check(backoff, 9, secs, secs);
        }
    }
}
