//! Finds the lines that meet a filter.
//!
//! The file is read once, in blocks of whole lines. A text is searched for in a block as a whole, and
//! only the lines that contain it are looked at. To begin with the last lines that meet the filter, the
//! file is read backwards up to the first of them, and then forwards from there: so the memory is that
//! of one block, however many lines are wanted.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::{memchr, memchr_iter, memmem, memrchr};
use proto::Name;
use proto::history::Filter;

use super::file_range::{BLOCK_BYTES, FileRange};
use super::line;
use super::number::NUMBER_BYTES_MAX;
use super::snapshot::Pieces;
use crate::HistoryError;

/// The longest line that can be searched, in bytes; the server does not start with a longer one.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Tells whether lines meet a filter.
pub struct Finder<'f> {
    filter: Filter<'f>,
    contains: memmem::Finder<'f>,
    /// What each line contains that meets the filter, and most others do not.
    mark: memmem::Finder<'static>,
}

impl<'f> Finder<'f> {
    /// For this filter.
    pub fn new(filter: Filter<'f>) -> Self {
        let mark = match filter.contains {
            // A user stands behind a space. For all users this is the space that each line has.
            "" => format!(" {}", filter.by.0),
            contains => contains.to_owned(),
        };
        Self {
            filter,
            contains: memmem::Finder::new(filter.contains),
            mark: memmem::Finder::new(&mark).into_owned(),
        }
    }

    /// Whether a line meets the filter, its number of lines apart.
    pub fn is_met(&self, line: &[u8]) -> bool {
        let Filter {
            since,
            until,
            by: Name(by),
            ..
        } = self.filter;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let record = line::split(line).map_or(line, |(_, record)| record);
        let is_by = by.is_empty() || line::user(record) == Some(by.as_bytes());
        let has_limit = (since, until) != (Filter::ALL.since, Filter::ALL.until);
        let is_then = || line::time(record).is_some_and(|time| (since..until).contains(&time));
        is_by && self.contains.find(record).is_some() && (!has_limit || is_then())
    }

    /// The first line of a block that meets the filter.
    fn first_in(&self, block: &[u8]) -> Option<Range<usize>> {
        let mut from = 0;
        while let Some(at) = self.mark.find(&block[from..]) {
            let at = from + at;
            let start = memrchr(b'\n', &block[from..at]).map_or(from, |feed| from + feed + 1);
            let end = memchr(b'\n', &block[at..]).map_or(block.len(), |feed| at + feed + 1);
            if self.is_met(&block[start..end]) {
                return Some(start..end);
            }
            from = end;
        }
        None
    }
}

/// The lines that meet a filter, with their numbers among all lines.
pub(super) struct Found<'f> {
    finder: Finder<'f>,
    /// What is not read yet.
    rest: FileRange,
    /// Whole lines.
    block: Vec<u8>,
    /// Up to where they are searched.
    searched: usize,
    /// How many lines are in front of that.
    lines: u64,
    /// What is still to be put of the line that was found last.
    record: Range<usize>,
}

impl<'f> Found<'f> {
    /// Searches a file that has this many lines.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn of(filter: Filter<'f>, file: FileRange, lines: u64) -> io::Result<Self> {
        let finder = Finder::new(filter);
        let (rest, lines) = match filter.last {
            0 => (file, 0),
            last => around_last(&finder, last, file, lines)?,
        };
        Ok(Self {
            finder,
            rest,
            block: Vec::new(),
            searched: 0,
            lines,
            record: 0..0,
        })
    }

    /// Finds the next line; returns whether there is one.
    fn next(&mut self) -> io::Result<bool> {
        loop {
            let block = &self.block[self.searched..];
            let found = self.finder.first_in(block);
            let passed = found.as_ref().map_or(block, |line| &block[..line.start]);
            self.lines += line_feeds(passed);
            if let Some(Range { start, end }) = found {
                let record =
                    line::split(&block[start..end]).map_or(end - start, |(_, record)| record.len());
                self.searched += end;
                self.record = self.searched - record..self.searched;
                self.lines += 1;
                return Ok(true);
            }
            self.searched = 0;
            read_first_lines(&self.rest, &mut self.block)?;
            self.rest.range.start += self.block.len() as u64;
            if self.block.is_empty() {
                return Ok(false);
            }
        }
    }
}

