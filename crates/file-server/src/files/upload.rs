//! A file that is arriving.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use cli::exit::with_causes;
use daemon::AbortHandle;
use proto::http::conditional::Version;
use proto::http::digest::{Digest, Hasher};
use uuid::Uuid;

use super::owned::{self, Owned};
use super::place::Place;
use super::record::{self, Progress, Record, Stage};
use super::unfinished::Turn;
use super::{Files, FilesError, TEMPORARY_PREFIX};
use crate::path::TreePath;

/// While an upload is written, the free room is looked at anew after so many bytes.
const ROOM_CHECK_BYTES: u64 = 8 << 20;

/// An upload that can be gone on with is synced after so many bytes: a server that is killed loses no
/// more of it.
const SYNC_BYTES: u64 = 32 << 20;

/// How often a temporary file is made anew that another server has swept away before it was locked.
const CREATIONS_MAX: usize = 8;

/// A file that is arriving. It stands in a hidden temporary file in the deepest folder on its way
/// that exists, so that the folders still missing are made only for a file that is whole. Dropping
/// it before [`Upload::finish`] has put the file in its place removes all of this again, unless it
/// is to be kept for the client to go on with ([`Upload::keep`]).
#[must_use = "an upload that is not finished is removed"]
pub struct Upload<'f> {
    pub(super) files: &'f Files,
    pub(super) path: TreePath,
    pub(super) file: File,
    bytes: u64,
    /// Of all that was written, if that is wanted and was seen from its first byte.
    hasher: Option<Hasher>,
    room_checked_at: u64,
    pub(super) temporary: String,
    pub(super) place: Place,
    /// The folders that were made, by their paths in the one it is in: open, they would take a
    /// descriptor each, and a path has up to 2000 of them.
    pub(super) made: Vec<PathBuf>,
    /// Whether the folder says who may use the file, if it is new.
    pub(super) has_default_acl: bool,
    /// The mode and owner it was given.
    pub(super) owned: Option<Owned>,
    pub(super) is_placed: bool,
    /// Of one that stays if it is broken off.
    pub(super) kept: Option<Kept<'f>>,
}

/// What belongs to an upload that stays if it is broken off.
pub(super) struct Kept<'f> {
    pub(super) record: Record,
    /// Nobody else works on it.
    pub(super) _turn: Turn<'f>,
}

/// A point in an upload that it can go back to.
pub struct Mark {
    bytes: u64,
    hasher: Option<Hasher>,
}

impl Files {
    /// Begins an upload that is to stand at `path`, in place of the file that may be there.
    /// `bytes` is how long it will be, as far as that is known.
    ///
    /// # Errors
    /// If no file can stand there, there is no room, and those of the disk.
    pub fn upload(&self, path: &TreePath, bytes: u64) -> Result<Upload<'_>, FilesError> {
        let place = self.place(path)?;
        self.check_room(&place.folder, bytes)?;
        let has_default_acl = owned::has_default_acl(&place.folder)?;
        let mode = owned::mode_temporary(has_default_acl);
        let (file, temporary) = create_temporary(&place.folder, mode)?;
        Ok(Upload {
            files: self,
            path: path.clone(),
            file,
            bytes: 0,
            hasher: None,
            room_checked_at: 0,
            temporary,
            place,
            made: Vec::new(),
            has_default_acl,
            owned: None,
            is_placed: false,
            kept: None,
        })
    }

    /// Whether so many bytes may still be written to the disk that a folder is on.
    fn check_room(&self, folder: &Dir, bytes: u64) -> Result<(), FilesError> {
        let disk = rustix::fs::fstatvfs(folder).map_err(io::Error::from)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Some file systems do not tell how large they are.
        let is_known = disk.f_blocks > 0;
        match is_known && free_bytes < self.keep_free_bytes.saturating_add(bytes) {
            true => Err(FilesError::NoRoom),
            false => Ok(()),
        }
    }
}

