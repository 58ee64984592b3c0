//! The queues' own time, from one run of the server to the next.
//!
//! The system's clock may be set while the server is not running. So the queues' clock does not start
//! from it again: it continues from what was noted in the database, by the time that has passed since.
//! While the machine runs, its uptime says how long that was, and nobody can set the uptime. After a
//! restart of the machine only the system's clock can say. For delays, wall time that passed counts; a
//! clock set back counts as zero. A lease lasts for all that was left of it, because its worker may run
//! on another machine.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, Micros, micros};

/// The precision of the machine's uptime.
const UPTIME_STEP: Duration = Duration::from_millis(10);

/// What the machine's clocks show at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// Which start of the machine this is. Empty if it does not tell.
    pub(super) boot: String,
    /// Time since that boot, in microseconds.
    pub(super) uptime: u64,
    /// The system's clock, in microseconds since 1970.
    pub(super) wall: u64,
}

/// What the queues' clock shows at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) clock: Micros,
    pub(super) moment: Moment,
}

/// How the queues' clock continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resumed {
    /// What it shows now.
    pub(super) now: Micros,
    /// How much of the time that has passed does not count for leases, in microseconds.
    pub(super) lease_pause: u64,
}

impl Moment {
    /// What the clocks show now. The files are read directly, because libfaketime and the like shift
    /// `clock_gettime`.
    pub(super) fn now() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split(' ').next().and_then(|word| word.parse().ok());
        let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            boot: match uptime {
                Some(_) => boot.trim().to_owned(),
                None => String::new(),
            },
            uptime: micros(uptime.unwrap_or_default()),
            wall: micros(wall.unwrap_or_default()),
        }
    }
}

impl Note {
    pub(super) fn of(clock: &Clock) -> Self {
        Self {
            clock: clock.now(),
            moment: Moment::now(),
        }
    }

    /// How the clock continues at a later moment.
    pub(super) fn resume(&self, at: &Moment) -> Resumed {
        let is_same_boot =
            !at.boot.is_empty() && at.boot == self.moment.boot && at.uptime >= self.moment.uptime;
        let passed = if is_same_boot {
            // Rounded down, so that no lease ends early.
            (at.uptime - self.moment.uptime).saturating_sub(micros(UPTIME_STEP))
        } else {
            at.wall.saturating_sub(self.moment.wall)
        };
        Resumed {
            now: self.clock.saturating_add(passed),
            lease_pause: if is_same_boot { 0 } else { passed },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;
    const DAY: u64 = 24 * HOUR;
    const WALL: u64 = 20_000 * DAY;

    fn moment(boot: &str, uptime: u64, wall: u64) -> Moment {
        Moment {
            boot: boot.to_owned(),
            uptime,
            wall,
        }
    }

    #[track_caller]
    fn check(at: &Moment, passed: u64, lease_pause: u64) {
        let note = Note {
            clock: 7 * DAY,
            moment: moment("one", HOUR, WALL),
        };
        let now = 7 * DAY + passed;
        assert_eq!(note.resume(at), Resumed { now, lease_pause });
    }

    #[test]
    fn while_the_machine_runs_the_systems_clock_does_not_matter() {
        let passed = HOUR - micros(UPTIME_STEP);
        for wall in [0, WALL - DAY, WALL + HOUR, WALL + 3650 * DAY] {
            check(&moment("one", 2 * HOUR, wall), passed, 0);
        }
    }

    #[test]
    fn after_a_restart_of_the_machine_the_clock_goes_forward_and_leases_wait() {
        check(&moment("two", 1, WALL + HOUR), HOUR, HOUR);
        check(&moment("two", 1, WALL + DAY), DAY, DAY);
        check(&moment("two", 1, WALL - DAY), 0, 0);
        // A machine that does not tell.
        check(&moment("", 0, WALL + HOUR), HOUR, HOUR);
        // A container that was started again.
        check(&moment("one", 1, WALL + HOUR), HOUR, HOUR);
    }

    #[test]
    fn this_machine_tells_its_uptime() {
        let (first, then) = (Moment::now(), Moment::now());
        assert_eq!(first.boot, then.boot);
        assert!(!first.boot.is_empty() && first.uptime > 0);
        assert!(then.uptime >= first.uptime && then.wall > WALL);
    }
}
