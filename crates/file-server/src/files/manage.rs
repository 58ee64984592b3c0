//! Names that change without an upload: something is deleted or renamed, and a folder is created.
//!
//! Each is one system call for a name in a folder that was opened beneath the root, so others see it done
//! or not done. What stands under the name is what it happens to: a link, and never what the link leads
//! to. The destination locks order it with the uploads of this server. The folder is synced before
//! the reply.
//!
//! No system call removes a folder with all that is in it. So it gets a hidden name first, and is removed
//! under that (`removal`).

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cap_std::fs::Dir;
use proto::http::conditional::Version;
use rustix::fs::{AtFlags, FileType, RenameFlags, Stat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;
use storage::lock;

use super::commit::{Wanted, lock_version, rename_new};
use super::destination::check_writable;
use super::identity::Identity;
use super::removal::{is_full, remove_tree};
use super::root::{FileId, Root};
use super::temporary::{self, is_reserved};
use super::tree::Files;
use crate::error::FilesError;
use crate::path::TreePath;

/// A name in a folder. The links on the way to the folder were followed.
struct Place {
    /// The folder, open for reading.
    folder: Dir,
    /// The path of the folder below the root, without links.
    folder_path: PathBuf,
    name: OsString,
    has_final_slash: bool,
}

/// How long a request waits until all that is in a folder is removed. Clients wait longer.
const REMOVAL_WAIT: Duration = Duration::from_secs(10);

/// A deleted folder that is still to be removed.
pub(crate) struct Deleted {
    /// The folder that it is in.
    pub(super) folder: Dir,
    /// Its hidden name.
    pub(super) name: String,
}

/// What is still to be removed: its folder, and its hidden name.
type Hidden<'p> = Option<(&'p Dir, String)>;

impl Place {
    fn path(&self) -> PathBuf {
        self.folder_path.join(&self.name)
    }

