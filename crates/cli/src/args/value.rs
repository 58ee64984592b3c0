//! The values of options and words: numbers, ports, durations and sizes, as all programs take them.

use std::ffi::OsStr;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::UsageError;

/// The longest duration of any option, a year: as good as for ever, and too short to overflow a sum with
/// a clock.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * DAY_SECS);

const DAY_SECS: u64 = 24 * 3600;

/// The units of a duration, and how many seconds each has.
const DURATION_UNITS: [(char, u64); 4] = [('d', DAY_SECS), ('h', 3600), ('m', 60), ('s', 1)];

/// The units of a size, and how many bytes each has.
const SIZE_UNITS: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// The unsigned integers that a limit can be.
pub trait Number: FromStr + Display + PartialOrd + Copy + TryFrom<u64> + TryInto<u64> {}

impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}

/// Parses a value with `FromStr`; `want` says what would be right ("a port from 0 to 65535").
///
/// # Errors
/// [`UsageError::Value`].
pub fn value<T: FromStr>(
    what: &'static str,
    word: &OsStr,
    want: impl Into<String>,
) -> Result<T, UsageError> {
    let parsed = word.to_str().and_then(|word| word.parse().ok());
    parsed.ok_or_else(|| UsageError::value(what, word, want))
}

/// Finds a word in a table, in any case; `want` says which there are ("TCP or UDP").
///
/// # Errors
/// [`UsageError::Value`].
pub fn choice<T: Copy>(
    what: &'static str,
    word: &OsStr,
    table: &[(&str, T)],
    want: &str,
) -> Result<T, UsageError> {
    let found = table
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name));
    found
        .map(|(_, choice)| *choice)
        .ok_or_else(|| UsageError::value(what, word, want))
}

/// Parses a whole number within a range.
///
/// # Errors
/// [`UsageError::Value`], with the range.
pub fn number<N: Number>(
    what: &'static str,
    word: &OsStr,
    range: RangeInclusive<N>,
) -> Result<N, UsageError> {
    let parsed = word.to_str().and_then(|word| word.parse().ok());
    parsed
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let want = format!("a number from {} to {}", range.start(), range.end());
            UsageError::value(what, word, want)
        })
}

/// Parses a port; 0 lets a server take a free one.
///
/// # Errors
/// [`UsageError::Value`].
pub fn port(what: &'static str, word: &OsStr) -> Result<u16, UsageError> {
    value(what, word, "a port from 0 to 65535")
}

/// Parses a duration: a number of seconds, or a number with one of the units `s`, `m`, `h` and `d`. The
/// number may have a fraction.
///
/// # Errors
/// [`UsageError::Value`], with the range.
pub fn duration(
    what: &'static str,
    word: &OsStr,
    range: RangeInclusive<Duration>,
) -> Result<Duration, UsageError> {
    let parsed = word.to_str().and_then(parse_duration);
    parsed.filter(|time| range.contains(time)).ok_or_else(|| {
        let (min, max) = (show_duration(*range.start()), show_duration(*range.end()));
        let want = format!("a duration from {min} to {max}, such as 90, 90s, 15m, 2h or 7d");
        UsageError::value(what, word, want)
    })
}

fn parse_duration(word: &str) -> Option<Duration> {
    let (number, unit) = split_unit(word, &DURATION_UNITS)?;
    let is_number = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = number.parse().ok().filter(|_| is_number)?;
    Duration::try_from_secs_f64(number * unit as f64).ok()
}

/// A duration in the largest unit that divides it.
fn show_duration(time: Duration) -> String {
    let is_whole = |(_, secs): &&(char, u64)| time.as_secs().is_multiple_of(*secs);
    match DURATION_UNITS.iter().find(is_whole) {
        _ if time.is_zero() => "0".to_owned(),
        Some((unit, secs)) if time.subsec_nanos() == 0 => {
            format!("{}{unit}", time.as_secs() / secs)
        }
        Some(_) | None => format!("{}s", time.as_secs_f64()),
    }
}

