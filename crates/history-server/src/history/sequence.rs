//! The next sequence number, in a file of its own, `sequence.txt`.
//!
//! The last line of the history tells it only as long as that line is there: it may be deleted, or the
//! history rotated away. So numbers are reserved: the file has a number that is above all that were
//! given to lines, and is written again before that one is reached. A server that starts again leaves out
//! the rest of what the one before had reserved.

use storage::{CommitError, DataFolder, Fsync, Line, StorageError, TextFile};

use super::line::SEQUENCE_MAX;

/// The file in the data folder.
pub(super) const FILE_NAME: &str = "sequence.txt";

/// How many numbers are reserved at once.
const RESERVED: u64 = 10_000;

/// Gives out sequence numbers.
pub(super) struct Sequence {
    file: TextFile,
    /// The next number.
    next: u64,
    /// The number in the file.
    reserved: u64,
}

impl Sequence {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// [`StorageError`]; also if the file does not contain a number.
    pub(super) fn open(folder: &mut DataFolder, fsync: Fsync) -> Result<Self, StorageError> {
        let mut reserved = 1;
        let file = TextFile::open(folder.open(FILE_NAME)?, fsync, |line, _| {
            let number = std::str::from_utf8(line)
                .ok()
                .and_then(|line| line.parse().ok())
                .filter(|number| *number <= SEQUENCE_MAX);
            number.map_or(Line::Damaged, |number| {
                reserved = number;
                Line::Sound
            })
        })?;
        let next = reserved;
        Ok(Self {
            file,
            next,
            reserved,
        })
    }

    /// The next number.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Continues from this number, unless it is further already.
    pub(super) fn continue_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Makes sure that this many numbers from the next one on are reserved on the disk.
    ///
    /// # Errors
    /// Those of [`TextFile::replace`].
    pub(super) fn reserve(&mut self, numbers: u64) -> Result<(), CommitError> {
        let end = self.next.saturating_add(numbers);
        match end > self.reserved {
            true => self.write(end.saturating_add(RESERVED)),
            false => Ok(()),
        }
    }

    fn write(&mut self, reserved: u64) -> Result<(), CommitError> {
        let new = self.file.replacement()?;
        self.file.pending().extend(format!("{reserved}\n").bytes());
        self.file.replace(new)?;
        self.reserved = reserved;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_number_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            || Sequence::open(&mut DataFolder::create(dir.path()).unwrap(), Fsync::Always).unwrap();
        let text = || fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let mut sequence = open();
        assert_eq!(sequence.next(), 1);
        sequence.reserve(3).unwrap();
        assert_eq!(text(), "10004\n");
        sequence.continue_from(4);
        sequence.reserve(10_000).unwrap();
        assert_eq!(text(), "10004\n");
        sequence.reserve(10_001).unwrap();
        assert_eq!(text(), "20005\n");
        drop(sequence);
        let mut sequence = open();
        assert_eq!(sequence.next(), 20_005);
        sequence.continue_from(2);
        assert_eq!(sequence.next(), 20_005);
    }

    #[test]
    fn a_file_without_a_number_of_ours_is_damaged() {
        for text in ["x".to_owned(), u64::MAX.to_string()] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE_NAME), text + "\n").unwrap();
            let mut folder = DataFolder::create(dir.path()).unwrap();
            let opened = Sequence::open(&mut folder, Fsync::Always);
            assert!(matches!(opened, Err(StorageError::Damaged { .. })));
        }
    }
}
