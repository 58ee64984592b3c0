//! A file that is arriving.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use cap_std::fs::{Dir, OpenOptions};
use cli::exit::with_causes;
use daemon::Cutter;
use proto::http::conditional::Version;
use proto::http::digest::{Digest, Hasher};
use uuid::Uuid;

use super::record::{self, Progress, Record, Stage};
use super::unfinished::Turn;
use super::{Files, FilesError, TEMPORARY_PREFIX, is_reserved, or_dot};
use crate::path::TreePath;

/// While an upload is written, the free room is looked at anew after so many bytes.
const ROOM_CHECK_BYTES: u64 = 8 << 20;

/// An upload that can be gone on with is synced after so many bytes: a server that is killed loses no
/// more of it.
const SYNC_BYTES: u64 = 32 << 20;

/// A file that is arriving. It stands in a hidden temporary file in the deepest folder on its way
/// that exists, so that the folders still missing are made only for a file that is whole. Dropping
/// it before [`Upload::finish`] has put the file in its place removes all of this again, unless it
/// is to be kept for the client to go on with ([`Upload::keep`]).
#[must_use = "an upload that is not finished is removed"]
pub struct Upload<'f> {
    files: &'f Files,
    path: TreePath,
    file: File,
    bytes: u64,
    /// Of all that was written, if that is wanted and was seen from its first byte.
    hasher: Option<Hasher>,
    room_checked_at: u64,
    temporary: String,
    folder: Dir,
    /// Where `folder` is, below the root.
    folder_path: PathBuf,
    missing: Vec<OsString>,
    name: OsString,
    /// The folders that were made, by their paths in `folder`: open, they would take a descriptor
    /// each, and a path has up to 2000 of them.
    made: Vec<PathBuf>,
    is_placed: bool,
    /// Of one that stays if it is broken off.
    kept: Option<Kept<'f>>,
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
        if is_reserved(path.as_path()) {
            return Err(FilesError::Reserved);
        }
        let (parent, name) = place(path)?;
        // Whatever else stands there is replaced, or found to be in the way when it is opened.
        let there = self.root.metadata(path.as_path());
        if there.is_ok_and(|there| there.is_dir()) {
            return Err(FilesError::IsFolder);
        }
        self.check_room(bytes)?;
        let (folder, folder_path, missing) = self.deepest_folder(parent)?;
        let temporary = format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4());
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true);
        // Whoever sweeps up what is left over must not find it before it is locked.
        let turns = self.turns.lock();
        let file = folder.open_with(&temporary, &options)?.into_std();
        // Another server that starts on the same root then knows that it is not left over. Where
        // files cannot be locked, no other server should be started.
        let _ = file.try_lock();
        drop(turns);
        Ok(Upload {
            files: self,
            path: path.clone(),
            file,
            bytes: 0,
            hasher: None,
            room_checked_at: 0,
            temporary,
            folder,
            folder_path,
            missing,
            name: name.to_owned(),
            made: Vec::new(),
            is_placed: false,
            kept: None,
        })
    }

    /// Whether so many bytes may still be written.
    fn check_room(&self, bytes: u64) -> Result<(), FilesError> {
        let disk = rustix::fs::fstatvfs(&self.root).map_err(io::Error::from)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free_bytes < self.keep_free_bytes.saturating_add(bytes) {
            true => Err(FilesError::NoRoom),
            false => Ok(()),
        }
    }

    /// The deepest folder on the way to `path` that exists, where it is, and the names of those
    /// that do not.
    fn deepest_folder(&self, path: &Path) -> io::Result<(Dir, PathBuf, Vec<OsString>)> {
        let mut missing = Vec::new();
        for existing in path.ancestors() {
            match self.root.open_dir(or_dot(existing)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.extend(existing.file_name().map(OsStr::to_owned));
                }
                opened => {
                    missing.reverse();
                    return Ok((opened?, existing.to_owned(), missing));
                }
            }
        }
        // The root itself was removed.
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The folder and the name of a file that is to stand at a path.
fn place(path: &TreePath) -> Result<(&Path, &OsStr), FilesError> {
    match (path.as_path().parent(), path.as_path().file_name()) {
        (Some(parent), Some(name)) if !path.has_final_slash() => Ok((parent, name)),
        _ => Err(FilesError::IsFolder),
    }
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
        let (parent, name) = place(&path)?;
        let missing = parent.strip_prefix(&folder_path);
        let missing = missing.map_err(|_| FilesError::NotFound)?;
        let bytes = kept.record.progress().synced_bytes;
        Ok(Self {
            files,
            bytes,
            file,
            hasher: files.hashers.take(&temporary, bytes),
            room_checked_at: 0,
            temporary,
            folder,
            folder_path,
            missing: missing.iter().map(OsStr::to_owned).collect(),
            name: name.to_owned(),
            path,
            made: Vec::new(),
            is_placed: false,
            kept: Some(kept),
        })
    }

    /// From now on, what has come stays if the upload is broken off, for the client to go on with;
    /// `head` is the request that began it, and `length` how long the file is, if that is known.
    /// `cutter` ends that request when the client comes back.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep(
        &mut self,
        head: &[u8],
        length: Option<u64>,
        cutter: Cutter,
    ) -> Result<(), FilesError> {
        let turn = self.files.turns.take(&self.temporary, cutter)?;
        let progress = Progress {
            stage: Stage::Arriving,
            synced_bytes: 0,
            length,
            keep: self.files.resume_keep,
        };
        let disk = &self.files.disk;
        let record = Record::create(&self.folder, &self.temporary, progress, head, disk)?;
        self.kept = Some(Kept {
            record,
            _turn: turn,
        });
        Ok(())
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
        self.files.check_room(bytes.saturating_sub(self.bytes))
    }

    /// From now on, nothing stays if the upload is broken off.
    pub fn forget(&mut self) {
        if self.kept.is_some() {
            record::remove(&self.folder, &self.temporary);
            self.files.hashers.forget(&self.temporary);
            self.kept = None;
        }
    }

    /// Where what has come stands, below the root: the path under which the client can go on.
    pub fn resource(&self) -> PathBuf {
        self.folder_path.join(&self.temporary)
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
            self.files.check_room(0)?;
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
    fn note(&mut self, change: impl FnOnce(&mut Progress)) -> Result<(), FilesError> {
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

    /// Puts the file in its place, if the version that is there then is wanted to be replaced. When
    /// this returns, it is on disk, under its name, and so are the folders it is in. Returns whether
    /// there was none before.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if it is not wanted to be, [`FilesError::IsFolder`] if a folder has
    /// come to stand there, and those of the disk.
    pub fn finish(
        mut self,
        is_wanted: impl FnOnce(Option<&Version>) -> bool,
    ) -> Result<bool, FilesError> {
        let placed = self.place(is_wanted);
        match placed {
            Ok(_) => self.remember(),
            // If it is not right as it is, more of it does not make it so.
            Err(_) => self.forget(),
        }
        placed
    }

    /// Keeps that the file is in its place, for a client that does not get the reply.
    fn remember(&mut self) {
        if let Err(error) = self.note(|progress| progress.stage = Stage::Finished) {
            log::warn!("{}: {}", self.temporary, with_causes(&error));
            self.forget();
        }
    }

    /// Puts the file of an upload that is not kept in its place, as [`Upload::finish`] does, but at the
    /// first of these paths, all in one folder, where nothing stands. Returns it, with its number.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if there is none, and those of the disk.
    pub fn finish_beside(
        mut self,
        others: impl IntoIterator<Item = (u32, TreePath)>,
    ) -> Result<(u32, TreePath), FilesError> {
        for (number, path) in others {
            self.name = place(&path)?.1.to_owned();
            self.path = path.clone();
            match self.place(|current| current.is_none()) {
                Err(FilesError::Changed) => {}
                placed => return placed.map(|_| (number, path)),
            }
        }
        Err(FilesError::Changed)
    }

    fn place(
        &mut self,
        is_wanted: impl FnOnce(Option<&Version>) -> bool,
    ) -> Result<bool, FilesError> {
        self.sync()?;
        let placing = self.files.placing.lock();
        let placing = placing.unwrap_or_else(PoisonError::into_inner);
        let current = self.files.version(&self.path)?;
        if !is_wanted(current.as_ref()) {
            return Err(FilesError::Changed);
        }
        let target = self.make_missing()?;
        self.note(|progress| progress.stage = Stage::Placing)?;
        self.folder.rename(&self.temporary, &target, &self.name)?;
        self.is_placed = true;
        drop(placing);
        self.files.disk.sync_folder(&target)?;
        Ok(current.is_none())
    }

    fn make_missing(&mut self) -> Result<Dir, FilesError> {
        let mut folder = self.folder.try_clone()?;
        let mut path = PathBuf::new();
        for name in std::mem::take(&mut self.missing) {
            path.push(&name);
            match folder.create_dir(&name) {
                Ok(()) => self.made.push(path.clone()),
                // Another upload was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            self.files.disk.sync_folder(&folder)?;
            folder = folder.open_dir(&name)?;
        }
        Ok(folder)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.is_placed {
            return;
        }
        for path in self.made.iter().rev() {
            // It stays if another upload has put something in it.
            let _ = self.folder.remove_dir(path);
        }
        if self.kept.is_none() {
            if let Err(error) = self.folder.remove_file(&self.temporary) {
                log::error!("{} stays behind: {error}", self.temporary);
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
