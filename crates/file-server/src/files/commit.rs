//! How an upload becomes a file: sync the contents, rename, sync the folder.
//!
//! The rename is one system call, so a reader sees the old file or the new one and nothing between
//! (atomic rename). A new file is renamed without replacing any: of two clients that create one file,
//! one wins, also if they ask different servers of this root. A file that replaces another keeps its
//! mode and owner. The destination is locked for the rename alone, not for the syncs.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use proto::http::conditional::Version;
use rustix::fs::{
    AtFlags, OFlags, RenameFlags, Stat, linkat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::destination::Destination;
use super::identity::{Identity, seconds_now};
use super::permissions::Permissions;
use super::record::Stage;
use super::root::FileId;
use super::upload::Upload;
use crate::error::FilesError;
use crate::path::TreePath;

/// Whether a request agrees to change the version that stands at a path, or nothing.
pub(super) type Wanted<'w> = dyn Fn(Option<&Version>) -> bool + 'w;

/// The most attempts to rename an upload. An attempt is repeated if another file comes to the
/// destination, or another upload removes the folders it had made, in the same moment.
const RENAMES_MAX: usize = 16;

impl Upload<'_> {
    /// Gives the file its final name, if `is_wanted` agrees to replace the version there. When this
    /// returns, the file is on the disk, under its name, with the folders that it is in. Returns
    /// whether it replaces none.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if `is_wanted` does not agree, [`FilesError::Moved`] if the path leads
    /// to another destination than before, and those of the disk. A resumable upload is kept if a
    /// later attempt may succeed.
    pub(crate) fn commit(
        &mut self,
        is_wanted: impl Fn(Option<&Version>) -> bool,
    ) -> Result<bool, FilesError> {
        let committed = self.try_commit(&is_wanted);
        match &committed {
            // Only now: a server that is killed earlier leaves an upload that can continue.
            Ok(_) => self.set_stage(Stage::Finished),
            Err(error) if error.is_transient() && !self.is_renamed => {
                self.set_stage(Stage::Arriving);
            }
            // More bytes would not change that.
            Err(_) => self.discard(),
        }
        committed
    }

    /// Commits an upload that is not resumable to the first of these paths, all in one folder, where
    /// no file stands. Returns that path and its number.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if files stand at all of them, and those of the disk.
    pub(crate) fn commit_numbered(
        mut self,
        paths: impl IntoIterator<Item = (u32, TreePath)>,
    ) -> Result<(u32, TreePath), FilesError> {
        for (number, path) in paths {
            let name = path.as_path().file_name().ok_or(FilesError::IsFolder)?;
            if self.destination.folder.symlink_metadata(name).is_ok() {
                continue;
            }
            self.destination.name = name.to_owned();
            self.destination.current = None;
            self.path = path.clone();
            match self.try_commit(&|current| current.is_none()) {
                // Another upload has created it meanwhile.
                Err(FilesError::Changed | FilesError::Exists) => {}
                committed => return committed.map(|_| (number, path)),
            }
        }
        Err(FilesError::Changed)
    }

    fn try_commit(&mut self, is_wanted: &Wanted) -> Result<bool, FilesError> {
        let permissions = self.permissions_at(&self.destination);
        if self.set_permissions(permissions) && self.is_resumable() {
            // Its bytes may all be on the disk already.
            self.files.disk.sync_all(&self.file)?;
        }
        self.sync()?;
        for _ in 0..RENAMES_MAX {
            if let Some(is_new) = self.try_rename(is_wanted)? {
                self.is_renamed = true;
                // An upload that replaces the file locks it.
                let _ = self.file.unlock();
                self.sync_folders()?;
                self.check_folder()?;
                return Ok(is_new);
            }
        }
        Err(FilesError::Moved)
    }

    /// The permissions of the file at this destination; `None` if its folder has set them.
    fn permissions_at(&self, destination: &Destination) -> Option<Permissions> {
        let Destination { folder, name, .. } = destination;
        match &destination.current {
            Some(there) => Some(Permissions::inherited(folder, name, there)),
            None if self.has_default_acl => None,
            None => Some(Permissions::New(self.files.mode_new)),
        }
    }

    /// Sets the permissions; returns whether they were others.
    fn set_permissions(&mut self, permissions: Option<Permissions>) -> bool {
        let Some(new) = permissions.filter(|new| self.permissions.as_ref() != Some(new)) else {
            return false;
        };
        if let Err(error) = new.give_to(&self.file, self.has_default_acl) {
            log::debug!("{}: the mode stays as it is: {error}", self.temporary);
        }
        self.permissions = Some(new);
        true
    }

    /// Renames the file; returns whether it replaces none, or `None` if something came in between.
    fn try_rename(&mut self, is_wanted: &Wanted) -> Result<Option<bool>, FilesError> {
        let target = self.destination.path();
        let locks = &self.files.destination_locks;
        let _lock = locks.lock(target.clone(), None)?;
        let now = self.files.destination(&self.path)?;
        if now.path() != target || now.root.id != self.destination.root.id {
            return Err(FilesError::Moved);
        }
        if now.folder_id != self.destination.folder_id {
            // Another upload may have made folders that were missing.
            self.check_folder()?;
        }
        self.files.check_create(now.current.is_some())?;
        if !is_wanted(now.version().as_ref()) {
            return Err(FilesError::Changed);
        }
        if self.set_permissions(self.permissions_at(&now)) {
            self.files.disk.sync_all(&self.file)?;
        }
        let folder = match self.make_missing() {
            // Another upload was interrupted, and removed the folders that it had made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            made => made?,
        };
        self.update_record(|progress| progress.stage = Stage::Placing)?;
        let (from, temporary) = (&self.destination.folder, &self.temporary);
        let (to, name) = (folder.as_ref().unwrap_or(from), &self.destination.name);
        let renamed = match &now.current {
            None => rename_new(from, OsStr::new(temporary), to, name),
            Some(current) => {
                let _locked = lock_version(to, name, current, is_wanted)?;
                renameat(from, temporary, to, name)
            }
        };
        match renamed {
            Ok(()) => Ok(Some(now.current.is_none())),
            Err(Errno::EXIST | Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(FilesError::Moved),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the path still leads to the folder that the upload is in. Otherwise nobody would
    /// ever see the file.
    fn check_folder(&self) -> Result<(), FilesError> {
        let (root, ours) = (self.files.root()?, &self.destination);
        let there = match ours.folder_path.as_os_str().is_empty() {
            // The root itself, which was just compared.
            true => Ok(root.id),
            false => root
                .open_dir(&ours.folder_path)
                .and_then(|folder| FileId::of(&folder)),
        };
        match there.is_ok_and(|id| id == ours.folder_id) && root.id == ours.root.id {
            true => Ok(()),
            false => Err(FilesError::Moved),
        }
    }

    /// Makes the folders that are missing, and opens the last of them; `None` if none was missing.
    /// Other uploads may make them too.
    pub(super) fn make_missing(&mut self) -> io::Result<Option<Dir>> {
        let mut last: Option<Dir> = None;
        let mut path = PathBuf::new();
        for name in &self.destination.missing {
            let folder = last.as_ref().unwrap_or(&self.destination.folder);
            path.push(name);
            match folder.create_dir(name) {
                Ok(()) => self.made.push(path.clone()),
                // Another upload was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            last = Some(folder.open_dir(name)?);
        }
        Ok(last)
    }

    /// Syncs the folder of the file and those that were missing, whichever upload made them.
    fn sync_folders(&self) -> Result<(), FilesError> {
        let disk = &self.files.disk;
        disk.sync_folder(&self.destination.folder)?;
        let mut last: Option<Dir> = None;
        for name in &self.destination.missing {
            let folder = last.as_ref().unwrap_or(&self.destination.folder);
            let next = match folder.open_dir(name).and_then(|next| next.open(".")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(FilesError::Moved);
                }
                opened => Dir::from_std_file(opened?.into_std()),
            };
            disk.sync_folder(&next)?;
            last = Some(next);
        }
        Ok(())
    }
}

/// Renames a file or a folder, but replaces nothing.
pub(super) fn rename_new(from: &Dir, old: &OsStr, to: &Dir, name: &OsStr) -> Result<(), Errno> {
    match renameat_with(from, old, to, name, RenameFlags::NOREPLACE) {
        // Not every file system can do that, nor every container.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
            link_new(from, old, to, name)
        }
        renamed => renamed,
    }
}

/// The same in two steps.
fn link_new(from: &Dir, old: &OsStr, to: &Dir, name: &OsStr) -> Result<(), Errno> {
    match linkat(from, old, to, name, AtFlags::empty()) {
        Ok(()) => unlinkat(from, old, AtFlags::empty()),
        // Some have no links either, and folders have none. The lock still orders the requests to this server.
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => renameat(from, old, to, name),
        Err(error) => Err(error),
    }
}

/// Locks what stands at a name against other servers that change the same version of it. If any version may
/// be changed, it does not matter who else does.
pub(super) fn lock_version(
    folder: &Dir,
    name: &OsStr,
    current: &Stat,
    is_wanted: &Wanted,
) -> Result<Option<File>, FilesError> {
    let other = Version {
        etag: String::new(),
        modified: seconds_now(),
    };
    if is_wanted(Some(&other)) {
        return Ok(None);
    }
    lock_current(folder, name, current)
}

/// Locks the file that is replaced against other servers that replace the same version of it. Where
/// files cannot be locked, or not by this server, there is no lock.
fn lock_current(folder: &Dir, name: &OsStr, current: &Stat) -> Result<Option<File>, FilesError> {
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
    let now = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| FilesError::Changed)?;
    let is_same = now.st_dev == current.st_dev
        && Identity::from(now).version() == Identity::from(*current).version();
    match is_same {
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
        let place = |from| link_new(&folder, OsStr::new(from), &folder, OsStr::new("file"));
        assert_eq!(place("one"), Ok(()));
        assert_eq!(place("two"), Err(Errno::EXIST));
        assert_eq!(fs::read_to_string(top.path().join("file")).unwrap(), "1");
        assert!(!top.path().join("one").exists() && top.path().join("two").exists());
    }
}
