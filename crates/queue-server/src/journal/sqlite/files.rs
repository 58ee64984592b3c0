//! The files of a database: locked, watched, synced, and allocated ahead.
//!
//! SQLite's locks belong to the process, and closing any descriptor of a file gives up those that the
//! process has on it (sqlite.org/howtocorrupt.html, 2.2). So the database has one descriptor beside
//! SQLite's, which is opened before SQLite opens its own and closed after it has closed it. The
//! write-ahead log is never locked, and may be opened and closed at any time; its index never is.
//!
//! A queue whose disk is full must still hand out and acknowledge what it has. That takes room in the
//! log, and copying the log into the database takes room there. Both are reserved: the log is allocated
//! longer than it needs to be, and the database grows before the transaction that needs it is committed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::{Errno, retry_on_intr};
use storage::{DataFile, LegacyLock, Stat, Watch, sync_folder};

use crate::error::Error;

/// The heads in the log: one at its start, and one before each page, in bytes.
const LOG_HEAD_BYTES: u64 = 32;
const FRAME_HEAD_BYTES: u64 = 24;

/// The usual length of the write-ahead log, in pages. It is then copied into the database and written
/// from its start again; earlier, if less room is reserved.
const LOG_PAGES_MAX: u64 = 1024;

/// How much room is reserved for a full disk, in bytes...
const RESERVE_BYTES_MAX: u64 = 16 << 20;

/// ...and of a small disk, one part in this many.
const RESERVE_PART: u64 = 10;

/// The database grows by one part in this many of the reserve. So much, or that part of a short database,
/// stays free behind its messages: a lease, a reason or a key may need a page when the disk is full.
const GROWTH_PART: u64 = 16;

/// What is written to find out why writes fail.
const PROBE: [u8; 4096] = [0; 4096];

/// How much of a log is rewritten at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// The file of a database. It is locked, and dropping it removes a file that was made for nothing.
pub(super) struct Database {
    file: DataFile,
    real_path: PathBuf,
    /// Nobody was told that anything is stored in it.
    pub(super) is_unused: bool,
    _legacy_lock: LegacyLock,
}

