//! The queues' clock: microseconds since 1970 that never jump, and moments that are never given twice.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of the queues' clock, in microseconds since 1970.
pub(crate) type Micros = u64;

/// The clock. It starts from the system's clock, or from what the journal noted, and then follows
/// nothing but the time that passes.
pub(crate) struct Clock {
    started: Instant,
    started_at: Micros,
    /// The last moment that was given to a message.
    last_moment: AtomicU64,
    /// When the last delay began.
    last_delay: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::starting_at(micros(since_1970.unwrap_or_default()))
    }

    /// A clock that now shows `now`.
    pub(crate) fn starting_at(now: Micros) -> Self {
        Self {
            started: Instant::now(),
            started_at: now,
            last_moment: AtomicU64::new(0),
            last_delay: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) -> Micros {
        self.started_at + micros(self.started.elapsed())
    }

    /// How long it has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The moment after a wait that begins now.
    pub(crate) fn after(&self, wait: Duration) -> Micros {
        self.now() + micros(wait)
    }

    /// The moment at which a message enters a queue: now, made unique.
    pub(crate) fn next_moment(&self) -> Micros {
        self.advance(&self.last_moment, 1)
    }

    /// The next `count` of these moments.
    pub(crate) fn next_moments(&self, count: usize) -> Range<Micros> {
        let count = count as u64;
        let first = self.advance(&self.last_moment, count);
        first..first + count
    }

    /// The moment at which a delay that begins now is over. Two delays of one length end at two moments, in
    /// the order in which they began. Without a delay it is the next moment.
    pub(crate) fn moment_after(&self, delay: Duration) -> Micros {
        if delay.is_zero() {
            self.next_moment()
        } else {
            // It counts from the time. The last moment may be ahead of that.
            self.advance(&self.last_delay, 1) + micros(delay)
        }
    }

    /// Gives `count` numbers, of which the first is the time, or follows `last` if that is later.
    fn advance(&self, last: &AtomicU64, count: u64) -> u64 {
        let now = self.now();
        let next = |last: u64| now.max(last + 1);
        let relaxed = Ordering::Relaxed;
        let update = last.fetch_update(relaxed, relaxed, |last| Some(next(last) + count - 1));
        next(update.unwrap_or_else(|last| last))
    }

    /// Makes all further moments follow this one, which an earlier run of the server gave.
    pub(crate) fn skip(&self, moment: Micros) {
        self.last_moment.fetch_max(moment, Ordering::Relaxed);
    }
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_moments_are_the_same_and_a_delay_begins_now() {
        const HOUR: u64 = 3_600_000_000;
        let delay = Duration::from_secs(1);
        let clock = Clock::new();
        // The system's clock was set back while the server was not running.
        clock.skip(clock.now() + HOUR);
        let moments: Vec<_> = (0..1000).map(|_| clock.next_moment()).collect();
        assert!(moments.is_sorted_by(|a, b| a < b) && moments[0] > clock.now());
        let delayed: Vec<_> = (0..1000).map(|_| clock.moment_after(delay)).collect();
        assert!(delayed.is_sorted_by(|a, b| a < b));
        assert!(delayed[999] < clock.now() + HOUR);
    }
}