    /// What stands there.
    fn there(&self) -> Result<Option<Stat>, FilesError> {
        match statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            there => Ok(Some(there?)),
        }
    }

    /// Deletes what stands there; a full folder gets a hidden name, if all that is in it may be deleted.
    fn delete(&self, there: &Stat, is_deep: bool) -> Result<Hidden<'_>, FilesError> {
        let flags = if is_folder(there) {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match unlinkat(&self.folder, &self.name, flags) {
            Ok(()) => Ok(None),
            Err(error) if is_full(error) && is_deep => self.hide().map(Some),
            Err(error) if is_full(error) => Err(FilesError::NotEmpty),
            Err(error) => Err(error.into()),
        }
    }

    fn hide(&self) -> Result<(&Dir, String), FilesError> {
        let hidden = temporary::deleted_name();
        renameat(&self.folder, &self.name, &self.folder, &hidden)?;
        Ok((&self.folder, hidden))
    }

    /// Whether the folder has exactly this name. A disk that does not tell capitals from small letters
    /// finds something under others, too.
    fn is_listed(&self) -> Result<bool, FilesError> {
        for entry in self.folder.entries()? {
            if entry?.file_name() == self.name {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Renames what stands there. It replaces `target`: a file that of a file, and a folder an empty one;
    /// anything only if `is_any_replaced`.
    fn rename<'p>(
        &'p self,
        to: &'p Self,
        there: &Stat,
        target: Option<&Stat>,
        is_any_replaced: bool,
    ) -> Result<Hidden<'p>, FilesError> {
        let renamed = match target {
            None => rename_new(&self.folder, &self.name, &to.folder, &to.name),
            Some(_) => renameat(&self.folder, &self.name, &to.folder, &to.name),
        };
        match (renamed, target) {
            (Ok(()), Some(target)) if FileId::from(*target) == FileId::from(*there) => {
                self.drop_name(there)?;
                Ok(None)
            }
            (Ok(()), _) => Ok(None),
            (Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST), Some(target)) => {
                if !is_any_replaced {
                    return Err(FilesError::InTheWay);
                }
                self.exchange(to, target)
            }
            // Something has come there since.
            (Err(Errno::EXIST), None) => Err(FilesError::Occupied),
            (Err(Errno::XDEV), _) => Err(FilesError::OtherDisk),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Removes this one of two names of a file. A rename of one to the other removes neither.
    fn drop_name(&self, there: &Stat) -> Result<(), FilesError> {
        match self.there()? {
            Some(still) if FileId::from(still) == FileId::from(*there) => {
                Ok(unlinkat(&self.folder, &self.name, AtFlags::empty())?)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Renames what stands there, so that it replaces a folder or, as a folder, a file. The two are
    /// exchanged, so that neither is missing for a moment.
    fn exchange<'p>(&'p self, to: &'p Self, target: &Stat) -> Result<Hidden<'p>, FilesError> {
        let flags = RenameFlags::EXCHANGE;
        match renameat_with(&self.folder, &self.name, &to.folder, &to.name, flags) {
            Ok(()) => self.delete(target, true).inspect_err(|_| {
                let _ = renameat_with(&self.folder, &self.name, &to.folder, &to.name, flags);
            }),
            // Not every file system can do that. Then it is as if the target was deleted before.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                let (folder, hidden) = to.hide()?;
                let renamed = renameat(&self.folder, &self.name, folder, &to.name);
                renamed.inspect_err(|_| {
                    let _ = renameat(folder, &hidden, folder, &to.name);
                })?;
                Ok(Some((folder, hidden)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Files {
    /// Deletes what stands at a path, if `is_wanted` agrees to lose this version; a full folder only if
    /// `is_deep`. When this returns, its name is gone from the disk. What was in a full folder is removed
    /// as far as [`REMOVAL_WAIT`] allows, and the rest later.
    ///
    /// # Errors
    /// [`FilesError::NotFound`], [`FilesError::NotEmpty`], [`FilesError::Changed`] if `is_wanted` does not
    /// agree, if it may not be deleted, and those of the disk. [`FilesError::LeftBehind`] if the name is
    /// gone and something of the folder cannot be removed.
    pub(crate) fn delete(
        &self,
        path: &TreePath,
        is_deep: bool,
        is_wanted: &Wanted,
    ) -> Result<(), FilesError> {
        if self.create_only {
            return Err(FilesError::Permanent);
        }
        let root = self.root()?;
        let place = self.place(&root, path)?;
        let lock = self.destination_locks.lock(place.path(), None)?;
        let (there, locked) = self.check_source(&root, &place, is_wanted)?;
        self.check_loss(&place, &there)?;
        let hidden = place.delete(&there, is_deep)?;
        drop((lock, locked));
        self.disk.sync_folder(&place.folder)?;
        self.clear(hidden, REMOVAL_WAIT)
    }

    /// Creates a folder. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`FilesError::Occupied`], [`FilesError::NoParent`], and those of the disk.
    pub(crate) fn create_folder(&self, path: &TreePath) -> Result<(), FilesError> {
        let root = self.root()?;
        let place = match self.destination_place(&root, path) {
            Err(FilesError::IsRoot) => return Err(FilesError::Occupied),
            place => place?,
        };
        self.check_room(&place.folder, 0)?;
        match place.folder.create_dir(&place.name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(FilesError::Occupied);
            }
            created => created?,
        }
        self.disk.sync_folder(&place.folder)
    }

    /// Renames what stands at a path, if `is_wanted` agrees that it is this version. `overwrite` is
    /// whether it may replace what stands at its destination; if that is not said, it replaces what a
    /// rename does: a file that of a file, and a folder an empty one. Returns whether it replaces nothing.
    /// When this returns, it is on the disk under its new name.
    ///
    /// # Errors
    /// [`FilesError::NotFound`], [`FilesError::Occupied`] and others for what stands at the destination,
    /// [`FilesError::Changed`] if `is_wanted` does not agree, and those of the disk.
    /// [`FilesError::LeftBehind`] if it is renamed and something of what it replaces cannot be removed.
    pub(crate) fn rename(
        &self,
        from: &TreePath,
        to: &TreePath,
        overwrite: Option<bool>,
        is_wanted: &Wanted,
    ) -> Result<bool, FilesError> {
        let root = self.root()?;
        let from = self.place(&root, from)?;
        let to = self.destination_place(&root, to)?;
        let (from_path, to_path) = (from.path(), to.path());
        if from_path == to_path {
            return Err(FilesError::SamePlace);
        }
        if to_path.starts_with(&from_path) || from_path.starts_with(&to_path) {
            return Err(FilesError::IntoItself);
        }
        // In one order, so that of two renames none waits for the other.
        let [first, second] = if from_path < to_path {
            [from_path, to_path]
        } else {
            [to_path, from_path]
        };
        let locks = [
            self.destination_locks.lock(first, None)?,
            self.destination_locks.lock(second, None)?,
        ];
        let (there, locked) = self.check_source(&root, &from, is_wanted)?;
        let target = to.there()?;
        if let Some(target) = &target {
            // A rename would do nothing.
            if FileId::from(*target) == FileId::from(there)
                && !(from.is_listed()? && to.is_listed()?)
            {
                return Err(FilesError::SamePlace);
            }
            if overwrite == Some(false) {
                return Err(FilesError::Occupied);
            }
            if self.create_only {
                return Err(FilesError::Permanent);
            }
            self.check_loss(&to, target)?;
        }
        if to.has_final_slash && !is_folder(&there) && !target.as_ref().is_some_and(is_folder) {
            return Err(FilesError::NotAFolder);
        }
        let hidden = from.rename(&to, &there, target.as_ref(), overwrite == Some(true))?;
        drop((locks, locked));
        if is_folder(&there) {
            // The unfinished uploads in it are at other paths now.
            *lock(&self.swept) = None;
        }
        // In this order it is at one place at least, whatever the file system does.
        self.disk.sync_folder(&to.folder)?;
        if from.folder_path != to.folder_path {
            self.disk.sync_folder(&from.folder)?;
        }
        self.clear(hidden, REMOVAL_WAIT)?;
        Ok(target.is_none())
    }

    /// The place at a path.
    fn place(&self, root: &Root, path: &TreePath) -> Result<Place, FilesError> {
        let names = path.as_path();
        if is_reserved(names) {
            return Err(FilesError::Reserved);
        }
        let (Some(parent), Some(name)) = (names.parent(), names.file_name()) else {
            return Err(FilesError::IsRoot);
        };
        let (folder, folder_path) = root.resolve_folder(parent)?;
        if is_reserved(&folder_path) {
            return Err(FilesError::Reserved);
        }
        Ok(Place {
            folder,
            folder_path,
            name: name.to_owned(),
            has_final_slash: path.has_final_slash(),
        })
    }

    /// The place at a path where something is to stand.
    fn destination_place(&self, root: &Root, path: &TreePath) -> Result<Place, FilesError> {
        self.place(root, path).map_err(|error| match error {
            FilesError::NotFound => FilesError::NoParent,
            other => other,
        })
    }

    /// Checks what is to leave its place; returns it, and its lock if `is_wanted` agrees to one version.
    fn check_source(
        &self,
        root: &Root,
        place: &Place,
        is_wanted: &Wanted,
    ) -> Result<(Stat, Option<File>), FilesError> {
        let there = place.there()?.ok_or(FilesError::NotFound)?;
        let leads_to_folder = || {
            let followed = root.metadata(&place.path());
            is_link(&there) && followed.is_ok_and(|followed| followed.is_dir())
        };
        if place.has_final_slash && !is_folder(&there) && !leads_to_folder() {
            return Err(FilesError::NotFound);
        }
        self.check_secret(&there)?;
        if !is_wanted(Some(&version(root, &place.path(), &there))) {
            return Err(FilesError::Changed);
        }
        let locked = lock_version(&place.folder, &place.name, &there, is_wanted)?;
        Ok((there, locked))
    }

    /// Checks that what stands at a place may be lost.
    fn check_loss(&self, place: &Place, there: &Stat) -> Result<(), FilesError> {
        self.check_secret(there)?;
        if FileType::from_raw_mode(there.st_mode).is_file() {
            check_writable(&place.folder, &place.name, there)?;
        }
        Ok(())
    }

    fn check_secret(&self, there: &Stat) -> Result<(), FilesError> {
        if self.secrets.ids().contains(&FileId::from(*there)) {
            return Err(FilesError::IsSecret);
        }
        Ok(())
    }

    /// Removes what was hidden. What takes longer than `wait` is left to the sweeper.
    fn clear(&self, hidden: Hidden, wait: Duration) -> Result<(), FilesError> {
        let Some((folder, name)) = hidden else {
            return Ok(());
        };
        let begun = Instant::now();
        let is_early = || begun.elapsed() < wait;
        match remove_tree(folder, &name, &self.secrets.ids(), &is_early) {
            // The sweeper of another server may have come first.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(_) if !is_early() => {
                let left = folder.try_clone().is_ok_and(|folder| {
                    let name = name.clone();
                    self.removals.0.try_send(Deleted { folder, name }).is_ok()
                });
                if !left {
                    log::warn!("{name} stays until the next start: too much is being removed");
                }
                Ok(())
            }
            Err(error) => {
                log::warn!("{name} stays behind: {}", std::io::Error::from(error));
                Err(FilesError::LeftBehind)
            }
        }
    }
}

fn is_folder(there: &Stat) -> bool {
    FileType::from_raw_mode(there.st_mode).is_dir()
}

fn is_link(there: &Stat) -> bool {
    FileType::from_raw_mode(there.st_mode).is_symlink()
}

/// The version of what stands at a path, which `If-Match` compares: that of the file which a download
/// gets there. A folder has no entity tag.
fn version(root: &Root, path: &Path, there: &Stat) -> Version {
    let followed = is_link(there).then(|| root.metadata(path).ok()).flatten();
    let identity = followed.map_or(Identity::from(*there), |there| Identity::from(&there));
    let version = identity.version();
    if !is_folder(there) {
        return version;
    }
    Version {
        etag: String::new(),
        ..version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::tree;

    #[test]
    fn a_removal_that_takes_long_is_left_to_the_sweeper() {
        let tree = tree();
        let path = TreePath::decode("/site").unwrap();
        let root = tree.files.root().unwrap();
        let place = tree.files.place(&root, &path).unwrap();
        let hidden = place.hide().unwrap();
        let name = hidden.1.clone();
        let is_there = || place.folder.exists(&name);
        assert!(tree.files.clear(Some(hidden), Duration::ZERO).is_ok());
        assert!(is_there());
        let deleted = tree.files.removals().try_recv().unwrap();
        tree.files.finish_removal(&deleted, &|| true);
        assert!(!is_there());
    }

    #[test]
    fn a_place_has_one_name_exactly() {
        let tree = tree();
        let root = tree.files.root().unwrap();
        for (path, is_listed) in [("/a.txt", true), ("/A.txt", false), ("/site/", true)] {
            let path = TreePath::decode(path).unwrap();
            let place = tree.files.place(&root, &path).unwrap();
            assert_eq!(place.is_listed().unwrap(), is_listed);
        }
    }
}
