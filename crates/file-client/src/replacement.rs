//! A download that replaces its target in one step: it is written to a hidden temporary file and renamed
//! when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cli::stream::Output;
use rustix::fs::{Access, access};

use crate::cleanup;
use crate::escaped::escaped;
use crate::ownership::Ownership;
use crate::progress::above_bars;
use crate::sidecar;

/// What a download is saved to.
pub(crate) enum Target {
    /// A regular file, or nothing yet.
    File {
        /// Where it is, after all symbolic links.
        path: PathBuf,
        /// What the download gets when it is whole.
        ownership: Ownership,
    },
    /// A device or a pipe: it is written to, and never replaced.
    Device,
}

impl Target {
    /// Looks at a path.
    ///
    /// # Errors
    /// If there is a folder, or a file that may not be written, or no file can be made there.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // A symbolic link stays, and the file that it leads to is replaced.
            Ok(found) if found.is_file() => {
                // Replacing it would take no more than a folder that may be written. Root may write
                // anything, but a file that was made read-only is read-only for root too.
                access(path, Access::WRITE_OK)?;
                if found.permissions().readonly() {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                let path = fs::canonicalize(path)?;
                let ownership = Ownership::of(&path, &found);
                Ok(Self::File { path, ownership })
            }
            Ok(_) => Ok(Self::Device),
            Err(_) => Ok(Self::File {
                path: path.to_owned(),
                ownership: Ownership::of_new(path)?,
            }),
        }
    }
}

/// A file that is being received. [`Replacement::finish`] gives it its name; dropping it before removes
/// it.
#[derive(Debug)]
#[must_use = "a replacement that is not finished is removed"]
pub(crate) struct Replacement {
    /// A device may be a terminal.
    out: Output,
    target: PathBuf,
    /// `None` if the bytes go straight to the target, and after finishing.
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    /// The same file as `out`. Its lock says that a client is writing it.
    file: File,
    ownership: Ownership,
}

impl Replacement {
    /// Begins a file for `target`.
    ///
    /// # Errors
    /// If a folder is there, or nothing can be written there.
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        let (target, ownership) = match Target::at(target)? {
            Target::File { path, ownership } => (path, ownership),
            Target::Device => {
                let file = OpenOptions::new().write(true).open(target)?;
                return Ok(Self {
                    out: file.into(),
                    target: target.to_owned(),
                    temporary: None,
                });
            }
        };
        cleanup::remove_stale_beside(&target);
        let path = sidecar::temporary(&target, sidecar::PART_PREFIX);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(sidecar::MODE);
        let file = options.open(&path)?;
        // On a disk without locks, a stale file is known by its age alone.
        let _ = file.try_lock();
        let out = file.try_clone()?.into();
        Ok(Self {
            out,
            target,
            temporary: Some(Temporary {
                path,
                file,
                ownership,
            }),
        })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If it cannot be written or renamed; then it is removed.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        if let Some(temporary) = &self.temporary {
            temporary.ownership.give_to(&temporary.file)?;
            fs::rename(&temporary.path, &self.target)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary
            && let Err(error) = fs::remove_file(&temporary.path)
        {
            let path = escaped(&temporary.path);
            above_bars(|| log::warn!("cannot remove {path}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn begin(target: &Path) -> Replacement {
        let mut partial = Replacement::create(target).unwrap();
        partial.write_all(b"new").unwrap();
        partial
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let partial = begin(&target);
        assert!(!target.exists());
        partial.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_dropped_file_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "old").unwrap();
        drop(begin(&target));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let link = folder.path().join("link");
        fs::write(&target, "old").unwrap();
        symlink("a", &link).unwrap();
        begin(&link).finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        // Both ends, so that neither open waits for the other.
        let mut options = OpenOptions::new();
        let mut reader = options.read(true).write(true).open(&pipe).unwrap();
        begin(&pipe).finish().unwrap();
        let mut written = [0; 3];
        reader.read_exact(&mut written).unwrap();
        assert_eq!(&written, b"new");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(entries(folder.path()), 1);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_mode_of_what_is_replaced_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        for (old, new) in [
            (0o600, 0o600),
            (0o640, 0o640),
            (0o666, 0o666),
            (0o4755, 0o755),
        ] {
            fs::write(&target, "old").unwrap();
            fs::set_permissions(&target, Permissions::from_mode(old)).unwrap();
            let partial = begin(&target);
            assert_eq!(
                mode(&partial.temporary.as_ref().unwrap().path),
                sidecar::MODE
            );
            assert_eq!(mode(&target), old);
            partial.finish().unwrap();
            assert_eq!(mode(&target), new);
        }
        // A new one has that of any other, and not before it has its name.
        fs::write(folder.path().join("other"), "").unwrap();
        let new = folder.path().join("new");
        let partial = begin(&new);
        assert_eq!(
            mode(&partial.temporary.as_ref().unwrap().path),
            sidecar::MODE
        );
        partial.finish().unwrap();
        assert_eq!(mode(&new), mode(&folder.path().join("other")));
        assert_eq!(entries(folder.path()), 3);
    }

    #[test]
    fn what_is_read_only_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o444)).unwrap();
        let error = Replacement::create(&target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn there_must_be_a_place_for_it() {
        let folder = tempfile::tempdir().unwrap();
        Replacement::create(folder.path()).unwrap_err();
        Replacement::create(&folder.path().join("gone/a")).unwrap_err();
        Replacement::create(&folder.path().join("..")).unwrap_err();
        assert_eq!(entries(folder.path()), 0);
    }
}
