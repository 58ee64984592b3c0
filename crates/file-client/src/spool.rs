//! What is still to be transferred of a folder, in an unnamed temporary file: a folder may hold more
//! names than memory should, and a server does not wait with the rest of a list while a client
//! transfers what the first part names.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tempfile::SpooledTempFile;

/// How much is in memory before it goes to the temporary file, in bytes.
const MEMORY_BYTES: usize = 256 << 10;

/// The most that is kept, in bytes: ten million files with paths of about 80 bytes.
const SPOOL_BYTES_MAX: u64 = 1 << 30;

/// The longest path below the folder, in bytes. It is the kernel's limit.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

/// A file or a folder below the one that is transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Relative to that folder; empty for the folder itself.
    pub(crate) path: PathBuf,
    /// A file's length, in bytes.
    pub(crate) bytes: u64,
    /// When it was last changed, in seconds since 1970; 0 if that is not known.
    pub(crate) modified: u64,
}

impl Item {
    /// A folder.
    pub(crate) fn folder(path: PathBuf) -> Self {
        Self {
            path,
            bytes: 0,
            modified: 0,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        let length = (path.len() as u64).to_le_bytes();
        let numbers = [
            length,
            self.bytes.to_le_bytes(),
            self.modified.to_le_bytes(),
        ];
        [numbers.as_flattened(), path].concat()
    }

    fn decode(input: &mut impl Read) -> io::Result<Self> {
        let mut numbers = [0; 24];
        input.read_exact(&mut numbers)?;
        let number = |at: usize| {
            let bytes = numbers[at..].first_chunk().copied();
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let mut path = Vec::new();
        input.take(number(0)).read_to_end(&mut path)?;
        Ok(Self {
            path: Path::new(OsStr::from_bytes(&path)).to_owned(),
            bytes: number(8),
            modified: number(16),
        })
    }
}

/// Items that come out in the order in which they went in.
pub(crate) struct Spool {
    file: SpooledTempFile,
    /// Where the next item is, and where the last one ends.
    next: u64,
    end: u64,
    bytes_max: u64,
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self::limited(SPOOL_BYTES_MAX)
    }

    fn limited(bytes_max: u64) -> Self {
        Self {
            file: SpooledTempFile::new(MEMORY_BYTES),
            next: 0,
            end: 0,
            bytes_max,
        }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// If there are too many, and those of the disk with the temporary files.
    pub(crate) fn push(&mut self, item: &Item) -> io::Result<()> {
        let record = item.encode();
        let end = self.end + record.len() as u64;
        if end > self.bytes_max {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&record)?;
        self.end = end;
        Ok(())
    }

    /// Removes the first item.
    ///
    /// # Errors
    /// Those of the disk with the temporary files.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        if self.next == self.end {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(self.next))?;
        let item = Item::decode(&mut self.file)?;
        self.next = self.file.stream_position()?;
        if self.next == self.end {
            self.clear()?;
        }
        Ok(Some(item))
    }

    /// Removes all items.
    ///
    /// # Errors
    /// Those of the disk with the temporary files.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        (self.next, self.end) = (0, 0);
        self.file.set_len(0)
    }
}

/// A spool that one thread fills and others empty.
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    spool: Spool,
    /// Whether no more items will come.
    is_closed: bool,
    /// Whether those that are left do not matter.
    is_stopped: bool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let state = QueueState {
            spool: Spool::new(),
            is_closed: false,
            is_stopped: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// Those of [`Spool::push`].
    pub(crate) fn push(&self, item: &Item) -> io::Result<()> {
        self.lock().spool.push(item)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Removes the first item, and waits for one if there may still come some.
    ///
    /// # Errors
    /// Those of [`Spool::next`].
    pub(crate) fn next(&self) -> io::Result<Option<Item>> {
        let mut state = self.lock();
        loop {
            if state.is_stopped {
                return Ok(None);
            }
            let item = state.spool.next()?;
            if item.is_some() || state.is_closed {
                return Ok(item);
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the queue when it is dropped: no more items will come.
    pub(crate) fn close_at_end(&self) -> Closing<'_> {
        Closing(self)
    }

    /// Ends the queue at once: what is in it does not come out.
    pub(crate) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Whether it was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue that ends when this is dropped, however its thread ends.
#[must_use = "dropping it ends the queue"]
pub(crate) struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn item(path: &[u8], number: u64) -> Item {
        Item {
            path: Path::new(OsStr::from_bytes(path)).to_owned(),
            bytes: number,
            modified: u64::MAX - number,
        }
    }

    #[test]
    fn items_come_out_as_they_went_in() {
        let mut spool = Spool::new();
        let names: [&[u8]; 4] = [b"", b"a/b", b"\xff\n", &[b'x'; PATH_BYTES_MAX]];
        // Enough for the disk, and what comes out makes room.
        for round in 0..200 {
            for (name, number) in names.iter().zip(0..) {
                spool.push(&item(name, number)).unwrap();
            }
            if round % 2 == 0 {
                let first = spool.next().unwrap().unwrap();
                assert_eq!(first.path.as_os_str().as_bytes(), names[round / 2 % 4]);
            }
        }
        let left = std::iter::from_fn(|| spool.next().unwrap()).count();
        assert_eq!(left, 700);
        assert_eq!((spool.next, spool.end), (0, 0));
        spool.push(&item(b"again", 1)).unwrap();
        assert_eq!(spool.next().unwrap(), Some(item(b"again", 1)));
    }

    #[test]
    fn a_spool_has_an_end() {
        let mut spool = Spool::limited(100);
        let pushed = (0..9).find_map(|number| spool.push(&item(b"abc", number)).err());
        assert_eq!(pushed.unwrap().kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(spool.next().unwrap(), Some(item(b"abc", 0)));
    }

    #[test]
    fn those_who_wait_get_an_item_or_the_end() {
        let queue = Queue::new();
        thread::scope(|scope| {
            let take = || scope.spawn(|| std::iter::from_fn(|| queue.next().unwrap()).count());
            let takers = [take(), take(), take()];
            let closing = queue.close_at_end();
            for number in 0..100 {
                queue.push(&item(b"a", number)).unwrap();
            }
            drop(closing);
            let taken: usize = takers.map(|taker| taker.join().unwrap()).iter().sum();
            assert_eq!(taken, 100);
        });
        queue.push(&item(b"a", 1)).unwrap();
        queue.stop();
        assert_eq!(queue.next().unwrap(), None);
    }
}
