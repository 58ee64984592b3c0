//! Small files beside a larger one that hold what is needed to go on with its transfer.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::Error;
use crate::progress::above_bars;
use crate::transfer::shown;

/// How the names of states start that are being written.
const TEMPORARY_PREFIX: &str = ".quartet-state-";

/// The longest name of a file, in bytes, on every file system that matters.
const NAME_BYTES_MAX: usize = 255;

/// A state is not longer than this, in bytes: it has two paths in it, and little more.
const STATE_BYTES_MAX: u64 = 64 * 1024;

/// Nobody else has to know where an upload goes on.
const MODE: u32 = 0o600;

/// A name beside a file: its own with a prefix and a suffix.
///
/// # Errors
/// If the file has no name, or too long a one.
pub(crate) fn beside(file: &Path, prefix: &str, suffix: &str) -> Result<PathBuf, Error> {
    let Some(name) = file.file_name() else {
        return Err(Error::NotAFile(file.to_owned()));
    };
    let bytes_max = NAME_BYTES_MAX - prefix.len() - suffix.len();
    if name.as_bytes().len() > bytes_max {
        let path = file.to_owned();
        return Err(Error::NameTooLong { path, bytes_max });
    }
    let mut beside = OsString::from(prefix);
    beside.push(name);
    beside.push(suffix);
    Ok(file.with_file_name(beside))
}

/// The state in a file. What is there and is no such state is as good as none: whoever reads it
/// starts anew and writes one.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut json = Vec::new();
    // In a folder of many users, somebody else may have put a link there, or a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(STATE_BYTES_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Writes a state in place of the one that may be there, so that there is always one or the other.
pub(crate) fn write(path: &Path, state: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_file_name(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
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

/// Removes a state, if it is there.
pub(crate) fn remove(path: &Path) {
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
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = beside(&folder.path().join("a"), ".p-", ".s").unwrap();
        assert_eq!(path, folder.path().join(".p-a.s"));
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
        assert_eq!(read::<u64>(&folder.path().join("b")), Some(1));
    }

    #[test]
    fn a_name_leaves_room_for_a_longer_one() {
        let long = |bytes| "a".repeat(bytes);
        beside(Path::new(&long(250)), ".p-", ".s").unwrap();
        let error = beside(Path::new(&long(251)), ".p-", ".s").unwrap_err();
        let want = format!(
            "the name of {} is too long: with --resume it may have 250 bytes",
            long(251)
        );
        assert_eq!(error.to_string(), want);
        beside(Path::new("/"), "", "").unwrap_err();
    }
}