/// Parses a size: a number of bytes, or a number with one of the units `K`, `M` and `G`, powers of
/// 1024, in either case.
///
/// # Errors
/// [`UsageError::Value`], with the range.
pub fn size<N: Number>(
    what: &'static str,
    word: &OsStr,
    range: RangeInclusive<N>,
) -> Result<N, UsageError> {
    let parsed = word.to_str().and_then(parse_size);
    let parsed = parsed.and_then(|bytes| N::try_from(bytes).ok());
    parsed.filter(|size| range.contains(size)).ok_or_else(|| {
        let (min, max) = (show_size(*range.start()), show_size(*range.end()));
        let want = format!("a size in bytes from {min} to {max}, such as 4096, 64K, 10M or 2G");
        UsageError::value(what, word, want)
    })
}

fn parse_size(word: &str) -> Option<u64> {
    let (number, unit) = split_unit(word, &SIZE_UNITS)?;
    let is_number = number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    number.checked_mul(unit)
}

/// A size in the largest unit that divides it.
fn show_size(bytes: impl Number) -> String {
    let bytes: u64 = bytes.try_into().unwrap_or(u64::MAX);
    let is_whole = |(_, unit): &&(char, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    match SIZE_UNITS.iter().find(is_whole) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Splits a word into its number and the factor of its unit, which is 1 without a unit.
fn split_unit<'a>(word: &'a str, units: &[(char, u64)]) -> Option<(&'a str, u64)> {
    let name = word.chars().next_back()?;
    let unit = units.iter().find(|(unit, _)| {
        *unit == name || unit.is_ascii_uppercase() && unit.eq_ignore_ascii_case(&name)
    });
    Some(match unit {
        Some((_, unit)) => (&word[..word.len() - 1], *unit),
        None => (word, 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let parse = |word: &str| {
            let parsed = duration("SECS", OsStr::new(word), Duration::ZERO..=DURATION_MAX);
            parsed.ok().map(|time| time.as_secs_f64())
        };
        for (word, secs) in [
            ("0", 0.0),
            ("90", 90.0),
            ("90s", 90.0),
            ("15m", 900.0),
            ("2h", 7200.0),
            ("7d", 604_800.0),
            ("1.5", 1.5),
            ("0.5h", 1800.0),
            (".5", 0.5),
            ("365d", 31_536_000.0),
        ] {
            assert_eq!(parse(word), Some(secs), "{word}");
        }
        for bad in [
            "", "s", "x", "-1", "+1", "NaN", "inf", "1e99", "1e3", "1 s", "1M", "1w", "366d",
            "1.2.3", ".", "1ms", "1sm",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let parse = |word: &str| size("BYTES", OsStr::new(word), 0..=u64::MAX).ok();
        for (word, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("10M", 10 << 20),
            ("2G", 2 << 30),
        ] {
            assert_eq!(parse(word), Some(bytes), "{word}");
        }
        let overflow = "17179869184G";
        for bad in [
            "", "K", "1.5M", "-1", "+1", "1B", "1KB", "1Ki", overflow, "ä",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_limits_are_told() {
        let millis = Duration::from_millis;
        let error = duration("--a", OsStr::new("9x"), millis(1)..=millis(5_400_000));
        let want = "--a must be a duration from 0.001s to 90m, such as 90, 90s, 15m, 2h or 7d, \
                    not '9x'";
        assert_eq!(error.unwrap_err().to_string(), want);
        let error = size("--b", OsStr::new("3G"), 0..=2u64 << 30);
        let want = "--b must be a size in bytes from 0 to 2G, such as 4096, 64K, 10M or 2G, \
                    not '3G'";
        assert_eq!(error.unwrap_err().to_string(), want);
        for (secs, want) in [
            (0, "0"),
            (1, "1s"),
            (61, "61s"),
            (7200, "2h"),
            (4_233_600, "49d"),
        ] {
            assert_eq!(show_duration(Duration::from_secs(secs)), want);
        }
        assert_eq!(show_size((1u64 << 24) - 1), "16777215");
    }
}
