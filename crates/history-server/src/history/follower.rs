//! Who follows the history: reads each new line when it is committed.
//!
//! A follower reads the file from where it is, in blocks. One that is slow reads later, and delays
//! nobody. When the file is replaced, it reads the old one to its end, and finds its place in the new
//! one by the sequence number of the last line that it has. One that lags many files behind leaves its own
//! unread, because the disk keeps each old file that somebody reads. So it is not told of the lines that were
//! deleted or rotated away before it had read them.

use std::io::{self, BufReader};
use std::sync::Arc;

use storage::lock;

use super::file_range::{Committed, FileRange, Removed, State};
use super::followers::Following;
use super::{line, seek};
use crate::HistoryError;

/// How much of the file is read at once, in bytes: little, because there may be many followers.
const BLOCK_BYTES: usize = 8 * 1024;

/// The longest line that is shown whole, in bytes. Ours are shorter.
const LINE_BYTES_MAX: usize = 64 * 1024 - 64;

/// A follower reads an old file to its end unless more than this many have followed on that one.
pub(super) const REPLACED_MAX: u64 = 8;

/// What a follower sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line was added.
    Line {
        /// Its sequence number.
        sequence: u64,
        /// The line, without its line feed.
        record: &'a [u8],
    },
    /// Lines were deleted.
    Deleted(Removed),
}

/// Reads the lines of a history as they come.
pub struct Follower {
    committed: Committed,
    /// The file, and what of it is still to be read.
    rest: FileRange,
    /// How often the history had been replaced when this file was its own.
    generation: u64,
    /// The sequence number of the last line that was read.
    last: u64,
    following: Following,
}

impl Follower {
    /// Begins behind the line with a sequence number.
    pub(super) fn new(
        committed: &Committed,
        behind: u64,
        following: Following,
    ) -> io::Result<Self> {
        let State {
            mut file,
            generation,
            next,
            ..
        } = lock(committed).clone();
        file.range.start = seek::start_above(&file, behind)?;
        Ok(Self {
            committed: Arc::clone(committed),
            rest: file,
            generation,
            last: behind.min(next - 1),
            following,
        })
    }

    /// Shows the next events to `show`, those of one block of the file. Returns whether there were any;
    /// otherwise all that is committed has been shown.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn next(&mut self, mut show: impl FnMut(Event)) -> Result<bool, HistoryError> {
        self.try_next(&mut show).map_err(HistoryError::Read)
    }

    /// After this many blocks it is to show no more, and is woken again soon.
    pub fn blocks_max(&self) -> usize {
        self.following.blocks_max()
    }

    /// Has it woken again, because there is more to show.
    pub fn wake_again(&self) {
        self.following.wake_again();
    }

    fn try_next(&mut self, show: &mut impl FnMut(Event)) -> io::Result<bool> {
        let state = lock(&self.committed).clone();
        if state.generation - self.generation <= REPLACED_MAX {
            if self.read_block(show)? {
                return Ok(true);
            }
            if Arc::ptr_eq(&state.file.file, &self.rest.file) {
                self.rest.range.end = state.file.range.end;
                return self.read_block(show);
            }
            // Nothing is added to the old file any more.
            self.rest.range.end = self.rest.file.metadata()?.len();
            if self.read_block(show)? {
                return Ok(true);
            }
        }
        for removed in state.removals.since(self.generation) {
            if removed.first <= self.last {
                show(Event::Deleted(removed));
            }
        }
        self.generation = state.generation;
        self.rest = state.file;
        self.rest.range.start = seek::start_above(&self.rest, self.last)?;
        Ok(true)
    }

    /// Shows the lines of the next block; returns whether there were any.
    fn read_block(&mut self, show: &mut impl FnMut(Event)) -> io::Result<bool> {
        if self.rest.range.is_empty() {
            return Ok(false);
        }
        let mut input = BufReader::with_capacity(BLOCK_BYTES, self.rest.clone());
        let mut line = Vec::new();
        let mut shown = 0;
        while shown < BLOCK_BYTES as u64 {
            let bytes = line::read(&mut input, LINE_BYTES_MAX, &mut line)?;
            if bytes == 0 {
                break;
            }
            line.pop_if(|byte| *byte == b'\n');
            shown += bytes as u64;
            if let Some((sequence, record)) = line::split(&line) {
                self.last = sequence;
                show(Event::Line { sequence, record });
            }
        }
        self.rest.range.start += shown;
        Ok(shown > 0)
    }
}
