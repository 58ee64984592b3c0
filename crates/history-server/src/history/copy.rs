//! The copy that a deletion makes: the history without the deleted lines, in a file beside it.
//!
//! To copy a long history takes seconds. So the writer thread does not do it, but the thread of a
//! connection that requested a deletion and waits for it anyway. Meanwhile lines are still appended
//! to the old file. The copy catches up with them until so little is missing that the writer thread
//! can append the rest and rename in a moment.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memchr_iter;
use rustix::fs::fstatvfs;
use rustix::io::retry_on_intr;
use storage::{CommitError, lock};

use super::file_range::{BLOCK_BYTES, Committed, FileRange, Removed};
use super::line::{self, NUMBER_BYTES_MAX, Numbering};

/// How much is written before it is synced, in bytes. The sync of an append waits until the disk has
/// what was written before, so this is small.
const STEP_BYTES: u64 = 1 << 20;

/// How much the writer thread may be left to append, in bytes.
const REST_BYTES_MAX: u64 = 128 << 10;

/// The most times a copy catches up. Then the writer thread appends the rest, however long it is.
const CATCH_UPS_MAX: usize = 16;

/// How long the copy that a user waits for continues in a server that shuts down: half of the time that
/// requests have.
pub(super) const STOPPING_WAIT: Duration = Duration::from_secs(5);

/// A copy to be made.
pub(super) struct CopyJob {
    /// What is copied.
    pub(super) source: FileRange,
    /// The new file. The writer thread cancels the copy by removing its name.
    pub(super) target: Arc<File>,
    /// The numbers of the lines that are left out, in ascending order.
    pub(super) deleted: Vec<Range<u64>>,
    /// How long it continues in a server that shuts down.
    pub(super) stopping_wait: Duration,
}

/// A copy that was made, or failed.
pub(super) struct FinishedCopy {
    /// The new file.
    pub(super) target: Arc<File>,
    /// What is copied.
    pub(super) copied: Result<Copied, CommitError>,
}

/// What a copy has of the old file, and has not.
pub(super) struct Copied {
    /// Up to where the old file is copied.
    pub(super) end: u64,
    /// The lines that are left out.
    pub(super) removed: Vec<Removed>,
}

impl CopyJob {
    /// Makes the copy. A panic is a failure of it, because the other requesters wait for it too.
    pub(super) fn run(
        &self,
        committed: &Committed,
        is_stopping: &dyn Fn() -> bool,
    ) -> FinishedCopy {
        let run = || self.try_to_run(committed, is_stopping);
        let copied = panic::catch_unwind(AssertUnwindSafe(run));
        FinishedCopy {
            target: Arc::clone(&self.target),
            copied: copied.unwrap_or_else(|_| Err(refused("the copy panicked"))),
        }
    }

