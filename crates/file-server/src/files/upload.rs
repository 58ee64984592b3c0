//! A file that is arriving.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use cap_std::fs::{Dir, OpenOptions};
use daemon::Cutter;
use proto::http::conditional::Version;
use proto::http::digest::{Digest, Hasher};
use uuid::Uuid;

use super::unfinished::{self, Turn};
use super::{Files, FilesError, TEMPORARY_PREFIX, is_reserved, or_dot};
use crate::path::TreePath;

/// While an upload is written, the free room is looked at anew after so many bytes.
const ROOM_CHECK_BYTES: u64 = 8 << 20;

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
    turn: Option<Turn<'f>>,
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
            turn: None,
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
        turn: Turn<'f>,
    ) -> Result<Self, FilesError> {
        let (parent, name) = place(&path)?;
        let missing = parent.strip_prefix(&folder_path);
        let missing = missing.map_err(|_| FilesError::NotFound)?;
        Ok(Self {
            files,
            bytes: file.metadata()?.len(),
            file,
            hasher: None,
            room_checked_at: 0,
            temporary,
            folder,
            folder_path,
            missing: missing.iter().map(OsStr::to_owned).collect(),
            name: name.to_owned(),
            path,
            made: Vec::new(),
            is_placed: false,
            turn: Some(turn),
        })
    }

    /// From now on, what has come stays if the upload is broken off, for the client to go on with;
    /// `head` is the request that began it. `cutter` ends that request when the client comes back.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep(&mut self, head: &[u8], cutter: Cutter) -> Result<(), FilesError> {
        let turn = self.files.turns.take(&self.temporary, cutter)?;
        self.set_head(head)?;
        self.turn = Some(turn);
        Ok(())
    }

    /// Changes what is kept of the request that began this upload.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn set_head(&mut self, head: &[u8]) -> Result<(), FilesError> {
        Ok(unfinished::write_head(&self.folder, &self.temporary, head)?)
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
        if self.turn.is_some() {
            unfinished::remove_head(&self.folder, &self.temporary);
            self.turn = None;
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
        Ok(())
    }

    /// Takes back all but the first `bytes` bytes.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn truncate(&mut self, bytes: u64) -> Result<(), FilesError> {
        self.hasher = None;
        self.file.set_len(bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// How many bytes have been written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts what has been written on disk.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> Result<(), FilesError> {
        Ok(self.file.sync_data()?)
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
        // Only now: a server that is killed before has something to go on with. And if it is not
        // right as it is, more of it does not make it so.
        self.forget();
        placed
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
        self.folder.rename(&self.temporary, &target, &self.name)?;
        self.is_placed = true;
        drop(placing);
        sync(&target)?;
        Ok(current.is_none())
    }

    fn make_missing(&mut self) -> io::Result<Dir> {
        let mut folder = self.folder.try_clone()?;
        let mut path = PathBuf::new();
        for name in std::mem::take(&mut self.missing) {
            path.push(&name);
            match folder.create_dir(&name) {
                Ok(()) => self.made.push(path.clone()),
                // Another upload was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            sync(&folder)?;
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
        if self.turn.is_none()
            && let Err(error) = self.folder.remove_file(&self.temporary)
        {
            log::error!("{} stays behind: {error}", self.temporary);
        }
    }
}

/// Writes a folder's entries to disk. A [`Dir`] is a path to it only, which cannot be synced.
pub(super) fn sync(folder: &Dir) -> io::Result<()> {
    folder.open(".")?.sync_all()
}

/// Whether a name is one that [`Files::upload`] gives a file that is arriving.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    let id = name.as_bytes().strip_prefix(TEMPORARY_PREFIX.as_bytes());
    id.is_some_and(|id| Uuid::try_parse_ascii(id).is_ok())
}
