//! How long a file may become, and how much of its disk stays free.

use std::fs::File;
use std::io;

use rustix::fs::fstatvfs;
use rustix::io::retry_on_intr;

/// The default of the longest a file may become, in bytes.
pub const FILE_BYTES_DEFAULT: u64 = 1 << 30;

/// The highest limit that can be set, in bytes: a terabyte.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// The default of how much of a disk stays free, in bytes.
const KEEP_FREE_BYTES_DEFAULT: u64 = 16 << 20;

/// On a small disk, this part of it stays free instead: a tenth.
const KEEP_FREE_PART: u64 = 10;

/// How far [`Space::Reserved`] exceeds the limit of a file, in bytes.
pub(crate) const RESERVED_BYTES: u64 = 1 << 20;

/// The limits of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest it may become, in bytes.
    pub file_bytes_max: u64,
    /// How much of its disk stays free, in bytes; `None` for 16 MiB or a tenth of the disk,
    /// whichever is less.
    pub keep_free_bytes: Option<u64>,
}

impl Limits {
    /// The limits with the default for a length that is not given.
    pub fn new(file_bytes_max: Option<u64>, keep_free_bytes: Option<u64>) -> Self {
        Self {
            file_bytes_max: file_bytes_max.unwrap_or(FILE_BYTES_DEFAULT),
            keep_free_bytes,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(None, None)
    }
}

/// Which space a change may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The space up to the limits.
    Usual,
    /// Also the reserved space beyond them: for a change that frees space in a full file.
    Reserved,
}

impl Limits {
    /// How many bytes of a file's disk are free beyond those that stay free.
    pub(crate) fn free_bytes(&self, file: &File) -> io::Result<u64> {
        let disk = retry_on_intr(|| fstatvfs(file))?;
        let keep_free = self.keep_free_bytes.unwrap_or_else(|| {
            let part = disk.f_blocks.saturating_mul(disk.f_frsize) / KEEP_FREE_PART;
            part.min(KEEP_FREE_BYTES_DEFAULT)
        });
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(free.saturating_sub(keep_free))
    }
}