impl Pieces for Found<'_> {
    fn put_piece(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> Result<(), HistoryError> {
        let end = out.len() + bytes_max;
        loop {
            if self.record.is_empty() {
                if end - out.len() <= NUMBER_BYTES_MAX
                    || !self.next().map_err(HistoryError::Read)?
                {
                    return Ok(());
                }
                out.extend_from_slice(format!("{} ", self.lines).as_bytes());
            }
            let bytes = self.record.len().min(end - out.len());
            let start = self.record.start;
            out.extend_from_slice(&self.block[start..start + bytes]);
            self.record.start += bytes;
            if !self.record.is_empty() {
                return Ok(());
            }
        }
    }
}

/// The part of a file from the first to the last of its last lines that meet a filter, as many as
/// wanted, and how many lines are in front of it.
fn around_last(
    finder: &Finder,
    wanted: u64,
    mut file: FileRange,
    mut lines: u64,
) -> io::Result<(FileRange, u64)> {
    let mut around = FileRange {
        range: file.range.end..file.range.end,
        ..file.clone()
    };
    let mut lines_before = lines;
    let mut found = 0;
    let mut buffer = Vec::new();
    while found < wanted && !file.range.is_empty() {
        let block = read_last_lines(&file, &mut buffer)?;
        file.range.end -= block.len() as u64;
        lines = lines.saturating_sub(line_feeds(block));
        let mut starts = Vec::new();
        let mut end = 0;
        while let Some(line) = finder.first_in(&block[end..]) {
            starts.push(end + line.start);
            end += line.end;
        }
        // Of more than are wanted, the last.
        let more = (found + starts.len() as u64).saturating_sub(wanted);
        if let Some(&start) = starts.get(more as usize) {
            if found == 0 {
                around.range.end = file.range.end + end as u64;
            }
            around.range.start = file.range.end + start as u64;
            lines_before = lines + line_feeds(&block[..start]);
            found += starts.len() as u64;
        }
    }
    Ok((around, lines_before))
}

/// Reads the first lines of a range: those in one block, or one that is longer.
fn read_first_lines(range: &FileRange, block: &mut Vec<u8>) -> io::Result<()> {
    let FileRange { file, range } = range;
    let mut bytes = BLOCK_BYTES;
    loop {
        let end = range.end.min(range.start + bytes as u64);
        block.resize((end - range.start) as usize, 0);
        file.read_exact_at(block, range.start)?;
        if end == range.end {
            return Ok(());
        }
        if let Some(feed) = memrchr(b'\n', block) {
            block.truncate(feed + 1);
            return Ok(());
        }
        bytes = longer(bytes)?;
    }
}

/// Reads the last lines of a range: those in one block, or one that is longer.
pub(super) fn read_last_lines<'b>(
    range: &FileRange,
    buffer: &'b mut Vec<u8>,
) -> io::Result<&'b [u8]> {
    let FileRange { file, range } = range;
    let mut bytes = BLOCK_BYTES;
    loop {
        let start = range.start.max(range.end.saturating_sub(bytes as u64));
        buffer.resize((range.end - start) as usize, 0);
        file.read_exact_at(buffer, start)?;
        if start == range.start {
            return Ok(buffer);
        }
        // The end of a line that begins in front of the block is not one of them.
        let last = buffer.len() - 1;
        if let Some(feed) = memchr(b'\n', &buffer[..last]) {
            return Ok(&buffer[feed + 1..]);
        }
        bytes = longer(bytes)?;
    }
}

/// The length of the next block to try, because a line exceeds this one.
fn longer(bytes: usize) -> io::Result<usize> {
    match bytes > LINE_BYTES_MAX {
        true => Err(io::Error::other(format!(
            "a line exceeds {LINE_BYTES_MAX} bytes"
        ))),
        false => Ok(2 * bytes),
    }
}

pub(super) fn line_feeds(block: &[u8]) -> u64 {
    memchr_iter(b'\n', block).count() as u64
}

#[cfg(test)]
mod tests;
