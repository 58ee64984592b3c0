//! HTTP dates (RFC 9110 section 5.6.7), as seconds since 1970.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;

/// The three forms that a recipient must accept: IMF-fixdate, and the obsolete RFC 850 and asctime forms.
const FORMS: [&str; 3] = [
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %e %H:%M:%S %Y",
];

/// A time as an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn format(second: u64) -> String {
    let printed = DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp(second));
    printed.unwrap_or_default()
}

/// A time for people, to the minute: `1994-11-06 08:49`, in UTC.
pub fn format_short(second: u64) -> String {
    timestamp(second).strftime("%Y-%m-%d %H:%M").to_string()
}

/// A time in the form of the Common Log Format: `06/Nov/1994:08:49:37 +0000`.
pub fn format_log(second: u64) -> String {
    let form = "%d/%b/%Y:%H:%M:%S +0000";
    timestamp(second).strftime(form).to_string()
}

fn timestamp(second: u64) -> Timestamp {
    let moment = i64::try_from(second).ok();
    let moment = moment.and_then(|second| Timestamp::from_second(second).ok());
    moment.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Parses an HTTP date in any of the three forms; `None` if it is malformed or before 1970.
pub fn parse(text: &str) -> Option<u64> {
    let moment = FORMS
        .iter()
        .find_map(|form| DateTime::strptime(form, text).ok())?;
    let moment = moment.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(moment.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_understood() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(date), Some(784_111_777), "{date}");
        }
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format_short(784_111_777), "1994-11-06 08:49");
        assert_eq!(format_log(784_111_777), "06/Nov/1994:08:49:37 +0000");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "",
            "yesterday",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
