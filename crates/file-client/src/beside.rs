//! What stands beside a file while it is transferred, and what that is called.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::Error;

/// How the names of downloads under way start.
pub(crate) const PART_PREFIX: &str = ".quartet-download-";

/// How the name of what a download is of ends, behind the name of the download.
pub(crate) const STATE_SUFFIX: &str = ".json";

/// How the names of states start that are being written.
pub(crate) const NEW_STATE_PREFIX: &str = ".quartet-state-";

/// The longest name of a file, in bytes, on every file system that matters.
const NAME_BYTES_MAX: usize = 255;

/// A name beside a file: its own with a prefix and a suffix.
///
/// # Errors
/// If the file has no name, or too long a one.
pub(crate) fn named(file: &Path, prefix: &str, suffix: &str) -> Result<PathBuf, Error> {
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

/// A new name beside a file, for what has no name of its own yet.
pub(crate) fn temporary(file: &Path, prefix: &str) -> PathBuf {
    file.with_file_name(format!("{prefix}{}", Uuid::new_v4()))
}

/// Whether this is the name of a temporary file.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    [PART_PREFIX, NEW_STATE_PREFIX]
        .iter()
        .filter_map(|prefix| name.as_bytes().strip_prefix(prefix.as_bytes()))
        .any(|rest| Uuid::try_parse_ascii(rest).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leaves_room_for_a_longer_one() {
        let long = |bytes| "a".repeat(bytes);
        named(Path::new(&long(250)), ".p-", ".s").unwrap();
        let error = named(Path::new(&long(251)), ".p-", ".s").unwrap_err();
        let want = format!(
            "the name of {} is too long: with --resume it may have 250 bytes",
            long(251)
        );
        assert_eq!(error.to_string(), want);
        named(Path::new("/"), "", "").unwrap_err();
    }

    #[test]
    fn a_temporary_file_is_known_by_its_name() {
        const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let is = |name: String| is_temporary(OsStr::new(&name));
        assert!(is(format!(".quartet-download-{ID}")));
        assert!(is(format!(".quartet-state-{ID}")));
        for name in ["a", ".iso", ".json"] {
            assert!(!is(format!(".quartet-download-{ID}{name}")), "{name}");
            assert!(!is(format!(".quartet-download-{name}")), "{name}");
        }
        assert!(!is(format!(".quartet-upload-{ID}")));
        let new = temporary(Path::new("a/b"), PART_PREFIX);
        assert!(new.starts_with("a") && is_temporary(new.file_name().unwrap()));
    }
}
