//! Whose a file is and who may use it. What replaces a file is like it in this; a new file is as the
//! umask has it, or the folder. Until it is in its place nobody but the server sees it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, fstat, lgetxattr};
use rustix::io::Errno;

use super::place::Place;
use super::{FilesError, Upload};

/// The mode of a new file, before the umask.
const MODE_NEW: u32 = 0o666;

/// What is kept of the mode of a file that is replaced. A program that runs with its owner's rights
/// must not go on with them when its content is another.
const MODE_KEPT: u32 = 0o777;

/// Where Linux has who else may use a file; a list of one entry for each.
const ACL: &str = "system.posix_acl_access";

/// The longest such list, in bytes: what the kernel lets one be.
const ACL_BYTES_MAX: usize = 65_536;

/// The rights of the group, which are those of a list's mask if a file has a list.
const MODE_GROUP: u32 = 0o070;

/// The mode and the owner that a file is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    mode: u32,
    /// Of a new file they are what they are.
    before: Option<Before>,
}

/// What is kept of a file that is replaced, besides its mode.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Before {
    user: u32,
    group: u32,
    acl: Option<Vec<u8>>,
}

/// The mode of a new file that this process makes.
pub(super) fn mode_new() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
    MODE_NEW & !umask.unwrap_or(0o022)
}

/// Whether a folder says itself who may use what is made in it, instead of the umask.
///
/// # Errors
/// If the folder cannot be read: then it could not be synced either, once the file is in it.
pub(super) fn has_default_acl(folder: &Dir) -> Result<bool, FilesError> {
    let mut acl = [0; 1];
    let acl = fgetxattr(folder.open(".")?, "system.posix_acl_default", &mut acl[..]);
    Ok(matches!(acl, Ok(_) | Err(Errno::RANGE)))
}

/// The mode that a temporary file is made with: nobody but the server sees what has come, unless
/// the folder says so.
pub(super) fn mode_temporary(has_default_acl: bool) -> u32 {
    if has_default_acl { MODE_NEW } else { 0o600 }
}

/// The list of who else may use a file. The file itself need not be readable, so it is not opened.
fn acl_of(folder: &Dir, name: &OsStr) -> Option<Vec<u8>> {
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
    let path = path.join(name);
    // Most files have none, and need no room for it.
    lgetxattr(&path, ACL, &mut [0; 0]).ok()?;
    let mut acl = vec![0; ACL_BYTES_MAX];
    let bytes = lgetxattr(&path, ACL, &mut acl[..]).ok()?;
    acl.truncate(bytes);
    Some(acl)
}

impl Upload<'_> {
    /// Gives the file the mode and the owner of the one that it replaces, as far as the system
    /// lets us, and the same list of who else may use it; returns whether it had others.
    pub(super) fn dress(&mut self, place: &Place) -> bool {
        let owned = match &place.current {
            Some(there) => Owned {
                mode: there.mode() & MODE_KEPT,
                before: Some(Before {
                    user: there.uid(),
                    group: there.gid(),
                    acl: acl_of(&place.folder, &place.name),
                }),
            },
            None if self.has_default_acl => return false,
            None => Owned {
                mode: self.files.mode_new,
                before: None,
            },
        };
        if self.owned.as_ref() == Some(&owned) {
            return false;
        }
        let mut mode = owned.mode;
        if let Some(Before { user, group, acl }) = &owned.before {
            if !self.is_owned_by(*user, *group)
                && fchown(&self.file, Some(*user), Some(*group)).is_err()
                // Only root gives files away; but of its groups a user may choose.
                && fchown(&self.file, None, Some(*group)).is_err()
            {
                mode = for_other_group(mode);
            }
            if !self.set_acl(acl.as_deref()) {
                // Without the list they would be those of its mask.
                mode &= !MODE_GROUP;
            }
        }
        // Some file systems know no modes.
        if let Err(error) = self.file.set_permissions(Permissions::from_mode(mode)) {
            log::debug!("{}: the mode stays as it is: {error}", self.temporary);
        }
        self.owned = Some(owned);
        true
    }

    /// Mostly it is, and to give it to them anew would be another change that has to get to the disk.
    fn is_owned_by(&self, user: u32, group: u32) -> bool {
        fstat(&self.file).is_ok_and(|there| (there.st_uid, there.st_gid) == (user, group))
    }

    /// Gives the file a list of who else may use it, or none; returns whether that is so.
    fn set_acl(&self, acl: Option<&[u8]>) -> bool {
        match acl {
            Some(acl) => fsetxattr(&self.file, ACL, acl, XattrFlags::empty()).is_ok(),
            // It has one from the folder.
            None if self.has_default_acl => fremovexattr(&self.file, ACL).is_ok(),
            None => true,
        }
    }
}

/// A mode for a file that gets another group than it was meant for, which may do no more than anybody.
fn for_other_group(mode: u32) -> u32 {
    (mode & !MODE_GROUP) | (mode & (mode << 3) & MODE_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_group_may_do_no_more_than_others() {
        for (mode, want) in [(0o660, 0o600), (0o664, 0o644), (0o755, 0o755)] {
            assert_eq!(for_other_group(mode), want, "{mode:o}");
        }
    }
}
