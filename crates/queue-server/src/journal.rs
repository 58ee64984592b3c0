//! The durable queue's database: SQLite, written by one thread, a transaction for each batch.
//!
//! The queue in memory decides who gets what; the database has every message that is not
//! acknowledged, and is read once, at the start. So receiving costs no disk access, and a message
//! handed out but not acknowledged when the server dies is simply still there.
//!
//! Every message has a CRC-32 of its id and its body. One that does not match at the start is set
//! aside in the table `damaged` and reported, never delivered.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::lock;
use group_commit::{CommitError, FolderLock, Fsync, LockError, Store};
use proto::queue::MessageId;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, MAIN_DB, ffi, params};

use crate::queue::{Message, Shared};

/// What the file says of itself in its header (`PRAGMA application_id`): "Qrtt".
const APPLICATION_ID: i32 = 0x5172_7474;

/// The version of the tables (`PRAGMA user_version`).
const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE messages (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE damaged (id INTEGER, crc, body, found TEXT NOT NULL);
";

/// When the write-ahead log has so many pages of 4 KiB, it is copied into the database and used
/// again from its start, so it stays near this size.
const LOG_PAGES_MAX: usize = 1024;

/// Why a database could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// Another server is using it.
    Lock(LockError),
    /// SQLite could not open, check or read it.
    Sqlite(PathBuf, rusqlite::Error),
    /// It is a SQLite database, but of another program.
    NotOurs(PathBuf),
    /// It was made by another version of this program.
    UnknownVersion(PathBuf, i32),
    /// SQLite's own check says that the file is damaged; with the first thing it found.
    Damaged(PathBuf, String),
    /// Its header says that this program may only read it, or the file's permissions do.
    ReadOnly(PathBuf),
    /// The folder could not be synced.
    Sync(PathBuf, io::Error),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(error) => error.fmt(f),
            Self::Sqlite(path, _) => write!(f, "cannot open {}", path.display()),
            Self::NotOurs(path) => write!(f, "{} is not a queue's database", path.display()),
            Self::UnknownVersion(path, version) => write!(
                f,
                "{} has the schema version {version}, this program knows {SCHEMA_VERSION}",
                path.display()
            ),
            Self::Damaged(path, what) => write!(
                f,
                "{} is damaged ({what}); restore it, or recover what can be with sqlite3 .recover",
                path.display()
            ),
            Self::ReadOnly(path) => write!(f, "{} can only be read", path.display()),
            Self::Sync(path, _) => write!(f, "cannot sync the folder of {}", path.display()),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lock(error) => error.source(),
            Self::Sqlite(_, cause) => Some(cause),
            Self::Sync(_, cause) => Some(cause),
            Self::NotOurs(_) | Self::UnknownVersion(..) | Self::Damaged(..) | Self::ReadOnly(_) => {
                None
            }
        }
    }
}

/// What the queue asks to be made durable.
pub(crate) enum Change {
    /// A message, which is put into the queue when it is committed.
    Insert(Box<[u8]>),
    /// That a message was acknowledged.
    Delete(MessageId),
}

/// What the writer thread owns.
pub(crate) struct Journal {
    path: PathBuf,
    db: Connection,
    next_id: MessageId,
    /// Since the last commit: what came, and which went.
    inserted: Vec<Message>,
    deleted: Vec<MessageId>,
    /// How long the write-ahead log was after the last commit.
    log_pages: Arc<AtomicUsize>,
    queue: Arc<Shared>,
    _lock: FolderLock,
}

