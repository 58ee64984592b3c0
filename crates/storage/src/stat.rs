//! What file this is and how long it is, without asking for its times.
//!
//! Since Linux 6.13, asking for the times of a file makes its next write store new ones of the finest
//! grain (Documentation/filesystems/multigrain-ts.rst), and a sync then writes those too. Every commit
//! checks the file it has synced, so asking for the times would cost one more block for each commit.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

/// The identity and the size of a file.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Which file it is: the major and minor number of its device, and its inode number.
    pub identity: (u32, u32, u64),
    /// Its length, in bytes.
    pub bytes: u64,
    /// The space it takes on its disk, in bytes.
    pub allocated_bytes: u64,
}

/// The unit in which statx(2) counts blocks, in bytes.
const BLOCK_BYTES: u64 = 512;

const WANTED: StatxFlags = StatxFlags::INO
    .union(StatxFlags::SIZE)
    .union(StatxFlags::BLOCKS);

impl Stat {
    /// The file that a path names.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&statx(CWD, path, AtFlags::empty(), WANTED)?))
    }

    /// An open file.
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
