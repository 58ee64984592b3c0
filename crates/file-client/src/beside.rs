//! What stands beside a file while it is transferred, and what that is called. Each kind has a prefix of
//! its own, so that whatever two files are called, nothing beside the one has a name beside the other.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::Error;

/// How the names of downloads under way start.
pub(crate) const PART_PREFIX: &str = ".quartet-download-";

/// How the names start of what those downloads are of.
pub(crate) const STATE_PREFIX: &str = ".quartet-resume-";

/// How the names of the states of uploads start.
pub(crate) const UPLOAD_PREFIX: &str = ".quartet-upload-";

/// How the names of states start that are being written.
pub(crate) const NEW_STATE_PREFIX: &str = ".quartet-state-";

/// The longest name of a file, in bytes, on every file system that matters.
const NAME_BYTES_MAX: usize = 255;

/// A name beside a file: its own with a prefix.
///
/// # Errors
/// If the file has no name, or too long a one.
pub(crate) fn named(file: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let Some(name) = file.file_name() else {
        return Err(Error::NotAFile(file.to_owned()));
    };
    let bytes_max = NAME_BYTES_MAX - prefix.len();
    if name.as_bytes().len() > bytes_max {
        let path = file.to_owned();
        return Err(Error::NameTooLong { path, bytes_max });
    }
    let mut beside = OsString::from(prefix);
    beside.push(name);
    Ok(file.with_file_name(beside))
}

/// A new name beside a file, for what has no name of its own yet.
pub(crate) fn temporary(file: &Path, prefix: &str) -> PathBuf {
    file.with_file_name(format!("{prefix}{}", Uuid::new_v4()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leaves_room_for_a_longer_one() {
        let long = |bytes| "a".repeat(bytes);
        named(Path::new(&long(247)), ".prefix-").unwrap();
        let error = named(Path::new(&long(248)), ".prefix-").unwrap_err();
        let want = format!(
            "the name of {} is too long: with --resume it may have 247 bytes",
            long(248)
        );
        assert_eq!(error.to_string(), want);
        named(Path::new("/"), "").unwrap_err();
    }

    #[test]
    fn no_prefix_begins_another() {
        let all = [PART_PREFIX, STATE_PREFIX, UPLOAD_PREFIX, NEW_STATE_PREFIX];
        for (one, other) in all.iter().flat_map(|one| all.map(|other| (*one, other))) {
            assert!(one == other || !other.starts_with(one), "{one} {other}");
        }
    }
}
