//! What a reader of the history has: the file as it was at one moment.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memchr::memchr;
use proto::history::TEXT_BYTES_MAX;
use proto::retry_interrupted;
use storage::TextFile;

use super::number::{NUMBER_BYTES_MAX, Number};
use crate::HistoryError;

/// How much of the file is read at once, in bytes.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// A part of a file, read without touching what its other users share: the place in it.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) range: Range<u64>,
}

impl Part {
    /// All that is committed.
    pub(super) fn whole(file: &TextFile) -> Self {
        let (file, bytes) = file.snapshot();
        let range = 0..bytes;
        Self { file, range }
    }
}

impl Read for Part {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end - self.range.start;
        let room = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let out = &mut out[..room];
        let bytes = retry_interrupted(|| self.file.read_at(out, self.range.start))?;
        self.range.start += bytes as u64;
        Ok(bytes)
    }
}

/// The history as it was at one moment, with its lines numbered from 1.
///
/// It is read piece by piece, so a history of any size takes no more memory than two blocks. The
/// disk keeps a history that was replaced until its last reader is done.
pub struct Snapshot {
    input: BufReader<Part>,
    /// That of the next line.
    number: Number,
    at_line_start: bool,
}

impl Snapshot {
    pub(super) fn of(whole: Part) -> Self {
        Self {
            input: BufReader::with_capacity(BLOCK_BYTES, whole),
            number: Number::one(),
            at_line_start: true,
        }
    }

    /// Appends the next piece, of at most [`TEXT_BYTES_MAX`] bytes, to `out`; nothing is the end. All
    /// pieces together are the lines, each behind its number and a space.
    ///
    /// # Errors
    /// [`HistoryError::Read`].
    pub fn put_piece(&mut self, out: &mut Vec<u8>) -> Result<(), HistoryError> {
        let end = out.len() + TEXT_BYTES_MAX;
        loop {
            let block = self.input.fill_buf().map_err(HistoryError::Read)?;
            let mut rest = block;
            while !rest.is_empty() && end - out.len() > NUMBER_BYTES_MAX {
                if self.at_line_start {
                    self.number.put(out);
                    self.number.count_up();
                }
                let line = &rest[..rest.len().min(end - out.len())];
                let line_end = memchr(b'\n', line);
                let (line, after) = rest.split_at(line_end.map_or(line.len(), |at| at + 1));
                out.extend_from_slice(line);
                self.at_line_start = line_end.is_some();
                rest = after;
            }
            let taken = block.len() - rest.len();
            let is_full = !rest.is_empty();
            self.input.consume(taken);
            if taken == 0 || is_full {
                return Ok(());
            }
        }
    }
}
