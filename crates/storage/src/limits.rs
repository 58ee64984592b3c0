//! How long a file may become, and how much of its disk stays free.

use std::fs::File;
use std::io;

use rustix::fs::fstatvfs;
use rustix::io::retry_on_intr;

use crate::DataFile;

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
    fn free_bytes(&self, file: &File) -> io::Result<u64> {
        let disk = retry_on_intr(|| fstatvfs(file))?;
        let keep_free = self.keep_free_bytes.unwrap_or_else(|| {
            let part = disk.f_blocks.saturating_mul(disk.f_frsize) / KEEP_FREE_PART;
            part.min(KEEP_FREE_BYTES_DEFAULT)
        });
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(free.saturating_sub(keep_free))
    }
}

/// Checks what is appended to one file against its limits.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    limits: Limits,
    /// The length of the file when it was opened.
    opened_bytes: u64,
    /// The free space of the disk, looked up once for each commit.
    free_bytes: Option<u64>,
    is_full: bool,
}

impl Quota {
    pub(crate) fn new(limits: Limits, opened_bytes: u64) -> Self {
        Self {
            limits,
            opened_bytes,
            ..Self::default()
        }
    }

    /// A file was opened in the place of the other one.
    pub(crate) fn reopened(&mut self, opened_bytes: u64) {
        self.opened_bytes = opened_bytes;
    }

    /// The free space may have changed.
    pub(crate) fn committed(&mut self) {
        self.free_bytes = None;
    }

    /// Checks whether this many bytes may be added to a file of this length.
    ///
    /// # Errors
    /// A sentence with the limit that would be exceeded.
    pub(crate) fn check(
        &mut self,
        data: &DataFile,
        file_bytes: u64,
        added_bytes: u64,
        space: Space,
    ) -> Result<(), String> {
        // Peers see the sentence, and need not know the folder.
        let name = || data.path().file_name().unwrap_or_default().display();
        let is_within = |max: u64| match added_bytes <= max.saturating_sub(file_bytes) {
            true => Ok(()),
            false => Err(format!("{} is full: its limit is {max} bytes", name())),
        };
        let file_bytes_max = self.limits.file_bytes_max;
        if space == Space::Reserved {
            let max = file_bytes_max.max(self.opened_bytes);
            return is_within(max.saturating_add(RESERVED_BYTES));
        }
        let checked = is_within(file_bytes_max).and_then(|()| {
            let free = match self.free_bytes {
                Some(free) => free,
                None => {
                    let free = self.limits.free_bytes(data.file());
                    *self
                        .free_bytes
                        .insert(free.map_err(|error| error.to_string())?)
                }
            };
            match added_bytes <= free {
                true => Ok(()),
                false => Err(format!(
                    "the disk of {} is full: the rest is kept free",
                    name()
                )),
            }
        });
        if let Err(cause) = &checked
            && !self.is_full
        {
            log::error!(
                "New lines of {} are refused: {cause}",
                data.path().display()
            );
        }
        self.is_full = checked.is_err();
        checked
    }
}
