//! Listening at a socket in the file system (unix(7)), and the file that stands for it.
//!
//! The file appears at its path when the server listens and its mode is set, because it is renamed there from a
//! folder that only this server can open. Looking what is at the path and renaming happen under a lock
//! of the folder (flock(2)), so that of two servers that start at the same time one is refused. What is there
//! is replaced if it is a socket that nobody listens on any more, as a server leaves it that was
//! killed. At the end the file is removed if it is still this server's own.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::socket_options::BACKLOG;

/// The longest path of a socket, in bytes: a zero byte follows it in sockaddr_un (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// How the folder is called in which a socket is made, without the six random characters behind it.
const FOLDER_PREFIX: &str = ".q-";

/// How the socket is called in it.
const NAME: &str = "s";

/// The longest path of the folder that a socket is in: its first path is `FOLDER/.q-XXXXXX/s`.
const FOLDER_BYTES_MAX: usize = PATH_BYTES_MAX - "/.q-XXXXXX/s".len();

/// How long another program may keep the folder locked.
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
        let folder = folder_of(path);
        check_length(path, folder)?;
        let _lock = lock(folder)?;
        check_free(path)?;
        // Dropped in the end, and with it what is still in it.
        let made = tempfile::Builder::new()
            .prefix(FOLDER_PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)?;
        let first_path = made.path().join(NAME);
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
        let file = fs::symlink_metadata(path)?;
        Ok(Self(file.dev(), file.ino()))
    }
}

/// The folder that a path is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    }
}

fn check_length(path: &Path, folder: &Path) -> io::Result<()> {
    let [bytes, folder_bytes] = [path, folder].map(|path| path.as_os_str().len());
    if bytes <= PATH_BYTES_MAX && folder_bytes <= FOLDER_BYTES_MAX {
        return Ok(());
    }
    let sentence = format!(
        "the path has {bytes} bytes, {folder_bytes} of them for the folder, and a socket's may have \
         {PATH_BYTES_MAX}, {FOLDER_BYTES_MAX} of them for the folder"
    );
    Err(io::Error::new(io::ErrorKind::InvalidFilename, sentence))
}

/// Locks a folder against other servers that make a socket in it, until the file is dropped.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::park_timeout(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let sentence = "another program keeps the folder locked (flock)";
                return Err(io::Error::new(io::ErrorKind::TimedOut, sentence));
            }
            other => return Ok(other.map(|()| file)?),
        }
    }
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

    #[test]
    fn a_path_that_is_too_long_is_refused_with_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let folder_bytes = dir.path().as_os_str().len();
        let fits = dir
            .path()
            .join("n".repeat(PATH_BYTES_MAX - folder_bytes - 1));
        let (_socket, _file) = SocketFile::listen(&fits, 0o600).unwrap();
        let folder = dir
            .path()
            .join("f".repeat(FOLDER_BYTES_MAX - folder_bytes - 1));
        fs::create_dir(&folder).unwrap();
        let (_socket, _file) = SocketFile::listen(&folder.join("s"), 0o600).unwrap();
        let mut longer = fits.into_os_string();
        longer.push("n");
        let error = SocketFile::listen(longer.as_ref(), 0o600).unwrap_err();
        let want = format!("the path has 108 bytes, {folder_bytes} of them for the folder, and ");
        assert!(error.to_string().starts_with(&want), "{error}");
    }
}
