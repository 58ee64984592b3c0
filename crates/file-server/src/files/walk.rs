//! A walk through a folder and all folders below it, depth first.
//!
//! A folder is opened by its plain name, in the open folder above it, and never through a link
//! (`O_NOFOLLOW`). So the walk stays below the folder where it starts, whatever is renamed meanwhile, and
//! it ends: no link leads it in a circle. It keeps one open folder a level and the path to where it is,
//! and no list of names. The entries of a folder come in the order in which the disk has them.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};

use super::root::{FLAGS_TO_READ, Root};
use super::temporary::is_reserved;
use super::tree::{Files, Readable};
use crate::error::FilesError;
use crate::path::TreePath;

/// The most folders in one another. Each is open while the walk is in it.
pub(crate) const DEPTH_MAX: usize = 100;

/// The most descriptors of one walk: the folders, the root, and a file.
pub(crate) const DESCRIPTORS_MAX: usize = DEPTH_MAX + 2;

const _: () = assert!(DEPTH_MAX == 100, "the text of FilesError::TooDeep says 100");

/// What the walk has come to. [`Walk::path`] is its path.
#[derive(Debug)]
pub(crate) enum Step {
    /// A folder. Its entries come next. The first step is the folder where the walk starts.
    Folder(Stat),
    /// The end of a folder: all its entries have come. The last step is the folder where the walk
    /// starts.
    Left,
    /// A regular file, as far as its folder tells.
    File,
    /// A symbolic link, which the walk does not follow.
    Link,
    /// Something else: a device, a pipe or a socket.
    Special,
    /// A folder that cannot be opened, or whose remaining entries cannot be read.
    Unreadable(FilesError),
}

/// A walk that is under way.
pub(crate) struct Walk {
    files: Arc<Files>,
    root: Arc<Root>,
    /// The path of the folder where the walk starts, below the root.
    start: PathBuf,
    /// The folder of the first step, until it was made.
    first: Option<OwnedFd>,
    /// The open folders from there down to the one whose entries come next.
    levels: Vec<Dir>,
    /// The path of the present step, relative to the start.
    path: PathBuf,
    /// Whether the last name of the path is behind the walk.
    is_past: bool,
}

impl Files {
    /// A walk through a folder. It skips the names that the server keeps for itself.
    ///
    /// # Errors
    /// If there is no such folder, or it cannot be read.
    pub(crate) fn walk(self: &Arc<Self>, path: &TreePath) -> Result<Walk, FilesError> {
        let root = self.root()?;
        let folder = root.open_folder(path.as_path())?;
        Ok(Walk {
            files: Arc::clone(self),
            root,
            start: path.as_path().to_owned(),
            first: Some(folder.into_std_file().into()),
            levels: Vec::new(),
            path: PathBuf::new(),
            is_past: false,
        })
    }
}

impl Walk {
    /// The next step; `None` after the last.
    pub(crate) fn next(&mut self) -> Option<Step> {
        if let Some(folder) = self.first.take() {
            return Some(self.enter(folder));
        }
        if std::mem::take(&mut self.is_past) {
            self.path.pop();
        }
        loop {
            let Some(entry) = self.levels.last_mut()?.read() else {
                self.levels.pop();
                self.is_past = true;
                return Some(Step::Left);
            };
            let entry = match entry {
                Ok(entry) => entry,
                // The next read of this folder is its end.
                Err(errno) => return Some(Step::Unreadable(errno.into())),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") || is_reserved(Path::new(name)) {
                continue;
            }
            self.path.push(name);
            return Some(self.step(entry.file_name(), entry.file_type()));
        }
    }

    /// The step to an entry of the present folder.
    fn step(&mut self, name: &CStr, kind: FileType) -> Step {
        self.is_past = true;
        let kind = match kind {
            // Not every file system says it along with the name.
            FileType::Unknown => match self.stat(name) {
                Ok(there) => FileType::from_raw_mode(there.st_mode),
                Err(error) => return Step::Unreadable(error),
            },
            known => known,
        };
        match kind {
            FileType::Directory => match self.open_folder(name) {
                Ok(folder) => self.enter(folder),
                Err(error) => Step::Unreadable(error),
            },
            FileType::RegularFile => Step::File,
            FileType::Symlink => Step::Link,
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice => Step::Special,
            FileType::BlockDevice | FileType::Unknown => Step::Special,
        }
    }

    fn enter(&mut self, folder: OwnedFd) -> Step {
        let entered = fstat(&folder).and_then(|there| Ok((there, Dir::new(folder)?)));
        match entered {
            Ok((there, folder)) => {
                self.levels.push(folder);
                self.is_past = false;
                Step::Folder(there)
            }
            Err(errno) => Step::Unreadable(errno.into()),
        }
    }

