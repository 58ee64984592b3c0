//! The tree of files on disk and its rules, with no socket in sight.
//!
//! Everything is opened beneath the `root`: a symbolic link that stays inside is followed, one that
//! leads outside is as good as missing, and there is no moment between a check and its use. Only
//! regular files are given out.
//!
//! What stands in a folder is its [`Entries`].
//!
//! What comes in is an [`Upload`], which appears under its name when it is whole and on disk:
//! `place` is where, and `placement` how. What is left of one that was broken off and can be continued
//! is in `unfinished`; `sweep` finds what nobody continues. Several servers may serve one root.

mod claims;
mod disk;
mod entries;
mod hashers;
mod identity;
mod owned;
mod place;
mod placement;
mod record;
mod root;
mod sweep;
mod unfinished;
mod upload;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_std::fs::{OpenOptions, OpenOptionsExt};
use proto::http::conditional::Version;
use rustix::fs::OFlags;
use rustix::io::Errno;

pub use entries::{Column, ENTRIES_MAX, Entries, Entry, Order};
pub(crate) use identity::Identity;
pub use unfinished::{Begun, Unfinished};
pub use upload::{Mark, Upload};

use claims::Claims;
use disk::Disk;
use entries::Lists;
use hashers::Hashers;
use root::{FileId, Root, RootPath};
use sweep::UnfinishedPaths;
use unfinished::Turns;

use crate::path::TreePath;

/// What a folder serves in its own place.
const INDEX: &str = "index.html";

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
    /// The file system refuses the name: not every one takes all that may stand in a path.
    NameRefused(io::Error),
    /// The file is larger than the file system, or the server's limit (`ulimit -f`), lets one be.
    TooLarge(io::Error),
    /// The name is one of those the server keeps to itself.
    Reserved,
    /// What stands where an upload is to go is no regular file of the root, and no link to one.
    NotAFile,
    /// What stands where an upload is to go is protected against writing.
    WriteProtected,
    /// An upload would replace a file, and none is to be replaced.
    Exists,
    /// The folder that is served is not there.
    RootGone,
    /// What the path of an upload leads to was moved or replaced while it came.
    Moved,
    /// The server has as many files open as the system lets it.
    Busy(io::Error),
    /// Another request is at the same upload and does not end, or another server or program has
    /// locked the file that is to be replaced.
    InUse,
    /// As many folders are being listed as may be, and none of that ends.
    TooManyLists,
    /// The disk is full, or the user's share of it.
    NoSpace(io::Error),
    /// There would be less room left than is to be kept free.
    NoRoom,
    /// The file that is there is not the one that the request is about.
    Changed,
    /// The disk failed.
    Storage(io::Error),
    /// A sync failed: what was written may be on the disk or not.
    Unsynced(io::Error),
}

impl FilesError {
    /// Whether the same may succeed later, without another request or another file in its place.
    fn is_transient(&self) -> bool {
        match self {
            Self::NotAllowed(_)
            | Self::WriteProtected
            | Self::RootGone
            | Self::Busy(_)
            | Self::InUse
            | Self::TooManyLists
            | Self::NoSpace(_)
            | Self::NoRoom
            | Self::Storage(_) => true,
            Self::NotFound
            | Self::IsFolder
            | Self::NotAFolder
            | Self::NameTooLong
            | Self::NameRefused(_)
            | Self::TooLarge(_)
            | Self::Reserved
            | Self::NotAFile
            | Self::Exists
            | Self::Moved
            | Self::Changed
            | Self::Unsynced(_) => false,
        }
    }
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such file"),
            Self::NotAllowed(_) => f.write_str("the server has no permission for that file"),
            Self::IsFolder => f.write_str("the path of an upload names a file, not a folder"),
            Self::NotAFolder => f.write_str("the path leads through a file as if it were a folder"),
            Self::NameTooLong => f.write_str("the path, or a name in it, is too long"),
            Self::NameRefused(_) => f.write_str("the server's disk takes no such name"),
            Self::TooLarge(_) => f.write_str("the server's disk takes no file of this size"),
            Self::Reserved => write!(f, "names that start with {TEMPORARY_PREFIX} are reserved"),
            Self::NotAFile => f.write_str("what stands there is not a regular file"),
            Self::WriteProtected => f.write_str("the file that stands there is write-protected"),
            Self::Exists => f.write_str("there is such a file, and this server overwrites none"),
            Self::RootGone => f.write_str("the folder that is served is gone; try again later"),
            Self::Moved => f.write_str("the folder was moved while the file came; send it again"),
            Self::Busy(_) => f.write_str("the server has too many files open; try again later"),
            Self::InUse => f.write_str("another request is still at this file; try again later"),
            Self::TooManyLists => f.write_str("too many folders are being listed; try again later"),
            Self::NoSpace(_) | Self::NoRoom => f.write_str("the server's disk is full"),
            Self::Changed => {
                f.write_str("what is there is not what the request expects to be there")
            }
            Self::Storage(_) => f.write_str("the server's disk failed"),
            Self::Unsynced(_) => {
                f.write_str("the upload is not known to be stored: the server's disk failed")
            }
        }
    }
}

