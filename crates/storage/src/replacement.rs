//! New contents on their way to a file's place.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use crate::DataFile;

/// Where Linux has the access control list of a file.
const ACL: &str = "system.posix_acl_access";

/// The longest such list, in bytes: what the kernel lets one be.
const ACL_BYTES_MAX: usize = 65_536;

/// A file beside another, which is to take its place. Any thread may write it. Dropping it before
/// it has that place removes it.
#[derive(Debug)]
#[must_use = "dropping it removes the file"]
pub struct Replacement {
    new: Option<DataFile>,
    old: Arc<File>,
    /// Where the old file really is, whatever links lead there.
    real_path: PathBuf,
}

impl Replacement {
    /// An empty file with a hidden name derived from that of the old one, and its permissions; what
    /// an earlier crash left under that name is removed.
    pub(crate) fn beside(old: &DataFile) -> io::Result<Self> {
        let real_path = fs::canonicalize(old.path())?;
        let path = hidden_path(&real_path);
        let made = remove_left(&path).and_then(|()| DataFile::make(&path));
        let new = made.map_err(|cause| {
            let sentence = format!("cannot make {}: {cause}", path.display());
            io::Error::new(cause.kind(), sentence)
        })?;
        let replacement = Self {
            old: Arc::clone(old.file()),
            real_path,
            new: Some(new),
        };
        inherit(&replacement.old, replacement.file())?;
        Ok(replacement)
    }

    /// The new file, to be written from its start to its end.
    pub fn file(&self) -> &Arc<File> {
        let new = self.new.as_ref();
        new.expect("it is taken only at the end").file()
    }

    /// Whether this is the file that is to be replaced.
    pub(crate) fn is_of(&self, file: &Arc<File>) -> bool {
        Arc::ptr_eq(&self.old, file)
    }

    /// Gives it the place of the old file.
    pub(crate) fn rename_to(mut self, path: &Path) -> io::Result<DataFile> {
        let mut new = self.new.take().expect("it is taken only here");
        let renamed = new.rename(&self.real_path, path);
        if let Err(error) = renamed {
            self.new = Some(new);
            return Err(error);
        }
        Ok(new)
    }

    /// Where the file really is.
    pub(crate) fn real_path(&self) -> &Path {
        &self.real_path
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            // What cannot be removed now is removed the next time.
            let _ = fs::remove_file(new.path());
        }
    }
}

/// The name of what is to replace a file.
fn hidden_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn remove_left(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what a crash has left of a file that was to replace this one.
pub(crate) fn remove_left_beside(file: &DataFile) {
    // It only takes room.
    let removed = fs::canonicalize(file.path()).and_then(|path| remove_left(&hidden_path(&path)));
    if let Err(error) = removed {
        log::debug!("{}: {error}", file.path().display());
    }
}

/// Lets nobody read or write a new file who may not do so with the old one, and everybody who may.
pub(crate) fn inherit(old: &File, new: &File) -> io::Result<()> {
    const OF_GROUP: u32 = 0o070;
    let (there, made) = (old.metadata()?, new.metadata()?);
    let mut mode = there.permissions().mode();
    if (there.uid(), there.gid()) != (made.uid(), made.gid()) {
        // Only root can give a file to somebody else, and only members of a group to that.
        let given = fchown(new, Some(there.uid()), Some(there.gid()));
        if given.is_err() && fchown(new, None, Some(there.gid())).is_err() {
            mode &= !OF_GROUP;
        }
    }
    if copy_acl(old, new).is_err() {
        // Without the list, the group would get the rights of its mask.
        mode &= !OF_GROUP;
    }
    new.set_permissions(fs::Permissions::from_mode(mode))
}

/// Gives a new file the access control list of an old one, or none: it may have one from its folder.
fn copy_acl(old: &File, new: &File) -> Result<(), Errno> {
    let mut acl = vec![0; ACL_BYTES_MAX];
    match fgetxattr(old, ACL, &mut acl[..]) {
        Ok(bytes) => fsetxattr(new, ACL, &acl[..bytes], XattrFlags::empty()),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => match fremovexattr(new, ACL) {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            removed => removed,
        },
        Err(error) => Err(error),
    }
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
            .set_permissions(fs::Permissions::from_mode(0o640))
            .unwrap();
        let found = || {
            let mut acl = vec![0; ACL_BYTES_MAX];
            let bytes = fgetxattr(&new, ACL, &mut acl[..]);
            let mode = new.metadata().unwrap().permissions().mode() & 0o777;
            (mode, bytes.map(|bytes| acl[..bytes].to_vec()))
        };
        inherit(&listed, &new).unwrap();
        assert_eq!(found(), (0o660, Ok(acl)));
        inherit(&plain, &new).unwrap();
        assert_eq!(found(), (0o640, Err(Errno::NODATA)));
    }
}
