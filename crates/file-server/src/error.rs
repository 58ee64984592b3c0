//! What can go wrong: [`Error`] ends a start or the server, [`FilesError`] ends a request for a file.
//!
//! A [`FilesError`]'s text is for the client, its source for the log alone: what the disk said is not
//! for everyone.

use std::io;
use std::path::PathBuf;

use cli::{Exit, Failure};
use daemon::StartError;
use rustix::io::Errno;

/// Why the server cannot start, or cannot continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot listen.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The folder to serve cannot be opened.
    #[error("cannot serve the folder {}", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// Standard output cannot take the access log.
    #[error("cannot write the access log")]
    Output(#[source] cli::ClientError),
    /// A sync failed, so it is not known what is on the disk.
    #[error("stopping: the disk failed")]
    Disk(#[source] io::Error),
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(error) if error.is_of_network() => Exit::Network,
            Self::Start(_) | Self::Root { .. } | Self::Output(_) | Self::Disk(_) => Exit::Local,
        }
    }
}

/// Why a request target, or the name of a file in a form, is no path below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A `%` is not followed by two hexadecimal digits.
    #[error("a '%' in the path has no two hexadecimal digits behind it")]
    BadEncoding,
    /// A name holds a slash.
    #[error("a name in the path holds an encoded slash")]
    EncodedSlash,
    /// A name holds a NUL.
    #[error("a name in the path holds a NUL")]
    Nul,
    /// A name is `.` or `..`.
    #[error("the path holds a '.' or '..' segment")]
    DotSegment,
    /// A name is longer than any file's.
    #[error("a name in the path is over 255 bytes")]
    NameTooLong,
    /// A file has no name.
    #[error("a file has no name")]
    NoName,
}

