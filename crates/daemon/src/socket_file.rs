//! Listening at a socket in the file system (unix(7)), and the file that stands for it.
//!
//! The file appears at its path when the server listens and its mode is set, because it is renamed there from a
//! folder beside it, which only the server's user can open. Looking what is at the path and renaming
//! happen under a lock of that folder (flock(2)), so that of two servers that start at the same time one is
//! refused. Nobody else can hold that lock: to lock a folder, one must open it. What is at the path is
//! replaced if it is a socket that nobody listens on any more, as a server leaves it that was
//! killed. At the end the file is removed if it is still this server's own.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;

use crate::socket_options::BACKLOG;

/// The longest path of a socket, in bytes. `sockaddr_un` has room for 107 (unix(7)), and the path at which a
/// socket is made is longer by the name of its folder.
const PATH_BYTES_MAX: usize = 107 - ".q-/s".len();

/// How the folder in which a socket is made is called, in front of the socket's own name.
const FOLDER_PREFIX: &str = ".q-";

/// How the socket is called in it.
const NAME: &str = "s";

/// The rights of all but the owner.
const MODE_OF_OTHERS: u32 = 0o077;

/// How long another server may keep the folder locked while it starts.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How often the lock is tried meanwhile. flock(2) has no deadline.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The file of a socket that this process listens on. Dropping it removes the file, unless another has taken its
/// place.
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: FileId,
}

/// Tells a file from every other: its device and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl SocketFile {
    /// Makes the socket, and listens. Its file has this mode.
    ///
    /// # Errors
    /// If anything but a dead socket is there, the path is too long, or the system refuses.
    pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<(OwnedFd, Self)> {
        let folder = OwnFolder::lock(path)?;
        check_free(path)?;
        let first_path = folder.path.join(NAME);
        let socket = stream_socket(SocketFlags::CLOEXEC)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&first_path)?)?;
        fs::set_permissions(&first_path, Permissions::from_mode(mode))?;
        rustix::net::listen(&socket, BACKLOG)?;
        let id = FileId::at(&first_path)?;
        fs::rename(&first_path, path)?;
        let path = path.to_owned();
        Ok((socket, Self { path, id }))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The socket still listens, so no other server of ours takes its place between the look and the removal.
        if FileId::at(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl FileId {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::symlink_metadata(path)?))
    }

    fn of(there: &Metadata) -> Self {
        Self(there.dev(), there.ino())
    }
}

/// The folder in which a socket is made: locked, and nobody else's. Dropping it removes it, and ends the lock.
struct OwnFolder {
    path: PathBuf,
    /// Open, which is the lock.
    _folder: File,
}

impl OwnFolder {
    /// Makes the folder beside the path of a socket, and locks it. A server that was killed may have left it.
    fn lock(socket: &Path) -> io::Result<Self> {
        let path = first_folder(socket)?;
        let deadline = Instant::now() + LOCK_WAIT;
        while Instant::now() < deadline {
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            let folder = match open_folder(&path) {
                // The server that had it has removed it just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => thread::park_timeout(LOCK_PAUSE),
                Err(error) => return Err(error.into()),
                // Or it has done so before this lock was there.
                Ok(()) if FileId::at(&path).ok() != Some(FileId::of(&folder.metadata()?)) => {}
                Ok(()) => {
                    let own = Self {
                        path,
                        _folder: folder,
                    };
                    own.clear()?;
                    return Ok(own);
                }
            }
        }
        let secs = LOCK_WAIT.as_secs();
        let sentence = format!(
            "another server has been starting there for {secs} s: it keeps {} locked",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, sentence))
    }

    /// Removes the socket in it, if there is one.
    fn clear(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        if let Err(error) = self.clear().and_then(|()| fs::remove_dir(&self.path)) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The path of the folder in which a socket is made.
fn first_folder(socket: &Path) -> io::Result<PathBuf> {
    let Some(name) = socket.file_name() else {
        let sentence = "the path has no name at its end";
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, sentence));
    };
    let bytes = socket.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        let sentence =
            format!("the path has {bytes} bytes, and a socket's may have {PATH_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, sentence));
    }
    let mut own_name = OsString::from(FOLDER_PREFIX);
    own_name.push(name);
    Ok(socket.with_file_name(own_name))
}

