//! The lines of the history from the last to the first.

use std::io::{self, BufRead, BufReader};
use std::ops::Range;

use memchr::memrchr;

use super::file_range::{BLOCK_BYTES, FileRange, State};
use super::find::{line_feeds, read_last_lines};
use super::{line, seek};
use crate::HistoryError;

/// The lines of a history as it was at one moment, from the last to the first. The memory is that of one
/// block.
pub struct Newest {
    /// What is not read yet.
    rest: FileRange,
    /// How many lines there are up to the next one.
    lines: u64,
    buffer: Vec<u8>,
    /// The part of the buffer with the lines that are still to come.
    block: Range<usize>,
    last: u64,
}

/// A line and its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered<'a> {
    /// Its number, from 1, which changes when a line before it is deleted.
    pub line: u64,
    /// Its sequence number, which no other line ever has.
    pub sequence: u64,
    /// The record.
    pub record: &'a [u8],
}

impl Newest {
    /// The lines with a sequence number below `before`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn of(state: State, before: u64) -> io::Result<Self> {
        let State {
            file: mut rest,
            mut lines,
            next,
            ..
        } = state;
        let end = seek::start_above(&rest, before.saturating_sub(1))?;
        let mut newer = BufReader::with_capacity(BLOCK_BYTES, rest.clone());
        newer.get_mut().range.start = end;
        loop {
            let block = newer.fill_buf()?;
            let bytes = block.len();
            lines = lines.saturating_sub(line_feeds(block));
            newer.consume(bytes);
            if bytes == 0 {
                break;
            }
        }
        rest.range.end = end;
        Ok(Self {
            rest,
            lines,
            buffer: Vec::new(),
            block: 0..0,
            last: next - 1,
        })
    }

    /// The sequence number behind which everything is newer than this view of the history.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next line, which is the one before.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn next(&mut self) -> Result<Option<Numbered<'_>>, HistoryError> {
        if self.block.is_empty() {
            if self.rest.range.is_empty() {
                return Ok(None);
            }
            let lines =
                read_last_lines(&self.rest, &mut self.buffer).map_err(HistoryError::Read)?;
            let bytes = lines.len();
            self.rest.range.end -= bytes as u64;
            self.block = self.buffer.len() - bytes..self.buffer.len();
        }
        let end = self.block.end - 1;
        let lines = &self.buffer[self.block.start..end];
        let start = memrchr(b'\n', lines).map_or(0, |feed| feed + 1);
        self.block.end = self.block.start + start;
        let line = self.lines;
        self.lines = line.saturating_sub(1);
        let text = &lines[start..];
        let (sequence, record) = line::split(text).unwrap_or((0, text));
        Ok(Some(Numbered {
            line,
            sequence,
            record,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::super::file_range::Removals;
    use super::*;

    /// A history of lines with every second number, some of them longer than a block.
    fn state(lines: u64) -> State {
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = 0;
        for n in 1..=lines {
            let text = "x".repeat(if n % 300 == 0 { 70_000 } else { 400 });
            let line = format!("#{} {n} {text}\n", 2 * n);
            bytes += line.len() as u64;
            file.write_all(line.as_bytes()).unwrap();
        }
        State {
            file: FileRange {
                file: Arc::new(file),
                range: 0..bytes,
            },
            lines,
            next: 2 * lines + 1,
            generation: 0,
            removals: Removals::default(),
        }
    }

    #[test]
    fn lines_come_from_the_last_to_the_first() {
        for lines in [0, 1, 2, 1000] {
            for before in [u64::MAX, 2 * lines, lines + 1, 3, 2, 0] {
                let mut newest = Newest::of(state(lines), before).unwrap();
                assert_eq!(newest.last(), 2 * lines);
                for n in (1..=lines).rev().filter(|n| 2 * n < before) {
                    let Numbered {
                        line,
                        sequence,
                        record,
                    } = newest.next().unwrap().unwrap();
                    assert_eq!((line, sequence), (n, 2 * n));
                    assert!(record.starts_with(format!("{n} x").as_bytes()));
                    assert!(record.ends_with(b"x"));
                }
                assert_eq!(newest.next().unwrap(), None, "{lines} {before}");
            }
        }
    }
}
