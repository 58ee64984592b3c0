//! An upload: a file that arrives.
//!
//! Its bytes go to a temporary file in the deepest folder on its path that exists, so that the missing
//! folders are made only for a complete file. Dropping an [`Upload`] before it is committed removes the
//! temporary file again, unless it is resumable.

use std::fs::{File, TryLockError};
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use cli::exit::with_causes;
use proto::http::conditional::Version;
use proto::http::digest::{Digest, Hasher};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::destination::Destination;
use super::keyed_locks::{Abort, KeyedLock};
use super::permissions::{self, Permissions};
use super::record::{self, Progress, Record, Stage};
use super::temporary;
use super::tree::Files;
use crate::error::FilesError;
use crate::path::TreePath;

/// While an upload is written, the free room is checked again after this many bytes.
const ROOM_CHECK_BYTES: u64 = 8 << 20;

/// A resumable upload is synced after this many bytes: a server that is killed loses no more of it.
const SYNC_BYTES: u64 = 32 << 20;

/// The most attempts to create a temporary file. An attempt is repeated if another server removes the
/// file before it is locked.
const CREATIONS_MAX: usize = 8;

/// A file that arrives.
#[must_use = "dropping an upload removes it"]
pub(crate) struct Upload<'f> {
    pub(super) files: &'f Files,
    pub(super) path: TreePath,
    pub(super) file: File,
    bytes: u64,
    /// The digest of all that was written, if it is wanted and began at the first byte.
    hasher: Option<Hasher>,
    room_checked_at: u64,
    pub(super) temporary: String,
    pub(super) destination: Destination,
    /// The folders that were made, by their paths below the existing one. Open, they would take a
    /// descriptor each, and a path has up to 2000 of them.
    pub(super) made: Vec<PathBuf>,
    /// Whether the folder gives new files an access control list.
    pub(super) has_default_acl: bool,
    /// The permissions that were set.
    pub(super) permissions: Option<Permissions>,
    pub(super) is_renamed: bool,
    resumable: Option<Resumable<'f>>,
}

/// The part of a resumable upload that others do not have.
struct Resumable<'f> {
    record: Record,
    /// No other request works on it.
    _lock: KeyedLock<'f, String>,
}

/// A point in an upload to roll back to.
pub(crate) struct Checkpoint {
    bytes: u64,
    hasher: Option<Hasher>,
}

impl Files {
    /// Begins an upload that is to stand at `path`, in place of the file that may be there. It will be
    /// `bytes` bytes long, or 0 if that is not known.
    ///
    /// # Errors
    /// If no file can stand there, there is no room, and those of the disk.
    pub(crate) fn upload(&self, path: &TreePath, bytes: u64) -> Result<Upload<'_>, FilesError> {
        let destination = self.destination(path)?;
        self.check_room(&destination.folder, bytes)?;
        let has_default_acl = permissions::has_default_acl(&destination.folder);
        let mode = permissions::mode_temporary(has_default_acl);
        let file = create_temporary(&destination.folder, mode)?;
        Ok(Upload::new(
            self,
            path.clone(),
            destination,
            file,
            has_default_acl,
        ))
    }

    /// Checks that this many bytes may still be written to the disk of a folder.
    pub(super) fn check_room(&self, folder: &Dir, bytes: u64) -> Result<(), FilesError> {
        let disk = rustix::fs::fstatvfs(folder)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Some file systems do not say how large they are.
        let is_known = disk.f_blocks > 0;
        match is_known && free_bytes < self.keep_free_bytes.saturating_add(bytes) {
            true => Err(FilesError::NoRoom),
            false => Ok(()),
        }
    }
}

/// Creates the temporary file of an upload and locks it, so that no server's sweeper removes it. A
/// sweeper may have removed it before it was locked.
fn create_temporary(folder: &Dir, mode: u32) -> Result<(File, String), FilesError> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create_new(true).mode(mode);
    for _ in 0..CREATIONS_MAX {
        let temporary = temporary::new_name();
        let file = folder.open_with(&temporary, &options)?.into_std();
        // Where files cannot be locked, no sweeper removes them.
        let is_swept = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        match statat(folder, &temporary, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) if !is_swept => return Ok((file, temporary)),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(FilesError::InUse)
}

