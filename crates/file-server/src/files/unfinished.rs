//! Interrupted uploads, and how they continue.
//!
//! The bytes of one stay in its temporary file. Its [`Record`] beside it says where the file belongs
//! and how much of it is on the disk, also after the server was killed; bytes beyond that are cut off
//! when the upload continues. The record stays after the upload is finished, for a client that has not
//! received the reply. A temporary file without a record was left by a killed server and cannot
//! continue. A request locks the upload that it works on, against other requests and other servers.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;

use super::keyed_locks::Abort;
use super::record::{self, Progress, Record, Stage};
use super::temporary::is_temporary;
use super::tree::Files;
use super::upload::Upload;
use crate::error::FilesError;
use crate::path::TreePath;

/// An upload that was begun by an earlier request.
pub(crate) enum Reopened<'f> {
    /// It was interrupted.
    Incomplete(Box<Unfinished<'f>>),
    /// It is finished.
    Complete {
        /// The file's length, in bytes.
        bytes: u64,
        /// How long the record is kept.
        keep: Duration,
    },
}

/// An interrupted upload.
pub(crate) struct Unfinished<'f> {
    /// The upload, which continues where it stopped.
    pub(crate) upload: Upload<'f>,
    /// The head of the request that began it.
    pub(crate) head: Vec<u8>,
    /// How long it is kept if nobody continues it.
    pub(crate) keep: Duration,
}

impl Files {
    /// Whether a path can be that of an interrupted upload.
    pub(crate) fn is_resource(&self, path: &TreePath) -> bool {
        path.as_path().file_name().is_some_and(is_temporary)
    }

    /// Reopens the upload at a path ([`Upload::resource`]). A request that still works on it is
    /// aborted; `abort` aborts this one. `target` reads the path of the file from the head of the
    /// request that began the upload.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if there is no such upload, [`FilesError::InUse`] if the other request
    /// does not end, and those of the disk.
    pub(crate) fn reopen(
        &self,
        path: &TreePath,
        abort: Abort,
        target: impl Fn(&[u8]) -> Option<TreePath>,
    ) -> Result<Reopened<'_>, FilesError> {
        let name = path.as_path().file_name();
        let name = name
            .filter(|name| is_temporary(name))
            .and_then(OsStr::to_str);
        let (Some(name), Some(folder_path), false) =
            (name, path.as_path().parent(), path.has_final_slash())
        else {
            return Err(FilesError::NotFound);
        };
        let lock = self.upload_locks.lock(name.to_owned(), Some(abort))?;
        let folder = self.root()?.open_folder(folder_path)?;
        let (mut record, head) = Record::open(&folder, name)?;
        record.lock()?;
        let progress = record.progress();
        let bytes = progress.synced_bytes;
        let keep = record::time_left(&folder, name, progress.keep);
        if keep.is_zero() {
            self.remove(&folder, name)?;
            return Err(FilesError::NotFound);
        }
        if progress.stage == Stage::Finished {
            return Ok(Reopened::Complete { bytes, keep });
        }
        let path = target(&head).ok_or(FilesError::NotFound)?;
        let destination = self.destination(&path);
        let file = match folder.open_with(name, &to_append()) {
            Err(error)
                if progress.stage == Stage::Placing && error.kind() == io::ErrorKind::NotFound =>
            {
                // The server was killed after the rename.
                let destination = destination?;
                if destination
                    .current
                    .is_none_or(|there| there.st_size as u64 != bytes)
                {
                    return Err(FilesError::NotFound);
                }
                self.disk.sync_folder(&destination.folder)?;
                record.write(Progress {
                    stage: Stage::Finished,
                    ..progress
                })?;
                return Ok(Reopened::Complete { bytes, keep });
            }
            opened => opened?.into_std(),
        };
        self.cut(&folder, name, &file, bytes)?;
        if progress.stage == Stage::Placing {
            // It was not renamed. If the file is missing later, it was not renamed either.
            record.write(Progress {
                stage: Stage::Arriving,
                ..progress
            })?;
        }
        let destination = destination?.seen_from(folder, folder_path)?;
        let file = (file, name.to_owned());
        let upload = Upload::reopen(self, path, destination, file, record, lock);
        let unfinished = Unfinished { upload, head, keep };
        Ok(Reopened::Incomplete(Box::new(unfinished)))
    }

    /// Locks the temporary file of an upload, and cuts off what was not synced.
    fn cut(&self, folder: &Dir, name: &str, file: &File, bytes: u64) -> Result<(), FilesError> {
        if !file.metadata()?.is_file() {
            return Err(FilesError::NotFound);
        }
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(FilesError::InUse);
        }
        // It may have been removed before it was locked.
        if !folder.try_exists(name)? {
            return Err(FilesError::NotFound);
        }
        let there = file.metadata()?.len();
        if there < bytes {
            log::warn!("{name}: the disk has lost {} bytes of it", bytes - there);
            self.remove(folder, name)?;
            return Err(FilesError::NotFound);
        }
        if there > bytes {
            file.set_len(bytes)?;
        }
        Ok(())
    }

    /// Removes an upload. Its record goes first: without it nobody can continue the upload.
    pub(super) fn remove(&self, folder: &Dir, name: &str) -> io::Result<()> {
        self.hashers.remove(name, 0);
        record::remove(folder, name);
        folder.remove_file(name)
    }
}

/// How a temporary file is opened. Others who may write in the folder may have put something else
/// there.
pub(super) fn to_append() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    options.custom_flags(flags.bits() as i32);
    options
}

#[cfg(test)]
mod tests;
