//! What a line of the file looks like: `#SEQUENCE TIME PEER USER WHAT`.
//!
//! The sequence number is a line's own: no other line ever has it, also when this one is deleted. The
//! numbers grow from line to line. The line numbers that users see are counted when the history is
//! read, and change when lines are deleted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};

use jiff::Timestamp;
use memchr::memchr;

use super::file_range::{BLOCK_BYTES, FileRange};

/// The most bytes of a sequence number, with its sign and the space behind it.
pub(super) const NUMBER_BYTES_MAX: usize = 22;

/// The highest sequence number. A higher one in a file is not ours: it is text.
pub(super) const SEQUENCE_MAX: u64 = 1 << 62;

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
    (number <= SEQUENCE_MAX).then_some((number, &rest[1..]))
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
    /// How many of them have a number.
    pub(super) numbered: u64,
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
        let number = split(line);
        self.numbered += u64::from(number.is_some());
        match number {
            Some((number, _)) if number > self.last => {
                self.last = number;
                if self.first == 0 {
                    self.first = number;
                }
            }
            Some(_) | None => self.is_broken = true,
        }
    }

    /// Whether at least half of the lines have numbers, so that what looks like one is one. In a file that
    /// never had any, it is text.
    pub(super) fn has_numbers(&self) -> bool {
        self.numbered >= self.lines.div_ceil(2)
    }

    /// Counts all lines of a file.
    pub(super) fn of(file: FileRange) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
        let mut numbering = Self::default();
        let mut line = Vec::new();
        while read(&mut input, NUMBER_BYTES_MAX, &mut line)? > 0 {
            numbering.add(&line);
        }
        Ok(numbering)
    }
}

/// Copies a file and numbers its lines anew, from `next` on, in place of the numbers that they have if
/// `has_numbers`. Returns the number behind the last one.
pub(super) fn renumber(
    source: FileRange,
    target: &File,
    has_numbers: bool,
    mut next: u64,
) -> io::Result<u64> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, source);
    let mut output = BufWriter::with_capacity(BLOCK_BYTES, target);
    let mut line = Vec::new();
    while read_start(&mut input, &mut line)? {
        let record = match split(&line) {
            Some((_, record)) if has_numbers => record,
            Some(_) | None => &line,
        };
        write!(output, "#{next} ")?;
        output.write_all(record)?;
        if line.last() != Some(&b'\n') {
            copy_line(&mut input, &mut output)?;
        }
        next += 1;
    }
    output.flush()?;
    Ok(next)
}

/// Reads the next line with its line feed, and of one that exceeds `bytes_max` only the start. Returns how
/// long the whole line is, in bytes; 0 if there is none.
pub(super) fn read(
    input: &mut impl BufRead,
    bytes_max: usize,
    start: &mut Vec<u8>,
) -> io::Result<usize> {
    start.clear();
    let bytes = input.take(bytes_max as u64).read_until(b'\n', start)?;
    if start.last() == Some(&b'\n') {
        return Ok(bytes);
    }
    Ok(bytes + input.skip_until(b'\n')?)
}

/// Reads the start of the next line, as far as its sequence number may reach, or all of it with its line
/// feed; returns whether there was one. Another program may have left a line of any length.
fn read_start(input: &mut impl BufRead, start: &mut Vec<u8>) -> io::Result<bool> {
    start.clear();
    let mut input = input.take(NUMBER_BYTES_MAX as u64);
    Ok(input.read_until(b'\n', start)? > 0)
}

/// Copies the rest of a line.
fn copy_line(input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
    loop {
        let block = input.fill_buf()?;
        let feed = memchr(b'\n', block);
        let bytes = feed.map_or(block.len(), |feed| feed + 1);
        output.write_all(&block[..bytes])?;
        input.consume(bytes);
        if feed.is_some() || bytes == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_one_way() {
        assert_eq!(split(b"#7 a b"), Some((7, &b"a b"[..])));
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
    fn a_line_of_any_length_is_counted_and_numbered_in_little_memory() {
        /// Lines without end, which counts what is read.
        struct Endless(usize);
        impl io::Read for Endless {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                out.fill(b'x');
                self.0 += out.len();
                Ok(out.len())
            }
        }
        let mut start = Vec::new();
        let mut input = BufReader::with_capacity(BLOCK_BYTES, Endless(0));
        assert!(read_start(&mut input, &mut start).unwrap());
        assert!(start.len() <= NUMBER_BYTES_MAX && input.get_ref().0 <= BLOCK_BYTES);
        let long = "x".repeat(3 * BLOCK_BYTES);
        let text = format!("a\n#7 {long}\n{long}\n\n#8 b\n");
        assert_eq!(
            renumbered(&text, false),
            format!("#3 a\n#4 #7 {long}\n#5 {long}\n#6 \n#7 #8 b\n")
        );
        let text = format!("#6 a\n#7 {long}\n{long}\n\n#8 b\n");
        assert_eq!(
            renumbered(&text, true),
            format!("#3 a\n#4 {long}\n#5 {long}\n#6 \n#7 b\n")
        );
    }

    /// Five lines with the numbers that they get, after it was looked whether they have any.
    #[track_caller]
    fn renumbered(text: &str, has_numbers: bool) -> String {
        let source = FileRange::of_text(text);
        let numbering = Numbering::of(source.clone()).unwrap();
        assert_eq!((numbering.lines, numbering.last), (5, 8));
        assert_eq!(numbering.has_numbers(), has_numbers);
        let target = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(
            renumber(source, target.as_file(), has_numbers, 3).unwrap(),
            8
        );
        std::fs::read_to_string(target.path()).unwrap()
    }

    #[test]
    fn a_number_that_is_too_high_is_text() {
        let highest = format!("#{SEQUENCE_MAX} ");
        assert_eq!(split(highest.as_bytes()), Some((SEQUENCE_MAX, &b""[..])));
        for number in [SEQUENCE_MAX + 1, u64::MAX] {
            assert_eq!(split(format!("#{number} a").as_bytes()), None);
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
