//! New contents on their way to a file's place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{DataFile, Ownership};

/// A file beside another, which is to take its place. Any thread may write it. Dropping it before
/// it has that place removes it.
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub struct Replacement {
    new: Option<DataFile>,
    old: Arc<File>,
    /// Where the old file really is, whatever links lead there.
    real_path: PathBuf,
}

impl Replacement {
    /// An empty file with a hidden name derived from that of the old one, and its permissions; what
    /// an earlier crash left under that name is removed.
    pub(crate) fn beside(old: &DataFile) -> io::Result<Self> {
        let real_path = fs::canonicalize(old.path())?;
        let path = hidden_path(&real_path);
        let made = remove_left(&path).and_then(|()| DataFile::make(&path));
        let new = made.map_err(|cause| {
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

    /// The new file, to be written from its start to its end.
    pub fn file(&self) -> &Arc<File> {
        let new = self.new.as_ref();
        new.expect("it is taken only at the end").file()
    }

    /// Whether this is the file that is to be replaced.
    pub(crate) fn is_of(&self, file: &Arc<File>) -> bool {
        Arc::ptr_eq(&self.old, file)
    }

    /// Gives it the place of the old file.
    pub(crate) fn rename_to(mut self, path: &Path) -> io::Result<DataFile> {
        let mut new = self.new.take().expect("it is taken only here");
        let renamed = new.rename(&self.real_path, path);
        if let Err(error) = renamed {
            self.new = Some(new);
            return Err(error);
        }
        Ok(new)
    }

    /// Where the file really is.
    pub(crate) fn real_path(&self) -> &Path {
        &self.real_path
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            // What cannot be removed now is removed the next time.
            let _ = fs::remove_file(new.path());
        }
    }
}

/// The name of what is to replace a file.
fn hidden_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn remove_left(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a crash has left of a file that was to replace this one.
pub(crate) fn remove_left_beside(file: &DataFile) {
    // It only takes room.
    let removed = fs::canonicalize(file.path()).and_then(|path| remove_left(&hidden_path(&path)));
    if let Err(error) = removed {
        log::debug!("{}: {error}", file.path().display());
    }
}
