//! A download that replaces its target in one step: it is written to a hidden temporary file and renamed
//! when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cli::stream::Output;
use rustix::fs::OFlags;

use crate::cleanup;
use crate::escaped::escaped;
use crate::ownership::Ownership;
use crate::place::{Place, link_error};
use crate::progress::above_bars;
use crate::sidecar;

/// Where a download is to be saved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SaveTo<'a> {
    /// At a path, which is followed.
    Path(&'a Path),
    /// In an open folder, where no link is followed.
    Place(&'a Place),
}

/// What a download is saved to.
pub(crate) enum Target {
    /// A regular file, or nothing yet.
    File {
        /// Where it is, after all symbolic links.
        place: Place,
        /// What the download gets when it is whole.
        ownership: Ownership,
    },
    /// A device or a pipe: it is written to, and never replaced.
    Device,
}

impl SaveTo<'_> {
    /// What messages call it.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => (*path).to_owned(),
            Self::Place(place) => place.path(),
        }
    }

    /// Opens the regular file that is there already, to compare it; `None` if there is none.
    pub(crate) fn open(&self) -> Option<File> {
        match self {
            Self::Path(path) => {
                // Opening a pipe waits for its writer.
                let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
                is_file.then(|| File::open(path).ok()).flatten()
            }
            Self::Place(place) => {
                let file = place.open(OFlags::RDONLY, 0).ok();
                file.filter(|file| file.metadata().is_ok_and(|found| found.is_file()))
            }
        }
    }

    /// Looks at what is there.
    ///
    /// # Errors
    /// If there is a folder, or a file that may not be written, or no file can be made there.
    pub(crate) fn target(&self) -> io::Result<Target> {
        match self {
            Self::Path(path) => match fs::metadata(path) {
                // A symbolic link stays, and the file that it leads to is replaced.
                Ok(found) if found.is_file() => Target::at(Place::at(&fs::canonicalize(path)?)?),
                Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
                Ok(_) => Ok(Target::Device),
                Err(_) => Target::of_new(Place::at(path)?),
            },
            Self::Place(place) => Target::at((*place).clone()),
        }
    }
}

impl Target {
    fn at(place: Place) -> io::Result<Self> {
        let Ok(found) = place.metadata() else {
            return Self::of_new(place);
        };
        if found.is_symlink() {
            return Err(link_error());
        }
        if found.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        // Replacing it would take no more than a folder that may be written. Root may write anything,
        // but a file that was made read-only is read-only for root too.
        place.check_writable()?;
        if found.permissions().readonly() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let ownership = Ownership::of(&place, &found);
        Ok(Self::File { place, ownership })
    }

    fn of_new(place: Place) -> io::Result<Self> {
        let ownership = Ownership::of_new(&place)?;
        Ok(Self::File { place, ownership })
    }
}

/// A file that is being received. [`Replacement::finish`] gives it its name; dropping it before removes
/// it.
#[derive(Debug)]
#[must_use = "a replacement that is not finished is removed"]
pub(crate) struct Replacement {
    /// A device may be a terminal.
    out: Output,
    /// `None` if the bytes go straight to the target, and after finishing.
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    place: Place,
    target: Place,
    /// The same file as `out`. Its lock says that a client is writing it.
    file: File,
    ownership: Ownership,
}

impl Replacement {
    /// Begins a file.
    ///
    /// # Errors
    /// If a folder is there, or nothing can be written there.
    pub(crate) fn create(to: SaveTo) -> io::Result<Self> {
        let (target, ownership) = match to.target()? {
            Target::File { place, ownership } => (place, ownership),
            Target::Device => {
                let file = OpenOptions::new().write(true).open(to.path())?;
                return Ok(Self {
                    out: file.into(),
                    temporary: None,
                });
            }
        };
        cleanup::remove_stale_in(target.folder());
        let place = sidecar::temporary(&target, sidecar::PART_PREFIX);
        let file = place.open(sidecar::NEW, sidecar::MODE)?;
        // On a disk without locks, a stale file is known by its age alone.
        let _ = file.try_lock();
        let out = file.try_clone()?.into();
        Ok(Self {
            out,
            temporary: Some(Temporary {
                place,
                target,
                file,
                ownership,
            }),
        })
    }

    /// Gives the file its name, and the time of its last change on the server, if that is known.
    ///
    /// # Errors
    /// If it cannot be written or renamed; then it is removed.
    pub(crate) fn finish(mut self, modified: Option<SystemTime>) -> io::Result<()> {
        self.out.flush()?;
        if let Some(temporary) = &self.temporary {
            temporary.ownership.give_to(&temporary.file)?;
            set_modified(&temporary.file, modified);
            temporary.place.rename_to(&temporary.target)?;
        }
        self.temporary = None;
        Ok(())
    }
}

/// Gives a file the time of its last change on the server, where the disk keeps such times.
pub(crate) fn set_modified(file: &File, modified: Option<SystemTime>) {
    if let Some(modified) = modified
        && let Err(error) = file.set_modified(modified)
    {
        above_bars(|| log::debug!("The time is not kept: {error}"));
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
            && let Err(error) = temporary.place.remove()
        {
            let path = temporary.place.path();
            above_bars(|| log::warn!("cannot remove {}: {error}", escaped(&path)));
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
        let mut partial = Replacement::create(SaveTo::Path(target)).unwrap();
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
        partial.finish(None).unwrap();
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
        begin(&link).finish(None).unwrap();
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
        begin(&pipe).finish(None).unwrap();
        let mut written = [0; 3];
        reader.read_exact(&mut written).unwrap();
        assert_eq!(&written, b"new");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn in_an_open_folder_no_link_is_followed_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "old").unwrap();
        symlink("a", folder.path().join("link")).unwrap();
        symlink("gone", folder.path().join("dangling")).unwrap();
        for name in ["link", "dangling"] {
            let place = Place::at(&folder.path().join(name)).unwrap();
            let error = Replacement::create(SaveTo::Place(&place)).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
            assert!(folder.path().join(name).is_symlink());
        }
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"old");
        assert_eq!(entries(folder.path()), 3);
    }

    #[test]
    fn a_file_has_the_time_that_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        begin(&target).finish(Some(time)).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().modified().unwrap(), time);
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
                mode(&partial.temporary.as_ref().unwrap().place.path()),
                sidecar::MODE
            );
            assert_eq!(mode(&target), old);
            partial.finish(None).unwrap();
            assert_eq!(mode(&target), new);
        }
        // A new one has that of any other, and not before it has its name.
        fs::write(folder.path().join("other"), "").unwrap();
        let new = folder.path().join("new");
        let partial = begin(&new);
        assert_eq!(
            mode(&partial.temporary.as_ref().unwrap().place.path()),
            sidecar::MODE
        );
        partial.finish(None).unwrap();
        assert_eq!(mode(&new), mode(&folder.path().join("other")));
        assert_eq!(entries(folder.path()), 3);
    }

    #[test]
    fn what_is_read_only_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o444)).unwrap();
        let error = Replacement::create(SaveTo::Path(&target)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn there_must_be_a_place_for_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "gone/a", "..", "a/"] {
            Replacement::create(SaveTo::Path(&folder.path().join(name))).unwrap_err();
        }
        assert_eq!(entries(folder.path()), 0);
    }
}
