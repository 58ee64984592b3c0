//! Where an upload is to stand, and what stands there.
//!
//! What stands there already is replaced only if it is a regular file that may be written, at the
//! end of whatever links lead there. How it is replaced is in `placement`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Dir, Metadata, MetadataExt};
use proto::http::conditional::Version;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use super::root::{LINKS_MAX, Root, leads_out};
use super::{Files, FilesError, is_reserved, version_of};
use crate::path::TreePath;

/// Where a file that is uploaded to a path is to stand, and what stands there.
pub(super) struct Place {
    pub(super) root: Arc<Root>,
    /// The deepest folder on the way that exists,
    pub(super) folder: Dir,
    /// where that is below the root, by a path without links,
    pub(super) folder_path: PathBuf,
    /// the names of those that are missing behind it,
    pub(super) missing: Vec<OsString>,
    /// and the name of the file.
    pub(super) name: OsString,
    pub(super) current: Option<Metadata>,
}

impl Place {
    /// The path of the file below the root.
    pub(super) fn path(&self) -> PathBuf {
        let names = self.missing.iter().chain([&self.name]);
        names.fold(self.folder_path.clone(), |path, name| path.join(name))
    }

    pub(super) fn version(&self) -> Option<Version> {
        self.current.as_ref().map(version)
    }
}

impl Files {
    /// Where an upload to this path is to stand.
    ///
    /// # Errors
    /// If no file can stand there, or what stands there may not be replaced.
    pub(super) fn place(&self, path: &TreePath) -> Result<Place, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::Reserved);
        }
        if path.has_final_slash() {
            return Err(FilesError::IsFolder);
        }
        let root = self.root()?;
        let (target, current) = follow(&root, path.as_path())?;
        if is_reserved(&target) {
            return Err(FilesError::NotAFile);
        }
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(FilesError::IsFolder);
        };
        let (folder, folder_path, missing) = deepest_folder(&root, parent)?;
        if let Some(there) = &current {
            check_writable(&folder, name, there)?;
        }
        Ok(Place {
            root,
            folder,
            folder_path,
            missing,
            name: name.to_owned(),
            current,
        })
    }

    /// Checks that an upload need not replace a file, if that is not allowed.
    ///
    /// # Errors
    /// [`FilesError::Exists`] if it would.
    pub fn check_create(&self, is_there: bool) -> Result<(), FilesError> {
        match self.create_only && is_there {
            true => Err(FilesError::Exists),
            false => Ok(()),
        }
    }

    /// The folder that an upload of so many bytes to this path stands in.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if no such file is there.
    pub(super) fn folder_of(&self, path: &TreePath, bytes: u64) -> Result<Dir, FilesError> {
        let root = self.root()?;
        let (target, current) = follow(&root, path.as_path())?;
        let folder = target.parent().ok_or(FilesError::NotFound)?;
        match current {
            Some(there) if there.len() == bytes => Ok(root.open_dir(folder)?),
            Some(_) | None => Err(FilesError::NotFound),
        }
    }
}

pub(super) fn version(there: &Metadata) -> Version {
    version_of(there.ino(), there.len(), there.mtime(), there.mtime_nsec())
}

/// The path that the links at a path lead to, and the regular file that stands there, if one does.
fn follow(root: &Root, path: &Path) -> Result<(PathBuf, Option<Metadata>), FilesError> {
    let mut target = path.to_owned();
    for links in 0..LINKS_MAX {
        let there = match root.symlink_metadata(&target) {
            Ok(there) => there,
            Err(error) if leads_out(&error) && links > 0 => break,
            Err(error) => match FilesError::from(error) {
                // Opening the folder shows what of it is missing, or in the way.
                FilesError::NotFound | FilesError::NotAFolder => return Ok((target, None)),
                error => return Err(error),
            },
        };
        if there.is_file() {
            return Ok((target, Some(there)));
        } else if there.is_dir() {
            return Err(FilesError::IsFolder);
        } else if !there.is_symlink() {
            break;
        }
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
    }
    Err(FilesError::NotAFile)
}

/// The deepest folder on the way to `path` that exists, where it is, and the names of those that
/// do not.
fn deepest_folder(root: &Root, path: &Path) -> Result<(Dir, PathBuf, Vec<OsString>), FilesError> {
    let mut missing = Vec::new();
    for existing in path.ancestors() {
        match (root.open_dir(existing), existing.file_name()) {
            (Ok(folder), _) => {
                missing.reverse();
                let path = match existing.as_os_str().is_empty() {
                    // The root itself, which needs no look.
                    true => PathBuf::new(),
                    false => root.canonicalize(existing)?,
                };
                return Ok((folder, path, missing));
            }
            // But a link that leads to nothing is in the way of a folder.
            (Err(error), Some(name))
                if error.kind() == io::ErrorKind::NotFound && !is_link(root, existing) =>
            {
                missing.push(name.to_owned());
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    // The root itself was removed.
    Err(FilesError::RootGone)
}

fn is_link(root: &Root, path: &Path) -> bool {
    let there = root.symlink_metadata(path);
    there.is_ok_and(|there| there.is_symlink())
}

/// The right to write to a folder is enough to replace any file in it; but one that is protected
/// against writing is meant to stay as it is.
fn check_writable(folder: &Dir, name: &OsStr, there: &Metadata) -> Result<(), FilesError> {
    if there.mode() & 0o222 == 0 {
        return Err(FilesError::WriteProtected);
    }
    match accessat(folder, name, Access::WRITE_OK, AtFlags::EACCESS) {
        Err(error @ (Errno::ACCESS | Errno::ROFS)) => Err(FilesError::NotAllowed(error.into())),
        // What else there is to say about it is said when it is replaced.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
