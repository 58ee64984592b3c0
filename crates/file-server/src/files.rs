//! The tree of files on disk and its rules, with no socket in sight.
//!
//! Everything is opened relative to the root through `cap-std`, which has the kernel resolve the
//! path beneath it: a symbolic link that stays inside is followed, one that leads outside is as
//! good as missing, and there is no moment between a check and its use. Only regular files are
//! given out.
//!
//! An [`Upload`] grows in a hidden temporary file and appears under its name when it is whole and
//! on disk. Dropped before, it leaves nothing; what a killed server leaves is removed at the next
//! start.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirEntry, OpenOptions, OpenOptionsExt};
use proto::http::conditional::Version;
use rustix::fs::OFlags;
use rustix::io::Errno;
use uuid::Uuid;

use crate::path::TreePath;

/// What a folder serves in its own place.
const INDEX: &str = "index.html";

/// How many entries of a folder are listed.
pub const ENTRIES_MAX: usize = 100_000;

/// While an upload is written, the free room is looked at anew after so many bytes.
const ROOM_CHECK_BYTES: u64 = 8 << 20;

/// How the names of uploads under way start. They are not served, and no upload may be called so.
const TEMPORARY_PREFIX: &str = ".quartet-upload-";

/// Why a file is neither given nor taken. The cause, where there is one, is for the log and not
/// for the client.
#[derive(Debug)]
#[non_exhaustive]
pub enum FilesError {
    /// There is no such file, or none that may be seen.
    NotFound,
    /// The server's user may not read or write there.
    NotAllowed(io::Error),
    /// An upload is to go where a folder is.
    IsFolder,
    /// The path leads through a file.
    NotAFolder,
    /// The path, or a name in it, is longer than the system can take.
    NameTooLong,
    /// The name is one of those the server keeps to itself.
    Reserved,
    /// The server has as many files open as the system lets it.
    Busy(io::Error),
    /// The disk is full, or the user's share of it.
    NoSpace(io::Error),
    /// There would be less room left than is to be kept free.
    NoRoom,
    /// The file that is there is not the one that the request is about.
    Changed,
    /// The disk failed.
    Storage(io::Error),
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such file"),
            Self::NotAllowed(_) => f.write_str("the server has no permission for that file"),
            Self::IsFolder => f.write_str("the path of an upload names a file, not a folder"),
            Self::NotAFolder => f.write_str("the path leads through a file as if it were a folder"),
            Self::NameTooLong => f.write_str("the path, or a name in it, is too long"),
            Self::Reserved => write!(f, "names that start with {TEMPORARY_PREFIX} are reserved"),
            Self::Busy(_) => f.write_str("the server has too many files open; try again later"),
            Self::NoSpace(_) | Self::NoRoom => f.write_str("the server's disk is full"),
            Self::Changed => f.write_str("the file that is there is not the one you mean"),
            Self::Storage(_) => f.write_str("the server's disk failed"),
        }
    }
}

impl std::error::Error for FilesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotAllowed(cause)
            | Self::Busy(cause)
            | Self::NoSpace(cause)
            | Self::Storage(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<io::Error> for FilesError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            // ENXIO is what opening a socket gives, and a device without a driver that or ENODEV;
            // ELOOP is too many links.
            Some(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Self::NotFound,
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Self::NotAllowed(error),
            Some(Errno::ISDIR) => Self::IsFolder,
            Some(Errno::NOTDIR) => Self::NotAFolder,
            Some(Errno::NAMETOOLONG) => Self::NameTooLong,
            Some(Errno::MFILE | Errno::NFILE) => Self::Busy(error),
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace(error),
            // `cap-std` makes this error itself, so without a number, for a path that leads out
            // of the root. That there is something out there is not for a client to learn.
            None if error.kind() == io::ErrorKind::PermissionDenied => Self::NotFound,
            _ => Self::Storage(error),
        }
    }
}

/// The files below one root.
pub struct Files {
    root: Dir,
    keep_free_bytes: u64,
    /// Held while an upload takes its place, so that nothing comes between a look and that.
    placing: Mutex<()>,
}