impl Database {
    /// Opens and locks a file, which is made if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let is_new = !fs::exists(path).unwrap_or(true);
        let file = DataFile::open(path)?;
        // Its log is found by its name, so it may have only one.
        file.refuse_links()?;
        let failed = Error::open(path);
        let real_path = fs::canonicalize(path).map_err(&failed)?;
        let legacy_lock = LegacyLock::acquire(&beside(&real_path, ".lock"))?;
        let is_empty = file.file().metadata().map_err(failed)?.len() == 0;
        Ok(Self {
            file,
            real_path,
            is_unused: is_new && is_empty,
            _legacy_lock: legacy_lock,
        })
    }

    /// Its one true name.
    pub(super) fn path(&self) -> &Path {
        &self.real_path
    }

    /// The name of its log.
    pub(super) fn log_path(&self) -> PathBuf {
        beside(&self.real_path, "-wal")
    }

    /// Syncs the file and its folder.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.file().sync_all()?;
        sync_folder(&self.real_path)
    }

    /// Rewrites the log as it is, and syncs it. The server before this one may have ended because it
    /// could not sync the log; then only new writes bring to the disk what was read. Nobody else may write
    /// to it meanwhile.
    pub(super) fn write_log_again(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let log = match options.read(true).write(true).open(self.log_path()) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        loop {
            let bytes = match log.read_at(&mut piece, at) {
                Ok(0) => break,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            log.write_all_at(&piece[..bytes], at)?;
            at += bytes as u64;
        }
        log.sync_all()
    }

    /// How long the file is, and how much the disk has free, in bytes.
    pub(super) fn room(&self) -> io::Result<(u64, u64)> {
        let disk = retry_on_intr(|| fstatvfs(&**self.file.file()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok((self.file.file().metadata()?.len(), free))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.is_unused {
            return;
        }
        // It is still locked, and SQLite has closed it. What cannot be removed does no harm.
        for suffix in ["-journal", "-wal", "-shm", ""] {
            let _ = fs::remove_file(beside(&self.real_path, suffix));
        }
    }
}

/// The files of a database that is used.
pub(super) struct Files {
    /// The log. SQLite has it open too.
    log: File,
    watches: [Watch; 2],
    /// How much room is reserved, in bytes; 0 if that is not possible.
    reserve_bytes: u64,
    /// The size of a page, in bytes. A vacuum may have changed it to any that SQLite knows.
    page_bytes: u64,
    // Closed last.
    pub(super) database: Database,
}

impl Files {
    /// Watches the files, which SQLite has open, and reserves room if there is any.
    pub(super) fn new(database: Database, page_bytes: u64) -> io::Result<Self> {
        let log_path = database.log_path();
        let log = OpenOptions::new().read(true).write(true).open(&log_path)?;
        let disk = retry_on_intr(|| fstatvfs(&log))?;
        let part = disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_PART;
        let mut files = Self {
            log,
            watches: [
                Watch::new(&log_path)?,
                Watch::new(&beside(&database.real_path, "-shm"))?,
            ],
            reserve_bytes: part.min(RESERVE_BYTES_MAX),
            page_bytes,
            database,
        };
        if let Err(error) = files.reserve_log(0) {
            log::warn!("No room can be reserved for a full disk: {error}");
        }
        Ok(files)
    }

    /// Checks that nobody has moved or replaced any of them.
    pub(super) fn check(&self) -> io::Result<()> {
        self.database.file.watch().check()?;
        self.watches.iter().try_for_each(Watch::check)
    }

    /// What a page takes in the log, in bytes.
    fn frame_bytes(&self) -> u64 {
        FRAME_HEAD_BYTES + self.page_bytes
    }

    /// With more pages than this, the log is copied into the database.
    pub(super) fn log_pages_max(&self) -> usize {
        let pages = match self.reserve_bytes {
            0 => LOG_PAGES_MAX,
            reserve_bytes => (reserve_bytes / 2 / self.frame_bytes()).clamp(1, LOG_PAGES_MAX),
        };
        pages as usize
    }

    /// The longest log that is kept when it is written from its start again, in bytes.
    pub(super) fn log_bytes_kept(&self) -> u64 {
        match self.reserve_bytes {
            0 => LOG_PAGES_MAX * self.frame_bytes(),
            reserve_bytes => reserve_bytes,
        }
    }

    /// Allocates the reserve of the log, of which this many pages are in use.
    pub(super) fn reserve_log(&mut self, log_pages: usize) -> io::Result<()> {
        let in_use = LOG_HEAD_BYTES + log_pages as u64 * self.frame_bytes();
        let wanted = self.reserve_bytes.max(in_use + self.reserve_bytes / 2);
        if self.reserve_bytes == 0 || Stat::of(&self.log)?.allocated_bytes >= wanted {
            return Ok(());
        }
        let is_possible = allocate(&self.log, FallocateFlags::KEEP_SIZE, 0, wanted)?;
        self.note_allocation(is_possible);
        Ok(())
    }

    /// Allocates this many pages for the database, so that the log can be copied into it. A transaction
    /// that has new messages leaves room behind them.
    pub(super) fn grow(&mut self, pages: u64, has_messages: bool) -> io::Result<()> {
        let file = self.database.file.file();
        let growth = self.reserve_bytes / GROWTH_PART;
        let used = pages * self.page_bytes;
        let left = if has_messages {
            growth.min(used / GROWTH_PART)
        } else {
            0
        };
        let (bytes, wanted) = (Stat::of(file)?.bytes, used + left);
        if self.reserve_bytes == 0 || bytes >= wanted {
            return Ok(());
        }
        let missing = wanted - bytes;
        let none = FallocateFlags::empty();
        let ahead = missing + growth;
        let is_possible =
            allocate(file, none, bytes, ahead).or_else(|_| allocate(file, none, bytes, missing))?;
        self.note_allocation(is_possible);
        Ok(())
    }

    fn note_allocation(&mut self, is_possible: bool) {
        if !is_possible {
            log::warn!("The file system cannot reserve room for a full disk");
            self.reserve_bytes = 0;
        }
    }

    /// Why nothing can be written to the files, in the system's words; SQLite says only that it failed.
    /// Nobody else may write to them meanwhile.
    pub(super) fn write_error(&self) -> Option<io::Error> {
        let write_behind = |file: &File| {
            let end = file.metadata()?.len();
            file.write_all_at(&PROBE, end)
        };
        let database = self.database.file.file();
        write_behind(&self.log)
            .and_then(|()| write_behind(database))
            .err()
    }
}

/// Allocates room for a file. Returns whether its file system can do that.
fn allocate(file: &File, flags: FallocateFlags, at: u64, bytes: u64) -> io::Result<bool> {
    match retry_on_intr(|| fallocate(file, flags, at, bytes)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The name of a file beside another one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
