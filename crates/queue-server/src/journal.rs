//! The queues' database: SQLite, written by one thread, a transaction for each batch.
//!
//! The queues in memory decide who gets what; the database has every message that is not
//! acknowledged, and is read once, at the start. So receiving costs no disk access, and a message
//! handed out but not acknowledged when the server dies is simply still there. What must outlive
//! the server is written when it happens: a lease, a message's new place, how often it was tried.
//!
//! Every message has a CRC-32 over its whole row. One that does not match at the start is set aside
//! in the table `damaged` and reported, never delivered.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use group_commit::{CommitError, FolderLock, Fsync, LockError, NotStored, Store};
use proto::queue::{MessageId, QueueName, Token};
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, Transaction, ffi, params};

use crate::message::{Message, Place, Taken};
use crate::shared::Shared;

/// What the file says of itself in its header (`PRAGMA application_id`): "Qrtt".
const APPLICATION_ID: i32 = 0x5172_7474;

/// The version of the tables (`PRAGMA user_version`).
const SCHEMA_VERSION: i32 = 2;

/// Times and places are in microseconds since 1970.
const SCHEMA: &str = "
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        place INTEGER NOT NULL,     -- when it entered its queue; the lowest is next
        delayed INTEGER NOT NULL,   -- 1: its place may be in the future
        attempts INTEGER NOT NULL,  -- how often it was handed out and given back
        token BLOB,                 -- the lease, if there is one...
        until INTEGER,              -- ...and when it runs out
        crc INTEGER NOT NULL,       -- CRC-32 of all the rest
        body BLOB NOT NULL
    );
    CREATE TABLE paused (queue TEXT PRIMARY KEY);
    CREATE TABLE damaged (id, queue, place, delayed, attempts, token, until, crc, body, found);
";

/// When the write-ahead log has so many pages of 4 KiB, it is copied into the database and used
/// again from its start, so it stays near this size...
const LOG_PAGES_MAX: usize = 1024;

/// ...unless another program reads the database all the time. When it has so many pages, no new
/// messages are taken until it can be copied.
const READ_LOG_PAGES_MAX: usize = 16 * LOG_PAGES_MAX;

/// A batch of messages is committed when their bodies have so many bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;

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
    /// It cannot have a write-ahead log; it is no file on a disk, then.
    NoLog(PathBuf),
    /// It could not be made or synced.
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
            Self::NoLog(path) => {
                write!(f, "{} cannot have a write-ahead log", path.display())
            }
            Self::Sync(path, _) => write!(f, "cannot open or sync {}", path.display()),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lock(error) => error.source(),
            Self::Sqlite(_, cause) => Some(cause),
            Self::Sync(_, cause) => Some(cause),
            Self::NotOurs(_)
            | Self::UnknownVersion(..)
            | Self::Damaged(..)
            | Self::ReadOnly(_)
            | Self::NoLog(_) => None,
        }
    }
}

/// What the queues ask to be made durable.
pub(crate) enum Change {
    /// A message, which is put into this queue when it is committed; its place comes after a delay.
    Insert(Arc<str>, Message, Duration),
    /// That a message is now as this row says.
    Update(Row),
    /// That a lease, if it is still the same one, now runs out when this row says.
    Extend(Row),
    /// That a message is forgotten.
    Delete(MessageId),
    /// That a queue is paused, or not any more.
    Pause(Arc<str>, bool),
}

/// What the database has of a message, beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    id: MessageId,
    queue: Arc<str>,
    place: Place,
    is_delayed: bool,
    attempts: u32,
    lease: Option<(Token, Place)>,
    body_crc: u32,
}

impl Row {
    /// The row of a message that is in no queue at the moment.
    pub(crate) fn of(taken: &Taken) -> Self {
        Self::new(&taken.queue, &taken.message, false, taken.lease)
    }

    /// The row of a message that is not leased any more, and is now at this place in a queue.
    pub(crate) fn moved(
        message: &Message,
        queue: &Arc<str>,
        place: Place,
        is_delayed: bool,
    ) -> Self {
        Self {
            place,
            ..Self::new(queue, message, is_delayed, None)
        }
    }

