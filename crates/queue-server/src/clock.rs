//! The queues' clock: microseconds since 1970 that never jump, and positions that are never given twice.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of the queues' clock, in microseconds since 1970.
pub(crate) type Micros = u64;

/// Where a message stands in its queue: the moment it entered, made unique. The lowest is next.
pub(crate) type Position = Micros;

/// The clock. It starts from the system's clock, or from what the journal noted, and then follows
/// nothing but the time that passes.
pub(crate) struct Clock {
    started: Instant,
    started_at: Micros,
    last_position: AtomicU64,
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
            last_position: AtomicU64::new(0),
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

    /// The next position at the end of a queue.
    pub(crate) fn next_position(&self) -> Position {
        self.advance(&self.last_position, 1)
    }

    /// The next `count` positions at the end of a queue.
    pub(crate) fn next_positions(&self, count: usize) -> Range<Position> {
        let count = count as u64;
        let first = self.advance(&self.last_position, count);
        first..first + count
    }

    /// The next position at the end, or the moment at which a delay that begins now is over. No two
    /// delays of the same length are over at the same moment.
    pub(crate) fn position_after(&self, delay: Duration) -> Position {
        match delay.is_zero() {
            true => self.next_position(),
            // Not behind the last position, because that may be ahead of the time.
            false => self.advance(&self.last_delay, 1) + micros(delay),
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

    /// Makes all further positions follow this one, which an earlier run of the server gave.
    pub(crate) fn skip(&self, position: Position) {
        self.last_position.fetch_max(position, Ordering::Relaxed);
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
    fn no_two_positions_are_the_same_and_a_delay_begins_now() {
        const HOUR: u64 = 3_600_000_000;
        let delay = Duration::from_secs(1);
        let clock = Clock::new();
        // The system's clock was set back while the server was not running.
        clock.skip(clock.now() + HOUR);
        let positions: Vec<_> = (0..1000).map(|_| clock.next_position()).collect();
        assert!(positions.is_sorted_by(|a, b| a < b) && positions[0] > clock.now());
        let delayed: Vec<_> = (0..1000).map(|_| clock.position_after(delay)).collect();
        assert!(delayed.is_sorted_by(|a, b| a < b));
        assert!(delayed[999] < clock.now() + HOUR);
    }
}