/// Why a file cannot be downloaded, uploaded, renamed or deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The request names no path below the root.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is no such file, or none that clients may see.
    #[error("there is no such file")]
    NotFound,
    /// The server's user may not read or write there.
    #[error("the server has no permission for that file")]
    NotAllowed(#[source] io::Error),
    /// The path of an upload names a folder.
    #[error("the path of an upload names a file, not a folder")]
    IsFolder,
    /// The path leads through a file.
    #[error("the path leads through a file as if it were a folder")]
    NotAFolder,
    /// The path, or a name in it, is longer than the system allows.
    #[error("the path, or a name in it, is too long")]
    NameTooLong,
    /// The file system refuses the name.
    #[error("the server's disk refuses this name")]
    NameRefused(#[source] io::Error),
    /// The file exceeds the limit of the file system or of the server's process (`ulimit -f`).
    #[error("the server's disk refuses a file of this size")]
    TooLarge(#[source] io::Error),
    /// The file is a secret of the server. A client does not learn that it is there.
    #[error("there is no such file")]
    Secret,
    /// A zip would have more names than the server keeps in memory for it.
    #[error("the names are over 32 MiB, too much for a zip; a tar has no such limit")]
    TooManyNames,
    /// A folder is in too many others below the one that was asked for.
    #[error("a folder is over 100 folders deep")]
    TooDeep,
    /// The server keeps the name for what is temporary.
    #[error("names that start with .quartet- are reserved")]
    Reserved,
    /// The path of an upload names something that is neither a regular file nor a link to one.
    #[error("the path names something that is not a regular file")]
    NotAFile,
    /// The file that an upload would replace is write-protected.
    #[error("the file there is write-protected")]
    WriteProtected,
    /// An upload would replace a file, and the server replaces none.
    #[error("the file exists, and this server overwrites none")]
    Exists,
    /// The root itself would be deleted, renamed or replaced.
    #[error("the folder that is served stays where it is")]
    IsRoot,
    /// One of the server's own secrets would be deleted, renamed or replaced.
    #[error("that is a file of the server itself, which stays where it is")]
    IsSecret,
    /// Something would be deleted or replaced, and this server does neither.
    #[error("this server deletes and overwrites nothing (--create-only)")]
    Permanent,
    /// A full folder would be deleted, and the request does not say that it may be.
    #[error(
        "the folder is not empty, or an upload to it is unfinished; 'Depth: infinity' deletes it with \
         all that is in it"
    )]
    NotEmpty,
    /// A folder is deleted or replaced, and something in it cannot be removed.
    #[error(
        "it is done, but not all that was there can be removed: the rest stays on the server's disk \
         under a hidden name"
    )]
    LeftBehind,
    /// Something would be renamed to where something stands.
    #[error("something is there already")]
    Occupied,
    /// A folder would be replaced, and the request does not say that it may be.
    #[error(
        "a folder is there, or a file where a folder is to be; say a path in that folder, or \
         'Overwrite: T' to replace it"
    )]
    InTheWay,
    /// The folder in which something would stand does not exist.
    #[error("the folder that it would stand in does not exist")]
    NoParent,
    /// Something would be renamed to its own path, or to one that the disk takes for it (`a` and `A`).
    #[error("the destination is the same path for the server's disk")]
    SamePlace,
    /// A folder would be renamed into itself, or replaced by what is in it.
    #[error("one of the two paths is inside the other")]
    IntoItself,
    /// Something would be renamed to another disk, which takes more than a rename.
    #[error(
        "the destination is on another disk of the server; download the file and upload it there"
    )]
    OtherDisk,
    /// The folder to serve does not exist now.
    #[error("the folder that is served is gone; try again later")]
    RootGone,
    /// The destination was moved or replaced during the upload.
    #[error("the folder was moved while the file came; send it again")]
    Moved,
    /// The process has as many files open as the system allows.
    #[error("the server has too many files open; try again later")]
    Busy(#[source] io::Error),
    /// Another request, server or program holds the lock of the file and does not release it.
    #[error("another request is using this file; try again later")]
    InUse,
    /// The limit of lists at a time is reached, and none of them ends.
    #[error("too many folders are being listed; try again later")]
    TooManyLists,
    /// The disk or the user's quota is full.
    #[error("the server's disk is full")]
    NoSpace(#[source] io::Error),
    /// The upload would leave less room on the disk than the server keeps free.
    #[error("the server's disk is full")]
    NoRoom,
    /// The file does not meet the conditions of the request.
    #[error("the file does not meet the request's condition")]
    Changed,
    /// The disk failed.
    #[error("the server's disk failed")]
    Storage(#[source] io::Error),
    /// A sync failed: the file may be on the disk or not.
    #[error("the change is not known to be stored: the server's disk failed")]
    Unsynced(#[source] io::Error),
}

impl FilesError {
    /// Whether the same request may succeed later, with the same file at its destination.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotAllowed(_)
                | Self::WriteProtected
                | Self::RootGone
                | Self::Busy(_)
                | Self::InUse
                | Self::TooManyLists
                | Self::NoSpace(_)
                | Self::NoRoom
                | Self::Storage(_)
        )
    }
}

impl From<Errno> for FilesError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<io::Error> for FilesError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            // To open a socket gives ENXIO, a device without a driver that or ENODEV; ELOOP is too
            // many links.
            Some(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Self::NotFound,
            // A file that something else is mounted on (as in a container) is busy.
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY) => {
                Self::NotAllowed(error)
            }
            Some(Errno::ISDIR) => Self::IsFolder,
            Some(Errno::NOTDIR) => Self::NotAFolder,
            Some(Errno::NAMETOOLONG) => Self::NameTooLong,
            // Everything else that the server asks of the disk is valid.
            Some(Errno::INVAL | Errno::ILSEQ) => Self::NameRefused(error),
            Some(Errno::FBIG) => Self::TooLarge(error),
            Some(Errno::MFILE | Errno::NFILE) => Self::Busy(error),
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace(error),
            // `cap-std` itself makes this error, without a number, for a path that leads out of the
            // root. A client does not learn what exists outside.
            None if error.kind() == io::ErrorKind::PermissionDenied => Self::NotFound,
            Some(_) | None => Self::Storage(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_disk_keep_their_meaning() {
        let from = |errno: Errno| FilesError::from(errno);
        assert!(matches!(from(Errno::NOSPC), FilesError::NoSpace(_)));
        assert!(matches!(from(Errno::DQUOT), FilesError::NoSpace(_)));
        assert!(matches!(from(Errno::ACCESS), FilesError::NotAllowed(_)));
        assert!(matches!(from(Errno::ROFS), FilesError::NotAllowed(_)));
        assert!(matches!(from(Errno::MFILE), FilesError::Busy(_)));
        assert!(matches!(from(Errno::IO), FilesError::Storage(_)));
        assert!(matches!(from(Errno::NODEV), FilesError::NotFound));
    }
}
