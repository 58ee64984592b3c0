//! A file's place: a name in a folder that is open.
//!
//! A path is followed once, when its folder is opened. From then on everything happens relative to the
//! open folder, and no symbolic link is followed. So whatever a server calls its files, and even if
//! somebody exchanges a folder for a link meanwhile, nothing is read or written elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

/// How a folder is opened: to look up names in it. That takes no permission to list it.
const LOOK_UP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is done at a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// It is followed.
    Follow,
    /// It is an error.
    Refuse,
}

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    handle: OwnedFd,
    /// What messages call it; empty for the current folder.
    path: PathBuf,
}

/// A device and a number on it: what tells two files apart, whatever they are called.
pub(crate) type FileId = (u64, u64);

impl Folder {
    /// Opens the folder at a path, which is followed; an empty one is the current folder.
    ///
    /// # Errors
    /// If there is none, or it may not be entered.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let place = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let handle = rustix::fs::openat(CWD, place, LOOK_UP, Mode::empty())?;
        let path = path.to_owned();
        Ok(Self { handle, path })
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// If there is none, or it may not be entered; if it is a symbolic link that is not to be followed.
    pub(crate) fn folder(&self, name: &OsStr, links: Links) -> io::Result<Self> {
        let follow = match links {
            Links::Follow => OFlags::empty(),
            Links::Refuse => OFlags::NOFOLLOW,
        };
        let opened = rustix::fs::openat(&self.handle, name, LOOK_UP | follow, Mode::empty());
        let path = self.path.join(name);
        match opened {
            Ok(handle) => Ok(Self { handle, path }),
            Err(Errno::NOTDIR) if self.is_link(name) => Err(link_error()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a folder in this one, unless there is one, and opens it.
    ///
    /// # Errors
    /// If something else is there, and those of the disk.
    pub(crate) fn make_folder(&self, name: &OsStr) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.handle, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => self.folder(name, Links::Refuse),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it, in no order.
    ///
    /// # Errors
    /// If it may not be listed.
    pub(crate) fn names(&self) -> io::Result<impl Iterator<Item = io::Result<OsString>> + use<>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = rustix::fs::openat(&self.handle, ".", flags, Mode::empty())?;
        let name = |entry: rustix::io::Result<rustix::fs::DirEntry>| match entry {
            Ok(entry) => match entry.file_name().to_bytes() {
                b"." | b".." => None,
                name => Some(Ok(OsStr::from_bytes(name).to_owned())),
            },
            Err(error) => Some(Err(error.into())),
        };
        Ok(Dir::new(readable)?.filter_map(name))
    }

    /// What tells it from other folders.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn id(&self) -> io::Result<FileId> {
        let found = File::from(self.handle.try_clone()?).metadata()?;
        Ok((found.dev(), found.ino()))
    }

    /// Whether it is this folder, or lies in it, on whatever level.
    ///
    /// # Errors
    /// Those of the disk, and if one that it lies in may not be entered.
    pub(crate) fn is_within(&self, id: FileId) -> io::Result<bool> {
        let mut last = self.id()?;
        let mut above = self.folder(OsStr::new(".."), Links::Refuse)?;
        while last != id {
            let next = above.id()?;
            // The root lies in itself.
            if next == last {
                return Ok(false);
            }
            last = next;
            above = above.folder(OsStr::new(".."), Links::Refuse)?;
        }
        Ok(true)
    }

    /// A name in it.
    pub(crate) fn place(self: &Arc<Self>, name: &OsStr) -> Place {
        Place {
            folder: Arc::clone(self),
            name: name.to_owned(),
        }
    }

    fn is_link(&self, name: &OsStr) -> bool {
        let found = rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_symlink())
    }
}

/// What is said of a symbolic link that is not followed.
pub(crate) fn link_error() -> io::Error {
    io::Error::other("it is a symbolic link, and none is followed there")
}

/// A name in an open folder.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: Arc<Folder>,
    name: OsString,
}

impl Place {
    /// Opens the folder of a path. The path need not exist, and its last name is not followed.
    ///
    /// # Errors
    /// If its folder cannot be opened, or it does not end in a name.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let name = match path.file_name() {
            Some(name) if !path.as_os_str().as_bytes().ends_with(b"/") => name,
            Some(_) | None => return Err(io::ErrorKind::IsADirectory.into()),
        };
        let folder = Folder::open(path.parent().unwrap_or(Path::new("")))?;
        Ok(Arc::new(folder).place(name))
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// The name.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// What messages call it.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// Another name in the same folder.
    pub(crate) fn sibling(&self, name: impl Into<OsString>) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            name: name.into(),
        }
    }

    /// Opens the file there, or makes it with this mode if the flags say so. It does not wait for the
    /// other end of a pipe.
    ///
    /// # Errors
    /// Those of the disk; if a symbolic link is there.
    pub(crate) fn open(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        self.open_as(flags | OFlags::NOFOLLOW, mode)
    }

    /// Opens the file there to read it. A symbolic link is followed.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn open_followed(&self) -> io::Result<File> {
        self.open_as(OFlags::RDONLY, 0)
    }

    fn open_as(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let opened = rustix::fs::openat(&self.folder.handle, &self.name, flags, mode)?;
        Ok(opened.into())
    }

    /// What is there. Of a symbolic link this is the link's own.
    ///
    /// # Errors
    /// If there is nothing.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.metadata_by(OFlags::NOFOLLOW)
    }

    /// What is there, or what a symbolic link leads to.
    ///
    /// # Errors
    /// If there is nothing.
    pub(crate) fn metadata_followed(&self) -> io::Result<Metadata> {
        self.metadata_by(OFlags::empty())
    }

    fn metadata_by(&self, follow: OFlags) -> io::Result<Metadata> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | follow;
        let opened = rustix::fs::openat(&self.folder.handle, &self.name, flags, Mode::empty())?;
        File::from(opened).metadata()
    }

    /// Checks that this user may write to the file there.
    ///
    /// # Errors
    /// If it may not.
    pub(crate) fn check_writable(&self) -> io::Result<()> {
        let (folder, name) = (&self.folder.handle, &self.name);
        let access = rustix::fs::accessat(folder, name, Access::WRITE_OK, AtFlags::empty());
        Ok(access?)
    }

    /// Gives the file there another name, in one step; it replaces what has that name.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn rename_to(&self, to: &Self) -> io::Result<()> {
        let (from, into) = (&self.folder.handle, &to.folder.handle);
        Ok(rustix::fs::renameat(from, &self.name, into, &to.name)?)
    }

    /// Removes the file there.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let removed = rustix::fs::unlinkat(&self.folder.handle, &self.name, AtFlags::empty());
        Ok(removed?)
    }
}

