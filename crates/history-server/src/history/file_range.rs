//! A range of the history file, read by position, so that its readers do not disturb each other.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use proto::retry_interrupted;
use storage::TextFile;

/// How much of the file is read at once, in bytes.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// A range of bytes of a file. Reading advances its start.
#[derive(Clone)]
pub(super) struct FileRange {
    pub(super) file: Arc<File>,
    pub(super) range: Range<u64>,
}

/// The range that is committed. The writer thread sets it, and each reader clones it.
pub(super) type Committed = Arc<Mutex<FileRange>>;

impl FileRange {
    /// All that is committed.
    pub(super) fn committed(file: &TextFile) -> Self {
        let (file, bytes) = file.snapshot();
        let range = 0..bytes;
        Self { file, range }
    }
}

impl Read for FileRange {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end - self.range.start;
        let bytes_max = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let out = &mut out[..bytes_max];
        let bytes = retry_interrupted(|| self.file.read_at(out, self.range.start))?;
        self.range.start += bytes as u64;
        Ok(bytes)
    }
}
