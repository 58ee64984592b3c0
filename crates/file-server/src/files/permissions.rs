//! Who may use an uploaded file. A file that replaces another takes over its ownership; a new file gets
//! the mode that the umask gives, or the access control list that its folder gives. Until a file has its
//! final name, nobody but the server may use it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::{Stat, fgetxattr};
use rustix::io::Errno;
use storage::{Ownership, acl_of};

/// The mode of a new file, before the umask.
const MODE_NEW: u32 = 0o666;

/// The part of the mode that a replaced file passes on. A program that runs with its owner's rights
/// must not keep them when its contents change.
const MODE_KEPT: u32 = 0o777;

/// The permissions of an uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Permissions {
    /// The mode of a new file.
    New(u32),
    /// The ownership of the file that it replaces.
    Inherited(Ownership),
}

/// The mode of a new file of this process.
pub(super) fn mode_new() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
    MODE_NEW & !umask.unwrap_or(0o022)
}

/// Whether a folder, open for reading, gives new files an access control list, in place of the umask.
pub(super) fn has_default_acl(folder: &Dir) -> bool {
    let acl = fgetxattr(folder, "system.posix_acl_default", &mut [0; 1][..]);
    matches!(acl, Ok(_) | Err(Errno::RANGE))
}

/// The mode of a temporary file: nobody but the server may use it, unless the folder says so.
pub(super) fn mode_temporary(has_default_acl: bool) -> u32 {
    if has_default_acl { MODE_NEW } else { 0o600 }
}

impl Permissions {
    /// The permissions of a file that replaces the one with this name in a folder.
    pub(super) fn inherited(folder: &Dir, name: &OsStr, there: &Stat) -> Self {
        let folder = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
        Self::Inherited(Ownership {
            user: there.st_uid,
            group: there.st_gid,
            mode: there.st_mode & MODE_KEPT,
            // The file need not be readable, so it is not opened.
            acl: acl_of(&folder.join(name)).unwrap_or_default(),
        })
    }

    /// Gives them to a file, as far as the system allows. `has_default_acl` is whether the file may
    /// have got an access control list from its folder.
    ///
    /// # Errors
    /// If the mode cannot be set. Some file systems have no modes.
    pub(super) fn give_to(&self, file: &File, has_default_acl: bool) -> io::Result<()> {
        match self {
            Self::New(mode) => file.set_permissions(fs::Permissions::from_mode(*mode)),
            Self::Inherited(ownership) => ownership.give_to(file, has_default_acl),
        }
    }
}