impl Journal {
    /// Opens or makes a database, and puts its messages into `queue`, oldest first.
    pub(crate) fn open(
        path: &Path,
        fsync: Fsync,
        queue: Arc<Shared>,
    ) -> Result<Self, JournalError> {
        // Two names of one file must lead to one lock. A file that is yet to be made has one name.
        let real_path = std::fs::canonicalize(path);
        let path = real_path.as_deref().unwrap_or(path);
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = FolderLock::acquire(Path::new(&lock_path)).map_err(JournalError::Lock)?;
        let failed = |cause| JournalError::Sqlite(path.to_owned(), cause);
        let mut db = Connection::open(path).map_err(failed)?;
        sync_on_closing(&db, false).map_err(failed)?;
        prepare(&db, fsync, path)?;
        let log_pages = Arc::new(AtomicUsize::new(0));
        let noted = Arc::clone(&log_pages);
        let note = move |_: &mut Wal, pages: i32| {
            noted.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        db.wal_hook(Some(note)).map_err(failed)?;
        let mut journal = Self {
            path: path.to_owned(),
            db,
            next_id: 1,
            inserted: Vec::new(),
            deleted: Vec::new(),
            log_pages,
            queue,
            _lock: lock,
        };
        journal.load().map_err(failed)?;
        // Syncs the log and the database before anything that was read is served.
        journal.checkpoint("TRUNCATE").map_err(failed)?;
        group_commit::sync_folder(path).map_err(|e| JournalError::Sync(path.to_owned(), e))?;
        sync_on_closing(&journal.db, true).map_err(failed)?;
        Ok(journal)
    }

    fn load(&mut self) -> rusqlite::Result<()> {
        let mut damaged = Vec::new();
        let mut messages = Vec::new();
        {
            let mut select = self
                .db
                .prepare("SELECT id, crc, body FROM messages ORDER BY id")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                self.next_id = self.next_id.max(id.cast_unsigned() + 1);
                let crc = row.get_ref(1)?.as_i64();
                let body = row.get_ref(2)?.as_blob();
                match (crc, body) {
                    (Ok(crc), Ok(body)) if crc == checksum(id.cast_unsigned(), body) => {
                        let (id, body) = (id.cast_unsigned(), Box::from(body));
                        messages.push(Message { id, body });
                    }
                    _ => damaged.push(id),
                }
            }
        }
        for id in damaged {
            log::error!(
                "Message {id} in {} is damaged; it was set aside in the table 'damaged'",
                self.path.display()
            );
            let transaction = self.db.transaction()?;
            transaction.execute(
                "INSERT INTO damaged SELECT id, crc, body, datetime('now') FROM messages
                 WHERE id = ?1",
                [id],
            )?;
            transaction.execute("DELETE FROM messages WHERE id = ?1", [id])?;
            transaction.commit()?;
        }
        log::info!(
            "{} messages read from {}",
            messages.len(),
            self.path.display()
        );
        lock(&self.queue.state).restore(messages);
        Ok(())
    }

    /// Writes the batch. When it is refused, copying the log into the database may make room, so
    /// that a full queue can be emptied: what only takes out is then tried once more.
    fn write(&mut self) -> Result<(), CommitError> {
        let written = self.try_write();
        let Err(CommitError::Refused(_)) = written else {
            return written;
        };
        let checkpointed = self.checkpoint("TRUNCATE");
        match checkpointed.map_err(|error| self.commit_error(error)) {
            Err(CommitError::Lost(cause)) => Err(CommitError::Lost(cause)),
            Ok(()) if self.inserted.is_empty() => self.try_write(),
            _ => written,
        }
    }

    fn try_write(&mut self) -> Result<(), CommitError> {
        let written = self.transact();
        written.map_err(|error| self.commit_error(error))
    }

    fn transact(&mut self) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO messages (id, crc, body) VALUES (?1, ?2, ?3)")?;
            for Message { id, body } in &self.inserted {
                insert.execute(params![id.cast_signed(), checksum(*id, body), body])?;
            }
            let mut delete = transaction.prepare_cached("DELETE FROM messages WHERE id = ?1")?;
            for id in &self.deleted {
                delete.execute([id.cast_signed()])?;
            }
        }
        transaction.commit()
    }

    /// What became of a transaction that failed: it was undone, unless it failed in a sync, or
    /// SQLite is still inside it.
    fn commit_error(&self, error: rusqlite::Error) -> CommitError {
        let extended_code = error.sqlite_error().map_or(0, |error| error.extended_code);
        let failed_in_sync = matches!(
            extended_code,
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC
        );
        match failed_in_sync || !self.db.is_autocommit() {
            true => self.lost(error),
            false => CommitError::Refused(io_error(error)),
        }
    }

    /// Nothing may be synced any more, not even by SQLite when it closes the database.
    fn lost(&self, error: rusqlite::Error) -> CommitError {
        if let Err(error) = sync_on_closing(&self.db, false) {
            log::error!("SQLite may sync once more: {error}");
        }
        CommitError::Lost(io_error(error))
    }

    fn checkpoint(&mut self, mode: &str) -> rusqlite::Result<()> {
        // Returns a row; whether a reader was in the way matters little, the next one goes on.
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        self.db.query_row(&pragma, [], |_| Ok(()))
    }
}

