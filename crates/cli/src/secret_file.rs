//! Small files that hold a secret, or say whom to trust: keys, certificates, accounts.
//!
//! A file is opened once, and its owner and its mode are those of the open file, so that nobody can
//! replace it between the check and the read. A pipe or a device is refused, and opening one does not
//! wait.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::error::FileError;

/// The rights of all but the owner.
const MODE_OF_OTHERS: u32 = 0o077;

/// The same without the group's right to read.
const MODE_OF_OTHERS_BUT_GROUP: u32 = 0o037;

/// The right of others to change a file.
const MODE_OF_WRITERS: u32 = 0o022;

/// The right of everybody to read a file.
const MODE_OF_READERS: u32 = 0o004;

/// The user id of root.
const ROOT: u32 = 0;

/// A file that was read, and who else may use it.
pub struct SecretFile {
    /// What it holds.
    pub bytes: Vec<u8>,
    there: Metadata,
}

impl SecretFile {
    /// Reads a regular file of at most this many bytes.
    ///
    /// # Errors
    /// [`FileError::Read`], [`FileError::NotAFile`] or [`FileError::TooLong`].
    pub fn read(path: &Path, bytes_max: u64) -> Result<Self, FileError> {
        let failed = |cause| FileError::Read {
            path: path.to_owned(),
            cause,
        };
        let file = open(path).map_err(failed)?;
        let there = file.metadata().map_err(failed)?;
        if !there.is_file() {
            return Err(FileError::NotAFile(path.to_owned()));
        }
        let mut bytes = Vec::new();
        let mut start = file.take(bytes_max + 1);
        start.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > bytes_max {
            return Err(FileError::TooLong {
                path: path.to_owned(),
                bytes_max,
            });
        }
        Ok(Self { bytes, there })
    }

    /// Whether nobody else may read or change it: no right for others, or, if it belongs to root and
    /// this process is not root, at most the group's right to read. A service manager hands out its
    /// secrets like that.
    pub fn is_private(&self) -> bool {
        is_private(self.there.mode(), self.there.uid(), geteuid().as_raw())
    }

    /// Whether others may change it.
    pub fn others_may_write(&self) -> bool {
        self.there.mode() & MODE_OF_WRITERS != 0
    }

    /// Whether everybody may read it.
    pub fn everybody_may_read(&self) -> bool {
        self.there.mode() & MODE_OF_READERS != 0
    }
}

/// Refuses a file with a secret in the folder that is served, if one is. A file that is not there is refused
/// when it is read, for that reason.
///
/// # Errors
/// [`FileError::Served`].
pub fn check_not_served(path: &Path, served: Option<&Path>) -> Result<(), FileError> {
    let served = served.and_then(|folder| folder.canonicalize().ok());
    let is_in = |folder: PathBuf| {
        path.canonicalize()
            .is_ok_and(|path| path.starts_with(folder))
    };
    match served.is_some_and(is_in) {
        true => Err(FileError::Served(path.to_owned())),
        false => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a pipe waits for its writer.
    let at_once = OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new()
        .read(true)
        .custom_flags(at_once)
        .open(path)
}

fn is_private(mode: u32, owner: u32, user: u32) -> bool {
    let forbidden = match owner == ROOT && user != ROOT {
        true => MODE_OF_OTHERS_BUT_GROUP,
        false => MODE_OF_OTHERS,
    };
    mode & forbidden == 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_group_may_read_what_root_has_made_for_it() {
        const ME: u32 = 1000;
        for (mode, owner, want) in [
            (0o600, ME, true),
            (0o400, ME, true),
            (0o640, ME, false),
            (0o604, ME, false),
            (0o620, ME, false),
            (0o440, ROOT, true),
            (0o640, ROOT, true),
            (0o660, ROOT, false),
            (0o644, ROOT, false),
        ] {
            assert_eq!(is_private(mode, owner, ME), want, "{mode:o} of {owner}");
        }
        assert!(!is_private(0o640, ROOT, ROOT));
    }

    #[test]
    fn a_file_is_read_with_what_others_may_do_to_it() {
        let path = std::env::temp_dir().join(format!("quartet-secret-{}", std::process::id()));
        fs::write(&path, "12345").unwrap();
        for (mode, private, writers, readers) in [
            (0o600, true, false, false),
            (0o604, false, false, true),
            (0o620, false, true, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let file = SecretFile::read(&path, 5).unwrap();
            assert_eq!(file.bytes, b"12345");
            let may = (
                file.is_private(),
                file.others_may_write(),
                file.everybody_may_read(),
            );
            assert_eq!(may, (private, writers, readers), "{mode:o}");
        }
        let long = SecretFile::read(&path, 4).map(drop).unwrap_err();
        assert!(matches!(long, FileError::TooLong { bytes_max: 4, .. }));
        fs::remove_file(&path).unwrap();
        let gone = SecretFile::read(&path, 4).map(drop).unwrap_err();
        assert!(matches!(gone, FileError::Read { .. }));
        for other in ["/", "/dev/null"] {
            let refused = SecretFile::read(Path::new(other), 4).map(drop).unwrap_err();
            assert!(matches!(refused, FileError::NotAFile(_)), "{other}");
        }
    }

    #[test]
    fn a_secret_that_would_be_served_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        let path = root.join("sub/key");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(&path, "").unwrap();
        symlink("root", top.path().join("link")).unwrap();
        for root in [root.clone(), top.path().join("link"), root.join("sub/..")] {
            let checked = check_not_served(&path, Some(&root));
            assert!(matches!(checked, Err(FileError::Served(_))), "{root:?}");
        }
        check_not_served(&path, None).unwrap();
        let beside = top.path().join("root-key");
        fs::rename(&path, &beside).unwrap();
        check_not_served(&beside, Some(&root)).unwrap();
        symlink("root-key", top.path().join("other")).unwrap();
        check_not_served(&top.path().join("other"), Some(&root)).unwrap();
        // Nobody can download through a link out of the root.
        symlink("../root-key", root.join("link")).unwrap();
        check_not_served(&root.join("link"), Some(&root)).unwrap();
    }
}