    fn try_to_run(
        &self,
        committed: &Committed,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Copied, CommitError> {
        self.check_free_space()?;
        let mut output = Output {
            file: &self.target,
            unsynced_bytes: 0,
            is_stopping,
            stopping_wait: self.stopping_wait,
            stopping_since: None,
        };
        let mut input = BufReader::with_capacity(BLOCK_BYTES, self.source.clone());
        let mut next = 1;
        let mut removed = Vec::new();
        for lines in &self.deleted {
            copy_lines(&mut input, lines.start - next, &mut output)?;
            let skipped = skip_lines(&mut input, lines.end - lines.start);
            removed.push(skipped.map_err(CommitError::Refused)?);
            next = lines.end;
        }
        copy_all(&mut input, &mut output)?;
        let mut end = self.source.range.end;
        for _ in 0..CATCH_UPS_MAX {
            output.sync_if_more_than(REST_BYTES_MAX)?;
            let FileRange { file, range } = lock(committed).file.clone();
            if !Arc::ptr_eq(&file, &self.source.file) || range.end - end <= REST_BYTES_MAX {
                break;
            }
            let range = end..range.end;
            end = range.end;
            let added = FileRange { file, range };
            copy_all(
                &mut BufReader::with_capacity(BLOCK_BYTES, added),
                &mut output,
            )?;
        }
        Ok(Copied { end, removed })
    }

    /// Checks that the disk has space for the copy. Otherwise the copy would fill it before it fails,
    /// and appends would fail too.
    fn check_free_space(&self) -> Result<(), CommitError> {
        let disk = retry_on_intr(|| fstatvfs(&self.target));
        let disk = disk.map_err(|error| CommitError::Refused(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let bytes = self.source.range.end;
        if bytes > free {
            let sentence =
                format!("a copy of the history takes {bytes} bytes, the disk has {free}");
            return Err(refused(&sentence));
        }
        Ok(())
    }
}

/// The new file, and when to sync it.
struct Output<'a> {
    file: &'a File,
    unsynced_bytes: u64,
    is_stopping: &'a dyn Fn() -> bool,
    stopping_wait: Duration,
    stopping_since: Option<Instant>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        self.file.write_all(bytes).map_err(CommitError::Refused)?;
        self.unsynced_bytes += bytes.len() as u64;
        self.sync_if_more_than(STEP_BYTES)
    }

    /// Syncs if more than this is unsynced, and then checks whether the copy is still wanted.
    fn sync_if_more_than(&mut self, bytes: u64) -> Result<(), CommitError> {
        if self.unsynced_bytes <= bytes {
            return Ok(());
        }
        self.file.sync_data().map_err(CommitError::Lost)?;
        self.unsynced_bytes = 0;
        let metadata = self.file.metadata().map_err(CommitError::Refused)?;
        if metadata.nlink() == 0 {
            return Err(refused("the copy was removed"));
        }
        if (self.is_stopping)() {
            let since = *self.stopping_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.stopping_wait {
                return Err(refused("the server is shutting down"));
            }
        }
        Ok(())
    }
}

fn refused(sentence: &str) -> CommitError {
    CommitError::Refused(io::Error::other(sentence))
}

/// Skips this many lines, one or more.
fn skip_lines(input: &mut impl BufRead, lines: u64) -> io::Result<Removed> {
    let mut numbers = Numbering::default();
    let mut line = Vec::new();
    for _ in 0..lines {
        if line::read(input, NUMBER_BYTES_MAX, &mut line)? == 0 {
            // Another program has shortened the file.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        numbers.add(&line);
    }
    Ok(Removed {
        first: numbers.first,
        last: numbers.last,
    })
}

/// Copies this many lines, block by block.
fn copy_lines(
    input: &mut impl BufRead,
    mut lines: u64,
    output: &mut Output,
) -> Result<(), CommitError> {
    while lines > 0 {
        let block = input.fill_buf().map_err(CommitError::Refused)?;
        if block.is_empty() {
            // Another program has shortened the file.
            return Err(CommitError::Refused(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = block.len();
        for end in memchr_iter(b'\n', block) {
            lines -= 1;
            if lines == 0 {
                bytes = end + 1;
                break;
            }
        }
        output.put(&block[..bytes])?;
        input.consume(bytes);
    }
    Ok(())
}

fn copy_all(input: &mut impl BufRead, output: &mut Output) -> Result<(), CommitError> {
    loop {
        let block = input.fill_buf().map_err(CommitError::Refused)?;
        if block.is_empty() {
            return Ok(());
        }
        output.put(block)?;
        let bytes = block.len();
        input.consume(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::history::file_range::{Removals, State};

    #[track_caller]
    fn check_refused(output: &mut Output, want: &str) {
        output.put(b"less than a step").unwrap();
        match output.put(&vec![b'x'; STEP_BYTES as usize]) {
            Err(CommitError::Refused(cause)) => assert_eq!(cause.to_string(), want),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_ends_when_it_is_removed_or_the_server_has_stopped_for_long() {
        let new = tempfile::NamedTempFile::new().unwrap();
        let is_stopping = AtomicBool::new(false);
        let mut output = Output {
            file: new.as_file(),
            unsynced_bytes: 0,
            is_stopping: &|| is_stopping.load(Ordering::SeqCst),
            stopping_wait: STOPPING_WAIT,
            stopping_since: None,
        };
        let step = vec![b'x'; STEP_BYTES as usize + 1];
        output.put(&step).unwrap();
        is_stopping.store(true, Ordering::SeqCst);
        output.put(&step).unwrap();
        let since = output.stopping_since.unwrap();
        output.stopping_since = since.checked_sub(STOPPING_WAIT);
        check_refused(&mut output, "the server is shutting down");
        is_stopping.store(false, Ordering::SeqCst);
        std::fs::remove_file(new.path()).unwrap();
        check_refused(&mut output, "the copy was removed");
    }

    #[test]
    fn a_copy_that_the_disk_has_no_space_for_is_refused_before_it_starts() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let source = FileRange {
            file: Arc::clone(&file),
            range: 0..u64::MAX,
        };
        let committed = Arc::new(Mutex::new(State {
            file: source.clone(),
            lines: 1,
            next: 1,
            generation: 0,
            removals: Removals::default(),
        }));
        let copy = CopyJob {
            source,
            target: file,
            deleted: iter::once(1..2).collect(),
            stopping_wait: STOPPING_WAIT,
        };
        let error = copy.run(&committed, &|| false).copied.err().unwrap();
        let CommitError::Refused(cause) = error else {
            panic!("{error:?}");
        };
        let want = "a copy of the history takes 18446744073709551615 bytes, the disk has ";
        assert!(cause.to_string().starts_with(want), "{cause}");
    }
}