    fn new(
        queue: &Arc<str>,
        message: &Message,
        is_delayed: bool,
        lease: Option<(Token, Place)>,
    ) -> Self {
        Self {
            id: message.id,
            queue: Arc::clone(queue),
            place: message.place,
            is_delayed,
            attempts: message.attempts,
            lease,
            body_crc: message.body_crc,
        }
    }

    fn crc(&self) -> i64 {
        let (token, until) = self.lease.unwrap_or_default();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.id.to_be_bytes());
        crc.update(&self.place.to_be_bytes());
        crc.update(&[u8::from(self.is_delayed), u8::from(self.lease.is_some())]);
        crc.update(&self.attempts.to_be_bytes());
        crc.update(token.as_bytes());
        crc.update(&until.to_be_bytes());
        crc.update(&self.body_crc.to_be_bytes());
        crc.update(self.queue.as_bytes());
        i64::from(crc.finalize())
    }

    fn token(&self) -> Option<&[u8; 16]> {
        self.lease.as_ref().map(|(token, _)| token.as_bytes())
    }

    fn until(&self) -> Option<i64> {
        self.lease.map(|(_, until)| until.cast_signed())
    }
}

/// What the writer thread owns.
pub(crate) struct Journal {
    path: PathBuf,
    db: Connection,
    next_id: MessageId,
    /// Since the last commit: what came (and whether it is delayed), and what changed.
    inserted: Vec<(Arc<str>, Message, bool)>,
    changed: Vec<Change>,
    inserted_bytes: usize,
    /// How long the write-ahead log was after the last commit.
    log_pages: Arc<AtomicUsize>,
    /// If the log could not be copied into the database: from how many pages on no new messages are
    /// taken.
    stuck_pages_max: Option<usize>,
    queues: Arc<Shared>,
    _lock: FolderLock,
}

