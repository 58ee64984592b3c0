//! What a start does about a file that another server has locked: it is refused, or it stands by.
//!
//! A server that stands by sleeps in flock(2). The kernel wakes it when the other server unlocks the
//! file or ends, however it ends. What it has locked then may be no longer what the path names, so
//! the caller looks, and opens the file again if it is not.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use crate::StorageError;

/// What is called with the path of a file before the wait for it.
pub(crate) type OnWait = Box<dyn Fn(&Path) + Send>;

/// What a start does about a file that another server has locked.
#[derive(Clone, Copy)]
pub(crate) enum WhenInUse<'a> {
    /// It fails.
    Refuse,
    /// It calls this with the path of the file, and waits.
    StandBy(&'a dyn Fn(&Path)),
}

impl WhenInUse<'_> {
    /// Whether the start waits.
    pub(crate) fn stands_by(self) -> bool {
        match self {
            Self::Refuse => false,
            Self::StandBy(_) => true,
        }
    }

    /// Locks a file for this server alone.
    ///
    /// # Errors
    /// [`StorageError::InUse`], [`StorageError::Open`].
    pub(crate) fn lock(self, file: &File, path: &Path) -> Result<(), StorageError> {
        let locked = match (file.try_lock(), self) {
            (Ok(()), _) => Ok(()),
            (Err(TryLockError::WouldBlock), Self::Refuse) => {
                return Err(StorageError::InUse(path.to_owned()));
            }
            (Err(TryLockError::WouldBlock), Self::StandBy(on_wait)) => {
                on_wait(path);
                wait_for_lock(file)
            }
            (Err(TryLockError::Error(cause)), _) => Err(cause),
        };
        locked.map_err(StorageError::open(path))
    }
}

/// Waits for the lock, also if signals interrupt that.
fn wait_for_lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}
