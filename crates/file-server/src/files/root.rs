//! The folder that is served.
//!
//! It is known by its path, which may come to lead to another folder while the server runs: it is
//! removed and made again, a link is switched, a disk is mounted on it. So before each use the
//! folder at the path is compared with the one that is held open, and replaces it if it is another.
//!
//! Everything is opened beneath it through `cap-std`, which has the kernel resolve the path
//! (`openat2`). The kernel refuses every absolute link; so one that leads into the root is rewritten
//! to a path beneath it, which the kernel resolves in turn. Nothing is ever opened by any other way,
//! so that a link which is exchanged in the middle of this leads to a refusal and nowhere else.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use cli::escape::Escaped;
use rustix::fs::{AtFlags, CWD, Stat, fstat, statat};
use rustix::io::Errno;

use super::FilesError;

/// How many links are followed on the way to a file, as many as the kernel follows.
pub(super) const LINKS_MAX: usize = 40;

/// What tells a file or a folder from all others, as long as it is held open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of what a path leads to, wherever that is.
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(statat(CWD, path, AtFlags::empty())?))
    }

    pub(super) fn of(folder: &Dir) -> io::Result<Self> {
        Ok(Self::from(fstat(folder)?))
    }
}

impl From<Stat> for FileId {
    fn from(there: Stat) -> Self {
        Self {
            device: there.st_dev,
            inode: there.st_ino,
        }
    }
}

/// The path of the root, and the folder that was last found there.
pub(super) struct RootPath {
    path: PathBuf,
    found: RwLock<Option<Arc<Root>>>,
}

impl RootPath {
    /// Opens the root, by a path that may lead anywhere.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = Root::open(path)?;
        // The folder that the server was started in may be replaced, too; `.` would not show it.
        let absolute = std::path::absolute(path)
            .ok()
            .filter(|absolute| FileId::at(absolute).is_ok_and(|id| id == root.id));
        Ok(Self {
            path: absolute.unwrap_or_else(|| path.to_owned()),
            found: RwLock::new(Some(Arc::new(root))),
        })
    }

    /// The path of a file below the root, for looks that need no resolution beneath it.
    pub(super) fn join(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// The folder that is at the root's path now.
    pub(super) fn current(&self) -> Result<Arc<Root>, FilesError> {
        let found = self.read().clone();
        if let (Some(root), Ok(id)) = (found, FileId::at(&self.path))
            && root.id == id
        {
            return Ok(root);
        }
        match Root::open(&self.path) {
            Ok(root) => Ok(self.replace(root)),
            Err(error) => Err(self.lose(error)),
        }
    }

    fn replace(&self, root: Root) -> Arc<Root> {
        let mut found = self.write();
        // Another request may have been faster.
        if let Some(found) = found.as_ref().filter(|found| found.id == root.id) {
            return Arc::clone(found);
        }
        let root = Arc::new(root);
        let before = found.replace(Arc::clone(&root));
        drop(found);
        let path = self.path.to_string_lossy();
        match before {
            Some(_) => log::warn!("the root {} is another folder now", Escaped(&path)),
            None => log::info!("the root {} is there again", Escaped(&path)),
        }
        root
    }

    fn lose(&self, error: io::Error) -> FilesError {
        // It may well be there.
        if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(&error) {
            return FilesError::Busy(error);
        }
        // What is held open keeps a disk from being unmounted.
        let before = self.write().take();
        if before.is_some() {
            let path = self.path.to_string_lossy();
            log::error!("the root {} is gone: {error}", Escaped(&path));
        }
        FilesError::RootGone
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Arc<Root>>> {
        self.found.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Arc<Root>>> {
        self.found.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder that stood at the root's path, held open.
pub(super) struct Root {
    dir: Dir,
    pub(super) id: FileId,
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        let id = FileId::of(&dir)?;
        Ok(Self { dir, id })
    }

    pub(super) fn open_with(&self, path: &Path, options: &OpenOptions) -> io::Result<File> {
        self.beneath(path, |dir, path| dir.open_with(path, options))
    }

    pub(super) fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        self.beneath(path, |dir, path| dir.open_dir(path))
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.beneath(path, |dir, path| dir.metadata(path))
    }

    /// Of the link itself, if one stands there.
    pub(super) fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.beneath(path, |dir, path| dir.symlink_metadata(path))
    }

    /// The path without links, of something that is there.
    pub(super) fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let path = self.beneath(path, |dir, path| dir.canonicalize(path))?;
        Ok(match path == Path::new(".") {
            true => PathBuf::new(),
            false => path,
        })
    }

    /// The path that the link at a path leads to; `None` if that is not in the root.
    pub(super) fn link_target(&self, link: &Path) -> io::Result<Option<PathBuf>> {
        let target = self.beneath(link, |dir, link| dir.read_link_contents(link))?;
        Ok(match target.is_absolute() {
            true => self.inside(&target),
            false => Some(link.parent().unwrap_or(Path::new("")).join(target)),
        })
    }

    /// Has `act` go to a path beneath the folder, by way of absolute links, too, that lead into it.
    fn beneath<T>(&self, path: &Path, act: impl Fn(&Dir, &Path) -> io::Result<T>) -> io::Result<T> {
        let mut path = Cow::Borrowed(or_dot(path));
        for _ in 0..LINKS_MAX {
            match act(&self.dir, &path) {
                Err(error) if leads_out(&error) => match self.past_absolute_link(&path) {
                    Some(inside) => path = Cow::Owned(or_dot(&inside).to_owned()),
                    None => return Err(error),
                },
                done => return done,
            }
        }
        Err(Errno::LOOP.into())
    }

    /// The same path with the first absolute link on it replaced by what it leads to; `None` if
    /// there is none, or it does not lead into the root.
    fn past_absolute_link(&self, path: &Path) -> Option<PathBuf> {
        let mut walked = PathBuf::new();
        let mut names: Vec<OsString> = path.iter().rev().map(OsString::from).collect();
        let mut links = 0;
        while let Some(name) = names.pop() {
            walked.push(name);
            let target = match self.dir.read_link_contents(&walked) {
                Ok(target) => target,
                Err(error) if leads_out(&error) => return None,
                // No link.
                Err(_) => continue,
            };
            if target.is_absolute() {
                let mut inside = self.inside(&target)?;
                inside.extend(names.iter().rev());
                return Some(inside);
            }
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            walked.pop();
            names.extend(target.iter().rev().map(OsString::from));
        }
        None
    }

    /// What comes behind the root on an absolute path; `None` if the root is not on it. The root is
    /// known by what it is, since it may be called in many ways.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let is_root = |folder: &&Path| FileId::at(folder).is_ok_and(|id| id == self.id);
        let root = path.ancestors().find(is_root)?;
        path.strip_prefix(root).ok().map(Path::to_owned)
    }
}

/// Whether an error is the one that `cap-std` makes itself, so without a number, for a path that
/// leads out of the root.
pub(super) fn leads_out(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// The root's own path is empty, which no system call takes.
fn or_dot(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

#[cfg(test)]
mod tests;
