//! The history as it was at one moment, for a reader.

use std::io::{self, BufRead, BufReader};

use memchr::memchr;

use super::file_range::{BLOCK_BYTES, FileRange};
use super::number::{NUMBER_BYTES_MAX, Number};
use super::seek;
use crate::HistoryError;

/// Lines of the history for a reader, each behind its number and a space.
pub trait Pieces: Send {
    /// Appends the next piece, of at most `bytes_max` bytes, to `out`; nothing at the end. The pieces
    /// together are the lines.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    fn put_piece(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> Result<(), HistoryError>;
}

/// The history as it was at one moment, with its lines numbered from 1.
///
/// It is read piece by piece, so a history of any length takes the memory of two blocks. If the file
/// is replaced meanwhile, the disk keeps the old one until its last reader is done.
pub struct Snapshot {
    input: BufReader<FileRange>,
    /// The number of the next line.
    number: Number,
    place: Place,
}

/// Where in a line the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// In the sequence number, which is not shown.
    Sequence,
    Record,
}

impl Snapshot {
    pub(super) fn of(committed: FileRange) -> Self {
        Self::from_line(1, committed)
    }

    /// The last lines of a file that has `lines` lines.
    pub(super) fn of_last(last: u64, mut file: FileRange, lines: u64) -> io::Result<Self> {
        file.range.start = seek::start_of_last(&file, last)?;
        Ok(Self::from_line(lines.saturating_sub(last) + 1, file))
    }

    fn from_line(number: u64, lines: FileRange) -> Self {
        Self {
            input: BufReader::with_capacity(BLOCK_BYTES, lines),
            number: Number::new(number),
            place: Place::Start,
        }
    }
}

impl Pieces for Snapshot {
    fn put_piece(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> Result<(), HistoryError> {
        let end = out.len() + bytes_max;
        loop {
            let block = self.input.fill_buf().map_err(HistoryError::Read)?;
            let mut rest = block;
            while !rest.is_empty() && end - out.len() > NUMBER_BYTES_MAX {
                if self.place == Place::Start {
                    self.number.put(out);
                    self.number.count_up();
                    // One that another program left has none, if there was no space to give it one.
                    self.place = match rest[0] {
                        b'#' => Place::Sequence,
                        _ => Place::Record,
                    };
                }
                if self.place == Place::Sequence {
                    let is_end = |byte: &u8| matches!(byte, b' ' | b'\n');
                    let Some(end) = rest.iter().position(is_end) else {
                        rest = &[];
                        break;
                    };
                    rest = &rest[end + usize::from(rest[end] == b' ')..];
                    self.place = Place::Record;
                }
                let line = &rest[..rest.len().min(end - out.len())];
                let line_end = memchr(b'\n', line);
                let (line, after) = rest.split_at(line_end.map_or(line.len(), |at| at + 1));
                out.extend_from_slice(line);
                if line_end.is_some() {
                    self.place = Place::Start;
                }
                rest = after;
            }
            let consumed = block.len() - rest.len();
            let is_full = !rest.is_empty();
            self.input.consume(consumed);
            if consumed == 0 || is_full {
                return Ok(());
            }
        }
    }
}
