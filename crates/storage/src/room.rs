//! How much room a file may take.

use std::fs::File;
use std::io;

use rustix::fs::fstatvfs;
use rustix::io::retry_on_intr;

/// How long a file may become unless told otherwise, in bytes.
pub const FILE_BYTES_DEFAULT: u64 = 1 << 30;

/// The longest that a file may be allowed to become, in bytes: a terabyte.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// How much of a disk is left free unless told otherwise, in bytes; on a small one, the part below.
const KEEP_FREE_BYTES_DEFAULT: u64 = 16 << 20;

/// Of a small disk, one part in so many is left free.
const KEEP_FREE_PART: u64 = 10;

/// How much longer than a file may be it becomes for what makes room in it, in bytes.
pub(crate) const RESERVED_BYTES: u64 = 1 << 20;

/// How much room a file may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long it may become, in bytes.
    pub file_bytes_max: u64,
    /// How much of its disk stays free, in bytes; `None` for 16 MiB or a tenth of the disk,
    /// whichever is less.
    pub keep_free_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes_max: FILE_BYTES_DEFAULT,
            keep_free_bytes: None,
        }
    }
}

/// Who asks for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Anybody: up to the limits.
    Usual,
    /// What makes room in a file that is full: beyond them, by a bounded amount.
    Reserved,
}

impl Limits {
    /// How many bytes the disk of a file has beside those that stay free.
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
