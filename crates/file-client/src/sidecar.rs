//! Sidecar files: small hidden files beside a larger one that keep what resuming its transfer needs.
//!
//! Each kind has a prefix of its own, so no sidecar of one file has the name of a sidecar of another.
//! The folder may belong to many users, and its files may come out of an archive. So a sidecar counts
//! only if it is as this client makes them, and what belongs to another user is left as it is.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::Error;
use crate::escaped::escaped;
use crate::place::Place;
use crate::progress::above_bars;

/// What the names of all sidecars begin with, and of all temporary files of a server.
const RESERVED_PREFIX: &str = ".quartet-";

/// Why what has such a name is not transferred.
pub(crate) const RESERVED: &str = "names that begin with .quartet- are reserved";

/// The prefix of what has been received of a download.
pub(crate) const PART_PREFIX: &str = ".quartet-download-";

/// The prefix of the state of a download: what the part is of.
pub(crate) const STATE_PREFIX: &str = ".quartet-resume-";

/// The prefix of the state of an upload.
pub(crate) const UPLOAD_PREFIX: &str = ".quartet-upload-";

/// The prefix of a state that is being written.
pub(crate) const NEW_STATE_PREFIX: &str = ".quartet-state-";

/// The mode of every sidecar: only its owner may open it.
pub(crate) const MODE: u32 = 0o600;

/// How a file is opened to be written that must not be there yet.
pub(crate) const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL);

/// The longest name of a file, in bytes, on every file system that matters.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The longest state, in bytes: it has two paths in it, and little more.
const STATE_BYTES_MAX: u64 = 64 * 1024;

/// The place of a sidecar: that of the file, with a prefix before its name.
///
/// # Errors
/// If the file has too long a name.
pub(crate) fn named(file: &Place, prefix: &str) -> Result<Place, Error> {
    let bytes_max = NAME_BYTES_MAX - prefix.len();
    if file.name().as_bytes().len() > bytes_max {
        let path = file.path();
        return Err(Error::NameTooLong { path, bytes_max });
    }
    let mut sidecar = OsString::from(prefix);
    sidecar.push(file.name());
    Ok(file.sibling(sidecar))
}

/// A new place beside a file, for a temporary file.
pub(crate) fn temporary(file: &Place, prefix: &str) -> Place {
    file.sibling(format!("{prefix}{}", Uuid::new_v4()))
}

/// Whether a name is that of a sidecar, or of a temporary file of a server; some disks do not tell
/// capital letters from small ones.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    let start = name.get(..RESERVED_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes()))
}

