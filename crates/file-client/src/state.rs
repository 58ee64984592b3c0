//! Small files beside a larger one that hold what is needed to go on with its transfer.
//!
//! The folder may belong to many users, and what stands there may come out of an archive. So a file
//! counts only if it is as a client of ours makes it, and what another user has put there stays as it
//! is.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::beside;
use crate::progress::above_bars;
use crate::transfer::shown;

/// A state is not longer than this, in bytes: it has two paths in it, and little more.
const STATE_BYTES_MAX: u64 = 64 * 1024;

/// Nobody else has to know where an upload goes on.
const MODE: u32 = 0o600;

/// Whether a file is as we make them: ours, with one name, and nobody else can have opened it.
pub(crate) fn is_ours(there: &Metadata) -> bool {
    let is_private = there.mode() & 0o077 == 0 && there.nlink() == 1;
    there.is_file() && !is_foreign(there) && is_private
}

/// Whether a file belongs to another user.
pub(crate) fn is_foreign(there: &Metadata) -> bool {
    there.uid() != geteuid().as_raw()
}

/// Whether another user has put something at a path.
pub(crate) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| is_foreign(&there))
}

/// The state in a file. What is there and is no such state, or is not ours, is as good as none: who
/// reads it starts anew and writes one.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut json = Vec::new();
    // In a folder of many users, somebody else may have put a link there, or a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.ok()?;
    if !is_ours(&file.metadata().ok()?) {
        return None;
    }
    file.take(STATE_BYTES_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The state in a file, for who means to go on with it: it is said if there is one that is not ours.
pub(crate) fn find<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let state = read(path);
    if state.is_none() && fs::symlink_metadata(path).is_ok_and(|there| !is_ours(&there)) {
        above_bars(|| log::warn!("{} is not used: it is not ours alone", shown(path)));
    }
    state
}

/// Writes a state in place of the one that may be there, so that there is always one or the other.
///
/// # Errors
/// If that belongs to another user, and those of the disk.
pub(crate) fn write(path: &Path, state: &impl Serialize) -> io::Result<()> {
    if is_taken(path) {
        return Err(io::Error::other("it belongs to another user"));
    }
    let temporary = beside::temporary(path, beside::NEW_STATE_PREFIX);
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(MODE);
    let mut file = options.open(&temporary)?;
    let written = file
        .write_all(&serde_json::to_vec(state)?)
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error says more.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes a state, if it is there and does not belong to another user.
pub(crate) fn remove(path: &Path) {
    if is_taken(path) {
        return;
    }
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            above_bars(|| log::warn!("{} stays behind: {error}", shown(path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    /// Another user, whoever we are.
    const NOBODY: u32 = 65534;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside::named(&folder.path().join("a"), ".p-").unwrap();
        assert_eq!(path, folder.path().join(".p-a"));
        assert_eq!(read::<String>(&path), None);
        for state in ["one", "two"] {
            write(&path, &state).unwrap();
            assert_eq!(read::<String>(&path).as_deref(), Some(state));
        }
        assert_eq!(read::<u64>(&path), None);
        fs::write(&path, "\"half").unwrap();
        assert_eq!(read::<String>(&path), None);
        remove(&path);
        remove(&path);
        write(&folder.path().join("gone/a"), &1).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_else_put_there_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        // Whoever opens it waits for its writer.
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(read::<u64>(&path), None);
        fs::write(folder.path().join("b"), "1").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("b", &path).unwrap();
        assert_eq!(read::<u64>(&path), None);
        write(&path, &2).unwrap();
        assert_eq!(read::<u64>(&path), Some(2));
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"1");
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        for mode in [0o644, 0o660, 0o604] {
            set_mode(mode).unwrap();
            assert_eq!(read::<u64>(&path), None, "{mode:o}");
        }
        set_mode(0o600).unwrap();
        assert_eq!(read::<u64>(&path), Some(2));
        fs::hard_link(&path, folder.path().join("c")).unwrap();
        assert_eq!(read::<u64>(&path), None);
    }

    #[test]
    fn what_belongs_to_another_user_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, &1).unwrap();
        if chown(&path, Some(NOBODY), None).is_err() {
            return; // Only root can try this.
        }
        assert!(is_taken(&path));
        assert_eq!(read::<u64>(&path), None);
        write(&path, &2).unwrap_err();
        remove(&path);
        assert_eq!(fs::read(&path).unwrap(), b"1");
    }
}
