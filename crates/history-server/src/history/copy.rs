//! The copy that a deletion makes: the history without the lines that go, beside the old one.
//!
//! To copy a long history takes seconds. So it is not done by the writer, which would hold up everybody,
//! but by the thread of somebody who asked for a deletion, and waits for it anyway. Appends go on meanwhile,
//! in the old file. The copy catches up with them until so little is missing that the writer can add
//! that, and rename, in a moment.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memchr_iter;
use rustix::fs::fstatvfs;
use rustix::io::retry_on_intr;
use storage::{CommitError, lock};

use super::Current;
use super::snapshot::{BLOCK_BYTES, Part};

/// How much is written before it is synced, in bytes. The syncs of appends wait for the disk to take
/// what was written before them, so that must never be much.
const STEP_BYTES: u64 = 1 << 20;

/// How much the writer may be left to add, in bytes.
const REST_BYTES_MAX: u64 = 128 << 10;

/// How often the copy catches up before it leaves the rest to the writer, however much that is.
const CATCH_UPS_MAX: usize = 16;

/// How long a server that shuts down waits for a copy: half of the time that requests in flight have.
const STOPPING_WAIT: Duration = Duration::from_secs(5);

/// A copy that is to be made.
pub(super) struct Copy {
    /// What is copied.
    pub(super) old: Part,
    /// Where to. Whoever takes away its name gives it up.
    pub(super) new: Arc<File>,
    /// The lines that are left out: their numbers, in order.
    pub(super) deleted: Vec<u64>,
}

/// A copy that was made.
pub(super) struct Copied {
    pub(super) new: Arc<File>,
    /// Up to where the old file is in it.
    pub(super) end: Result<u64, CommitError>,
}

impl Copy {
    /// Makes it, and tells the writer in any case.
    pub(super) fn make(&self, current: &Current, is_stopping: &dyn Fn() -> bool) -> Copied {
        let make = || self.try_to_make(current, is_stopping);
        // The others wait for this, and must hear of it.
        let made = panic::catch_unwind(AssertUnwindSafe(make));
        let panicked = |_| Err(refused("the copy panicked"));
        Copied {
            new: Arc::clone(&self.new),
            end: made.unwrap_or_else(panicked),
        }
    }

    fn try_to_make(
        &self,
        current: &Current,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<u64, CommitError> {
        self.check_room()?;
        let mut output = Output {
            file: &self.new,
            unsynced_bytes: 0,
            is_stopping,
            stopping_since: None,
        };
        let mut input = BufReader::with_capacity(BLOCK_BYTES, self.old.clone());
        let mut next = 1;
        for gone in &self.deleted {
            copy_lines(&mut input, gone - next, &mut output)?;
            input.skip_until(b'\n').map_err(CommitError::Refused)?;
            next = gone + 1;
        }
        copy_all(&mut input, &mut output)?;
        let mut end = self.old.range.end;
        for _ in 0..CATCH_UPS_MAX {
            output.sync_if_more_than(REST_BYTES_MAX)?;
            let now = lock(current).clone();
            if !Arc::ptr_eq(&now.file, &self.old.file) || now.range.end - end <= REST_BYTES_MAX {
                break;
            }
            let range = end..now.range.end;
            end = range.end;
            let file = now.file;
            copy_all(
                &mut BufReader::with_capacity(BLOCK_BYTES, Part { file, range }),
                &mut output,
            )?;
        }
        Ok(end)
    }

    /// Looks whether the disk has room for the copy: on the way to finding out, the appends would have
    /// none.
    fn check_room(&self) -> Result<(), CommitError> {
        let disk = retry_on_intr(|| fstatvfs(&self.new));
        let disk = disk.map_err(|error| CommitError::Refused(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let bytes = self.old.range.end;
        if bytes > free {
            let sentence =
                format!("a copy of the history takes {bytes} bytes, the disk has {free}");
            return Err(refused(&sentence));
        }
        Ok(())
    }
}

/// The new file.
struct Output<'a> {
    file: &'a File,
    unsynced_bytes: u64,
    is_stopping: &'a dyn Fn() -> bool,
    stopping_since: Option<Instant>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        self.file.write_all(bytes).map_err(CommitError::Refused)?;
        self.unsynced_bytes += bytes.len() as u64;
        self.sync_if_more_than(STEP_BYTES)
    }

    /// Syncs what was written if it is more than this, and looks whether that makes sense any more.
    fn sync_if_more_than(&mut self, bytes: u64) -> Result<(), CommitError> {
        if self.unsynced_bytes <= bytes {
            return Ok(());
        }
        self.file.sync_data().map_err(CommitError::Lost)?;
        self.unsynced_bytes = 0;
        let there = self.file.metadata().map_err(CommitError::Refused)?;
        if there.nlink() == 0 {
            return Err(refused("the copy was removed"));
        }
        if (self.is_stopping)() {
            let since = *self.stopping_since.get_or_insert_with(Instant::now);
            if since.elapsed() > STOPPING_WAIT {
                return Err(refused("the server is shutting down"));
            }
        }
        Ok(())
    }
}

fn refused(sentence: &str) -> CommitError {
    CommitError::Refused(io::Error::other(sentence))
}

/// Copies so many lines, by the block.
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
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[track_caller]
    fn check_refused(output: &mut Output, want: &str) {
        output.put(b"a step is not over").unwrap();
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
    fn a_copy_that_the_disk_has_no_room_for_is_not_begun_and_says_so() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let old = Part {
            file: Arc::clone(&file),
            range: 0..u64::MAX,
        };
        let current = Arc::new(Mutex::new(old.clone()));
        let copy = Copy {
            old,
            new: file,
            deleted: vec![1],
        };
        let error = copy.make(&current, &|| false).end.unwrap_err();
        let CommitError::Refused(cause) = error else {
            panic!("{error:?}");
        };
        let want = "a copy of the history takes 18446744073709551615 bytes, the disk has ";
        assert!(cause.to_string().starts_with(want), "{cause}");
    }
}