/// Whether a name is that of a sidecar of ours. A temporary file of a server may have one, too.
pub(crate) fn is_sidecar(name: &[u8]) -> bool {
    [PART_PREFIX, STATE_PREFIX, UPLOAD_PREFIX, NEW_STATE_PREFIX]
        .iter()
        .any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Whether a file is as this client makes them: a regular file of this user, with one name, that
/// other users cannot open.
pub(crate) fn is_ours(found: &Metadata) -> bool {
    let is_private = found.mode() & 0o077 == 0 && found.nlink() == 1;
    found.is_file() && !is_foreign(found) && is_private
}

/// Whether a file belongs to another user.
pub(crate) fn is_foreign(found: &Metadata) -> bool {
    found.uid() != geteuid().as_raw()
}

/// Whether what is at a place belongs to another user.
pub(crate) fn is_taken(place: &Place) -> bool {
    place.metadata().is_ok_and(|found| is_foreign(&found))
}

/// Reads a state. `None` if there is none, or the file is not ours, or holds something else: then the
/// transfer starts over and writes a new state.
pub(crate) fn read<T: DeserializeOwned>(place: &Place) -> Option<T> {
    let mut json = Vec::new();
    // In a folder of many users, another user may have put a link there, or a pipe.
    let file = place.open(OFlags::RDONLY, 0).ok()?;
    if !is_ours(&file.metadata().ok()?) {
        return None;
    }
    file.take(STATE_BYTES_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The same at the start of a transfer: warns if there is a file that is not ours.
pub(crate) fn find<T: DeserializeOwned>(place: &Place) -> Option<T> {
    let state = read(place);
    if state.is_none() && place.metadata().is_ok_and(|found| !is_ours(&found)) {
        let path = place.path();
        above_bars(|| log::warn!("{} is not used: it is not ours alone", escaped(&path)));
    }
    state
}

/// Writes a state. It replaces the one that is there in one step, so that there is always one or the
/// other.
///
/// # Errors
/// If that belongs to another user, and those of the disk.
pub(crate) fn write(place: &Place, state: &impl Serialize) -> io::Result<()> {
    if is_taken(place) {
        return Err(io::Error::other("it belongs to another user"));
    }
    let temporary = temporary(place, NEW_STATE_PREFIX);
    let mut file = temporary.open(NEW, MODE)?;
    let written = file
        .write_all(&serde_json::to_vec(state)?)
        .and_then(|()| temporary.rename_to(place));
    if written.is_err() {
        // The first error says more.
        let _ = temporary.remove();
    }
    written
}

/// Removes a sidecar, if there is one that does not belong to another user.
pub(crate) fn remove(place: &Place) {
    if is_taken(place) {
        return;
    }
    match place.remove() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let path = place.path();
            above_bars(|| log::warn!("cannot remove {}: {error}", escaped(&path)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::Path;

    use super::*;

    fn place(path: &Path) -> Place {
        Place::at(path).unwrap()
    }

    /// Another user.
    const NOBODY: u32 = 65534;

    #[test]
    fn a_name_leaves_room_for_a_longer_one() {
        let long = |bytes| "a".repeat(bytes);
        let named_long = |bytes| named(&place(Path::new(&long(bytes))), ".prefix-");
        named_long(247).unwrap();
        let error = named_long(248).unwrap_err();
        let want = format!(
            "the name of {} is too long: with --resume it may have 247 bytes",
            long(248)
        );
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn no_prefix_begins_another() {
        let all = [PART_PREFIX, STATE_PREFIX, UPLOAD_PREFIX, NEW_STATE_PREFIX];
        for (one, other) in all.iter().flat_map(|one| all.map(|other| (*one, other))) {
            assert!(one == other || !other.starts_with(one), "{one} {other}");
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = named(&place(&folder.path().join("a")), ".p-").unwrap();
        let path = folder.path().join(".p-a");
        assert_eq!(at.path(), path);
        assert_eq!(read::<String>(&at), None);
        for state in ["one", "two"] {
            write(&at, &state).unwrap();
            assert_eq!(read::<String>(&at).as_deref(), Some(state));
        }
        assert_eq!(read::<u64>(&at), None);
        fs::write(&path, "\"half").unwrap();
        assert_eq!(read::<String>(&at), None);
        remove(&at);
        remove(&at);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_somebody_else_put_there_is_no_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let at = place(&path);
        // Opening it waits for its writer.
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(read::<u64>(&at), None);
        fs::write(folder.path().join("b"), "1").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("b", &path).unwrap();
        assert_eq!(read::<u64>(&at), None);
        write(&at, &2).unwrap();
        assert_eq!(read::<u64>(&at), Some(2));
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"1");
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        for mode in [0o644, 0o660, 0o604] {
            set_mode(mode).unwrap();
            assert_eq!(read::<u64>(&at), None, "{mode:o}");
        }
        set_mode(0o600).unwrap();
        assert_eq!(read::<u64>(&at), Some(2));
        fs::hard_link(&path, folder.path().join("c")).unwrap();
        assert_eq!(read::<u64>(&at), None);
    }

    #[test]
    fn what_belongs_to_another_user_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let at = place(&path);
        write(&at, &1).unwrap();
        if chown(&path, Some(NOBODY), None).is_err() {
            return; // Only root can try this.
        }
        assert!(is_taken(&at));
        assert_eq!(read::<u64>(&at), None);
        write(&at, &2).unwrap_err();
        remove(&at);
        assert_eq!(fs::read(&path).unwrap(), b"1");
    }
}