    fn open_folder(&self, name: &CStr) -> Result<OwnedFd, FilesError> {
        if self.levels.len() >= DEPTH_MAX {
            return Err(FilesError::TooDeep);
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.folder()?, name, flags, Mode::empty())?)
    }

    fn stat(&self, name: &CStr) -> Result<Stat, FilesError> {
        Ok(statat(self.folder()?, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The open folder whose entries come next. After [`Step::Folder`] it is that folder, and after any
    /// other step the one that has the entry.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] after the last step.
    pub(crate) fn folder(&self) -> Result<BorrowedFd<'_>, FilesError> {
        let folder = self.levels.last().ok_or(FilesError::NotFound)?;
        Ok(folder.fd()?)
    }

    /// The path of the present step, relative to the folder where the walk starts, which itself has an
    /// empty one.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file that the present step has come to.
    ///
    /// # Errors
    /// [`FilesError::Secret`]; [`FilesError::IsFolder`] and [`FilesError::NotAFile`] if something else is
    /// there by now; those of the disk.
    pub(crate) fn open_file(&self) -> Result<(File, Stat), FilesError> {
        let name = self.path.file_name().unwrap_or_default();
        let flags = FLAGS_TO_READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.readable(openat(self.folder()?, name, flags, Mode::empty())?.into())
    }

    /// Opens the file that the present step, a link, leads to. The link is followed from the root, and
    /// does not leave it.
    ///
    /// # Errors
    /// [`FilesError::IsFolder`] if it leads to a folder; [`FilesError::NotFound`] if it leads to nothing,
    /// or outside; otherwise as [`Walk::open_file`].
    pub(crate) fn open_link(&self) -> Result<(File, Stat), FilesError> {
        let path = self.start.join(&self.path);
        self.readable(self.root.open_to_read(&path)?)
    }

    fn readable(&self, file: File) -> Result<(File, Stat), FilesError> {
        match self.files.readable(file)? {
            Readable::File(file, there) => Ok((file, there)),
            Readable::Folder => Err(FilesError::IsFolder),
            Readable::Secret => Err(FilesError::Secret),
            Readable::Special => Err(FilesError::NotAFile),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use rustix::fs::{CWD, mkfifoat};
    use tempfile::TempDir;

    use super::*;

    fn walk(root: &TempDir, path: &str) -> Walk {
        let files = Files::open(root.path(), 0, Duration::ZERO).unwrap();
        let path = TreePath::decode(path).unwrap();
        Arc::new(files).walk(&path).unwrap()
    }

    /// The steps to the end, in words, ordered.
    fn steps(mut walk: Walk) -> Vec<String> {
        let mut steps = Vec::new();
        while let Some(step) = walk.next() {
            let kind = match step {
                Step::Folder(_) => "folder".to_owned(),
                Step::Left => "left".to_owned(),
                Step::File => "file".to_owned(),
                Step::Link => "link".to_owned(),
                Step::Special => "special".to_owned(),
                Step::Unreadable(error) => error.to_string(),
            };
            steps.push(format!("{} {kind}", walk.path().display()));
        }
        assert!(walk.next().is_none());
        steps.sort();
        steps
    }

    #[test]
    fn each_entry_comes_once_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/b/empty")).unwrap();
        fs::create_dir(at("a/.quartet-deleted-1")).unwrap();
        fs::write(at("a/b/x"), "x").unwrap();
        fs::write(at("a/.quartet-upload-1"), "").unwrap();
        symlink("../..", at("a/b/up")).unwrap();
        mkfifoat(CWD, at("a/fifo"), Mode::RWXU).unwrap();
        let want = [
            " folder",
            " left",
            "b folder",
            "b left",
            "b/empty folder",
            "b/empty left",
            "b/up link",
            "b/x file",
            "fifo special",
        ];
        assert_eq!(steps(walk(&root, "/a/")), want);
    }

    #[test]
    fn a_folder_that_becomes_a_link_is_not_entered() {
        let [root, outside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "").unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let mut walk = walk(&root, "/");
        assert!(matches!(walk.next(), Some(Step::Folder(_))));
        symlink(outside.path(), root.path().join("b")).unwrap();
        // The name was read as that of a folder.
        assert!(matches!(
            walk.step(c"b", FileType::Directory),
            Step::Unreadable(FilesError::NotAFolder | FilesError::NotFound)
        ));
    }

    #[test]
    fn the_walk_ends_at_the_deepest_level() {
        let root = tempfile::tempdir().unwrap();
        let deep: PathBuf = (0..DEPTH_MAX).map(|_| "d").collect();
        fs::create_dir_all(root.path().join(&deep)).unwrap();
        let steps = steps(walk(&root, "/"));
        let too_deep = format!("{} {}", deep.display(), FilesError::TooDeep);
        assert_eq!(steps.len(), 2 * DEPTH_MAX + 1);
        assert!(steps.contains(&too_deep), "{steps:?}");
    }

    #[test]
    fn a_link_is_opened_if_it_leads_to_a_file_inside() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(top.path().join("outside"), "secret").unwrap();
        fs::write(root.join("inside"), "inside").unwrap();
        fs::write(root.join("key"), "secret").unwrap();
        let files = Files::open(&root, 0, Duration::ZERO).unwrap();
        let files = Arc::new(files.withhold(vec![root.join("key")]));
        for (target, want) in [
            ("../inside", "a file"),
            ("../a", "IsFolder"),
            ("../key", "Secret"),
            ("../../outside", "NotFound"),
            ("nowhere", "NotFound"),
            ("link", "NotFound"),
            ("/dev/null", "NotFound"),
        ] {
            symlink(target, root.join("a/link")).unwrap();
            let mut walk = files.walk(&TreePath::decode("/a/").unwrap()).unwrap();
            while !matches!(walk.next(), Some(Step::Link)) {}
            let found = match walk.open_link() {
                Ok(_) => "a file".to_owned(),
                Err(error) => format!("{error:?}"),
            };
            assert_eq!(found, want, "{target}");
            fs::remove_file(root.join("a/link")).unwrap();
        }
    }
}