/// Opens folders below one, name by name, and remembers the last one: the files of a folder come one
/// after the other.
pub(crate) struct Descent {
    root: Arc<Folder>,
    links: Links,
    last: (PathBuf, Arc<Folder>),
}

impl Descent {
    /// From this folder.
    pub(crate) fn new(root: &Arc<Folder>, links: Links) -> Self {
        Self {
            root: Arc::clone(root),
            links,
            last: (PathBuf::new(), Arc::clone(root)),
        }
    }

    /// The place of a file below it.
    ///
    /// # Errors
    /// If its folder cannot be opened.
    pub(crate) fn place(&mut self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        Ok(folder.place(name))
    }

    /// A folder below it; an empty path is the folder itself.
    ///
    /// # Errors
    /// If it cannot be opened, or the path is not made of plain names.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<Arc<Folder>> {
        if self.last.0 != path {
            let folder = self.walk(path, |_| Ok(()))?;
            self.last = (path.to_owned(), folder);
        }
        Ok(Arc::clone(&self.last.1))
    }

    /// Whether one of the folders on the way to a path lies in this one: then this one leads there again.
    ///
    /// # Errors
    /// Those of [`Descent::folder`] and [`Folder::is_within`].
    pub(crate) fn is_within(&self, path: &Path, id: FileId) -> io::Result<bool> {
        let mut is_within = self.root.is_within(id)?;
        self.walk(path, |folder| {
            is_within |= folder.is_within(id)?;
            Ok(())
        })?;
        Ok(is_within)
    }

    fn walk(
        &self,
        path: &Path,
        mut each: impl FnMut(&Folder) -> io::Result<()>,
    ) -> io::Result<Arc<Folder>> {
        let mut folder = Arc::clone(&self.root);
        for component in path.components() {
            let Component::Normal(name) = component else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            folder = Arc::new(folder.folder(name, self.links)?);
            each(&folder)?;
        }
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(path: &Path) -> Arc<Folder> {
        Arc::new(Folder::open(path).unwrap())
    }

    #[test]
    fn no_link_is_followed_from_an_open_folder() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("in/sub")).unwrap();
        fs::write(top.path().join("secret"), "secret").unwrap();
        symlink("..", top.path().join("in/up")).unwrap();
        symlink("../secret", top.path().join("in/link")).unwrap();
        let root = folder(&top.path().join("in"));
        let mut descent = Descent::new(&root, Links::Refuse);
        descent.folder(Path::new("sub")).unwrap();
        for path in ["up", "up/in", "sub/../..", "/", "gone", "link"] {
            descent.folder(Path::new(path)).unwrap_err();
        }
        let link = root.place(OsStr::new("link"));
        assert!(link.metadata().unwrap().is_symlink());
        link.open(OFlags::RDONLY, 0).unwrap_err();
        link.open_followed().unwrap();
        root.make_folder(OsStr::new("up")).unwrap_err();
        root.make_folder(OsStr::new("sub")).unwrap();
        let mut followed = Descent::new(&root, Links::Follow);
        let up = followed.folder(Path::new("up/in/sub")).unwrap();
        let id = up.id().unwrap();
        let is_within = |path: &str, id| followed.is_within(Path::new(path), id).unwrap();
        assert!(is_within("sub", id) && is_within("up/in/sub", id) && !is_within("up", id));
        let system_root = folder(Path::new("/")).id().unwrap();
        assert!(is_within("", system_root) && is_within("up", system_root));
    }

    #[test]
    fn a_folder_stays_the_one_that_was_opened() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a");
        fs::create_dir(&path).unwrap();
        let opened = folder(&path);
        fs::rename(&path, top.path().join("b")).unwrap();
        symlink("..", &path).unwrap();
        let place = opened.place(OsStr::new("new"));
        place.open(OFlags::WRONLY | OFlags::CREATE, 0o600).unwrap();
        assert!(top.path().join("b/new").exists());
        assert_eq!(place.path(), path.join("new"));
        let names: Vec<_> = opened.names().unwrap().map(Result::unwrap).collect();
        assert_eq!(names, ["new"]);
    }

    #[test]
    fn a_place_has_a_name() {
        for path in ["/", "..", "a/..", "a/", ""] {
            Place::at(Path::new(path)).unwrap_err();
        }
        assert_eq!(Place::at(Path::new("a")).unwrap().path(), Path::new("a"));
    }
}
