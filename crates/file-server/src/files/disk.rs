//! Puts on the disk what was written, until that fails for the first time.
//!
//! After a failed sync Linux takes the pages for clean. A second sync succeeds and proves nothing, and
//! neither does reading the file, which shows what is in memory. So there is no second one: from the
//! first failure on, every sync fails, and the server is told to stop.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use cap_std::fs::Dir;
use rustix::io::Errno;

use super::FilesError;

/// The syncs of one tree of files.
#[derive(Default)]
pub(super) struct Disk {
    failure: OnceLock<Errno>,
    stop: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Disk {
    /// Has `stop` called at the first sync that fails.
    pub(super) fn when_it_fails(&self, stop: impl Fn() + Send + Sync + 'static) {
        // A second caller has no say.
        let _ = self.stop.set(Box::new(stop));
    }

    /// Why a sync failed, if one did.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failure.get().map(|errno| (*errno).into())
    }

    /// Puts the contents of a file on the disk, and its length.
    pub(super) fn sync_data(&self, file: &File) -> Result<(), FilesError> {
        self.sync(|| file.sync_data())
    }

    /// Puts a file on the disk, with all that is known of it.
    pub(super) fn sync_all(&self, file: &File) -> Result<(), FilesError> {
        self.sync(|| file.sync_all())
    }

    /// Puts a folder's entries on the disk. A [`Dir`] is only a path to it, which cannot be synced.
    pub(super) fn sync_folder(&self, folder: &Dir) -> Result<(), FilesError> {
        let folder = folder.open(".")?;
        self.sync(|| unless_unsupported(folder.sync_all()))
    }

    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> Result<(), FilesError> {
        let synced = self.failure().map_or_else(sync, Err);
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

/// Some network file systems cannot sync a folder, and say so. They have no other way to keep a name
/// than the one they have gone already.
fn unless_unsupported(synced: io::Result<()>) -> io::Result<()> {
    let error = synced.as_ref().err().and_then(Errno::from_io_error);
    match error {
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Some(_) | None => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn that_a_folder_cannot_be_synced_is_no_failure() {
        let synced = |errno: Errno| unless_unsupported(Err(errno.into()));
        for unsupported in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(synced(unsupported).is_ok(), "{unsupported}");
        }
        for failed in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(synced(failed).is_err(), "{failed}");
        }
        assert!(unless_unsupported(Err(io::ErrorKind::Other.into())).is_err());
    }

    #[test]
    fn the_first_sync_that_fails_is_the_last_one() {
        let disk = Disk::default();
        let stops = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&stops);
        disk.when_it_fails(move || {
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