/// Opens a folder that nobody else can open.
fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    let opened = options
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let is_own = match &opened {
        Ok(folder) => {
            let there = folder.metadata()?;
            there.uid() == geteuid().as_raw() && there.mode() & MODE_OF_OTHERS == 0
        }
        Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
    };
    if is_own {
        return opened;
    }
    let shown = path.display();
    let sentence =
        format!("{shown} is not a folder that this server's user alone can open; remove it");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence))
}

/// Checks that there is nothing at the path, or a socket that nobody listens on.
fn check_free(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !there.file_type().is_socket() {
        let sentence = "a file is there that is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, sentence));
    }
    // A server that listens may have no room at the moment, which must not be waited for.
    let socket = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            let sentence = "another server listens there";
            Err(io::Error::new(io::ErrorKind::AddrInUse, sentence))
        }
        Err(error) => Err(error.into()),
    }
}

fn stream_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// What is in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for mode in [0o600, 0o666] {
            let (socket, file) = SocketFile::listen(&path, mode).unwrap();
            assert_eq!(names(dir.path()), ["socket"]);
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
            UnixStream::connect(&path).unwrap();
            drop(file);
            assert!(names(dir.path()).is_empty());
            drop(socket);
        }
    }

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let refused = || {
            let kept = FileId::at(&path).unwrap();
            let error = SocketFile::listen(&path, 0o600).unwrap_err();
            assert_eq!(FileId::at(&path).unwrap(), kept);
            assert_eq!(names(dir.path()).len(), 1);
            error.to_string()
        };
        // As a killed server leaves it.
        drop(UnixListener::bind(&path).unwrap());
        let (socket, file) = SocketFile::listen(&path, 0o600).unwrap();
        assert_eq!(refused(), "another server listens there");
        // Also when it has no room.
        rustix::net::listen(&socket, 0).unwrap();
        assert_eq!(refused(), "another server listens there");
        drop((socket, file));
        let datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert_eq!(refused(), "another server listens there");
        drop(datagrams);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(refused(), "a file is there that is no socket");
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(&path, elsewhere.path().join("file")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("none"), &path).unwrap();
        assert_eq!(refused(), "a file is there that is no socket");
    }

    #[test]
    fn the_file_of_another_server_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (_socket, file) = SocketFile::listen(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn of_servers_that_start_at_the_same_time_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // There is a dead one to be replaced.
        drop(UnixListener::bind(&path).unwrap());
        let started: Vec<_> = thread::scope(|scope| {
            let starts = [(); 8].map(|()| scope.spawn(|| SocketFile::listen(&path, 0o600)));
            starts.map(|start| start.join().unwrap()).into()
        });
        assert_eq!(started.iter().filter(|start| start.is_ok()).count(), 1);
        assert_eq!(names(dir.path()), ["socket"]);
        UnixStream::connect(&path).unwrap();
    }

    /// Anybody who can read a folder can lock it.
    #[test]
    fn nobody_else_can_hold_up_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let held = File::open(dir.path()).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let (_socket, file) = SocketFile::listen(&path, 0o600).unwrap();
        drop(file);
        // Of the folder that it locks, others can have made one.
        let folder = dir.path().join(".q-socket");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        let error = SocketFile::listen(&path, 0o600).unwrap_err().to_string();
        let want = ".q-socket is not a folder that this server's user alone can open; remove it";
        assert!(error.ends_with(want), "{error}");
        // A killed server leaves its own.
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        drop(UnixListener::bind(folder.join(NAME)).unwrap());
        let (_socket, _file) = SocketFile::listen(&path, 0o600).unwrap();
        assert_eq!(names(dir.path()), ["socket"]);
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_with_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let folder_bytes = dir.path().as_os_str().len();
        let fits = dir
            .path()
            .join("n".repeat(PATH_BYTES_MAX - folder_bytes - 1));
        let (_socket, _file) = SocketFile::listen(&fits, 0o600).unwrap();
        let mut longer = fits.into_os_string();
        longer.push("n");
        let error = SocketFile::listen(longer.as_ref(), 0o600).unwrap_err();
        let want = "the path has 103 bytes, and a socket's may have 102";
        assert_eq!(error.to_string(), want);
    }
}
