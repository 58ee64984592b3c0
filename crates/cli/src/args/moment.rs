//! A moment, on a command line or in a query: a duration, for that long ago, or a date, with a time or
//! without.

use std::ffi::OsStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use super::value::{DURATION_MAX, duration};
use crate::UsageError;

/// The moment that a word names, in milliseconds since 1970; 0 for one before that. A date without an
/// offset is of this zone.
///
/// # Errors
/// [`UsageError::Value`], naming `what`.
pub fn moment_millis(
    what: &'static str,
    word: &OsStr,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<u64, UsageError> {
    let ago = duration(what, word, Duration::ZERO..=DURATION_MAX).ok();
    let moment = match ago {
        Some(ago) => now.checked_sub(ago).ok(),
        None => word.to_str().and_then(|word| date(word, zone)),
    };
    // A line has the millisecond in which it was written, and is of this moment or later if that is not
    // before the next whole one.
    let ceil = TimestampRound::new()
        .smallest(Unit::Millisecond)
        .mode(RoundMode::Ceil);
    let moment = moment.and_then(|moment| moment.round(ceil).ok());
    let want = "a time as 2026-11-27, '2026-11-27 10:00' or 2026-11-27T09:00:00Z, or how long ago, \
                as 90, 15m, 2h or 7d";
    let moment = moment.ok_or_else(|| UsageError::value(what, word, want))?;
    Ok(u64::try_from(moment.as_millisecond()).unwrap_or(0))
}

/// A date with a time and an offset, or without them.
fn date(word: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(moment) = word.parse() {
        return Some(moment);
    }
    // The parser of local times would pass over an offset and a zone.
    let is_local = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | ' ' | 'T');
    let local = word.parse::<DateTime>().ok();
    let local = local.filter(|_| word.chars().all(is_local) && word.matches('-').count() == 2)?;
    Some(zone.to_zoned(local).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::tz;

    use super::*;

    const NOW: &str = "2026-11-27T12:00:00Z";

    fn moment(word: &str) -> Result<String, String> {
        let zone = TimeZone::fixed(tz::offset(1));
        let millis = moment_millis("--since", OsStr::new(word), NOW.parse().unwrap(), &zone);
        let moment = millis.map(|millis| Timestamp::from_millisecond(millis as i64).unwrap());
        moment
            .map(|moment| moment.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_moment_is_a_date_or_so_long_ago() {
        for (word, want) in [
            ("2h", "2026-11-27T10:00:00Z"),
            ("90", "2026-11-27T11:58:30Z"),
            ("7d", "2026-11-20T12:00:00Z"),
            ("0", NOW),
            ("2026-11-27", "2026-11-26T23:00:00Z"),
            ("2026-11-27 10:00", "2026-11-27T09:00:00Z"),
            ("2026-11-27T10:00:01.5", "2026-11-27T09:00:01.5Z"),
            ("2026-11-27T10:00:00Z", "2026-11-27T10:00:00Z"),
            ("2026-11-27T10:00:00.123Z", "2026-11-27T10:00:00.123Z"),
            ("2026-11-27 10:00:00+02:00", "2026-11-27T08:00:00Z"),
            ("2026-11-27T10:00:00.0001Z", "2026-11-27T10:00:00.001Z"),
            ("1969-12-31", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(moment(word).as_deref(), Ok(want), "{word}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for word in [
            "",
            "yesterday",
            "2026-11",
            "2026-13-01",
            "2026-11-31",
            "10:00",
            "2026-11-27T10:00[Europe/Berlin]",
            "2026-11-27 10:00 x",
            "-1",
            "2w",
            "400d",
        ] {
            let want = format!(
                "--since must be a time as 2026-11-27, '2026-11-27 10:00' or 2026-11-27T09:00:00Z, \
                 or how long ago, as 90, 15m, 2h or 7d, not '{word}'"
            );
            assert_eq!(moment(word), Err(want), "{word}");
        }
    }
}
