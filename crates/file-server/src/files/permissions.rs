//! Who may use an uploaded file. A file that replaces another takes over its ownership; a new file gets
//! the mode that the umask gives, or the access control list that its folder gives. Until a file has its
//! final name, nobody but the server may use it.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::fgetxattr;
use rustix::io::Errno;
use storage::{Ownership, acl_of};

use super::destination::Destination;
use super::upload::Upload;

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

impl Upload<'_> {
    /// The permissions of the file at this destination; `None` if the folder has set them.
    pub(super) fn permissions_at(&self, destination: &Destination) -> Option<Permissions> {
        match &destination.current {
            Some(there) => {
                let folder = destination.folder.as_raw_fd().to_string();
                let folder = Path::new("/proc/self/fd").join(folder);
                // The file need not be readable, so it is not opened.
                let acl = acl_of(&folder.join(&destination.name));
                Some(Permissions::Inherited(Ownership {
                    user: there.st_uid,
                    group: there.st_gid,
                    mode: there.st_mode & MODE_KEPT,
                    acl: acl.unwrap_or_default(),
                }))
            }
            None if self.has_default_acl => None,
            None => Some(Permissions::New(self.files.mode_new)),
        }
    }

    /// Sets the permissions, as far as the system allows. Returns whether they were others.
    pub(super) fn set_permissions(&mut self, permissions: Option<Permissions>) -> bool {
        if self.permissions == permissions {
            return false;
        }
        let set = match &permissions {
            None => return false,
            Some(Permissions::New(mode)) => {
                let mode = fs::Permissions::from_mode(*mode);
                self.file.set_permissions(mode)
            }
            Some(Permissions::Inherited(ownership)) => {
                ownership.give_to(&self.file, self.has_default_acl)
            }
        };
        // Some file systems have no modes.
        if let Err(error) = set {
            log::debug!("{}: the mode stays as it is: {error}", self.temporary);
        }
        self.permissions = permissions;
        true
    }
}
