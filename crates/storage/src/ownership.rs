//! Who owns a file and who may use it: what a replacement takes over from the file it replaces.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr, lgetxattr};
use rustix::io::Errno;

/// The extended attribute in which Linux keeps the access control list of a file.
const ACL: &str = "system.posix_acl_access";

/// The longest access control list, in bytes. It is the kernel's limit.
const ACL_BYTES_MAX: usize = 65_536;

/// The group's rights in a mode. In a file with an access control list they are its mask.
const MODE_GROUP: u32 = 0o070;

/// The owner, the group, the mode and the access control list of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The user id of the owner.
    pub user: u32,
    /// The group id.
    pub group: u32,
    /// The permission bits.
    pub mode: u32,
    /// The access control list, as Linux stores it, if the file has one.
    pub acl: Option<Vec<u8>>,
}

impl Ownership {
    /// The ownership of an open file. If its access control list cannot be read, the mode has no
    /// rights for the group.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let mode = metadata.permissions().mode();
        let acl = read_acl(|value| fgetxattr(file, ACL, value));
        Ok(Self {
            user: metadata.uid(),
            group: metadata.gid(),
            mode: if acl.is_ok() {
                mode
            } else {
                mode & !MODE_GROUP
            },
            acl: acl.unwrap_or_default(),
        })
    }

    /// Gives a new file this ownership, as far as the system allows. What cannot be given makes the
    /// mode stricter: nobody may use the new file who may not use the old one.
    ///
    /// `may_have_acl` is whether the new file may have got an access control list from its folder.
    ///
    /// # Errors
    /// If the mode cannot be set. Some file systems have no modes.
    pub fn give_to(&self, file: &File, may_have_acl: bool) -> io::Result<()> {
        let mut mode = self.mode;
        let is_owned = file
            .metadata()
            .is_ok_and(|made| (made.uid(), made.gid()) == (self.user, self.group));
        // Only root gives files to other users. A user may choose among its own groups.
        if !is_owned
            && fchown(file, Some(self.user), Some(self.group)).is_err()
            && fchown(file, None, Some(self.group)).is_err()
        {
            mode = for_other_group(mode);
        }
        if self.give_acl(file, may_have_acl).is_err() {
            // Without the list, the group would get the rights of its mask.
            mode &= !MODE_GROUP;
        }
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn give_acl(&self, file: &File, may_have_acl: bool) -> Result<(), Errno> {
        match &self.acl {
            Some(acl) => fsetxattr(file, ACL, acl, XattrFlags::empty()),
            None if may_have_acl => match fremovexattr(file, ACL) {
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                removed => removed,
            },
            None => Ok(()),
        }
    }
}

/// The access control list of the file at a path, which need not be readable. A symbolic link is not
/// followed.
///
/// # Errors
/// Those of lgetxattr(2).
pub fn acl_of(path: &Path) -> io::Result<Option<Vec<u8>>> {
    read_acl(|value| lgetxattr(path, ACL, value))
}

/// Reads a list with `get`; `None` if there is none, or if the disk has no such lists.
fn read_acl(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Option<Vec<u8>>> {
    // Most files have none, and need no buffer for it.
    match get(&mut []) {
        Ok(_) => {}
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut acl = vec![0; ACL_BYTES_MAX];
    let bytes = get(&mut acl)?;
    acl.truncate(bytes);
    Ok(Some(acl))
}

/// The mode of a file whose group is another than the mode is meant for: that group may do no more
/// than everybody.
fn for_other_group(mode: u32) -> u32 {
    (mode & !MODE_GROUP) | (mode & (mode << 3) & MODE_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_control_list_is_kept_and_none_is_added() {
        // The owner, one more user, the group, the mask, and others.
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in [
            (0x01_u16, 6_u16, u32::MAX),
            (0x02, 6, 65534),
            (0x04, 0, u32::MAX),
            (0x10, 6, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            acl.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
            acl.extend(id.to_le_bytes());
        }
        let [listed, plain, new] = [(); 3].map(|()| tempfile::tempfile().unwrap());
        if fsetxattr(&listed, ACL, &acl, XattrFlags::empty()).is_err() {
            return; // This disk has no such lists.
        }
        plain
            .set_permissions(Permissions::from_mode(0o640))
            .unwrap();
        let found = || {
            let mode = new.metadata().unwrap().permissions().mode() & 0o777;
            (mode, Ownership::of(&new).unwrap().acl)
        };
        Ownership::of(&listed).unwrap().give_to(&new, true).unwrap();
        assert_eq!(found(), (0o660, Some(acl)));
        Ownership::of(&plain).unwrap().give_to(&new, true).unwrap();
        assert_eq!(found(), (0o640, None));
    }

    #[test]
    fn another_group_may_do_no_more_than_others() {
        for (mode, want) in [(0o660, 0o600), (0o664, 0o644), (0o755, 0o755)] {
            assert_eq!(for_other_group(mode), want, "{mode:o}");
        }
    }
}