impl Store for Journal {
    type Change = Change;
    /// The message's id.
    type Outcome = MessageId;

    fn apply(&mut self, change: Change) -> MessageId {
        match change {
            Change::Insert(body) => {
                let id = self.next_id;
                self.next_id += 1;
                self.inserted.push(Message { id, body });
                id
            }
            Change::Delete(id) => {
                self.deleted.push(id);
                id
            }
        }
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let written = self.write();
        let inserted = std::mem::take(&mut self.inserted);
        self.deleted.clear();
        if let Err(error) = written {
            lock(&self.queue.state).release(&inserted);
            return Err(error);
        }
        if self.log_pages.load(Ordering::Relaxed) > LOG_PAGES_MAX {
            let checkpointed = self.checkpoint("PASSIVE");
            checkpointed.map_err(|error| self.lost(error))?;
        }
        lock(&self.queue.state).append(inserted);
        Ok(())
    }
}

/// Sets the connection up, and makes the tables if the database is new.
fn prepare(db: &Connection, fsync: Fsync, path: &Path) -> Result<(), JournalError> {
    let failed = |cause| JournalError::Sqlite(path.to_owned(), cause);
    let number = |pragma: &str| {
        let pragma = format!("PRAGMA {pragma}");
        db.query_row(&pragma, [], |row| row.get::<_, i32>(0))
            .map_err(failed)
    };
    let tables = "SELECT count(*) FROM sqlite_schema";
    let is_new = db
        .query_row(tables, [], |row| row.get::<_, i32>(0))
        .map_err(failed)?
        == 0;
    if !is_new && number("application_id")? != APPLICATION_ID {
        return Err(JournalError::NotOurs(path.to_owned()));
    }
    let version = number("user_version")?;
    if !is_new && version != SCHEMA_VERSION {
        return Err(JournalError::UnknownVersion(path.to_owned(), version));
    }
    if db.is_readonly(MAIN_DB).map_err(failed)? {
        return Err(JournalError::ReadOnly(path.to_owned()));
    }
    // With NORMAL, SQLite syncs at a checkpoint alone: the newest transactions can be lost, but
    // the file stays sound.
    let synchronous = match fsync {
        Fsync::Always => "FULL",
        Fsync::Never => "NORMAL",
    };
    // Checkpoints are made by hand, for SQLite does not report an automatic one that fails.
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = 0;"
    ))
    .map_err(failed)?;
    if is_new {
        db.execute_batch(&format!(
            "BEGIN; {SCHEMA}
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {SCHEMA_VERSION};
             COMMIT;"
        ))
        .map_err(failed)?;
    }
    let check = "PRAGMA quick_check(1)";
    let found: String = db.query_row(check, [], |row| row.get(0)).map_err(failed)?;
    match found.as_str() {
        "ok" => Ok(()),
        // What is said of a file has a line for each finding.
        _ => Err(JournalError::Damaged(
            path.to_owned(),
            found.replace('\n', " "),
        )),
    }
}

/// The CRC-32 of a message's id and body.
fn checksum(id: MessageId, body: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_be_bytes());
    crc.update(body);
    i64::from(crc.finalize())
}

/// Whether SQLite copies its log into the database, with a sync, when it is closed.
fn sync_on_closing(db: &Connection, yes: bool) -> rusqlite::Result<()> {
    let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    db.set_db_config(no_checkpoint, !yes).map(drop)
}

fn io_error(error: rusqlite::Error) -> io::Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::ReadOnly) => io::ErrorKind::ReadOnlyFilesystem,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
