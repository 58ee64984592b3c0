//! How an upload gets to its place.
//!
//! A file gets its name last, in one system call; the mode and the owner of what it replaces are kept.
//! A new file is placed without replacing any, so that one of two who create it wins, whichever
//! server of this root they ask. No lock is held while the disk works but on the one file that is
//! replaced.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;

use cap_std::fs::{Dir, Metadata, MetadataExt, OpenOptions, OpenOptionsExt};
use proto::http::conditional::Version;
use rustix::fs::{AtFlags, OFlags, RenameFlags, linkat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::place::version;
use super::record::Stage;
use super::root::FileId;
use super::{FilesError, Upload};
use crate::path::TreePath;

/// How often an upload is placed anew because something else came to its place, or the folders it
/// had made were removed, in the very moment.
const PLACINGS_MAX: usize = 16;

impl Upload<'_> {
    /// Puts the file in its place, if the version that is there then is wanted to be replaced. When
    /// this returns, it is on disk, under its name, and so are the folders it is in. Returns whether
    /// there was none before.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if it is not wanted to be, [`FilesError::Moved`] if what the path
    /// leads to is not what it was, and those of the disk. Of an upload that is kept, nothing stays
    /// unless a later attempt may succeed.
    pub fn finish(
        &mut self,
        is_wanted: impl Fn(Option<&Version>) -> bool,
    ) -> Result<bool, FilesError> {
        let placed = self.put_in_place(&is_wanted);
        match &placed {
            // Only now: a server that is killed before has something to go on with.
            Ok(_) => self.remember(),
            Err(error) if error.is_transient() && !self.is_placed => self.await_another(),
            // If it is not right as it is, more of it does not make it so.
            Err(_) => self.forget(),
        }
        placed
    }

    /// The same of an upload that is not kept, but at the first of these paths, all in one folder,
    /// where nothing stands. Returns it, with its number.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if there is none, and those of the disk.
    pub fn finish_beside(
        mut self,
        others: impl IntoIterator<Item = (u32, TreePath)>,
    ) -> Result<(u32, TreePath), FilesError> {
        for (number, path) in others {
            let name = path.as_path().file_name().ok_or(FilesError::IsFolder)?;
            if self.place.folder.symlink_metadata(name).is_ok() {
                continue;
            }
            self.place.name = name.to_owned();
            self.path = path.clone();
            match self.put_in_place(&|current| current.is_none()) {
                // Another upload was faster.
                Err(FilesError::Changed | FilesError::Exists) => {}
                placed => return placed.map(|_| (number, path)),
            }
        }
        Err(FilesError::Changed)
    }

    fn put_in_place(
        &mut self,
        is_wanted: &dyn Fn(Option<&Version>) -> bool,
    ) -> Result<bool, FilesError> {
        let place = self.files.place(&self.path)?;
        let is_dressed = self.dress(&place);
        if is_dressed && self.kept.is_some() {
            // Its bytes may all be on the disk already.
            self.files.disk.sync_all(&self.file)?;
        }
        self.sync()?;
        for _ in 0..PLACINGS_MAX {
            if let Some(is_new) = self.try_place(is_wanted)? {
                self.is_placed = true;
                // Else who replaces it next would find it locked.
                let _ = self.file.unlock();
                self.sync_folders()?;
                self.check_folder()?;
                return Ok(is_new);
            }
        }
        Err(FilesError::Moved)
    }

    /// Puts the file in its place; returns whether there was none before, or `None` if something
    /// has come in between.
    fn try_place(
        &mut self,
        is_wanted: &dyn Fn(Option<&Version>) -> bool,
    ) -> Result<Option<bool>, FilesError> {
        let target = self.place.path();
        let _claim = self.files.claims.claim(&target);
        self.check_folder()?;
        let place = self.files.place(&self.path)?;
        if place.path() != target {
            return Err(FilesError::Moved);
        }
        self.files.check_create(place.current.is_some())?;
        if !is_wanted(place.version().as_ref()) {
            return Err(FilesError::Changed);
        }
        if self.dress(&place) {
            self.files.disk.sync_all(&self.file)?;
        }
        let folder = match self.make_missing() {
            // Another upload has given up, and removed the folders that it had made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            made => made?,
        };
        self.note(|progress| progress.stage = Stage::Placing)?;
        let placed = match &place.current {
            None => rename_new(
                &self.place.folder,
                &self.temporary,
                &folder,
                &self.place.name,
            ),
            Some(current) => {
                // If any version is wanted to be replaced, it does not matter who else does so.
                let other = Version {
                    etag: String::new(),
                    modified: super::seconds(std::time::SystemTime::now()),
                };
                let _locked = match is_wanted(Some(&other)) {
                    true => None,
                    false => lock_current(&folder, &self.place.name, current)?,
                };
                renameat(
                    &self.place.folder,
                    &self.temporary,
                    &folder,
                    &self.place.name,
                )
            }
        };
        match placed {
            Ok(()) => Ok(Some(place.current.is_none())),
            Err(Errno::EXIST | Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(FilesError::Moved),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Whether the folder that the file is in is still the one that its path leads to. Else nobody
    /// would ever see the file.
    fn check_folder(&self) -> Result<(), FilesError> {
        let root = self.files.root()?;
        let there = match self.place.folder_path.as_os_str().is_empty() {
            // The root itself, which was just looked at.
            true => root.id,
            false => match root.open_dir(&self.place.folder_path) {
                Ok(folder) => FileId::of(&folder)?,
                Err(_) => return Err(FilesError::Moved),
            },
        };
        let is_same = FileId::of(&self.place.folder).is_ok_and(|ours| ours == there);
        match is_same && root.id == self.place.root.id {
            true => Ok(()),
            false => Err(FilesError::Moved),
        }
    }

    /// Makes the folders that are missing. Other uploads may do so too.
    pub(super) fn make_missing(&mut self) -> io::Result<Dir> {
        let mut folder = self.place.folder.try_clone()?;
        let mut path = PathBuf::new();
        for name in &self.place.missing {
            path.push(name);
            match folder.create_dir(name) {
                Ok(()) => self.made.push(path.clone()),
                // Another upload was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            folder = folder.open_dir(name)?;
        }
        Ok(folder)
    }

    /// Puts the file's name on disk, and the folders that were missing, by whichever upload they were made.
    fn sync_folders(&self) -> Result<(), FilesError> {
        let mut folder = self.place.folder.try_clone()?;
        self.files.disk.sync_folder(&folder)?;
        for name in &self.place.missing {
            folder = match folder.open_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(FilesError::Moved);
                }
                opened => opened?,
            };
            self.files.disk.sync_folder(&folder)?;
        }
        Ok(())
    }
}

/// Renames a file, but replaces none.
fn rename_new(from: &Dir, temporary: &str, to: &Dir, name: &OsStr) -> Result<(), Errno> {
    match renameat_with(from, temporary, to, name, RenameFlags::NOREPLACE) {
        // Not every file system can do that, nor every container.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {}
        renamed => return renamed,
    }
    link_new(from, temporary, to, name)
}

/// The same, in two steps.
fn link_new(from: &Dir, temporary: &str, to: &Dir, name: &OsStr) -> Result<(), Errno> {
    match linkat(from, temporary, to, name, AtFlags::empty()) {
        Ok(()) => unlinkat(from, temporary, AtFlags::empty()),
        // Some have no links either. This server's own uploads still come one after the other.
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => renameat(from, temporary, to, name),
        Err(error) => Err(error),
    }
}

/// Locks the file that is to be replaced against other servers that are to replace the same version
/// of it. Where files cannot be locked, or not by us, it is left to them.
fn lock_current(
    folder: &Dir,
    name: &OsStr,
    current: &Metadata,
) -> Result<Option<File>, FilesError> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits() as i32);
    let file = folder
        .open_with(name, &options)
        .map(cap_std::fs::File::into_std);
    if let Ok(file) = &file
        && let Err(TryLockError::WouldBlock) = file.try_lock()
    {
        return Err(FilesError::InUse);
    }
    let now = folder
        .symlink_metadata(name)
        .map_err(|_| FilesError::Changed)?;
    match now.dev() == current.dev() && version(&now) == version(current) {
        true => Ok(file.ok()),
        false => Err(FilesError::Changed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_disk_that_cannot_rename_without_replacing_links() {
        let top = tempfile::tempdir().unwrap();
        let folder = Dir::open_ambient_dir(top.path(), cap_std::ambient_authority()).unwrap();
        fs::write(top.path().join("one"), "1").unwrap();
        fs::write(top.path().join("two"), "2").unwrap();
        let place = |from| link_new(&folder, from, &folder, OsStr::new("file"));
        assert_eq!(place("one"), Ok(()));
        assert_eq!(place("two"), Err(Errno::EXIST));
        assert_eq!(fs::read_to_string(top.path().join("file")).unwrap(), "1");
        assert!(!top.path().join("one").exists() && top.path().join("two").exists());
    }
}