/// What stands at a path.
#[derive(Debug)]
pub enum Found {
    /// A regular file.
    File {
        /// The file, open for reading.
        file: File,
        /// How long it was when it was opened.
        bytes: u64,
        /// Where it stands: the path that was asked for, or the index page of the folder there.
        path: PathBuf,
        /// Which version of it this is.
        version: Version,
    },
    /// A folder without an index page, asked for with its final slash.
    Folder,
    /// A folder, asked for without its final slash. Relative links in its page lead to the wrong
    /// place unless the client adds it.
    FolderWithoutSlash {
        /// Whether it has an index page.
        has_index: bool,
    },
}

/// What stands in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, which need not be UTF-8.
    pub name: OsString,
    /// Whether it is a folder; else it is a regular file.
    pub is_folder: bool,
    /// A file's length.
    pub bytes: u64,
    /// When it was last changed, in seconds since 1970.
    pub modified: u64,
}

impl Files {
    /// Opens the root, by a path that may lead anywhere. Uploads leave at least `keep_free_bytes`
    /// of its disk free.
    ///
    /// # Errors
    /// If it is not a folder that can be opened.
    pub fn open(root: &Path, keep_free_bytes: u64) -> io::Result<Self> {
        let root = Dir::open_ambient_dir(root, ambient_authority())?;
        Ok(Self {
            root,
            keep_free_bytes,
            placing: Mutex::new(()),
        })
    }

    /// Removes what uploads have left behind whose server was killed.
    pub fn remove_leftovers(&self) {
        let root = self.root.try_clone();
        let removed = root.and_then(|root| remove_leftovers(&root));
        match removed {
            Ok(0) => {}
            Ok(files) => log::info!("Removed {files} unfinished uploads"),
            Err(error) => log::warn!("Unfinished uploads may be left: {error}"),
        }
    }

