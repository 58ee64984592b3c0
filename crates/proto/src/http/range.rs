//! Range requests (RFC 9110 section 14), with one range of bytes.

use std::num::IntErrorKind;

use super::request::RequestHead;
use crate::digits;

/// The part of a file that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// All of it: the request has no range, or one that a server may ignore, such as several ranges at
    /// once (RFC 9110 section 14.2).
    Whole,
    /// These bytes; at least one.
    Part {
        /// The first byte, counted from 0.
        start: u64,
        /// How many.
        bytes: u64,
    },
    /// Only bytes that do not exist (416).
    Unsatisfiable,
}

impl Range {
    /// The range that a request asks for, of a file of `file_bytes` bytes.
    pub fn of(request: &RequestHead, file_bytes: u64) -> Self {
        let value = request.single("range");
        value
            .and_then(|value| Self::parse(value, file_bytes))
            .unwrap_or(Self::Whole)
    }

    /// `None` if the value is not one range of bytes.
    fn parse(value: &[u8], file_bytes: u64) -> Option<Self> {
        let (unit, set) = std::str::from_utf8(value).ok()?.split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
        let (start, end) = match (first, last) {
            ("", suffix) => match position(suffix)? {
                // All of an empty file: no Content-Range can name that.
                1.. if file_bytes == 0 => return Some(Self::Whole),
                suffix => (file_bytes.saturating_sub(suffix), file_bytes),
            },
            (first, "") => (position(first)?, file_bytes),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                if last < first {
                    return None;
                }
                (first, last.saturating_add(1).min(file_bytes))
            }
        };
        Some(if start < end {
            Self::Part {
                start,
                bytes: end - start,
            }
        } else {
            Self::Unsatisfiable
        })
    }
}

/// A position in a file. One that exceeds 64 bits lies behind the end of every file.
fn position(text: &str) -> Option<u64> {
    match digits::parse(text.as_bytes()) {
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(u64::MAX),
        parsed => parsed.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, want: Range) {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nRange: {value}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        assert_eq!(Range::of(&request, 100), want, "{value}");
    }

    fn part(start: u64, bytes: u64) -> Range {
        Range::Part { start, bytes }
    }

    #[test]
    fn one_range_of_bytes() {
        check("bytes=0-0", part(0, 1));
        check("bytes=0-99", part(0, 100));
        check("Bytes=10-", part(10, 90));
        check("bytes=-10", part(90, 10));
        check("bytes=-1000", part(0, 100));
        check("bytes=50-1000", part(50, 50));
        check("bytes=99-99999999999999999999999", part(99, 1));
    }

    #[test]
    fn what_is_not_there_cannot_be_had() {
        check("bytes=100-", Range::Unsatisfiable);
        check("bytes=100-200", Range::Unsatisfiable);
        check("bytes=-0", Range::Unsatisfiable);
        check("bytes=99999999999999999999999-", Range::Unsatisfiable);
    }

    #[test]
    fn the_end_of_an_empty_file_is_all_of_it() {
        assert_eq!(Range::parse(b"bytes=-5", 0), Some(Range::Whole));
        assert_eq!(Range::parse(b"bytes=-0", 0), Some(Range::Unsatisfiable));
        assert_eq!(Range::parse(b"bytes=0-", 0), Some(Range::Unsatisfiable));
    }

    #[test]
    fn what_is_not_one_range_is_passed_over() {
        for value in [
            "bytes=0-1,3-4",
            "bytes=5-1",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes 0-1",
            "lines=0-1",
        ] {
            check(value, Range::Whole);
        }
    }
}
