//! Who owns a file and who may use it: what a download takes over from the file that it replaces.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use rustix::fs::{OFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use crate::place::Place;
use crate::progress::above_bars;
use crate::sidecar;

/// The extended attribute in which Linux keeps the access control list of a file.
const ACL: &str = "system.posix_acl_access";

/// The longest access control list, in bytes. It is the kernel's limit.
const ACL_BYTES_MAX: usize = 65_536;

/// The group's rights in a mode. In a file with an access control list they are its mask.
const MODE_GROUP: u32 = 0o070;

/// The mode and the access control list of the file that is replaced, and its owner where that is
/// allowed. Without such a file, the mode of any new file in that folder.
#[derive(Debug)]
pub(crate) struct Ownership {
    mode: u32,
    replaced: Option<Replaced>,
}

/// What is kept of a file that is replaced, besides its mode.
#[derive(Debug)]
struct Replaced {
    user: u32,
    group: u32,
    acl: Option<Vec<u8>>,
}

impl Ownership {
    /// That of a file that is replaced, as writing to the file would leave it: set-user-id bits are
    /// dropped.
    pub(crate) fn of(place: &Place, replaced: &Metadata) -> Self {
        let acl = [OFlags::RDONLY, OFlags::WRONLY]
            .into_iter()
            .find_map(|flags| place.open(flags, 0).ok())
            .and_then(|file| acl_of(&file));
        Self {
            mode: replaced.mode() & 0o777,
            replaced: Some(Replaced {
                user: replaced.uid(),
                group: replaced.gid(),
                acl,
            }),
        }
    }

    /// That of a new file. The umask decides, or the folder's access control list; making a file
    /// asks both.
    ///
    /// # Errors
    /// If no file can be made there.
    pub(crate) fn of_new(target: &Place) -> io::Result<Self> {
        let temporary = sidecar::temporary(target, sidecar::PART_PREFIX);
        let made = temporary.open(sidecar::NEW, 0o666)?.metadata();
        temporary.remove()?;
        let mode = made?.mode() & 0o777;
        Ok(Self {
            mode,
            replaced: None,
        })
    }

    /// Gives a file this ownership, as far as the system allows. What cannot be given makes the mode
    /// stricter, and the file is kept.
    ///
    /// # Errors
    /// If the file's metadata cannot be read.
    pub(crate) fn give_to(&self, file: &File) -> io::Result<()> {
        let made = file.metadata()?;
        let mut mode = self.mode;
        if let Some(Replaced { user, group, acl }) = &self.replaced {
            if (made.uid(), made.gid()) != (*user, *group)
                && fchown(file, Some(*user), Some(*group)).is_err()
                // Only root gives files to other users. A user may choose among its own groups.
                && let Err(error) = fchown(file, None, Some(*group))
            {
                above_bars(|| log::debug!("The owner is not kept: {error}"));
                mode = for_other_group(mode);
            }
            if let Err(error) = set_acl(file, acl.as_deref()) {
                above_bars(|| log::warn!("The access control list is not kept: {error}"));
                // Without the list, the group would get the rights of its mask.
                mode &= !MODE_GROUP;
            }
        }
        if made.mode() & 0o7777 != mode
            && let Err(error) = file.set_permissions(Permissions::from_mode(mode))
        {
            above_bars(|| log::warn!("The mode is not {mode:o}: {error}"));
        }
        Ok(())
    }
}

/// The access control list of a file, if it has one.
fn acl_of(file: &File) -> Option<Vec<u8>> {
    let mut acl = vec![0; ACL_BYTES_MAX];
    let bytes = fgetxattr(file, ACL, &mut acl[..]).ok()?;
    acl.truncate(bytes);
    Some(acl)
}

/// Gives a file an access control list, or removes the one that it may have from its folder.
fn set_acl(file: &File, acl: Option<&[u8]>) -> Result<(), Errno> {
    match acl {
        Some(acl) => fsetxattr(file, ACL, acl, XattrFlags::empty()),
        None => match fremovexattr(file, ACL) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            removed => removed,
        },
    }
}

/// A mode for a file that gets another group: that group may do no more than all other users.
fn for_other_group(mode: u32) -> u32 {
    (mode & !MODE_GROUP) | (mode & (mode << 3) & MODE_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An access control list: the owner, one more user, the group, the mask, and others.
    fn acl_of_one_more() -> Vec<u8> {
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, ownership, id) in [
            (0x01_u16, 6_u16, u32::MAX),
            (0x02, 6, 65534),
            (0x04, 0, u32::MAX),
            (0x10, 6, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            acl.extend([tag.to_le_bytes(), ownership.to_le_bytes()].concat());
            acl.extend(id.to_le_bytes());
        }
        acl
    }

    #[test]
    fn an_access_control_list_is_kept_and_none_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| File::create(folder.path().join(name)).unwrap();
        let ownership = |name: &str| {
            let place = Place::at(&folder.path().join(name)).unwrap();
            Ownership::of(&place, &place.metadata().unwrap())
        };
        let acl_in = |name: &str| ownership(name).replaced.unwrap().acl;
        let acl = acl_of_one_more();
        if fsetxattr(make("listed"), ACL, &acl, XattrFlags::empty()).is_err() {
            return; // This disk has no such lists.
        }
        let plain = make("plain");
        plain
            .set_permissions(Permissions::from_mode(0o640))
            .unwrap();
        ownership("listed").give_to(&make("a")).unwrap();
        assert_eq!(
            (ownership("a").mode, acl_in("a")),
            (0o660, Some(acl.clone()))
        );
        let b = make("b");
        fsetxattr(&b, ACL, &acl, XattrFlags::empty()).unwrap();
        ownership("plain").give_to(&b).unwrap();
        assert_eq!((ownership("b").mode, acl_in("b")), (0o640, None));
    }

    #[test]
    fn another_group_may_do_no_more_than_others() {
        for (mode, want) in [
            (0o660, 0o600),
            (0o640, 0o600),
            (0o664, 0o644),
            (0o755, 0o755),
            (0o606, 0o606),
            (0o777, 0o777),
        ] {
            assert_eq!(for_other_group(mode), want, "{mode:o}");
        }
    }
}
