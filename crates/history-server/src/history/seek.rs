//! Finds places in the file without reading all of it.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use memchr::memrchr_iter;

use super::file_range::{BLOCK_BYTES, FileRange};
use super::line;

/// A part of the file that is shorter than this is searched line by line, in bytes.
const SHORT_BYTES: u64 = 4096;

/// How much is read to find one line, in bytes.
const LOOK_BYTES: usize = 512;

/// Where the last `lines` lines begin.
pub(super) fn start_of_last(range: &FileRange, lines: u64) -> io::Result<u64> {
    let FileRange { file, range } = range;
    let mut end = range.end;
    // Each line ends with a line feed, so one more is in front of the first.
    let mut left = lines.saturating_add(1);
    let mut block = vec![0; BLOCK_BYTES];
    while end > range.start {
        let from = range.start.max(end.saturating_sub(BLOCK_BYTES as u64));
        let block = &mut block[..(end - from) as usize];
        file.read_exact_at(block, from)?;
        for at in memrchr_iter(b'\n', block) {
            left -= 1;
            if left == 0 {
                return Ok(from + at as u64 + 1);
            }
        }
        end = from;
    }
    Ok(range.start)
}

/// Where the first line begins whose sequence number is above this one; the end if there is none.
pub(super) fn start_above(range: &FileRange, number: u64) -> io::Result<u64> {
    let from = |start| FileRange {
        file: range.file.clone(),
        range: start..range.range.end,
    };
    // No line before `low` is above the number. Some line before `high`, or the next one, is.
    let (mut low, mut high) = (range.range.start, range.range.end);
    while high - low > SHORT_BYTES {
        let middle = low + (high - low) / 2;
        let mut input = BufReader::with_capacity(LOOK_BYTES, from(middle));
        let line = middle + input.skip_until(b'\n')? as u64;
        if line >= high || read_number(&mut input)?.is_none_or(|(found, _)| found > number) {
            high = middle;
        } else {
            low = line;
        }
    }
    let mut input = BufReader::with_capacity(LOOK_BYTES, from(low));
    while let Some((found, bytes)) = read_number(&mut input)?
        && found <= number
    {
        low += bytes + input.skip_until(b'\n')? as u64;
    }
    Ok(low)
}

/// The sequence number of the line at the start; `None` if the range is empty.
pub(super) fn number_at_start(range: &FileRange) -> io::Result<Option<u64>> {
    let mut input = BufReader::with_capacity(LOOK_BYTES, range.clone());
    Ok(read_number(&mut input)?.map(|(number, _)| number))
}

/// Reads the sequence number of the next line, and how many bytes it takes; `None` at the end.
fn read_number(input: &mut impl BufRead) -> io::Result<Option<(u64, u64)>> {
    let mut start = Vec::with_capacity(line::NUMBER_BYTES_MAX);
    let bytes = input
        .take(line::NUMBER_BYTES_MAX as u64)
        .read_until(b' ', &mut start)?;
    Ok(line::split(&start).map(|(number, _)| (number, bytes as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines with every second number, some of them long.
    fn lines(lines: u64) -> Vec<String> {
        let line = |n: u64| {
            let record = "x".repeat(match n % 97 {
                0 => 3 * SHORT_BYTES as usize,
                short => short as usize,
            });
            format!("#{} {record}\n", 2 * n)
        };
        (1..=lines).map(line).collect()
    }

    #[test]
    fn each_line_is_found_by_its_number() {
        for count in [0, 1, 2, 500] {
            let lines = lines(count);
            let range = FileRange::of_text(&lines.concat());
            let mut start = 0;
            for (n, line) in (1..).zip(&lines) {
                for below in [2 * n - 2, 2 * n - 1] {
                    assert_eq!(start_above(&range, below).unwrap(), start, "{below}");
                }
                start += line.len() as u64;
            }
            for last in [2 * count, 2 * count + 1, u64::MAX] {
                assert_eq!(start_above(&range, last).unwrap(), start);
            }
        }
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        for count in [0, 1, 2, 1500] {
            let lines = lines(count);
            let range = FileRange::of_text(&lines.concat());
            let mut start = range.range.end;
            for (last, line) in (1..).zip(lines.iter().rev()) {
                start -= line.len() as u64;
                assert_eq!(start_of_last(&range, last).unwrap(), start, "{last}");
            }
            assert_eq!(start_of_last(&range, 0).unwrap(), range.range.end);
            assert_eq!(start_of_last(&range, count + 1).unwrap(), 0);
            assert_eq!(start_of_last(&range, u64::MAX).unwrap(), 0);
        }
    }
}
