//! Which of the oldest lines need not stay: those beyond a number of lines or of days.
//!
//! To delete lines from the front, the rest is copied. So that not every new line costs a copy, nothing
//! is pruned until an eighth more than what stays has gathered.

use std::io::{self, BufReader};
use std::time::Duration;

use jiff::Timestamp;

use super::file_range::{BLOCK_BYTES, State};
use super::line;

/// What gathers beyond that which stays, before it is pruned: this part of it.
const EXCESS_PART: u64 = 8;

const HOUR: Duration = Duration::from_secs(3600);

/// An eighth of a day.
const EIGHTH_OF_DAY: Duration = HOUR.saturating_mul(3);

/// The start of a line, with its number and its time, in bytes.
const START_BYTES_MAX: usize = 64;

/// After this many lines it is looked whether the server is stopping.
const LINES_PER_LOOK: u64 = 1 << 16;

/// How much of the history stays; all of it by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// The most lines, at least 1.
    pub lines: Option<u64>,
    /// The most days that a line stays, at least 1. A line whose time does not tell its age goes with
    /// those behind it: one without a time, with one that has not come yet, or with one before that of an
    /// earlier line, because the clock was set back then.
    pub days: Option<u32>,
}

/// Lines at the front that are to be pruned.
pub(super) struct Excess {
    /// How many they are.
    pub(super) lines: u64,
    /// How many lines must stay. Others may be about to delete some, which are counted until that is done.
    pub(super) staying_min: u64,
}

impl Keep {
    /// Whether all of it stays.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// With more lines than this, some are pruned.
    pub(super) fn lines_max(&self) -> Option<u64> {
        let lines = self.lines?;
        Some(lines.saturating_add(lines / EXCESS_PART))
    }

    /// How many lines are to be pruned now: none, or enough to be worth a copy. The newest line is never
    /// among them.
    pub(super) fn excess(
        &self,
        state: State,
        now: Timestamp,
        is_stopping: &dyn Fn() -> bool,
    ) -> io::Result<Excess> {
        let too_many = match self.lines {
            Some(lines) if Some(state.lines) > self.lines_max() => state.lines - lines,
            Some(_) | None => 0,
        };
        let too_old = match self.days {
            Some(days) => too_old(state, days, now, is_stopping)?,
            None => 0,
        };
        Ok(match too_old < too_many {
            true => Excess {
                lines: too_many,
                staying_min: self.lines.unwrap_or(0),
            },
            false => Excess {
                lines: too_old,
                staying_min: 0,
            },
        })
    }
}

/// How many lines at the front are older than this many days; 0 unless the first is older by an eighth.
fn too_old(
    state: State,
    days: u32,
    now: Timestamp,
    is_stopping: &dyn Fn() -> bool,
) -> io::Result<u64> {
    let eighths = |eighths| {
        let age = EIGHTH_OF_DAY.saturating_mul(days).saturating_mul(eighths);
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        now.as_millisecond().saturating_sub(age)
    };
    let (now, oldest, first_oldest) = (eighths(0), eighths(8), eighths(9));
    let mut newest = i64::MIN;
    let mut input = BufReader::with_capacity(BLOCK_BYTES, state.file);
    let mut start = Vec::new();
    let mut too_old = 0;
    for number in 1..state.lines {
        if number % LINES_PER_LOOK == 0 && is_stopping() {
            return Ok(0);
        }
        line::read(&mut input, START_BYTES_MAX, &mut start)?;
        let time = line::split(&start).and_then(|(_, record)| line::time(record));
        let time = time.map(u64::cast_signed);
        let Some(time) = time.filter(|time| (newest..=now).contains(time)) else {
            continue;
        };
        newest = time;
        let limit = if too_old == 0 { first_oldest } else { oldest };
        if time >= limit {
            break;
        }
        too_old = number;
    }
    Ok(too_old)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;

    use super::super::file_range::{FileRange, Removals};
    use super::*;

    fn state(text: &str) -> State {
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        State {
            file: FileRange {
                file: Arc::new(file),
                range: 0..text.len() as u64,
            },
            lines: text.lines().count() as u64,
            next: 1,
            generation: 0,
            removals: Removals::default(),
        }
    }

    /// A history with lines that are this many hours old; one that is -1 has no time.
    fn aged(now: Timestamp, hours: &[i64]) -> State {
        let line = |(n, hours): (usize, &i64)| match hours {
            -1 => format!("#{n} old {}\n", "x".repeat(100)),
            hours => {
                let time = now - Duration::from_secs(3600) * *hours as u32;
                format!("#{n} {time:.3} p alice hello\n")
            }
        };
        let lines: String = (1..).zip(hours).map(line).collect();
        state(&lines)
    }

    #[track_caller]
    fn check_lines(keep: u64, lines: u64, want: u64) {
        let keep = Keep {
            lines: Some(keep),
            days: None,
        };
        let state = State { lines, ..state("") };
        let excess = keep.excess(state, Timestamp::now(), &|| false);
        assert_eq!(excess.unwrap().lines, want);
    }

    #[test]
    fn lines_are_pruned_when_an_eighth_more_has_gathered() {
        for lines in 0..=1125 {
            check_lines(1000, lines, 0);
        }
        check_lines(1000, 1126, 126);
        check_lines(1000, 5000, 4000);
        check_lines(1, 1, 0);
        check_lines(1, 2, 1);
        check_lines(u64::MAX, u64::MAX, 0);
    }

    #[track_caller]
    fn check_days(hours: &[i64], want: u64) {
        let now = Timestamp::now();
        let keep = Keep {
            lines: None,
            days: Some(8),
        };
        let excess = keep.excess(aged(now, hours), now, &|| false);
        assert_eq!(excess.unwrap().lines, want, "{hours:?}");
    }

    #[test]
    fn lines_are_pruned_when_the_oldest_is_an_eighth_older() {
        check_days(&[], 0);
        check_days(&[9 * 24 - 1, 8 * 24 + 1, 0], 0);
        check_days(&[9 * 24 + 1, 8 * 24 + 1, 8 * 24 - 1, 0], 2);
        check_days(&[9 * 24 + 1, 0, 9 * 24 + 1, 0], 1);
        // The newest line stays.
        check_days(&[9 * 24 + 1], 0);
        check_days(&[9 * 24 + 1, 9 * 24 + 1], 1);
    }

    #[test]
    fn a_line_without_a_time_goes_with_those_behind_it() {
        check_days(&[-1, -1, 9 * 24 + 1, 9 * 24, -1, 8 * 24 + 1, -1, 0], 6);
        check_days(&[-1, 0, 0], 0);
        check_days(&[-1, -1], 0);
        // The clock was set back for a while.
        check_days(&[9 * 24 + 2, 700 * 24, 699 * 24, 8 * 24 - 1, 0], 1);
        check_days(&[9 * 24 + 2, 700 * 24, 699 * 24, 8 * 24 + 1, 0], 4);
        // It still is.
        check_days(&[9 * 24 + 2, 700 * 24, 699 * 24], 1);
        // A line of the future neither.
        let now = Timestamp::now();
        let keep = Keep {
            lines: None,
            days: Some(1),
        };
        let text = format!(
            "#1 9999-01-01T00:00:00Z p a b\n#2 {:.3} p a b\n#3 {now:.3} p a b\n",
            now - HOUR * 28
        );
        let excess = keep.excess(state(&text), now, &|| false);
        assert_eq!(excess.unwrap().lines, 2);
    }
}
