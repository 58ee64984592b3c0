//! Removes a folder with all that is in it.
//!
//! The folder has a hidden name already (`temporary`), so that nobody sees half of it; what a killed server
//! leaves of it is removed by the sweeper of the next one.
//!
//! A tree may be deeper than a stack, or than there are descriptors: a deep folder can be moved to the
//! bottom of another. So nothing here recurses. What is in a subfolder is removed, and a folder in it that
//! is not empty comes up to the top, where its turn is later. Two folders are open at any time.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::root::FileId;
use super::temporary;

/// A removal under way.
struct Removal<'r> {
    top: OwnedFd,
    /// The disk that the folder is on. What is mounted in it is not removed.
    device: u64,
    /// Files that are kept.
    secrets: &'r [FileId],
    must_continue: &'r dyn Fn() -> bool,
}

/// What was done in one pass over the top folder.
#[derive(Default)]
struct Pass {
    /// How many names are gone from their folders.
    removed: usize,
    /// Why the first name that is still there cannot be removed.
    failed: Option<Errno>,
}

impl Pass {
    fn note(&mut self, removed: Result<(), Errno>) {
        match removed {
            Ok(()) => self.removed += 1,
            // Another server was faster.
            Err(Errno::NOENT) => {}
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
    }
}

/// Removes what has this name in a folder, as long as `must_continue` says so. A link is removed, and not
/// what it leads to; what is in `secrets`, and what is mounted, stays.
///
/// # Errors
/// If something stays. All that can be removed is removed.
pub(super) fn remove_tree(
    parent: impl AsFd + Copy,
    name: &str,
    secrets: &[FileId],
    must_continue: &dyn Fn() -> bool,
) -> Result<(), Errno> {
    let top = match open_folder(parent, name) {
        Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(parent, name, AtFlags::empty()),
        opened => opened?,
    };
    let removal = Removal {
        device: fstat(&top)?.st_dev,
        top,
        secrets,
        must_continue,
    };
    loop {
        let pass = removal.pass()?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(error) if is_full(error) => match pass.failed {
                // Some disks leave names out of a list that changes while it is read.
                _ if pass.removed > 0 && must_continue() => {}
                failed => return Err(failed.unwrap_or(error)),
            },
            done => return done,
        }
    }
}

impl Removal<'_> {
    /// Removes what is in the top folder, and what is in its subfolders, but not deeper.
    fn pass(&self) -> Result<Pass, Errno> {
        let mut pass = Pass::default();
        self.each(&self.top, |name| {
            let removed = match self.remove(&self.top, name) {
                Err(error) if is_full(error) => self.clear(name, &mut pass),
                removed => removed,
            };
            pass.note(removed);
        })?;
        Ok(pass)
    }

    /// Removes a subfolder. The full folders in it come to the top.
    fn clear(&self, name: &CStr, pass: &mut Pass) -> Result<(), Errno> {
        let folder = open_folder(&self.top, name)?;
        if fstat(&folder)?.st_dev != self.device {
            return Err(Errno::XDEV);
        }
        self.each(&folder, |name| {
            pass.note(match self.remove(&folder, name) {
                Err(error) if is_full(error) => {
                    renameat(&folder, name, &self.top, temporary::deleted_name())
                }
                removed => removed,
            });
        })?;
        unlinkat(&self.top, name, AtFlags::REMOVEDIR)
    }

    /// Calls `act` with each name in a folder, as long as the removal is to continue.
    fn each(&self, folder: &OwnedFd, mut act: impl FnMut(&CStr)) -> Result<(), Errno> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            if !(self.must_continue)() {
                break;
            }
            act(name);
        }
        Ok(())
    }

    /// Removes a file or an empty folder.
    fn remove(&self, folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        if !self.secrets.is_empty()
            && let Ok(there) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            && self.secrets.contains(&FileId::from(there))
        {
            return Err(Errno::PERM);
        }
        match unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(folder, name, AtFlags::REMOVEDIR),
            removed => removed,
        }
    }
}

fn open_folder(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Whether this error says that a folder is not empty.
pub(super) fn is_full(error: Errno) -> bool {
    matches!(error, Errno::NOTEMPTY | Errno::EXIST)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use cap_std::ambient_authority;

    use super::*;

    const NAME: &str = "deleted";

    /// A folder with a folder to remove in it.
    fn grounds() -> (tempfile::TempDir, cap_std::fs::Dir) {
        let top = tempfile::tempdir().unwrap();
        let parent = cap_std::fs::Dir::open_ambient_dir(top.path(), ambient_authority()).unwrap();
        parent.create_dir(NAME).unwrap();
        (top, parent)
    }

    fn remove(parent: &cap_std::fs::Dir) -> Result<(), Errno> {
        remove_tree(parent, NAME, &[], &|| true)
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn everything_goes_but_what_links_lead_to() {
        let (top, parent) = grounds();
        fs::create_dir(top.path().join("kept")).unwrap();
        fs::write(top.path().join("kept/file"), "").unwrap();
        for folder in ["a/b/c", "a/d", "e"] {
            parent.create_dir_all(format!("{NAME}/{folder}")).unwrap();
            for file in 0..50 {
                parent.write(format!("{NAME}/{folder}/{file}"), "").unwrap();
            }
            let link = top.path().join(NAME).join(folder).join("link");
            symlink(top.path().join("kept"), link).unwrap();
        }
        assert_eq!(remove(&parent), Ok(()));
        assert_eq!(entries(top.path()), 1);
        assert_eq!(entries(&top.path().join("kept")), 1);
        // A file, and nothing.
        parent.write(NAME, "").unwrap();
        assert_eq!(remove(&parent), Ok(()));
        assert_eq!(remove(&parent), Err(Errno::NOENT));
        symlink("kept", top.path().join(NAME)).unwrap();
        assert_eq!(remove(&parent), Ok(()));
        assert_eq!(entries(&top.path().join("kept")), 1);
    }

    #[test]
    fn a_folder_may_be_deeper_than_there_are_descriptors() {
        const DEPTH: usize = 5000;
        let (top, parent) = grounds();
        let mut folder = parent.open_dir(NAME).unwrap();
        for _ in 0..DEPTH {
            folder.create_dir("d").unwrap();
            folder.write("f", "").unwrap();
            folder = folder.open_dir("d").unwrap();
        }
        assert_eq!(remove(&parent), Ok(()));
        assert_eq!(entries(top.path()), 0);
    }

    #[test]
    fn a_secret_stays_whatever_is_around_it() {
        let (top, parent) = grounds();
        let key = top.path().join("deleted/a/b/key");
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        for name in ["key", "other"] {
            fs::write(key.with_file_name(name), name).unwrap();
        }
        let secrets = [FileId::at(&key).unwrap()];
        let removed = remove_tree(&parent, NAME, &secrets, &|| true);
        assert_eq!(removed, Err(Errno::PERM));
        let left = fs::read_dir(top.path().join(NAME)).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(fs::read(left[0].join("key")).unwrap(), b"key");
        assert_eq!(entries(&left[0]), 1);
    }

    #[test]
    fn a_removal_that_was_stopped_continues() {
        let (top, parent) = grounds();
        for file in 0..10 {
            parent.write(format!("{NAME}/{file}"), "").unwrap();
        }
        let left = Cell::new(4_usize);
        let must_continue = || left.replace(left.get().saturating_sub(1)) > 0;
        let stopped = remove_tree(&parent, NAME, &[], &must_continue);
        assert!(stopped.is_err_and(is_full));
        assert_eq!(entries(&top.path().join(NAME)), 6);
        assert_eq!(remove(&parent), Ok(()));
    }
}
