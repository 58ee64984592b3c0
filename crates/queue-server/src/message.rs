//! A message, and its place among the others.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::queue::{MessageId, Reply, Token};

use crate::memory::{Body, Memory};

/// What a message costs beside its body, in bytes: its fields, its place in a queue, and the
/// allocator's.
const OVERHEAD_BYTES: usize = 64;

/// When a message entered its queue, or is to enter it: microseconds since 1970, and unique. The
/// lower one is handed out first.
pub type Place = u64;

/// A message. There may be millions, so it is small.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is acknowledged by; ids grow in the order of arrival.
    pub id: MessageId,
    /// Where it is.
    pub place: Place,
    /// What was sent.
    pub body: Body,
    /// How often it was handed out.
    pub attempts: u32,
    /// The CRC-32 of the body; 0 where there is no database.
    pub body_crc: u32,
}

impl Message {
    /// A message that was just sent, and gets its id and its place later.
    pub(crate) fn new(body: &[u8]) -> Self {
        Self {
            id: 0,
            place: 0,
            body: Body::Own(Box::from(body)),
            attempts: 0,
            body_crc: 0,
        }
    }

    /// The same message with its body's CRC-32, which the database wants to have.
    pub(crate) fn with_checksum(self) -> Self {
        Self {
            body_crc: crc32fast::hash(&self.body),
            ..self
        }
    }

    /// What whoever is handed it is told.
    pub(crate) fn reply(&self) -> Reply<'_> {
        Reply::Message {
            id: self.id,
            attempt: self.attempts,
            body: &self.body,
        }
    }

    /// The same message, whose cost was put on the account.
    pub(crate) fn counted(self, memory: &Arc<Memory>) -> Self {
        Self {
            body: self.body.share(memory),
            ..self
        }
    }

    /// What it takes, in bytes of memory.
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD_BYTES + self.body.len()
    }

    /// What of that is to be taken off the account when it is forgotten; a shared body does so itself.
    pub(crate) fn own_cost(&self) -> usize {
        match &self.body {
            Body::Own(bytes) => OVERHEAD_BYTES + bytes.len(),
            Body::Shared(_) => OVERHEAD_BYTES,
        }
    }
}

/// A message that waits for its commit: the queue it goes to, and whether only after a delay.
pub(crate) type Arriving = (Arc<str>, Message, bool);

/// A message that was taken out of its queue, and has to be forgotten or put back.
#[must_use = "a message that is dropped is lost"]
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// The queue it is counted in.
    pub(crate) queue: Arc<str>,
    /// The message.
    pub message: Message,
    /// If it is leased: the token, and when the lease runs out.
    pub(crate) lease: Option<(Token, Place)>,
}

impl Taken {
    /// What whoever takes it is told.
    pub(crate) fn reply(&self) -> Reply<'_> {
        match self.lease {
            None => self.message.reply(),
            Some((token, _)) => Reply::Leased {
                token,
                id: self.message.id,
                attempt: self.message.attempts,
                body: &self.message.body,
            },
        }
    }
}

/// Gives places: the time, but never the same one twice, and never one before another.
pub(crate) struct Clock {
    started: Instant,
    started_micros: u64,
    last: AtomicU64,
    /// When the last delay began.
    last_delayed: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::starting_at(micros(since_1970.unwrap_or_default()))
    }

    /// A clock that now says this.
    pub(crate) fn starting_at(now: Place) -> Self {
        Self {
            started: Instant::now(),
            started_micros: now,
            last: AtomicU64::new(0),
            last_delayed: AtomicU64::new(0),
        }
    }

    /// The time, in microseconds. It does not follow when the system's clock is set.
    pub(crate) fn now(&self) -> u64 {
        self.started_micros + micros(self.started.elapsed())
    }

    /// How long it has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// A moment from now.
    pub(crate) fn after(&self, wait: Duration) -> u64 {
        self.now() + micros(wait)
    }

    /// The next place at the end.
    pub(crate) fn next_place(&self) -> Place {
        self.behind(&self.last, 1)
    }

    /// The next so many places at the end.
    pub(crate) fn next_places(&self, count: usize) -> Range<Place> {
        let count = count as u64;
        let first = self.behind(&self.last, count);
        first..first + count
    }

    /// The next place at the end, or the one that is due after a delay. After the same delay, no
    /// two are the same.
    pub(crate) fn place_after(&self, delay: Duration) -> Place {
        match delay.is_zero() {
            true => self.next_place(),
            // Not behind the last place, for that may be ahead of the time.
            false => self.behind(&self.last_delayed, 1) + micros(delay),
        }
    }

    /// The time, or what comes behind `last` if it is that already; `last` is then the last of so
    /// many.
    fn behind(&self, last: &AtomicU64, count: u64) -> u64 {
        let now = self.now();
        let next = |last: u64| now.max(last + 1);
        let relaxed = Ordering::Relaxed;
        let update = last.fetch_update(relaxed, relaxed, |last| Some(next(last) + count - 1));
        next(update.unwrap_or_else(|last| last))
    }

    /// Has all further places come behind this one, which was given in an earlier life.
    pub(crate) fn skip(&self, place: Place) {
        self.last.fetch_max(place, Ordering::Relaxed);
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
    fn no_two_places_are_the_same_and_a_delay_begins_now() {
        const HOUR: u64 = 3_600_000_000;
        let delay = Duration::from_secs(1);
        let clock = Clock::new();
        // The system's clock was set back while the server was not running.
        clock.skip(clock.now() + HOUR);
        let places: Vec<_> = (0..1000).map(|_| clock.next_place()).collect();
        assert!(places.is_sorted_by(|a, b| a < b) && places[0] > clock.now());
        let delayed: Vec<_> = (0..1000).map(|_| clock.place_after(delay)).collect();
        assert!(delayed.is_sorted_by(|a, b| a < b));
        assert!(delayed[999] < clock.now() + HOUR);
    }
}
