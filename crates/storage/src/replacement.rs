//! Atomic rename: new contents are written to a file beside the old one, synced, and renamed over
//! it. A crash at any moment leaves the old contents or the new ones, never a mixture.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{DataFile, Ownership};

/// A file beside another one that it will replace. Any thread may write it. Dropping it before it is
/// renamed removes it.
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub struct Replacement {
    new: Option<DataFile>,
    old: Arc<File>,
    /// The path of the old file, without symbolic links.
    real_path: PathBuf,
}

impl Replacement {
    /// Creates an empty file with the old one's ownership and a hidden name derived from the old
    /// one's. A file that an earlier crash left under that name is removed.
    pub(crate) fn beside(old: &DataFile) -> io::Result<Self> {
        let real_path = fs::canonicalize(old.path())?;
        let path = hidden_path(&real_path);
        let created = remove(&path).and_then(|()| DataFile::create_new(&path));
        let new = created.map_err(|cause| {
            let sentence = format!("cannot make {}: {cause}", path.display());
            io::Error::new(cause.kind(), sentence)
        })?;
        let replacement = Self {
            old: Arc::clone(old.file()),
            real_path,
            new: Some(new),
        };
        Ownership::of(&replacement.old)?.give_to(replacement.file(), true)?;
        Ok(replacement)
    }

    /// The new file, empty at first. Write it from start to end.
    pub fn file(&self) -> &Arc<File> {
        self.new.as_ref().expect("only rename takes it").file()
    }

    /// Whether `file` is the file that this one replaces.
    pub(crate) fn is_of(&self, file: &Arc<File>) -> bool {
        Arc::ptr_eq(&self.old, file)
    }

    /// Renames it over the old file, which was opened by `path`.
    pub(crate) fn rename(mut self, path: &Path) -> io::Result<DataFile> {
        let mut new = self.new.take().expect("it is taken only here");
        if let Err(error) = new.rename(&self.real_path, path) {
            self.new = Some(new);
            return Err(error);
        }
        Ok(new)
    }

    /// The path of the old file, without symbolic links.
    pub(crate) fn real_path(&self) -> &Path {
        &self.real_path
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            // If it cannot be removed now, the next replacement removes it.
            let _ = fs::remove_file(new.path());
        }
    }
}

/// Removes the unfinished replacement of a file that a crash has left.
pub(crate) fn remove_unfinished(file: &DataFile) {
    let removed = fs::canonicalize(file.path()).and_then(|path| remove(&hidden_path(&path)));
    if let Err(error) = removed {
        // It only takes space.
        log::debug!("{}: {error}", file.path().display());
    }
}

fn hidden_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
