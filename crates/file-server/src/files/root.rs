//! The root, which is the folder that is served, and why no path leads out of it.
//!
//! 1. A request target is decoded once, into plain names ([`TreePath`](crate::path::TreePath)): no
//!    `..`, no name with a slash.
//! 2. A path is opened relative to the open root, by `openat2(2)` with `RESOLVE_BENEATH`, which
//!    `cap-std` calls. The kernel follows names and symbolic links in one step, and refuses to leave
//!    the root. There is no check before the use, so nobody can change a folder or a link between the
//!    two (TOCTOU).
//! 3. The kernel refuses every absolute link. One that leads into the root is rewritten to a path
//!    beneath it, and step 2 opens that path. If somebody changes a link meanwhile, step 2 refuses.
//! 4. Everything else happens to what step 2 has opened: a download reads the open file, and an upload
//!    is created and renamed in the open folder.
//!
//! The root's own path may come to lead to another folder while the server runs: the folder is removed
//! and made again, a link is switched, a disk is mounted. So before each use the folder at the path is
//! compared with the open one.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, MetadataExt, OpenOptions, OpenOptionsExt};
use cli::escape::Escaped;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat};
use rustix::io::Errno;

use crate::error::FilesError;

/// The most links on the way to a file, as in the kernel.
pub(super) const LINKS_MAX: usize = 40;

/// How a file is opened to be read. Without O_NONBLOCK, opening a fifo waits for its writer, and the
/// connection with it.
pub(super) const FLAGS_TO_READ: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// What tells a file or a folder from all others, as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The id of what a path leads to, wherever that is.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(statat(CWD, path, AtFlags::empty())?))
    }

    pub(super) fn of(open: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(fstat(open)?))
    }

    pub(super) fn inode(self) -> u64 {
        self.inode
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

impl From<&Metadata> for FileId {
    fn from(there: &Metadata) -> Self {
        Self {
            device: there.dev(),
            inode: there.ino(),
        }
    }
}

/// The path of the root, and the folder that was last there.
pub(super) struct RootPath {
    path: PathBuf,
    found: RwLock<Option<Arc<Root>>>,
}

impl RootPath {
    /// Opens the root, by a path that may lead anywhere.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = Root::open(path)?;
        // The server's working directory may be replaced too; `.` would not show it.
        let absolute = std::path::absolute(path)
            .ok()
            .filter(|absolute| FileId::at(absolute).is_ok_and(|id| id == root.id));
        Ok(Self {
            path: absolute.unwrap_or_else(|| path.to_owned()),
            found: RwLock::new(Some(Arc::new(root))),
        })
    }

    /// The path of a file below the root; the file cache looks at it without resolving it beneath.
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
        // Another request may have replaced it meanwhile.
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
        // Then the folder may still be there.
        if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(&error) {
            return FilesError::Busy(error);
        }
        // An open folder keeps its disk from being unmounted.
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

/// The open folder that was at the root's path.
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

    /// Opens a file, or whatever is there, for reading.
    pub(super) fn open_to_read(&self, path: &Path) -> io::Result<std::fs::File> {
        let mut options = OpenOptions::new();
        let flags = FLAGS_TO_READ.bits() as i32;
        let file = self.open_with(path, options.read(true).custom_flags(flags))?;
        Ok(file.into_std())
    }

    /// Opens a folder, which need not be readable.
    pub(super) fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        self.beneath(path, |dir, path| dir.open_dir(path))
    }

    /// Opens a folder for reading, so that it can be synced.
    pub(super) fn open_folder(&self, path: &Path) -> io::Result<Dir> {
        let mut options = OpenOptions::new();
        let flags = OFlags::DIRECTORY.bits() as i32;
        let folder = self.open_with(path, options.read(true).custom_flags(flags))?;
        Ok(Dir::from_std_file(folder.into_std()))
    }

    /// The same, with the folder's path without links.
    pub(super) fn resolve_folder(&self, path: &Path) -> io::Result<(Dir, PathBuf)> {
        // Most paths are made of plain names and have no links, and need no second look.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        if path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
            && let Ok(folder) = openat2(&self.dir, or_dot(path), flags, Mode::empty(), resolve)
        {
            return Ok((Dir::from_std_file(folder.into()), path.to_owned()));
        }
        let folder = self.open_folder(path)?;
        let path = self.beneath(path, |dir, path| dir.canonicalize(path))?;
        Ok(match path == Path::new(".") {
            true => (folder, PathBuf::new()),
            false => (folder, path),
        })
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.beneath(path, |dir, path| dir.metadata(path))
    }

    /// The same; of a link, its own.
    pub(super) fn link_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.beneath(path, |dir, path| dir.symlink_metadata(path))
    }

    /// The target of the link at a path; `None` if it is not in the root.
    pub(super) fn link_target(&self, link: &Path) -> io::Result<Option<PathBuf>> {
        let target = self.beneath(link, |dir, link| dir.read_link_contents(link))?;
        Ok(match target.is_absolute() {
            true => self.inside(&target),
            false => Some(link.parent().unwrap_or(Path::new("")).join(target)),
        })
    }

    /// Calls `act` with a path beneath the root. If `act` fails because of an absolute link that leads
    /// into the root, it is called again with a path around that link.
    fn beneath<T>(&self, path: &Path, act: impl Fn(&Dir, &Path) -> io::Result<T>) -> io::Result<T> {
        let mut path = Cow::Borrowed(or_dot(path));
        for _ in 0..LINKS_MAX {
            match act(&self.dir, &path) {
                Err(error) if leads_out(&error) => match self.around_absolute_link(&path) {
                    Some(inside) => path = Cow::Owned(or_dot(&inside).to_owned()),
                    None => return Err(error),
                },
                done => return done,
            }
        }
        Err(Errno::LOOP.into())
    }

    /// The same path with its first absolute link replaced by the link's target; `None` if there is no
    /// such link, or it does not lead into the root.
    fn around_absolute_link(&self, path: &Path) -> Option<PathBuf> {
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

    /// The part of an absolute path below the root; `None` if the root is not on it. The root has many
    /// paths, so it is recognised by its id.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let is_root = |folder: &&Path| FileId::at(folder).is_ok_and(|id| id == self.id);
        let root = path.ancestors().find(is_root)?;
        path.strip_prefix(root).ok().map(Path::to_owned)
    }
}

/// Whether this error means that a path leads out of the root: `cap-std` creates this error itself, so
/// it has no errno.
pub(super) fn leads_out(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// The root's own path is empty, which no system call accepts.
fn or_dot(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

#[cfg(test)]
mod tests;
