//! For how long a server may hand out messages while the database is silent.
//!
//! Another server takes over when it has seen no commit for `--takeover-after`. So this one hands out nothing when half
//! of that has passed since its own last commit. Commits need no such rule, because the database checks their epoch; but
//! a message can be handed out without a commit.
//!
//! The clock is CLOCK_BOOTTIME (clock_gettime(2)): it also counts while the process or the machine is stopped, and
//! nobody can set it.

#![cfg_attr(
    not(feature = "postgres"),
    allow(dead_code, reason = "nobody else can lead a file of SQLite")
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// After how long at most it is time for the next commit, in milliseconds. If the connection to the database has
/// ended, the lock that went with it is free, and another server may lead already.
const DUE_MILLIS_MAX: u64 = 1000;

/// When a server has last confirmed that it leads.
#[derive(Debug)]
pub(crate) struct Authority {
    confirmed_at: AtomicU64,
    valid_millis: u64,
    /// A commit was lost: nothing confirms it any more.
    is_over: AtomicBool,
}

/// A moment of CLOCK_BOOTTIME, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boottime(u64);

impl Boottime {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000)
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_millis(Self::now().0.saturating_sub(self.0))
    }
}

impl Authority {
    /// One that was confirmed at a moment, and is valid for this long.
    pub(crate) fn new(confirmed_at: Boottime, valid: Duration) -> Self {
        Self {
            confirmed_at: AtomicU64::new(confirmed_at.0),
            valid_millis: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
            is_over: AtomicBool::new(false),
        }
    }

    /// A commit was lost, and another server may lead.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The database has committed what was begun at this moment.
    pub(crate) fn confirm(&self, begun_at: Boottime) {
        self.confirmed_at.fetch_max(begun_at.0, Ordering::Relaxed);
    }

    /// Whether nobody else can lead yet.
    pub(crate) fn is_valid(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed) && self.age_millis() < self.valid_millis
    }

    /// Whether it is time to confirm it.
    pub(crate) fn is_due(&self) -> bool {
        self.age_millis() >= DUE_MILLIS_MAX.min(self.valid_millis / 4)
    }

    fn age_millis(&self) -> u64 {
        let now = Boottime::now().0;
        now.saturating_sub(self.confirmed_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_valid_for_a_time_from_the_start_of_the_last_confirmed_commit() {
        const MINUTE: Duration = Duration::from_secs(60);
        let now = Boottime::now();
        let earlier = Boottime(now.0 - 61_000);
        let authority = Authority::new(earlier, MINUTE);
        assert!(!authority.is_valid());
        authority.confirm(now);
        assert!(authority.is_valid());
        // An answer that comes late confirms nothing newer.
        authority.confirm(earlier);
        assert!(authority.is_valid());
        // When a commit was lost, no other that comes late helps.
        authority.end();
        authority.confirm(Boottime::now());
        assert!(!authority.is_valid());
    }
}