impl<'f> Upload<'f> {
    fn new(
        files: &'f Files,
        path: TreePath,
        destination: Destination,
        (file, temporary): (File, String),
        has_default_acl: bool,
    ) -> Self {
        files.uploads_open.fetch_add(1, Ordering::Relaxed);
        Self {
            files,
            path,
            file,
            bytes: 0,
            hasher: None,
            room_checked_at: 0,
            temporary,
            destination,
            made: Vec::new(),
            has_default_acl,
            permissions: None,
            is_renamed: false,
            resumable: None,
        }
    }

    /// The interrupted upload to `path`. Its temporary file is in the folder of `destination`.
    pub(super) fn reopen(
        files: &'f Files,
        path: TreePath,
        destination: Destination,
        file: (File, String),
        record: Record,
        lock: KeyedLock<'f, String>,
    ) -> Self {
        let has_default_acl = permissions::has_default_acl(&destination.folder);
        let mut upload = Self::new(files, path, destination, file, has_default_acl);
        upload.bytes = record.progress().synced_bytes;
        upload.hasher = files.hashers.remove(&upload.temporary, upload.bytes);
        upload.resumable = Some(Resumable {
            record,
            _lock: lock,
        });
        upload
    }

    /// The version of the file that stood at the destination when the upload began.
    pub(crate) fn replaced(&self) -> Option<Version> {
        self.destination.version()
    }