impl Journal {
    /// Opens or makes a database, and puts its messages into their queues.
    pub(crate) fn open(
        path: &Path,
        fsync: Fsync,
        queues: Arc<Shared>,
    ) -> Result<Self, JournalError> {
        // Two names of one file must lead to one lock, so the file is made first.
        let unsynced = |cause| JournalError::Sync(path.to_owned(), cause);
        let real_path = make_file(path).map_err(unsynced)?;
        let mut lock_path = real_path.clone().into_os_string();
        lock_path.push(".lock");
        let lock = FolderLock::acquire(Path::new(&lock_path)).map_err(JournalError::Lock)?;
        let failed = |cause| JournalError::Sqlite(path.to_owned(), cause);
        // Without SQLITE_OPEN_URI, no name means anything but a file.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&real_path, flags).map_err(failed)?;
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
            changed: Vec::new(),
            inserted_bytes: 0,
            log_pages,
            stuck_pages_max: None,
            queues,
            _lock: lock,
        };
        journal.load().map_err(failed)?;
        // Before anything is served that was read, it is synced.
        journal.sync_files(&real_path).map_err(unsynced)?;
        match journal.checkpoint("TRUNCATE") {
            Err(error) if !is_lack_of_room(&error) => return Err(failed(error)),
            checkpointed => journal.note_checkpoint(checkpointed),
        }
        sync_on_closing(&journal.db, true).map_err(failed)?;
        Ok(journal)
    }

    fn load(&mut self) -> rusqlite::Result<()> {
        let mut damaged = Vec::new();
        let mut messages = 0;
        {
            let select = "SELECT id, queue, place, delayed, attempts, token, until, crc, body
                          FROM messages ORDER BY id";
            let mut select = self.db.prepare(select)?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                match read_row(id, row) {
                    Ok((taken, is_delayed)) => {
                        self.next_id = self.next_id.max(taken.message.id + 1);
                        self.queues.restore(taken, is_delayed);
                        messages += 1;
                    }
                    Err(_) => damaged.push(id),
                }
            }
            let mut select = self.db.prepare("SELECT queue FROM paused")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                match row.get_ref(0)?.as_str().map(QueueName::new) {
                    Ok(Ok(name)) => self.queues.pause(&name.as_str().into(), true),
                    _ => log::error!("A pause in {} has no queue", self.path.display()),
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
                "INSERT INTO damaged SELECT *, datetime('now') FROM messages WHERE id = ?1",
                [id],
            )?;
            transaction.execute("DELETE FROM messages WHERE id = ?1", [id])?;
            transaction.commit()?;
        }
        log::info!("{messages} messages read from {}", self.path.display());
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
            Ok(_) if self.inserted.is_empty() => self.try_write(),
            _ => written,
        }
    }

    fn try_write(&mut self) -> Result<(), CommitError> {
        let written = self.transact();
        written.map_err(|error| self.commit_error(error))
    }

    fn transact(&mut self) -> rusqlite::Result<()> {
        let transaction = self.db.transaction()?;
        let insert = "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL, ?6, ?7)";
        let mut insert = transaction.prepare_cached(insert)?;
        for (queue, message, is_delayed) in &self.inserted {
            let row = Row::new(queue, message, *is_delayed, None);
            insert.execute(params![
                row.id.cast_signed(),
                queue,
                row.place.cast_signed(),
                is_delayed,
                row.attempts,
                row.crc(),
                message.body
            ])?;
        }
        drop(insert);
        for change in &self.changed {
            write_change(&transaction, change)?;
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

    /// Copies the log into the database; returns whether nobody who reads it was in the way.
    fn checkpoint(&mut self, mode: &str) -> rusqlite::Result<bool> {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        self.db.query_row(&pragma, [], |row| {
            let (log, copied): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(log == copied)
        })
    }

    /// Notes whether the log could be copied, and says so when it could not for the first time.
    fn note_checkpoint(&mut self, checkpointed: rusqlite::Result<bool>) {
        let was_stuck = self.stuck_pages_max.is_some();
        self.stuck_pages_max = match checkpointed {
            Ok(true) => {
                self.log_pages.store(0, Ordering::Relaxed);
                None
            }
            Ok(false) => {
                if !was_stuck {
                    log::warn!("The log grows, for another program reads the database");
                }
                Some(READ_LOG_PAGES_MAX)
            }
            Err(error) => {
                if !was_stuck {
                    log::error!("The log cannot be copied into the database: {error}");
                }
                Some(LOG_PAGES_MAX)
            }
        };
    }

    /// Copies the log into the database when it is long.
    fn shorten_log(&mut self) -> Result<(), CommitError> {
        if self.log_pages.load(Ordering::Relaxed) <= LOG_PAGES_MAX {
            return Ok(());
        }
        match self.checkpoint("PASSIVE") {
            Err(error) if !is_lack_of_room(&error) => Err(self.lost(error)),
            checkpointed => {
                self.note_checkpoint(checkpointed);
                Ok(())
            }
        }
    }

    /// Refuses new messages while the log is too long and cannot be copied. What takes messages out
    /// may still find room in it.
    fn check_log(&mut self) -> Result<(), CommitError> {
        if self.stuck_pages_max.is_none() || self.inserted.is_empty() {
            return Ok(());
        }
        self.shorten_log()?;
        let log_pages = self.log_pages.load(Ordering::Relaxed);
        match self.stuck_pages_max.is_some_and(|max| log_pages > max) {
            true => Err(CommitError::Refused(io::ErrorKind::StorageFull.into())),
            false => Ok(()),
        }
    }

    /// Syncs what SQLite has read: the database, its log if there is one, and their folder.
    fn sync_files(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()?;
        let mut log_path = path.as_os_str().to_owned();
        log_path.push("-wal");
        match File::open(&log_path) {
            Ok(log) => log.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        group_commit::sync_folder(path)
    }
}

impl Store for Journal {
    type Change = Change;
    /// The message's id.
    type Outcome = MessageId;

    fn apply(&mut self, change: Change) -> Result<MessageId, NotStored> {
        Ok(match change {
            Change::Insert(queue, mut message, delay) => {
                message.id = self.next_id;
                self.next_id += 1;
                message.place = self.queues.clock.place_after(delay);
                let is_delayed = !delay.is_zero();
                let id = message.id;
                self.inserted_bytes += message.body.len();
                self.inserted.push((queue, message, is_delayed));
                id
            }
            other => {
                self.changed.push(other);
                0
            }
        })
    }

    fn is_batch_full(&self) -> bool {
        self.inserted_bytes >= BATCH_BYTES_MAX
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let written = self.check_log().and_then(|()| self.write());
        let inserted = std::mem::take(&mut self.inserted);
        let changed = std::mem::take(&mut self.changed);
        self.inserted_bytes = 0;
        if let Err(error) = written {
            self.queues.refused(inserted);
            return Err(error);
        }
        for change in changed {
            if let Change::Pause(queue, is_paused) = change {
                self.queues.pause(&queue, is_paused);
            }
        }
        // The transaction is on the disk, whatever becomes of the log.
        let shortened = self.shorten_log();
        self.queues.arrived(inserted);
        shortened
    }
}

fn write_change(transaction: &Transaction, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Insert(..) => {}
        Change::Update(row) => {
            let update = "UPDATE messages SET queue = ?2, place = ?3, delayed = ?4, attempts = ?5,
                          token = ?6, until = ?7, crc = ?8 WHERE id = ?1";
            transaction.prepare_cached(update)?.execute(params![
                row.id.cast_signed(),
                row.queue,
                row.place.cast_signed(),
                row.is_delayed,
                row.attempts,
                row.token(),
                row.until(),
                row.crc()
            ])?;
        }
        Change::Extend(row) => {
            let update = "UPDATE messages SET until = ?3, crc = ?4 WHERE id = ?1 AND token = ?2";
            transaction.prepare_cached(update)?.execute(params![
                row.id.cast_signed(),
                row.token(),
                row.until(),
                row.crc()
            ])?;
        }
        Change::Delete(id) => {
            let delete = "DELETE FROM messages WHERE id = ?1";
            transaction
                .prepare_cached(delete)?
                .execute([id.cast_signed()])?;
        }
        Change::Pause(queue, true) => {
            let pause = "INSERT OR IGNORE INTO paused VALUES (?1)";
            transaction.prepare_cached(pause)?.execute([queue])?;
        }
        Change::Pause(queue, false) => {
            let resume = "DELETE FROM paused WHERE queue = ?1";
            transaction.prepare_cached(resume)?.execute([queue])?;
        }
    }
    Ok(())
}

/// A message as the database has it, and whether it is delayed.
///
/// # Errors
/// If its checksum is not right, or a column has something of another type.
fn read_row(id: i64, row: &rusqlite::Row) -> FromSqlResult<(Taken, bool)> {
    if !(1..i64::MAX).contains(&id) {
        return Err(FromSqlError::OutOfRange(id));
    }
    let column = |at| row.get_ref(at).map_err(|_| FromSqlError::InvalidType);
    let queue = column(1)?.as_str()?;
    let place = column(2)?.as_i64()?.cast_unsigned();
    let delayed = column(3)?.as_i64()?;
    let attempts = column(4)?.as_i64()?;
    let lease = match (column(5)?, column(6)?) {
        (ValueRef::Null, ValueRef::Null) => None,
        (token, until) => {
            let token = Token::from_slice(token.as_blob()?);
            let token = token.map_err(|_| FromSqlError::InvalidType)?;
            Some((token, until.as_i64()?.cast_unsigned()))
        }
    };
    let crc = column(7)?.as_i64()?;
    let message = Message {
        id: id.cast_unsigned(),
        place,
        attempts: u32::try_from(attempts).map_err(|_| FromSqlError::OutOfRange(attempts))?,
        ..Message::new(column(8)?.as_blob()?).with_checksum()
    };
    let is_delayed = delayed == 1;
    let name = QueueName::new(queue).map_err(|_| FromSqlError::InvalidType)?;
    let queue = name.as_str().into();
    let is_right = Row::new(&queue, &message, is_delayed, lease).crc() == crc;
    match is_right && (0..=1).contains(&delayed) {
        true => Ok((
            Taken {
                queue,
                message,
                lease,
            },
            is_delayed,
        )),
        false => Err(FromSqlError::InvalidType),
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
    let mode = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
    let mode: String = mode.map_err(failed)?;
    if mode != "wal" {
        return Err(JournalError::NoLog(path.to_owned()));
    }
    // Checkpoints are made by hand, for SQLite does not report an automatic one that fails.
    let log_bytes_kept = LOG_PAGES_MAX * 4096;
    db.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {log_bytes_kept};"
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

/// Makes the file of a database if it does not exist; returns its one true name.
fn make_file(path: &Path) -> io::Result<PathBuf> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true);
    drop(options.open(path)?);
    std::fs::canonicalize(path)
}

/// Whether an error means that there is no room, or that a write failed: nothing that was committed
/// is in doubt then.
fn is_lack_of_room(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_FULL | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE)
    )
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
