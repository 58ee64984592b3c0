//! The names of what is temporary: an upload stands under such a name until it is complete, and a folder
//! that is deleted until all that was in it is removed.
//!
//! They are not served, and nothing that a client makes may have such a name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use uuid::Uuid;

/// How the names start that the server keeps for itself.
const RESERVED: &str = ".quartet-";

/// How the names of temporary files start.
const PREFIX: &str = ".quartet-upload-";

/// How the names of deleted folders start.
const DELETED_PREFIX: &str = ".quartet-deleted-";

/// A new name, which no other file has.
pub(super) fn new_name() -> String {
    format!("{PREFIX}{}", Uuid::new_v4())
}

/// Whether a name is one that [`new_name`] makes.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    has_prefix(name, PREFIX)
}

/// A new name for a deleted folder.
pub(super) fn deleted_name() -> String {
    format!("{DELETED_PREFIX}{}", Uuid::new_v4())
}

/// Whether a name is one that [`deleted_name`] makes.
pub(super) fn is_deleted(name: &OsStr) -> bool {
    has_prefix(name, DELETED_PREFIX)
}

fn has_prefix(name: &OsStr, prefix: &str) -> bool {
    let id = name.as_bytes().strip_prefix(prefix.as_bytes());
    id.is_some_and(|id| Uuid::try_parse_ascii(id).is_ok())
}

/// Whether a name in a path is one that the server keeps for itself.
pub(super) fn is_reserved(path: &Path) -> bool {
    let mut names = path.iter();
    names.any(|name| name.as_bytes().starts_with(RESERVED.as_bytes()))
}