/// Makes the temporary file of an upload, and locks it, so that no server takes it for left over.
/// One that looks in the very moment may have removed it.
fn create_temporary(folder: &Dir, mode: u32) -> Result<(File, String), FilesError> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create_new(true).mode(mode);
    for _ in 0..CREATIONS_MAX {
        let temporary = format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4());
        let file = folder.open_with(&temporary, &options)?.into_std();
        // Where files cannot be locked, nobody takes one for left over.
        let is_swept = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        match folder.symlink_metadata(&temporary) {
            Ok(_) if !is_swept => return Ok((file, temporary)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Err(FilesError::InUse)
}

impl<'f> Upload<'f> {
    /// The upload to `path` that was broken off and now stands in `temporary`.
    ///
    /// # Errors
    /// If no file can stand at `path`, or it does not lead through the folder it began in.
    pub(super) fn broken_off(
        files: &'f Files,
        path: TreePath,
        file: File,
        temporary: String,
        (folder, folder_path): (Dir, PathBuf),
        kept: Kept<'f>,
    ) -> Result<Self, FilesError> {
        let mut place = files.place(&path)?;
        let target = place.path();
        // Others may have made some of the folders that were missing.
        let below = target.strip_prefix(&folder_path).ok();
        let missing = below.and_then(Path::parent).ok_or(FilesError::NotFound)?;
        place.missing = missing.iter().map(OsStr::to_owned).collect();
        place.folder = folder;
        place.folder_path = folder_path;
        let bytes = kept.record.progress().synced_bytes;
        Ok(Self {
            files,
            path,
            file,
            bytes,
            hasher: files.hashers.take(&temporary, bytes),
            room_checked_at: 0,
            temporary,
            has_default_acl: owned::has_default_acl(&place.folder)?,
            place,
            made: Vec::new(),
            owned: None,
            is_placed: false,
            kept: Some(kept),
        })
    }

    /// The version of the file that stood in its place when the upload began.
    pub fn replaced(&self) -> Option<Version> {
        self.place.version()
    }

    /// From now on, what has come stays if the upload is broken off, for the client to go on with;
    /// `head` is the request that began it, and `length` how long the file is, if that is known.
    /// `abort_handle` ends that request when the client comes back.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep(
        &mut self,
        head: &[u8],
        length: Option<u64>,
        abort_handle: AbortHandle,
    ) -> Result<(), FilesError> {
        let turn = self.files.turns.take(&self.temporary, abort_handle)?;
        let progress = Progress {
            stage: Stage::Arriving,
            synced_bytes: 0,
            length,
            keep: self.files.resume_keep,
        };
        let disk = &self.files.disk;
        let record = Record::create(&self.place.folder, &self.temporary, progress, head, disk)?;
        self.kept = Some(Kept {
            record,
            _turn: turn,
        });
        Ok(())
    }

    /// Whether what has come stays if the upload is broken off.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// How long the file is, if that is known.
    pub fn length(&self) -> Option<u64> {
        self.kept.as_ref()?.record.progress().length
    }

    /// Keeps how long the file is.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn set_length(&mut self, length: u64) -> Result<(), FilesError> {
        self.note(|progress| progress.length = Some(length))
    }

    /// Whether there is room for all of it, which is so many bytes.
    ///
    /// # Errors
    /// [`FilesError::NoRoom`], and those of the disk.
    pub fn check_room(&self, bytes: u64) -> Result<(), FilesError> {
        let more = bytes.saturating_sub(self.bytes);
        self.files.check_room(&self.place.folder, more)
    }

    /// From now on, nothing stays if the upload is broken off.
    pub fn forget(&mut self) {
        if self.kept.is_some() {
            record::remove(&self.place.folder, &self.temporary);
            self.files.hashers.forget(&self.temporary);
            self.kept = None;
        }
    }

    /// Where what has come stands, below the root: the path under which the client can go on.
    pub fn resource(&self) -> PathBuf {
        self.place.folder_path.join(&self.temporary)
    }

    /// How long what has come is kept if nobody goes on with it.
    pub fn keep_time(&self) -> Duration {
        let kept = self.kept.as_ref();
        kept.map_or(self.files.resume_keep, |kept| kept.record.progress().keep)
    }

    /// Has the digest computed as the bytes come, if none has come yet.
    pub fn hash(&mut self) {
        if self.bytes == 0 {
            self.hasher = Some(Hasher::default());
        }
    }

    /// The digest of all that was written.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn digest(&mut self) -> Result<Digest, FilesError> {
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
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        if self.bytes - self.room_checked_at >= ROOM_CHECK_BYTES {
            self.files.check_room(&self.place.folder, 0)?;
            self.room_checked_at = self.bytes;
        }
        self.file.write_all(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.bytes += bytes.len() as u64;
        match &self.kept {
            Some(kept) if self.bytes - kept.record.progress().synced_bytes >= SYNC_BYTES => {
                self.sync()
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What [`Upload::go_back`] goes back to.
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes,
            hasher: self.hasher.clone(),
        }
    }

    /// Takes back all that came behind a mark.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn go_back(&mut self, to: Mark) -> Result<(), FilesError> {
        if self.synced_bytes().is_some_and(|synced| synced > to.bytes) {
            // Before other bytes come to stand there that are not synced.
            let bytes = to.bytes;
            self.note(|progress| progress.synced_bytes = bytes)?;
            self.save_record()?;
        }
        self.file.set_len(to.bytes)?;
        self.bytes = to.bytes;
        self.hasher = to.hasher;
        Ok(())
    }

    /// How many bytes have been written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts what has been written on the disk. Of an upload that is kept, what cannot be put there is
    /// taken back.
    ///
    /// # Errors
    /// [`FilesError::Unsynced`], and those of the disk.
    pub fn sync(&mut self) -> Result<(), FilesError> {
        let synced_bytes = self.synced_bytes();
        if synced_bytes == Some(self.bytes) {
            return Ok(());
        }
        if let Err(error) = self.files.disk.sync_data(&self.file) {
            if let Some(bytes) = synced_bytes {
                self.hasher = None;
                self.bytes = bytes;
                // If not now, then when somebody goes on.
                let _ = self.file.set_len(bytes);
            }
            return Err(error);
        }
        let bytes = self.bytes;
        self.note(|progress| progress.synced_bytes = bytes)
    }

    /// Puts what has been written on the disk, and that it is there: the client need not keep it.
    ///
    /// # Errors
    /// [`FilesError::Unsynced`], and those of the disk.
    pub fn save(&mut self) -> Result<(), FilesError> {
        self.sync()?;
        self.save_record()
    }

    fn save_record(&mut self) -> Result<(), FilesError> {
        match &mut self.kept {
            Some(kept) => kept.record.save(&self.files.disk),
            None => Ok(()),
        }
    }

    /// Of an upload that is kept, how many bytes are on the disk.
    fn synced_bytes(&self) -> Option<u64> {
        Some(self.kept.as_ref()?.record.progress().synced_bytes)
    }

    /// Notes in the record of an upload that is kept how far it has come.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut Progress)) -> Result<(), FilesError> {
        if let Some(kept) = &mut self.kept {
            let mut progress = kept.record.progress();
            change(&mut progress);
            kept.record.note(progress)?;
        }
        Ok(())
    }

    /// Leaves an upload that is kept to whoever goes on with it.
    fn leave(&mut self) -> Result<(), FilesError> {
        // A write that failed may have left a part of a piece.
        if self.file.metadata()?.len() != self.bytes {
            self.file.set_len(self.bytes)?;
        }
        self.sync()?;
        if let Some(hasher) = self.hasher.take() {
            self.files.hashers.put(&self.temporary, self.bytes, hasher);
        }
        Ok(())
    }

    /// Keeps that the file is not in its place: should it be missing one day, it is not there either.
    pub(super) fn await_another(&mut self) {
        if let Err(error) = self.note(|progress| progress.stage = Stage::Arriving) {
            log::warn!("{}: {}", self.temporary, with_causes(&error));
            self.forget();
        }
    }

    /// Keeps that the file is in its place, for a client that does not get the reply.
    pub(super) fn remember(&mut self) {
        if let Err(error) = self.note(|progress| progress.stage = Stage::Finished) {
            log::warn!("{}: {}", self.temporary, with_causes(&error));
            self.forget();
        }
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.kept.is_some() {
            self.files.unfinished.add(self.resource(), self.keep_time());
        }
        if self.is_placed {
            return;
        }
        for path in self.made.iter().rev() {
            // It stays if another upload has put something in it.
            let _ = self.place.folder.remove_dir(path);
        }
        if self.kept.is_none() {
            match self.place.folder.remove_file(&self.temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::error!("{} stays behind: {error}", self.temporary);
                }
                // Or it was removed together with the folder.
                _ => {}
            }
        } else if let Err(error) = self.leave() {
            log::error!("{}: {}", self.temporary, with_causes(&error));
        }
    }
}

/// Whether a name is one that [`Files::upload`] gives a file that is arriving.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    let id = name.as_bytes().strip_prefix(TEMPORARY_PREFIX.as_bytes());
    id.is_some_and(|id| Uuid::try_parse_ascii(id).is_ok())
}