    /// Opens the file at a path, or the index page of the folder there.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] for whatever is not a regular file, and those of the disk.
    pub fn find(&self, path: &TreePath) -> Result<Found, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::NotFound);
        }
        match self.open_to_read(path.as_path())? {
            Opened::File(..) if path.has_final_slash() => Err(FilesError::NotFound),
            Opened::File(file, there) => Ok(Found::File {
                file,
                bytes: there.len(),
                path: path.as_path().to_owned(),
                version: version(&there),
            }),
            Opened::Folder => {
                let index = path.as_path().join(INDEX);
                let opened = match self.open_to_read(&index) {
                    Err(FilesError::NotFound) => Ok(Opened::Folder),
                    opened => opened,
                };
                match opened? {
                    Opened::File(file, there) if path.has_final_slash() => Ok(Found::File {
                        file,
                        bytes: there.len(),
                        path: index,
                        version: version(&there),
                    }),
                    Opened::Folder if path.has_final_slash() => Ok(Found::Folder),
                    other => Ok(Found::FolderWithoutSlash {
                        has_index: matches!(other, Opened::File(..)),
                    }),
                }
            }
        }
    }

    /// What stands in a folder, in no order: its regular files and folders, but not what cannot be
    /// asked for. Of [`ENTRIES_MAX`] and more, some are left out.
    ///
    /// # Errors
    /// If there is no such folder, and those of the disk.
    pub fn list(&self, path: &TreePath) -> Result<Vec<Entry>, FilesError> {
        let folder = self.root.open_dir(or_dot(path.as_path()))?;
        let mut entries = Vec::new();
        for entry in folder.entries()? {
            let name = entry?.file_name();
            // Followed from the root on, if it is a link; one that leads outside is not there.
            let Ok(there) = self.root.metadata(path.as_path().join(&name)) else {
                continue;
            };
            let is_shown = there.is_file() || there.is_dir();
            if is_shown && !is_reserved(Path::new(&name)) {
                let modified = there
                    .modified()
                    .ok()
                    .map(cap_std::time::SystemTime::into_std);
                entries.push(Entry {
                    name,
                    is_folder: there.is_dir(),
                    bytes: there.len(),
                    modified: modified.map_or(0, seconds),
                });
            }
            if entries.len() == ENTRIES_MAX {
                break;
            }
        }
        Ok(entries)
    }

    /// Which version of a file is at a path; `None` if there is no file.
    ///
    /// # Errors
    /// If no file of a client can stand there, and those of the disk.
    pub fn version(&self, path: &TreePath) -> Result<Option<Version>, FilesError> {
        use cap_std::fs::MetadataExt;
        if is_reserved(path.as_path()) {
            return Err(FilesError::Reserved);
        }
        // Not by opening it: what may not be read may still be replaced.
        match self.root.metadata(or_dot(path.as_path())) {
            Ok(there) => Ok(Some(version_of(
                there.ino(),
                there.len(),
                there.mtime(),
                there.mtime_nsec(),
            ))),
            Err(error) => match FilesError::from(error) {
                FilesError::NotFound | FilesError::NotAFolder => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Whether so many bytes may still be written.
    fn check_room(&self, bytes: u64) -> Result<(), FilesError> {
        let disk = rustix::fs::fstatvfs(&self.root).map_err(io::Error::from)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free_bytes < self.keep_free_bytes.saturating_add(bytes) {
            true => Err(FilesError::NoRoom),
            false => Ok(()),
        }
    }

    fn open_to_read(&self, path: &Path) -> Result<Opened, FilesError> {
        // Without O_NONBLOCK, opening a fifo waits for its writer, and with it the connection.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.bits() as i32);
        let opened = self.root.open_with(or_dot(path), &options);
        let file = opened.map_err(|error| match FilesError::from(error) {
            FilesError::NotAFolder => FilesError::NotFound,
            other => other,
        })?;
        // Of what was opened, not of the path: nobody can put something else there in between.
        let file = file.into_std();
        let there = file.metadata()?;
        if there.is_file() {
            Ok(Opened::File(file, there))
        } else if there.is_dir() {
            Ok(Opened::Folder)
        } else {
            Err(FilesError::NotFound)
        }
    }

    /// Begins an upload that is to stand at `path`, in place of the file that may be there.
    /// `bytes` is how long it will be, as far as that is known.
    ///
    /// # Errors
    /// If no file can stand there, there is no room, and those of the disk.
    pub fn upload(&self, path: &TreePath, bytes: u64) -> Result<Upload<'_>, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::Reserved);
        }
        let (Some(parent), Some(name), false) = (
            path.as_path().parent(),
            path.as_path().file_name(),
            path.has_final_slash(),
        ) else {
            return Err(FilesError::IsFolder);
        };
        // Whatever else stands there is replaced, or found to be in the way when it is opened.
        let there = self.root.metadata(path.as_path());
        if there.is_ok_and(|there| there.is_dir()) {
            return Err(FilesError::IsFolder);
        }
        self.check_room(bytes)?;
        let (folder, missing) = self.deepest_folder(parent)?;
        let temporary = format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = folder.open_with(&temporary, &options)?.into_std();
        // Another server that starts on the same root then knows that it is not left over. Where
        // files cannot be locked, no other server should be started.
        let _ = file.try_lock();
        Ok(Upload {
            files: self,
            path: path.clone(),
            file,
            bytes: 0,
            room_checked_at: 0,
            temporary,
            folder,
            missing,
            name: name.to_owned(),
            made: Vec::new(),
            is_placed: false,
        })
    }

    /// The deepest folder on the way to `path` that exists, and the names of those that do not.
    fn deepest_folder(&self, path: &Path) -> io::Result<(Dir, Vec<OsString>)> {
        let mut missing = Vec::new();
        for existing in path.ancestors() {
            match self.root.open_dir(or_dot(existing)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.extend(existing.file_name().map(OsStr::to_owned));
                }
                opened => {
                    missing.reverse();
                    return Ok((opened?, missing));
                }
            }
        }
        // The root itself was removed.
        Err(io::ErrorKind::NotFound.into())
    }
}

enum Opened {
    /// A regular file and what is known of it.
    File(File, Metadata),
    Folder,
}

fn version(there: &Metadata) -> Version {
    version_of(there.ino(), there.len(), there.mtime(), there.mtime_nsec())
}

/// A file that is replaced or written to gets another version: its inode, its length, or the time
/// of its last change is another.
fn version_of(inode: u64, bytes: u64, modified: i64, nanos: i64) -> Version {
    Version {
        etag: format!("\"{inode:x}-{bytes:x}-{modified:x}.{nanos:x}\""),
        modified: u64::try_from(modified).unwrap_or(0),
    }
}

fn seconds(moment: std::time::SystemTime) -> u64 {
    let since_1970 = moment.duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |since| since.as_secs())
}

