//! A look at a file that leaves its times alone.
//!
//! Since Linux 6.13, a file whose times were asked for gets new ones, of the finest grain, with its
//! next write (Documentation/filesystems/multigrain-ts.rst), and a sync then writes them too. Where
//! every commit looks at the file it has synced, that is one more block for each. So these looks do
//! not ask for the times.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

/// What a file is, and what it has.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Which file it is: the device it is on, and its number there.
    pub identity: (u32, u32, u64),
    /// How long it is, in bytes.
    pub bytes: u64,
    /// How much room it has on its disk, in bytes.
    pub allocated_bytes: u64,
}

/// What the system counts a file's blocks in.
const BLOCK_BYTES: u64 = 512;

impl Look {
    /// Looks at what a path names.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&statx(CWD, path, AtFlags::empty(), WANTED)?))
    }

    /// Looks at a file that is open.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&statx(file, "", AtFlags::EMPTY_PATH, WANTED)?))
    }

    fn from(found: &Statx) -> Self {
        Self {
            identity: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
            bytes: found.stx_size,
            allocated_bytes: found.stx_blocks * BLOCK_BYTES,
        }
    }
}

const WANTED: StatxFlags = StatxFlags::INO
    .union(StatxFlags::SIZE)
    .union(StatxFlags::BLOCKS);
