//! Whose lines they are: a record names its user behind the time and the address.

use std::io::{self, BufRead, BufReader, Read};

use super::file_range::{BLOCK_BYTES, FileRange};
use crate::HistoryError;

/// How much of a line is read to find its user, in bytes. A record of ours is shorter up to there.
const START_BYTES_MAX: u64 = 256;

/// Checks that a line, by its number from 1, is a record of this user.
///
/// # Errors
/// [`HistoryError::NoSuchLine`], [`HistoryError::NotOwn`], [`HistoryError::Read`].
pub(super) fn check_line(range: FileRange, line: u64, user: &str) -> Result<(), HistoryError> {
    let mut lines = Lines::of(range);
    let mut number = 0;
    while number + 1 != line {
        if !lines.skip().map_err(HistoryError::Read)? {
            let lines = number;
            return Err(HistoryError::NoSuchLine { line, lines });
        }
        number += 1;
    }
    match lines.next_is_of(user).map_err(HistoryError::Read)? {
        Some(true) => Ok(()),
        Some(false) => Err(HistoryError::NotOwn(user.to_owned())),
        None => {
            let lines = number;
            Err(HistoryError::NoSuchLine { line, lines })
        }
    }
}

/// Checks that every line is a record of this user.
///
/// # Errors
/// [`HistoryError::NotOwn`], [`HistoryError::Read`].
pub(super) fn check_all(range: FileRange, user: &str) -> Result<(), HistoryError> {
    let mut lines = Lines::of(range);
    loop {
        match lines.next_is_of(user).map_err(HistoryError::Read)? {
            Some(true) => {}
            Some(false) => return Err(HistoryError::NotOwn(user.to_owned())),
            None => return Ok(()),
        }
    }
}

struct Lines(BufReader<FileRange>);

impl Lines {
    fn of(range: FileRange) -> Self {
        Self(BufReader::with_capacity(BLOCK_BYTES, range))
    }

    /// Skips a line; returns whether there was one.
    fn skip(&mut self) -> io::Result<bool> {
        Ok(self.0.skip_until(b'\n')? > 0)
    }

    /// Whether the next line is a record of this user; `None` if there is no next line.
    fn next_is_of(&mut self, user: &str) -> io::Result<Option<bool>> {
        let mut start = Vec::new();
        let read = (&mut self.0)
            .take(START_BYTES_MAX)
            .read_until(b'\n', &mut start)?;
        if read == 0 {
            return Ok(None);
        }
        if !start.ends_with(b"\n") {
            self.skip()?;
        }
        let words = start.strip_suffix(b"\n").unwrap_or(&start);
        let owner = words.split(|byte| *byte == b' ').nth(2);
        Ok(Some(owner == Some(user.as_bytes())))
    }
}
