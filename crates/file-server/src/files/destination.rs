//! The destination of an upload: where the file will stand, and what stands there now.
//!
//! A file is replaced only if it is a regular one that may be written, at the end of all links that
//! lead to it. How it is replaced is in `commit`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use proto::http::conditional::Version;
use rustix::fs::{Access, AtFlags, FileType, Stat, accessat, statat};
use rustix::io::Errno;

use super::identity::Identity;
use super::root::{FileId, LINKS_MAX, Root, leads_out};
use super::temporary::is_reserved;
use super::tree::Files;
use crate::error::FilesError;
use crate::path::TreePath;

/// Where a file that is uploaded to a path will stand, and what stands there.
pub(super) struct Destination {
    pub(super) root: Arc<Root>,
    /// The deepest folder on the path that exists, open for reading.
    pub(super) folder: Dir,
    pub(super) folder_id: FileId,
    /// The path of that folder below the root, without links.
    pub(super) folder_path: PathBuf,
    /// The names of the folders below it that are missing.
    pub(super) missing: Vec<OsString>,
    /// The name of the file.
    pub(super) name: OsString,
    /// The file that stands there.
    pub(super) current: Option<Stat>,
}

impl Destination {
    /// The path of the file below the root.
    pub(super) fn path(&self) -> PathBuf {
        let names = self.missing.iter().chain([&self.name]);
        names.fold(self.folder_path.clone(), |path, name| path.join(name))
    }

    /// The same destination, seen from a folder on its path that exists. Others may have made some of
    /// the folders that were missing below it.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if the folder is not on the path.
    pub(super) fn seen_from(mut self, folder: Dir, path: &Path) -> Result<Self, FilesError> {
        let target = self.path();
        let below = target.strip_prefix(path).ok().and_then(Path::parent);
        let missing = below.ok_or(FilesError::NotFound)?;
        self.missing = missing.iter().map(OsStr::to_owned).collect();
        self.folder_id = FileId::of(&folder)?;
        self.folder = folder;
        self.folder_path = path.to_owned();
        Ok(self)
    }

    /// The version of the file that stands there.
    pub(super) fn version(&self) -> Option<Version> {
        Some(Identity::from(self.current?).version())
    }
}

impl Files {
    /// The destination of an upload to this path.
    ///
    /// # Errors
    /// If no file can stand there, or the one that does may not be replaced.
    pub(super) fn destination(&self, path: &TreePath) -> Result<Destination, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::Reserved);
        }
        if path.has_final_slash() {
            return Err(FilesError::IsFolder);
        }
        let root = self.root()?;
        let mut target = path.as_path().to_owned();
        for links in 0..LINKS_MAX {
            if links > 0 && is_reserved(&target) {
                break;
            }
            let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
                return Err(FilesError::IsFolder);
            };
            let (folder, folder_path, missing) = match deepest_folder(&root, parent) {
                Err(error) if leads_out(&error) && links > 0 => break,
                found => found?,
            };
            let current = match missing.is_empty() {
                true => file_at(&folder, name)?,
                false => None,
            };
            if let Some(there) = current
                && FileType::from_raw_mode(there.st_mode).is_symlink()
            {
                match root.link_target(&target) {
                    Ok(Some(next)) => target = next,
                    Ok(None) => break,
                    // It is no link any more, or was removed.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                        ) => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            if let Some(there) = current {
                check_writable(&folder, name, &there)?;
            }
            return Ok(Destination {
                folder_id: FileId::of(&folder)?,
                folder,
                folder_path,
                missing,
                name: name.to_owned(),
                current,
                root,
            });
        }
        Err(FilesError::NotAFile)
    }
}

/// The regular file, or the link, with this name in a folder.
fn file_at(folder: &Dir, name: &OsStr) -> Result<Option<Stat>, FilesError> {
    let there = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        there => there?,
    };
    match FileType::from_raw_mode(there.st_mode) {
        FileType::RegularFile | FileType::Symlink => Ok(Some(there)),
        FileType::Directory => Err(FilesError::IsFolder),
        _ => Err(FilesError::NotAFile),
    }
}

/// The deepest folder on a path that exists, open for reading; its path without links, and the names of
/// the folders below it that are missing.
fn deepest_folder(root: &Root, path: &Path) -> io::Result<(Dir, PathBuf, Vec<OsString>)> {
    let mut missing = Vec::new();
    for existing in path.ancestors() {
        match (root.resolve_folder(existing), existing.file_name()) {
            (Ok((folder, folder_path)), _) => {
                missing.reverse();
                return Ok((folder, folder_path, missing));
            }
            // A link that leads to nothing is in the way of a folder.
            (Err(error), Some(name))
                if error.kind() == io::ErrorKind::NotFound
                    && root.link_target(existing).is_err() =>
            {
                missing.push(name.to_owned());
            }
            (Err(error), _) => return Err(error),
        }
    }
    // Every path has an ancestor, the root itself.
    Err(Errno::NOENT.into())
}

/// The right to write to a folder is enough to replace any file in it. But a write-protected file is
/// meant to stay as it is.
pub(super) fn check_writable(folder: &Dir, name: &OsStr, there: &Stat) -> Result<(), FilesError> {
    if there.st_mode & 0o222 == 0 {
        return Err(FilesError::WriteProtected);
    }
    match accessat(folder, name, Access::WRITE_OK, AtFlags::EACCESS) {
        Err(error @ (Errno::ACCESS | Errno::ROFS)) => Err(FilesError::NotAllowed(error.into())),
        // The rename reports everything else.
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