impl std::error::Error for FilesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotAllowed(cause)
            | Self::NameRefused(cause)
            | Self::TooLarge(cause)
            | Self::Busy(cause)
            | Self::NoSpace(cause)
            | Self::Storage(cause)
            | Self::Unsynced(cause) => Some(cause),
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
            // A file that something else is mounted on (as in a container) is busy.
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY) => {
                Self::NotAllowed(error)
            }
            Some(Errno::ISDIR) => Self::IsFolder,
            Some(Errno::NOTDIR) => Self::NotAFolder,
            Some(Errno::NAMETOOLONG) => Self::NameTooLong,
            // All else that is asked of the disk is valid.
            Some(Errno::INVAL | Errno::ILSEQ) => Self::NameRefused(error),
            Some(Errno::FBIG) => Self::TooLarge(error),
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
    root: RootPath,
    /// Uploads leave at least so much of the disk free, in bytes.
    keep_free_bytes: u64,
    /// An upload that was broken off can be gone on with for so long.
    resume_keep: Duration,
    /// Whether uploads replace no file.
    create_only: bool,
    /// The mode of a new file.
    mode_new: u32,
    claims: Claims,
    turns: Turns,
    lists: Arc<Lists>,
    hashers: Hashers,
    disk: Disk,
    unfinished: UnfinishedPaths,
    swept: Mutex<Option<FileId>>,
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

impl Files {
    /// Opens the root, by a path that may lead anywhere. Uploads leave at least `keep_free_bytes`
    /// of its disk free, and one that was broken off can be gone on with for `resume_keep`.
    ///
    /// # Errors
    /// If it is not a folder that can be opened.
    pub fn open(root: &Path, keep_free_bytes: u64, resume_keep: Duration) -> io::Result<Self> {
        Ok(Self {
            root: RootPath::open(root)?,
            keep_free_bytes,
            resume_keep,
            create_only: false,
            mode_new: owned::mode_new(),
            claims: Claims::default(),
            turns: Turns::default(),
            lists: Arc::default(),
            hashers: Hashers::default(),
            disk: Disk::default(),
            unfinished: UnfinishedPaths::default(),
            swept: Mutex::default(),
        })
    }

    /// Has uploads replace no file, if that is so.
    #[must_use]
    pub fn create_only(mut self, create_only: bool) -> Self {
        self.create_only = create_only;
        self
    }

    /// The folder that is served now.
    fn root(&self) -> Result<Arc<Root>, FilesError> {
        self.root.current()
    }

    /// The path of a file below the root, for what needs no resolution beneath it.
    pub(crate) fn full_path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Has `stop` called at the first sync that fails. All that come after it fail too.
    pub fn when_a_sync_fails(&self, stop: impl Fn() + Send + Sync + 'static) {
        self.disk.when_it_fails(stop);
    }

    /// Why a sync failed, if one did.
    pub fn failure(&self) -> Option<io::Error> {
        self.disk.failure()
    }

    /// Opens the file at a path, or the index page of the folder there.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] for whatever is not a regular file, and those of the disk.
    pub fn find(&self, path: &TreePath) -> Result<Found, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::NotFound);
        }
        let root = self.root()?;
        match open_to_read(&root, path.as_path())? {
            Opened::File(..) if path.has_final_slash() => Err(FilesError::NotFound),
            Opened::File(file, there) => Ok(Found::File {
                file,
                bytes: there.len(),
                path: path.as_path().to_owned(),
                version: version(&there),
            }),
            Opened::Folder => {
                let index = path.as_path().join(INDEX);
                let opened = match open_to_read(&root, &index) {
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

    /// Which version of a file is at a path; `None` if there is no file.
    ///
    /// # Errors
    /// If no file of a client can stand there, and those of the disk.
    pub fn version(&self, path: &TreePath) -> Result<Option<Version>, FilesError> {
        if is_reserved(path.as_path()) {
            return Err(FilesError::Reserved);
        }
        // Not by opening it: what may not be read may still be replaced.
        match self.root()?.metadata(path.as_path()) {
            Ok(there) => Ok(Some(place::version(&there))),
            Err(error) => match FilesError::from(error) {
                FilesError::NotFound | FilesError::NotAFolder => Ok(None),
                error => Err(error),
            },
        }
    }
}

fn open_to_read(root: &Root, path: &Path) -> Result<Opened, FilesError> {
    // Without O_NONBLOCK, opening a fifo waits for its writer, and with it the connection.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits() as i32);
    let opened = root.open_with(path, &options);
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

enum Opened {
    /// A regular file and what is known of it.
    File(File, Metadata),
    Folder,
}

fn version(there: &Metadata) -> Version {
    version_of(there.ino(), there.len(), there.mtime(), there.mtime_nsec())
}

/// A file that is replaced or written to gets another version: its inode, its length, or the time
/// of its last change is another. A file from the future was changed just now (RFC 9110 section
/// 8.8.2.1).
fn version_of(inode: u64, bytes: u64, modified: i64, nanos: i64) -> Version {
    let now = seconds(std::time::SystemTime::now());
    Version {
        etag: format!("\"{inode:x}-{bytes:x}-{modified:x}.{nanos:x}\""),
        modified: u64::try_from(modified).unwrap_or(0).min(now),
    }
}

pub(crate) fn seconds(moment: std::time::SystemTime) -> u64 {
    let since_1970 = moment.duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |since| since.as_secs())
}

fn is_reserved(path: &Path) -> bool {
    let prefix = TEMPORARY_PREFIX.as_bytes();
    path.iter().any(|name| name.as_bytes().starts_with(prefix))
}
