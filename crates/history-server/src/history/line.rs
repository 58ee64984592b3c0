//! What a line of the file looks like: `#SEQUENCE TIME PEER USER WHAT`.
//!
//! The sequence number is a line's own: no other line ever has it, also when this one is deleted. The
//! numbers grow from line to line. The line numbers that users see are counted when the history is
//! read, and change when lines are deleted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};

use jiff::Timestamp;

use super::file_range::{BLOCK_BYTES, FileRange};

/// The most bytes of a sequence number, with its sign and the space behind it.
pub(super) const NUMBER_BYTES_MAX: usize = 22;

/// Splits a line into its sequence number and the record; `None` if it has no number.
pub(super) fn split(line: &[u8]) -> Option<(u64, &[u8])> {
    let digits_and_rest = line.strip_prefix(b"#")?;
    let digits = digits_and_rest.iter().position(|byte| *byte == b' ')?;
    let (digits, rest) = digits_and_rest.split_at(digits);
    // Without leading zeros and signs, so that there is one way to write each.
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, &rest[1..]))
}

/// The user of a record, as `TIME PEER USER WHAT` has it; `None` if the record has no user.
pub(super) fn user(record: &[u8]) -> Option<&[u8]> {
    record.split(|byte| *byte == b' ').nth(2)
}

/// The time of a record, in milliseconds since 1970; `None` if it does not begin with one.
pub(super) fn time(record: &[u8]) -> Option<u64> {
    let word = record.split(|byte| *byte == b' ').next()?;
    let time: Timestamp = std::str::from_utf8(word).ok()?.parse().ok()?;
    time.as_millisecond().try_into().ok()
}

/// Watches that each line of a file has a number, and that the numbers grow.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// How many lines there are.
    pub(super) lines: u64,
    /// The first number; 0 if there is none.
    pub(super) first: u64,
    /// The last number; 0 if there is none.
    pub(super) last: u64,
    /// Whether a line has no number, or one that is not above those before it.
    pub(super) is_broken: bool,
}

impl Numbering {
    /// Counts a line.
    pub(super) fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        match split(line) {
            Some((number, _)) if number > self.last => {
                self.last = number;
                if self.first == 0 {
                    self.first = number;
                }
            }
            Some(_) | None => self.is_broken = true,
        }
    }

    /// Counts all lines of a file.
    pub(super) fn of(file: FileRange) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
        let mut numbering = Self::default();
        let mut line = Vec::new();
        while read_line(&mut input, &mut line)? {
            numbering.add(&line);
        }
        Ok(numbering)
    }
}

/// Copies a file and numbers its lines anew, from `next` on. Returns the number behind the last one.
pub(super) fn renumber(source: FileRange, target: &File, mut next: u64) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, source);
    let mut output = BufWriter::with_capacity(BLOCK_BYTES, target);
    let mut line = Vec::new();
    while read_line(&mut input, &mut line)? {
        let record = split(&line).map_or(line.as_slice(), |(_, record)| record);
        write!(output, "#{next} ")?;
        output.write_all(record)?;
        next += 1;
    }
    output.flush()?;
    Ok(next)
}

/// Reads the next line, with its line feed; returns whether there was one.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(input.read_until(b'\n', line)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_one_way() {
        assert_eq!(split(b"#7 a b"), Some((7, &b"a b"[..])));
        let most = format!("#{} ", u64::MAX);
        assert_eq!(split(most.as_bytes()), Some((u64::MAX, &b""[..])));
        for bad in [
            "",
            "#",
            "#7",
            "7 a",
            "# a",
            "#0 a",
            "#07 a",
            "#+7 a",
            "#-7 a",
            "#7\ta",
            "#18446744073709551616 a",
            "2026-11-26T21:43:42Z p u hello",
        ] {
            assert_eq!(split(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_time_is_the_first_word() {
        assert_eq!(time(b"1970-01-01T00:00:01.234Z p u hello"), Some(1234));
        assert_eq!(time(b"1970-01-01T00:00:01.234Z"), Some(1234));
        assert_eq!(time(b"1970-01-01T02:00:01+02:00 p"), Some(1000));
        for bad in [
            "",
            " 1970-01-01T00:00:01Z",
            "1970-01-01 00:00:01Z",
            "old 1970-01-01T00:00:01Z",
            "1969-12-31T23:59:59Z p",
            "1234 p",
        ] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn numbers_must_grow() {
        let is_broken = |text: &str| {
            let mut numbering = Numbering::default();
            text.lines().for_each(|line| numbering.add(line.as_bytes()));
            numbering.is_broken
        };
        assert!(!is_broken(""));
        assert!(!is_broken("#1 a\n#2 b\n#9 c\n"));
        for broken in ["a\n", "#2 a\n#2 b\n", "#3 a\n#2 b\n", "#1 a\nb\n"] {
            assert!(is_broken(broken), "{broken}");
        }
    }
}
