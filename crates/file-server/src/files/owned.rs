//! Whose a file is and who may use it. What replaces a file is like it in this; a new file is as the
//! umask has it, or the folder. Until it is in its place nobody but the server sees it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, fchown};

use cap_std::fs::{Dir, Metadata, MetadataExt};
use rustix::fs::fgetxattr;
use rustix::io::Errno;

use super::Upload;

/// The mode of a new file, before the umask.
const MODE_NEW: u32 = 0o666;

/// What is kept of the mode of a file that is replaced. A program that runs with its owner's rights
/// must not go on with them when its content is another.
const MODE_KEPT: u32 = 0o777;

/// The mode and the owner that a file is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owned {
    mode: u32,
    /// User and group; of a new file they are what they are.
    owner: Option<(u32, u32)>,
}

/// The mode of a new file that this process makes.
pub(super) fn mode_new() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok());
    MODE_NEW & !umask.unwrap_or(0o022)
}

/// Whether a folder says itself who may use what is made in it, instead of the umask.
pub(super) fn has_default_acl(folder: &Dir) -> bool {
    let mut acl = [0; 1];
    let acl = folder
        .open(".")
        .map(|folder| fgetxattr(&folder, "system.posix_acl_default", &mut acl[..]));
    matches!(acl, Ok(Ok(_) | Err(Errno::RANGE)))
}

/// The mode that a temporary file is made with: nobody but the server sees what has come, unless
/// the folder says so.
pub(super) fn mode_temporary(has_default_acl: bool) -> u32 {
    if has_default_acl { MODE_NEW } else { 0o600 }
}

impl Upload<'_> {
    /// Gives the file the mode and the owner of the one that it replaces, as far as the system
    /// lets us; returns whether it had others.
    pub(super) fn dress(&mut self, current: Option<&Metadata>) -> bool {
        let owned = match current {
            Some(there) => Owned {
                mode: there.mode() & MODE_KEPT,
                owner: Some((there.uid(), there.gid())),
            },
            None if self.has_default_acl => return false,
            None => Owned {
                mode: self.files.mode_new,
                owner: None,
            },
        };
        if self.owned == Some(owned) {
            return false;
        }
        let mut mode = owned.mode;
        if let Some((user, group)) = owned.owner
            && fchown(&self.file, Some(user), Some(group)).is_err()
            // Only root gives files away; but of its groups a user may choose.
            && fchown(&self.file, None, Some(group)).is_err()
        {
            mode = for_other_group(mode);
        }
        // Some file systems know no modes.
        if let Err(error) = self.file.set_permissions(Permissions::from_mode(mode)) {
            log::debug!("{}: the mode stays as it is: {error}", self.temporary);
        }
        self.owned = Some(owned);
        true
    }
}

/// A mode for a file that gets another group than it was meant for, which may do no more than anybody.
fn for_other_group(mode: u32) -> u32 {
    (mode & !0o070) | (mode & (mode << 3) & 0o070)
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
