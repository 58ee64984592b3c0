//! Syncs: they put on the disk what was written, until one fails.
//!
//! After a failed sync Linux marks the pages clean. A second sync succeeds and proves nothing, and so
//! does reading the file, which reads the page cache. So there is no second one: after the first
//! failure every sync fails, and the server stops.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::time::Instant;

use cap_std::fs::Dir;
use rustix::fs::fsync;
use rustix::io::Errno;
use storage::{Histogram, seconds_histogram};

use crate::error::FilesError;

/// The syncs of one tree of files.
pub(super) struct Disk {
    /// How long they took.
    pub(super) seconds: Histogram,
    failure: OnceLock<Errno>,
    stop: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            seconds: seconds_histogram(),
            failure: OnceLock::new(),
            stop: OnceLock::new(),
        }
    }
}

impl Disk {
    /// Calls `stop` at the first sync that fails.
    pub(super) fn on_failure(&self, stop: impl Fn() + Send + Sync + 'static) {
        // Only the first call counts.
        let _ = self.stop.set(Box::new(stop));
    }

    /// Why a sync failed, if one did.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failure.get().map(|errno| (*errno).into())
    }

    /// Syncs the contents and the length of a file.
    pub(super) fn sync_data(&self, file: &File) -> Result<(), FilesError> {
        self.sync(|| file.sync_data())
    }

    /// Syncs a file with all its metadata.
    pub(super) fn sync_all(&self, file: &File) -> Result<(), FilesError> {
        self.sync(|| file.sync_all())
    }

    /// Syncs the names in a folder, which is open for reading ([`Root::open_folder`]).
    ///
    /// [`Root::open_folder`]: super::root::Root::open_folder
    pub(super) fn sync_folder(&self, folder: &Dir) -> Result<(), FilesError> {
        self.sync(|| unless_unsupported(fsync(folder)).map_err(io::Error::from))
    }

    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> Result<(), FilesError> {
        let begun = Instant::now();
        let synced = self.failure().map_or_else(sync, Err);
        if synced.is_ok() {
            self.seconds.observe(begun.elapsed().as_secs_f64());
        }
        synced.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            self.failure.get_or_init(|| errno);
            if let Some(stop) = self.stop.get() {
                stop();
            }
            FilesError::Unsynced(error)
        })
    }
}

/// Some network file systems cannot sync a folder, and say so. A name is as safe there as it can be.
fn unless_unsupported(synced: Result<(), Errno>) -> Result<(), Errno> {
    match synced {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Ok(()) | Err(_) => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn that_a_folder_cannot_be_synced_is_no_failure() {
        let synced = |errno: Errno| unless_unsupported(Err(errno));
        for unsupported in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(synced(unsupported).is_ok(), "{unsupported}");
        }
        for failed in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(synced(failed).is_err(), "{failed}");
        }
    }

    #[test]
    fn the_first_sync_that_fails_is_the_last_one() {
        let disk = Disk::default();
        let stops = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&stops);
        disk.on_failure(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        disk.sync(|| Ok(())).unwrap();
        assert!(disk.failure().is_none());
        assert_eq!(stops.load(Ordering::Relaxed), 0);
        let fails = || Err(Errno::IO.into());
        assert!(matches!(disk.sync(fails), Err(FilesError::Unsynced(_))));
        assert_eq!(stops.load(Ordering::Relaxed), 1);
        let is_not_called = || panic!("a second sync");
        let second = disk.sync(is_not_called);
        assert!(matches!(second, Err(FilesError::Unsynced(_))));
        assert_eq!(
            disk.failure().unwrap().raw_os_error(),
            Some(Errno::IO.raw_os_error())
        );
    }
}
