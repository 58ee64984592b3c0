//! A download that has not arrived whole yet.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cli::stream::Output;
use uuid::Uuid;

use crate::progress::above_bars;
use crate::transfer::shown;

/// How the names of downloads under way start.
pub(crate) const TEMPORARY_PREFIX: &str = ".quartet-download-";

/// What a download can go to.
pub(crate) enum Place {
    /// A regular file, or nothing yet.
    File {
        /// Where it is: links to it have been followed.
        path: PathBuf,
        /// What may be done with the file that is there, which is kept.
        permissions: Option<Permissions>,
    },
    /// A device or a pipe, which is for writing to: it must not become a file.
    Device,
}

impl Place {
    /// Looks at what stands at a path.
    ///
    /// # Errors
    /// If a folder does.
    pub(crate) fn at(target: &Path) -> io::Result<Self> {
        match fs::metadata(target) {
            Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // A symbolic link stays, and what it leads to is replaced.
            Ok(there) if there.is_file() => Ok(Self::File {
                path: fs::canonicalize(target)?,
                permissions: Some(there.permissions()),
            }),
            Ok(_) => Ok(Self::Device),
            Err(_) => Ok(Self::File {
                path: target.to_owned(),
                permissions: None,
            }),
        }
    }
}

/// The mode of a new file before the umask takes its part. What is to replace a file that has a mode
/// is nobody else's until it has it too.
pub(crate) fn mode_of_new(permissions: Option<&Permissions>) -> u32 {
    match permissions {
        Some(_) => 0o600,
        None => 0o666,
    }
}

/// A file that is arriving. It stands in a hidden temporary file beside its target until
/// [`PartialFile::finish`] gives it its name; dropping it before removes it.
#[derive(Debug)]
#[must_use = "a download that is not finished is removed"]
pub(crate) struct PartialFile {
    /// A device may be a terminal.
    out: Output,
    target: PathBuf,
    /// `None` when what is written goes straight to the target, and after finishing.
    temporary: Option<PathBuf>,
}

impl PartialFile {
    /// Begins a file that is to stand at `target`, in place of the one that may be there.
    ///
    /// # Errors
    /// If a folder is there, or nothing can be written there.
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        let (target, permissions) = match Place::at(target)? {
            Place::File { path, permissions } => (path, permissions),
            Place::Device => {
                let file = OpenOptions::new().write(true).open(target)?;
                return Ok(Self {
                    out: file.into(),
                    target: target.to_owned(),
                    temporary: None,
                });
            }
        };
        let name = format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4());
        let temporary = target.with_file_name(name);
        let mut options = OpenOptions::new();
        options.mode(mode_of_new(permissions.as_ref()));
        let file = options.write(true).create_new(true).open(&temporary)?;
        let kept = permissions.map_or(Ok(()), |kept| file.set_permissions(kept));
        let partial = Self {
            out: file.into(),
            target,
            temporary: Some(temporary),
        };
        kept.map(|()| partial)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If it cannot be written or renamed; then it is removed.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.target)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary
            && let Err(error) = fs::remove_file(temporary)
        {
            above_bars(|| log::warn!("{} stays behind: {error}", shown(temporary)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::*;

    fn begin(target: &Path) -> PartialFile {
        let mut partial = PartialFile::create(target).unwrap();
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
        // Both ends, so that nobody waits for the other.
        let mut options = OpenOptions::new();
        let mut reader = options.read(true).write(true).open(&pipe).unwrap();
        begin(&pipe).finish().unwrap();
        let mut written = [0; 3];
        reader.read_exact(&mut written).unwrap();
        assert_eq!(&written, b"new");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn the_mode_of_what_is_replaced_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        for mode in [0o600, 0o640, 0o666, 0o400] {
            fs::write(&target, "old").unwrap();
            fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
            let partial = begin(&target);
            let temporary = partial.temporary.as_ref().unwrap();
            for path in [temporary, &target] {
                let there = fs::metadata(path).unwrap().permissions();
                assert_eq!(there.mode() & 0o7777, mode, "{path:?}");
            }
            partial.finish().unwrap();
            let there = fs::metadata(&target).unwrap().permissions();
            assert_eq!(there.mode() & 0o7777, mode);
            fs::remove_file(&target).unwrap();
        }
    }

    #[test]
    fn there_must_be_a_place_for_it() {
        let folder = tempfile::tempdir().unwrap();
        PartialFile::create(folder.path()).unwrap_err();
        PartialFile::create(&folder.path().join("gone/a")).unwrap_err();
        PartialFile::create(&folder.path().join("..")).unwrap_err();
        assert_eq!(entries(folder.path()), 0);
    }
}
