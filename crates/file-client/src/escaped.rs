//! Names, escaped so that they can stand in a line: a name may hold line breaks, and need not be UTF-8.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use cli::escape::EscapedBytes;

/// The whole name.
pub(crate) fn escaped(name: &(impl AsRef<OsStr> + ?Sized)) -> EscapedBytes<'_> {
    EscapedBytes {
        bytes: name.as_ref().as_bytes(),
        bytes_max: usize::MAX,
    }
}