/// Removes the temporary files that nobody writes to any more, in a folder and all below it, but
/// not behind links. Returns how many there were.
fn remove_leftovers(top: &Dir) -> io::Result<usize> {
    let mut removed = 0;
    // A stack and not a recursion, for a tree can be deep.
    let mut folders = vec![top.try_clone()?];
    while let Some(folder) = folders.pop() {
        // What cannot be read is not ours.
        for entry in folder.entries().into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder {
                folders.extend(entry.open_dir());
            } else if is_left_over(&entry) {
                entry.remove_file()?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn is_left_over(entry: &DirEntry) -> bool {
    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
    if !is_file || !is_reserved(Path::new(&entry.file_name())) {
        return false;
    }
    let file = entry.open().map(cap_std::fs::File::into_std);
    file.is_ok_and(|file| file.try_lock().is_ok())
}

fn is_reserved(path: &Path) -> bool {
    let prefix = TEMPORARY_PREFIX.as_bytes();
    path.iter().any(|name| name.as_bytes().starts_with(prefix))
}

/// The root's own path is empty, which no system call takes.
fn or_dot(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

/// A file that is arriving. It stands in a hidden temporary file in the deepest folder on its way
/// that exists, so that the folders still missing are made only for a file that is whole. Dropping
/// it before [`Upload::finish`] has put the file in its place removes all of this again.
#[must_use = "an upload that is not finished is removed"]
pub struct Upload<'f> {
    files: &'f Files,
    path: TreePath,
    file: File,
    bytes: u64,
    room_checked_at: u64,
    temporary: String,
    folder: Dir,
    missing: Vec<OsString>,
    name: OsString,
    /// The folders that were made, by their paths in `folder`: open, they would take a descriptor
    /// each, and a path has up to 2000 of them.
    made: Vec<PathBuf>,
    is_placed: bool,
}

impl Upload<'_> {
    /// Appends to the file.
    ///
    /// # Errors
    /// [`FilesError::NoRoom`], and those of the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        if self.bytes - self.room_checked_at >= ROOM_CHECK_BYTES {
            self.files.check_room(0)?;
            self.room_checked_at = self.bytes;
        }
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes have been written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts the file in its place, if the version that is there then is wanted to be replaced. When
    /// this returns, it is on disk, under its name, and so are the folders it is in. Returns whether
    /// there was none before.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if it is not wanted to be, [`FilesError::IsFolder`] if a folder has
    /// come to stand there, and those of the disk.
    pub fn finish(
        mut self,
        is_wanted: impl FnOnce(Option<&Version>) -> bool,
    ) -> Result<bool, FilesError> {
        self.file.sync_data()?;
        let placing = self.files.placing.lock();
        let placing = placing.unwrap_or_else(PoisonError::into_inner);
        let current = self.files.version(&self.path)?;
        if !is_wanted(current.as_ref()) {
            return Err(FilesError::Changed);
        }
        let target = self.make_missing()?;
        self.folder.rename(&self.temporary, &target, &self.name)?;
        self.is_placed = true;
        drop(placing);
        sync(&target)?;
        Ok(current.is_none())
    }

    fn make_missing(&mut self) -> io::Result<Dir> {
        let mut folder = self.folder.try_clone()?;
        let mut path = PathBuf::new();
        for name in std::mem::take(&mut self.missing) {
            path.push(&name);
            match folder.create_dir(&name) {
                Ok(()) => self.made.push(path.clone()),
                // Another upload was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            sync(&folder)?;
            folder = folder.open_dir(&name)?;
        }
        Ok(folder)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.is_placed {
            return;
        }
        if let Err(error) = self.folder.remove_file(&self.temporary) {
            log::error!("{} stays behind: {error}", self.temporary);
        }
        for path in self.made.iter().rev() {
            // It stays if another upload has put something in it.
            let _ = self.folder.remove_dir(path);
        }
    }
}

/// Writes a folder's entries to disk. A [`Dir`] is a path to it only, which cannot be synced.
fn sync(folder: &Dir) -> io::Result<()> {
    folder.open(".")?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    /// `outside` beside the root is what must never be reached.
    struct Tree {
        top: TempDir,
        files: Files,
    }

    fn tree() -> Tree {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        for folder in ["outside", "root/site", "root/empty", "root/odd/index.html"] {
            fs::create_dir_all(top.path().join(folder)).unwrap();
        }
        for file in [
            "outside/secret",
            "root/a.txt",
            "root/site/index.html",
            "root/site/ä b",
            "root/site/.quartet-upload-1",
        ] {
            fs::write(top.path().join(file), file).unwrap();
        }
        let files = Files::open(&root, 0).unwrap();
        Tree { top, files }
    }

    impl Tree {
        fn root(&self) -> PathBuf {
            self.top.path().join("root")
        }

        fn link(&self, target: &str, link: &str) {
            symlink(target, self.root().join(link)).unwrap();
        }

        /// What a GET of the path would give.
        fn get(&self, path: &str) -> Result<String, FilesError> {
            match self.files.find(&TreePath::decode(path).unwrap())? {
                Found::FolderWithoutSlash { .. } => Ok("to the slash".to_owned()),
                Found::Folder => Ok("a folder".to_owned()),
                Found::File { file, bytes, .. } => {
                    let mut text = String::new();
                    (&file).take(bytes).read_to_string(&mut text).unwrap();
                    Ok(text)
                }
            }
        }

        #[track_caller]
        fn check(&self, path: &str, want: &str) {
            let got = self.get(path).unwrap_or_else(|error| format!("{error:?}"));
            assert_eq!(got, want, "{path}");
        }

        fn begin(&self, path: &str) -> Result<Upload<'_>, FilesError> {
            let mut upload = self.files.upload(&TreePath::decode(path).unwrap(), 0)?;
            upload.write(b"new ")?;
            upload.write(path.as_bytes())?;
            Ok(upload)
        }

        #[track_caller]
        fn check_upload(&self, path: &str, want: &str) {
            let done = self.begin(path).and_then(|upload| upload.finish(|_| true));
            let got = done.map_or_else(|error| format!("{error:?}"), |_| "saved".to_owned());
            assert_eq!(got, want, "{path}");
        }

        /// Every path below the top, sorted.
        fn listing(&self) -> Vec<PathBuf> {
            let mut all = Vec::new();
            let mut folders = vec![self.top.path().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let entry = entry.unwrap();
                    if entry.file_type().unwrap().is_dir() {
                        folders.push(entry.path());
                    }
                    all.push(entry.path());
                }
            }
            all.sort();
            all
        }
    }

    #[test]
    fn what_a_killed_server_left_is_removed_and_nothing_else() {
        let tree = tree();
        let upload = tree.begin("/site/under way").unwrap();
        let before = tree.listing().len();
        tree.files.remove_leftovers();
        assert_eq!(tree.listing().len(), before - 1);
        assert!(!tree.root().join("site/.quartet-upload-1").exists());
        upload.finish(|_| true).unwrap();
        tree.check("/site/under%20way", "new /site/under way");
    }

    #[test]
    fn a_folder_lists_what_can_be_asked_for() {
        let tree = tree();
        symlink("../outside/secret", tree.root().join("site/out")).unwrap();
        symlink("index.html", tree.root().join("site/in")).unwrap();
        symlink("../a.txt", tree.root().join("site/up")).unwrap();
        UnixListener::bind(tree.root().join("site/socket")).unwrap();
        fs::create_dir(tree.root().join("site/folder")).unwrap();
        let path = TreePath::decode("/site/").unwrap();
        let mut entries = tree.files.list(&path).unwrap();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<_> = entries
            .iter()
            .map(|entry| entry.name.to_str().unwrap())
            .collect();
        assert_eq!(names, ["folder", "in", "index.html", "up", "ä b"]);
        assert!(entries[0].is_folder && !entries[1].is_folder);
        assert_eq!(entries[1].bytes, entries[2].bytes);
    }

    #[test]
    fn files_are_found_by_their_path() {
        let tree = tree();
        tree.check("/a.txt", "root/a.txt");
        tree.check("//a.txt", "root/a.txt");
        tree.check("/site/%c3%a4%20b", "root/site/ä b");
        tree.check("/b.txt", "NotFound");
        tree.check("/a.txt/", "NotFound");
        tree.check("/a.txt/b", "NotFound");
        tree.check("/site/b", "NotFound");
    }

    #[test]
    fn a_folder_serves_its_index_behind_a_slash() {
        let tree = tree();
        tree.check("/site/", "root/site/index.html");
        tree.check("/site", "to the slash");
        tree.check("/empty/", "a folder");
        tree.check("/empty", "to the slash");
        tree.check("/odd/", "a folder");
        tree.check("/", "a folder");
        fs::write(tree.root().join("index.html"), "home").unwrap();
        tree.check("/", "home");
    }

    #[test]
    fn links_are_followed_inside_and_nowhere_else() {
        let tree = tree();
        tree.link("a.txt", "inside");
        tree.link("../a.txt", "site/up");
        tree.link("../root/a.txt", "out-and-in");
        tree.link("../outside/secret", "outside");
        tree.link("/etc/passwd", "passwd");
        tree.link("../outside", "folder");
        tree.link("/", "everything");
        tree.link("loop", "loop");
        tree.link("/proc/self/root", "magic");
        tree.link("outside", "link-to-link");
        tree.link("gone", "dangling");
        tree.check("/inside", "root/a.txt");
        tree.check("/site/up", "root/a.txt");
        for out in [
            "/out-and-in",
            "/outside",
            "/passwd",
            "/folder/secret",
            "/folder/",
            "/everything/etc/passwd",
            "/loop",
            "/loop/x",
            "/magic/etc/passwd",
            "/link-to-link",
            "/dangling",
        ] {
            tree.check(out, "NotFound");
        }
        for out in [
            "/folder/new",
            "/folder/new/new",
            "/everything/tmp/new",
            "/loop/new",
        ] {
            tree.check_upload(out, "NotFound");
        }
        tree.check_upload("/dangling/new", "NotFound");
        assert_eq!(
            fs::read_dir(tree.top.path().join("outside"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn only_regular_files_are_given() {
        let tree = tree();
        let fifo = tree.root().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let _socket = UnixListener::bind(tree.root().join("socket")).unwrap();
        tree.check("/fifo", "NotFound");
        tree.check("/socket", "NotFound");
    }

    #[test]
    fn names_of_uploads_under_way_are_the_servers_own() {
        let tree = tree();
        tree.check("/site/.quartet-upload-1", "NotFound");
        tree.check("/site/%2equartet-upload-1", "NotFound");
        tree.check_upload("/.quartet-upload-2", "Reserved");
        tree.check_upload("/site/.quartet-upload-/x", "Reserved");
        // Nor does a condition tell whether there is one.
        for path in ["/site/.quartet-upload-1", "/site/.quartet-upload-2"] {
            let version = tree.files.version(&TreePath::decode(path).unwrap());
            assert!(matches!(version, Err(FilesError::Reserved)), "{path}");
        }
    }

    #[test]
    fn an_upload_appears_when_it_is_finished() {
        let tree = tree();
        let upload = tree.begin("/a.txt").unwrap();
        assert_eq!(upload.bytes(), 10);
        tree.check("/a.txt", "root/a.txt");
        upload.finish(|_| true).unwrap();
        tree.check("/a.txt", "new /a.txt");
        tree.check_upload("/empty/%c3%a4", "saved");
        tree.check("/empty/ä", "new /empty/%c3%a4");
        tree.check_upload("/x/y/z", "saved");
        tree.check("/x/y/z", "new /x/y/z");
        tree.check_upload("/x/w", "saved");
        let left = tree.listing();
        let left = left.iter().filter(|path| is_reserved(path));
        assert_eq!(left.count(), 1, "the one that was there before");
    }

    #[test]
    fn an_upload_replaces_what_is_not_a_folder() {
        let tree = tree();
        tree.link("../outside/secret", "secret");
        tree.link("a.txt", "inside");
        let fifo = tree.root().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        for path in ["/secret", "/inside", "/fifo"] {
            tree.check_upload(path, "saved");
            tree.check(path, &format!("new {path}"));
        }
        let secret = fs::read_to_string(tree.top.path().join("outside/secret")).unwrap();
        assert_eq!(secret, "outside/secret");
        tree.check("/a.txt", "root/a.txt");
    }

    #[test]
    fn an_upload_needs_a_place_for_a_file() {
        let tree = tree();
        tree.link("site", "linked");
        let before = tree.listing();
        for folder in ["/", "/site", "/site/", "/new/", "/empty", "/linked"] {
            tree.check_upload(folder, "IsFolder");
        }
        tree.check_upload("/a.txt/b", "NotAFolder");
        tree.check_upload("/a.txt/b/c", "NotAFolder");
        let deep = "/d".repeat(3000);
        tree.check_upload(&deep, "NameTooLong");
        tree.check(&deep, "NameTooLong");
        assert_eq!(tree.listing(), before);
    }

    #[test]
    fn a_dropped_upload_leaves_nothing() {
        let tree = tree();
        let before = tree.listing();
        for path in ["/a.txt", "/new", "/x/y/z", "/site/x/y"] {
            let upload = tree.begin(path).unwrap();
            assert_ne!(tree.listing(), before);
            drop(upload);
            assert_eq!(tree.listing(), before, "{path}");
        }
        tree.check("/a.txt", "root/a.txt");
    }

    #[test]
    fn an_upload_that_fails_at_the_end_leaves_nothing() {
        let tree = tree();
        let upload = tree.begin("/site/x").unwrap();
        fs::create_dir(tree.root().join("site/x")).unwrap();
        let before_it: Vec<_> = tree.listing().into_iter().filter(|p| !is_ours(p)).collect();
        assert!(matches!(upload.finish(|_| true), Err(FilesError::IsFolder)));
        let left: Vec<_> = tree.listing().into_iter().filter(|p| !is_ours(p)).collect();
        assert_eq!(left, before_it);

        // A file has come to stand where the second of two folders was to be made.
        let upload = tree.begin("/new/file/x").unwrap();
        fs::create_dir(tree.root().join("new")).unwrap();
        fs::write(tree.root().join("new/file"), "").unwrap();
        assert!(matches!(
            upload.finish(|_| true),
            Err(FilesError::NotAFolder)
        ));
        let names = fs::read_dir(tree.root().join("new")).unwrap();
        assert_eq!(names.count(), 1, "what was there stays");
    }

    fn is_ours(path: &Path) -> bool {
        is_reserved(path) && !path.ends_with(".quartet-upload-1")
    }

    #[test]
    fn uploads_at_once_share_the_folders_they_make() {
        let tree = tree();
        let first = tree.begin("/x/y/1").unwrap();
        let second = tree.begin("/x/y/2").unwrap();
        let third = tree.begin("/x/y/3").unwrap();
        first.finish(|_| true).unwrap();
        drop(third);
        second.finish(|_| true).unwrap();
        tree.check("/x/y/1", "new /x/y/1");
        tree.check("/x/y/2", "new /x/y/2");
    }

    #[test]
    fn a_folder_swapped_for_a_link_leads_nowhere() {
        let tree = tree();
        let upload = tree.begin("/site/file").unwrap();
        fs::rename(tree.root().join("site"), tree.root().join("moved")).unwrap();
        tree.link("../outside", "site");
        upload.finish(|_| true).unwrap();
        assert!(!tree.top.path().join("outside/file").exists());
        tree.check("/moved/file", "new /site/file");

        let upload = tree.begin("/late/file").unwrap();
        tree.link("../outside", "late");
        assert!(matches!(upload.finish(|_| true), Err(FilesError::NotFound)));
        assert!(!tree.top.path().join("outside/file").exists());
    }

    #[test]
    fn a_root_is_a_folder() {
        let tree = tree();
        assert!(Files::open(&tree.root().join("a.txt"), 0).is_err());
        assert!(Files::open(&tree.root().join("gone"), 0).is_err());
    }

    #[test]
    fn errors_of_the_disk_keep_their_meaning() {
        let from = |errno: Errno| FilesError::from(io::Error::from(errno));
        assert!(matches!(from(Errno::NOSPC), FilesError::NoSpace(_)));
        assert!(matches!(from(Errno::DQUOT), FilesError::NoSpace(_)));
        assert!(matches!(from(Errno::ACCESS), FilesError::NotAllowed(_)));
        assert!(matches!(from(Errno::ROFS), FilesError::NotAllowed(_)));
        assert!(matches!(from(Errno::MFILE), FilesError::Busy(_)));
        assert!(matches!(from(Errno::IO), FilesError::Storage(_)));
        assert!(matches!(from(Errno::NODEV), FilesError::NotFound));
    }
}