    /// Makes the upload resumable: if it is interrupted, it is kept. `head` is the request that began
    /// it, and `length` the file's length, if that is known. `abort` ends that request when the client
    /// returns.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn make_resumable(
        &mut self,
        head: &[u8],
        length: Option<u64>,
        abort: Abort,
    ) -> Result<(), FilesError> {
        let locks = &self.files.upload_locks;
        let lock = locks.lock(self.temporary.clone(), Some(abort))?;
        let progress = Progress {
            stage: Stage::Arriving,
            synced_bytes: 0,
            length,
            keep: self.files.resume_keep,
        };
        let (folder, disk) = (&self.destination.folder, &self.files.disk);
        let record = Record::create(folder, &self.temporary, progress, head, disk)?;
        self.resumable = Some(Resumable {
            record,
            _lock: lock,
        });
        Ok(())
    }

    /// Whether the upload is kept if it is interrupted.
    pub(crate) fn is_resumable(&self) -> bool {
        self.resumable.is_some()
    }

    fn progress(&self) -> Option<Progress> {
        Some(self.resumable.as_ref()?.record.progress())
    }

    /// The file's length, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.progress()?.length
    }

    /// Records the file's length.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn set_length(&mut self, length: u64) -> Result<(), FilesError> {
        self.update_record(|progress| progress.length = Some(length))
    }

    /// Checks that there is room for the whole file, of this many bytes.
    ///
    /// # Errors
    /// [`FilesError::NoRoom`], and those of the disk.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), FilesError> {
        let more = bytes.saturating_sub(self.bytes);
        self.files.check_room(&self.destination.folder, more)
    }

    /// From now on, nothing is kept if the upload is interrupted.
    pub(crate) fn discard(&mut self) {
        if self.is_resumable() {
            record::remove(&self.destination.folder, &self.temporary);
            self.files.hashers.remove(&self.temporary, self.bytes);
            self.resumable = None;
        }
    }

    /// The path of the temporary file below the root, under which the client can continue.
    pub(crate) fn resource(&self) -> PathBuf {
        self.destination.folder_path.join(&self.temporary)
    }

    /// How long the upload is kept if nobody continues it.
    pub(crate) fn keep_time(&self) -> Duration {
        self.progress()
            .map_or(self.files.resume_keep, |progress| progress.keep)
    }

    /// Computes the digest as the bytes arrive, if none has arrived yet.
    pub(crate) fn hash(&mut self) {
        if self.bytes == 0 {
            self.hasher = Some(Hasher::default());
        }
    }

    /// The digest of all that was written.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn digest(&mut self) -> Result<Digest, FilesError> {
        if let Some(hasher) = &self.hasher {
            return Ok(hasher.clone().finish());
        }
        self.file.rewind()?;
        Ok(Hasher::digest_of(&self.file)?)
    }

    /// Appends to the file.
    ///
    /// # Errors
    /// [`FilesError::NoRoom`], and those of the disk.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        if self.bytes - self.room_checked_at >= ROOM_CHECK_BYTES {
            self.files.check_room(&self.destination.folder, 0)?;
            self.room_checked_at = self.bytes;
        }
        self.file.write_all(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.bytes += bytes.len() as u64;
        match self.synced_bytes() {
            Some(synced) if self.bytes - synced >= SYNC_BYTES => self.sync(),
            Some(_) | None => Ok(()),
        }
    }

    /// The point to which [`Upload::roll_back`] returns.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            bytes: self.bytes,
            hasher: self.hasher.clone(),
        }
    }

    /// Removes all that was written since a checkpoint.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn roll_back(&mut self, to: Checkpoint) -> Result<(), FilesError> {
        if self.synced_bytes().is_some_and(|synced| synced > to.bytes) {
            // Before bytes that are not synced take their place.
            self.update_record(|progress| progress.synced_bytes = to.bytes)?;
            self.save_record()?;
        }
        self.file.set_len(to.bytes)?;
        self.bytes = to.bytes;
        self.hasher = to.hasher;
        Ok(())
    }

    /// The bytes that were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Syncs what was written. A resumable upload loses what cannot be synced.
    ///
    /// # Errors
    /// [`FilesError::Unsynced`], and those of the disk.
    pub(crate) fn sync(&mut self) -> Result<(), FilesError> {
        let synced_bytes = self.synced_bytes();
        if synced_bytes == Some(self.bytes) {
            return Ok(());
        }
        if let Err(error) = self.files.disk.sync_data(&self.file) {
            if let Some(bytes) = synced_bytes {
                self.hasher = None;
                self.bytes = bytes;
                // If it fails now, it is done when the upload continues.
                let _ = self.file.set_len(bytes);
            }
            return Err(error);
        }
        let bytes = self.bytes;
        self.update_record(|progress| progress.synced_bytes = bytes)
    }

    /// Syncs what was written, and the record that says so: the client need not keep it.
    ///
    /// # Errors
    /// [`FilesError::Unsynced`], and those of the disk.
    pub(crate) fn save(&mut self) -> Result<(), FilesError> {
        self.sync()?;
        self.save_record()
    }

    fn save_record(&mut self) -> Result<(), FilesError> {
        match &mut self.resumable {
            Some(resumable) => resumable.record.save(&self.files.disk),
            None => Ok(()),
        }
    }

    /// The bytes of a resumable upload that are on the disk.
    fn synced_bytes(&self) -> Option<u64> {
        Some(self.progress()?.synced_bytes)
    }

    /// Changes the record of a resumable upload.
    pub(super) fn update_record(
        &mut self,
        change: impl FnOnce(&mut Progress),
    ) -> Result<(), FilesError> {
        if let Some(resumable) = &mut self.resumable {
            let mut progress = resumable.record.progress();
            change(&mut progress);
            resumable.record.write(progress)?;
        }
        Ok(())
    }

    /// Records the stage; an upload whose stage is not known is not kept.
    pub(super) fn set_stage(&mut self, stage: Stage) {
        if let Err(error) = self.update_record(|progress| progress.stage = stage) {
            log::warn!("{}: {}", self.temporary, with_causes(&error));
            self.discard();
        }
    }

    /// Leaves an interrupted upload in order for the request that continues it.
    fn suspend(&mut self) -> Result<(), FilesError> {
        // A write that failed may have left a part of a piece.
        if self.file.metadata()?.len() != self.bytes {
            self.file.set_len(self.bytes)?;
        }
        self.sync()?;
        if let Some(hasher) = self.hasher.take() {
            self.files
                .hashers
                .insert(&self.temporary, self.bytes, hasher);
        }
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.files.uploads_open.fetch_sub(1, Ordering::Relaxed);
        if self.is_resumable() {
            let expirations = &self.files.expirations;
            expirations.insert(self.resource(), self.keep_time());
        }
        if self.is_renamed {
            return;
        }
        for path in self.made.iter().rev() {
            // It stays if another upload has put something in it.
            let _ = self.destination.folder.remove_dir(path);
        }
        if self.is_resumable() {
            if let Err(error) = self.suspend() {
                log::error!("{}: {}", self.temporary, with_causes(&error));
            }
            return;
        }
        match self.destination.folder.remove_file(&self.temporary) {
            // It was removed together with its folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::error!("{} stays behind: {error}", self.temporary),
            Ok(()) => {}
        }
    }
}
