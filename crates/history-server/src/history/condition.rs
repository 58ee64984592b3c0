//! What lines must be so that they may be deleted: a user's own, lines that contain a text, or exactly the
//! line that somebody has seen.

use std::io::{self, BufRead, BufReader};

use memchr::memmem;

use super::deletions::Lines;
use super::file_range::{BLOCK_BYTES, FileRange, State};
use super::newest::Numbered;
use super::{Record, line};
use crate::HistoryError;

/// How much of a line is looked at, in bytes. Ours are shorter.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What each line must be. Both or one of them may be left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Condition<'a> {
    /// It must be a record of this user.
    pub user: Option<&'a str>,
    /// It must contain this text, its sequence number apart. All lines contain the empty text.
    pub contains: &'a str,
}

impl Condition<'_> {
    /// Whether all lines meet it.
    pub(super) fn is_none(&self) -> bool {
        self.user.is_none() && self.contains.is_empty()
    }

    /// Checks one line, by its number from 1.
    fn check(&self, number: u64, line: &[u8]) -> Result<(), HistoryError> {
        let record = line::split(line).map_or(line, |(_, record)| record);
        if let Some(user) = self.user
            && line::user(record) != Some(user.as_bytes())
        {
            return Err(HistoryError::NotOwn(user.to_owned()));
        }
        match memmem::find(record, self.contains.as_bytes()) {
            Some(_) => Ok(()),
            None => Err(HistoryError::NoMatch {
                line: number,
                text: self.contains.to_owned(),
            }),
        }
    }
}

/// A line that somebody has seen, and wants to delete.
#[derive(Debug, Clone, Copy)]
pub struct Exact<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// The time that it must have.
    pub time: &'a str,
    /// The text that it must have.
    pub text: &'a str,
    /// The user whose record it must be, if any.
    pub user: Option<&'a str>,
}

impl Exact<'_> {
    /// The number of the line, if it is this one.
    ///
    /// # Errors
    /// [`HistoryError::Changed`], [`HistoryError::NotOwn`].
    pub(super) fn check(&self, found: Option<Numbered>) -> Result<u64, HistoryError> {
        let changed = HistoryError::Changed(self.sequence);
        let Some(found) = found.filter(|found| found.sequence == self.sequence) else {
            return Err(changed);
        };
        let record = String::from_utf8_lossy(found.record);
        let record = Record::parse(&record);
        let is_same = |(one, other): (&str, &str)| printed(one).eq(printed(other));
        if ![(record.time, self.time), (record.text, self.text)]
            .into_iter()
            .all(is_same)
        {
            return Err(changed);
        }
        match self.user {
            Some(user) if record.user != user => Err(HistoryError::NotOwn(user.to_owned())),
            Some(_) | None => Ok(found.line),
        }
    }
}

/// What remains of a text that a form has sent: it changes line ends and other control characters, which
/// a line from elsewhere may have.
fn printed(text: &str) -> impl Iterator<Item = char> {
    let is_printed = |one: &char| !one.is_control() && *one != char::REPLACEMENT_CHARACTER;
    text.chars().filter(is_printed)
}

/// Checks lines against a condition.
///
/// # Errors
/// [`HistoryError::NoSuchLine`], [`HistoryError::Read`], and those of the condition:
/// [`HistoryError::NotOwn`], [`HistoryError::NoMatch`].
pub(super) fn check_lines(
    state: State,
    lines: Lines,
    condition: &Condition,
) -> Result<(), HistoryError> {
    lines.check(state.lines)?;
    let mut input = BufReader::with_capacity(BLOCK_BYTES, state.file);
    for _ in 1..lines.first {
        input.skip_until(b'\n').map_err(HistoryError::Read)?;
    }
    let mut line = Vec::new();
    for number in lines.first..=lines.last {
        if !read_line(&mut input, &mut line).map_err(HistoryError::Read)? {
            // Another program has shortened the file.
            return Err(HistoryError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        condition.check(number, &line)?;
    }
    Ok(())
}

/// Checks that every line meets a condition.
///
/// # Errors
/// As [`check_lines`].
pub(super) fn check_all(file: FileRange, condition: &Condition) -> Result<(), HistoryError> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut line = Vec::new();
    for number in 1.. {
        if !read_line(&mut input, &mut line).map_err(HistoryError::Read)? {
            break;
        }
        condition.check(number, &line)?;
    }
    Ok(())
}

/// Reads the next line without its line feed, and of a very long one only the start. Returns whether
/// there was one.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let bytes = line::read(input, LINE_BYTES_MAX, line)?;
    line.pop_if(|byte| *byte == b'\n');
    Ok(bytes > 0)
}
