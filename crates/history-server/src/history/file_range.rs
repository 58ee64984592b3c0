//! A range of the history file, read by position, so that its readers do not disturb each other.

use std::collections::VecDeque;
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

/// What is committed. The writer thread sets it, and each reader clones it.
#[derive(Clone)]
pub(super) struct State {
    /// All of the file.
    pub(super) file: FileRange,
    /// How many lines it has.
    pub(super) lines: u64,
    /// The sequence number of the next line.
    pub(super) next: u64,
    /// How often the file was replaced.
    pub(super) generation: u64,
    /// The newest removals.
    pub(super) removals: Removals,
}

/// Lines that were deleted, by their sequence numbers. Those in between that others deleted before are
/// included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

/// The most removals that are kept for followers.
const REMOVALS_MAX: usize = 1024;

/// The newest removals, each with the generation that is the first without these lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Removals(Arc<VecDeque<(u64, Removed)>>);

impl Removals {
    /// Adds one; drops the oldest if there are too many.
    pub(super) fn add(&mut self, generation: u64, removed: Removed) {
        // Copied only if a reader has it.
        let removals = Arc::make_mut(&mut self.0);
        removals.truncate(REMOVALS_MAX - 1);
        removals.push_front((generation, removed));
    }

    /// Those since a generation, in the order in which they happened.
    pub(super) fn since(&self, generation: u64) -> impl Iterator<Item = Removed> {
        let newer = self.0.iter().take_while(move |(of, _)| *of > generation);
        let newer: Vec<_> = newer.map(|(_, removed)| *removed).collect();
        newer.into_iter().rev()
    }
}

/// What is committed, for all threads.
pub(super) type Committed = Arc<Mutex<State>>;

impl FileRange {
    /// A file with this text.
    #[cfg(test)]
    pub(super) fn of_text(text: &str) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Self {
            file: Arc::new(file),
            range: 0..text.len() as u64,
        }
    }

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
