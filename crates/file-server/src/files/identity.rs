//! What tells a file from any other, and from itself after a change.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Metadata, MetadataExt};
use proto::http::conditional::Version;
use rustix::fs::{AtFlags, CWD, Stat, statat};
use rustix::time::{ClockId, clock_gettime};

/// A file is stable when its last change is at least this old. A younger one may change again within
/// the same tick of the file system's clock.
const AGE_MIN: Duration = Duration::from_secs(2);

/// The identity of a file: a change of the file gives it another one.
///
/// Two exceptions: a network file system may know of a change later, and a program that writes through
/// a shared mapping may change a file without touching its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// The identity of the file that a path leads to, wherever that is.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::from(statat(CWD, path, AtFlags::empty())?))
    }

    /// The file's length, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a file that still has this identity later still has the same contents.
    pub(crate) fn is_stable(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let last = u64::try_from(self.modified.0.max(self.changed.0));
        match (last, now) {
            (Ok(last), Ok(now)) => Duration::from_secs(last) + AGE_MIN < now,
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Whether the contents are those of `other`, as far as the file's metadata tells. The time of the
    /// last change of the metadata may differ: it changes when another file replaces this one.
    pub(crate) fn has_contents_of(&self, other: &Self) -> bool {
        let changed = self.changed;
        *self == Self { changed, ..*other }
    }

    /// The version of the file, which clients compare: a file that is replaced or written to gets
    /// another one. A file from the future counts as changed just now (RFC 9110 section 8.8.2.1).
    pub(crate) fn version(&self) -> Version {
        let (secs, nanos) = self.modified;
        Version {
            etag: format!("\"{:x}-{:x}-{secs:x}.{nanos:x}\"", self.inode, self.bytes),
            modified: u64::try_from(secs).unwrap_or(0).min(seconds_now()),
        }
    }
}

impl From<&Metadata> for Identity {
    fn from(there: &Metadata) -> Self {
        Self {
            device: there.dev(),
            inode: there.ino(),
            bytes: there.len(),
            modified: (there.mtime(), there.mtime_nsec()),
            changed: (there.ctime(), there.ctime_nsec()),
        }
    }
}

impl From<Stat> for Identity {
    fn from(there: Stat) -> Self {
        Self {
            device: there.st_dev,
            inode: there.st_ino,
            bytes: there.st_size as u64,
            modified: (there.st_mtime, there.st_mtime_nsec as i64),
            changed: (there.st_ctime, there.st_ctime_nsec as i64),
        }
    }
}

/// The seconds since 1970, by the clock of the `Date` field, which follows by a tick: `Last-Modified` must not be
/// later (RFC 9110 section 8.8.2.1).
pub(crate) fn seconds_now() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0)
}
