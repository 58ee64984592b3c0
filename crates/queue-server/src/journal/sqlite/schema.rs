//! The tables, and the conversion of those of earlier versions.

use std::path::Path;

use proto::queue::{Priority, QueueName};
use rusqlite::types::Value;
use rusqlite::{Connection, MAIN_DB, Transaction, TransactionBehavior, params};
use storage::Fsync;

use super::tables;
use crate::error::Error;
use crate::journal::row::{ID_MAX, Row};
use crate::journal::state::State;
use crate::journal::timeline::{Moment, Note};
use crate::message::Message;
use crate::position::Position;

/// The mark in the header of the file (`PRAGMA application_id`): "Qrtt".
const APPLICATION_ID: i64 = 0x5172_7474;

/// The version of the tables (`PRAGMA user_version`).
pub(super) const SCHEMA_VERSION: i64 = 4;

/// Free pages can be given back to the disk a few at a time (`PRAGMA auto_vacuum`).
const INCREMENTAL: i64 = 2;

/// The tables of version 2. All times are in microseconds.
const SCHEMA_2: &str = "
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        place INTEGER NOT NULL,     -- its position; the lowest is next
        delayed INTEGER NOT NULL,   -- 1: it is delayed until the moment of its position
        attempts INTEGER NOT NULL,  -- how often it was handed out and requeued
        token BLOB,                 -- the lease, if there is one...
        until INTEGER,              -- ...and when it expires
        crc INTEGER NOT NULL,       -- CRC-32 of all the rest
        body BLOB NOT NULL
    );
    CREATE TABLE paused (queue TEXT PRIMARY KEY);
    CREATE TABLE damaged (id, queue, place, delayed, attempts, token, until, crc, body, found);
";

/// What version 3 adds.
const SCHEMA_3: &str = "
    -- How much of the lease or the delay was left when the row was written.
    ALTER TABLE messages ADD COLUMN remaining INTEGER;
    ALTER TABLE damaged ADD COLUMN remaining;
    CREATE TABLE state (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        last_id INTEGER NOT NULL,   -- the ids up to this one may have been given
        clock INTEGER NOT NULL,     -- what the queues' clock showed, which gives all places...
        boot TEXT NOT NULL,         -- ...in this run of the machine...
        uptime INTEGER NOT NULL,    -- ...this long after its start...
        wall INTEGER NOT NULL,      -- ...when the system's clock showed this much since 1970
        crc INTEGER NOT NULL        -- CRC-32 of all the rest
    );
";

/// What version 4 adds. Most messages have none of it. The position has a priority from now on: those of
/// earlier versions are positions without one.
const SCHEMA_4: &str = "
    -- What makes it the same message when it is sent again.
    ALTER TABLE messages ADD COLUMN key TEXT;
    -- The account that the key belongs to, if there are any.
    ALTER TABLE messages ADD COLUMN account TEXT;
    -- How often it is handed out before it is a dead letter, if that is said of this one.
    ALTER TABLE messages ADD COLUMN attempts_max INTEGER;
    -- When it is a dead letter if it was not handed out by then...
    ALTER TABLE messages ADD COLUMN expires INTEGER;
    -- ...and how much of that was left when the row was written.
    ALTER TABLE messages ADD COLUMN expires_left INTEGER;
    -- Why its last attempt ended without an acknowledgement.
    ALTER TABLE messages ADD COLUMN reason TEXT;
    -- What was answered to the last requests of each session; a row is what one transaction adds.
    CREATE TABLE answers (
        row INTEGER PRIMARY KEY,
        crc INTEGER NOT NULL,       -- CRC-32 of the row's number and the answers
        answers BLOB NOT NULL
    );
    -- What happened to the messages of each queue.
    CREATE TABLE totals (
        queue TEXT PRIMARY KEY,
        sent INTEGER NOT NULL,
        acked INTEGER NOT NULL,
        failed INTEGER NOT NULL,    -- attempts that ended without an acknowledgement
        died INTEGER NOT NULL,      -- became dead letters...
        expired INTEGER NOT NULL,   -- ...of these, because nobody received them in time
        crc INTEGER NOT NULL        -- CRC-32 of all the rest
    ) WITHOUT ROWID;
    -- The keys that acknowledged messages hold on.
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY,     -- of the message
        queue TEXT NOT NULL,
        account TEXT,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,       -- the first half of the SHA-256 of the body
        until INTEGER NOT NULL,     -- when it is free
        crc INTEGER NOT NULL        -- CRC-32 of all the rest
    );
    CREATE INDEX keys_until ON keys (until);
    ALTER TABLE damaged ADD COLUMN key;
    ALTER TABLE damaged ADD COLUMN account;
    ALTER TABLE damaged ADD COLUMN attempts_max;
    ALTER TABLE damaged ADD COLUMN expires;
    ALTER TABLE damaged ADD COLUMN expires_left;
    ALTER TABLE damaged ADD COLUMN reason;
";

/// Sets the connection up, makes the tables if the database is new, and converts those of an earlier
/// version.
pub(super) fn prepare(db: &mut Connection, fsync: Fsync, path: &Path) -> Result<(), Error> {
    let failed = Error::sqlite(path);
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i32 = db
        .query_row(tables, [], |row| row.get(0))
        .map_err(&failed)?;
    let is_new = tables == 0;
    if !is_new && number(db, "application_id").map_err(&failed)? != APPLICATION_ID {
        return Err(Error::NotOurs(path.to_owned()));
    }
    let version = number(db, "user_version").map_err(&failed)?;
    if !is_new && !(1..=SCHEMA_VERSION).contains(&version) {
        return Err(Error::UnknownVersion {
            path: path.to_owned(),
            version,
            known: SCHEMA_VERSION,
        });
    }
    if db.is_readonly(MAIN_DB).map_err(&failed)? {
        return Err(Error::ReadOnly(path.to_owned()));
    }
    if is_new {
        // Before there is a page in it.
        let vacuum = format!("PRAGMA auto_vacuum = {INCREMENTAL}");
        db.execute_batch(&vacuum).map_err(&failed)?;
    }
    let mode = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
    let mode: String = mode.map_err(&failed)?;
    if mode != "wal" {
        return Err(Error::NoLog(path.to_owned()));
    }
    // With NORMAL, SQLite syncs at a checkpoint alone: the newest transactions can be lost, but
    // the file stays sound.
    let synchronous = match fsync {
        Fsync::Always => "FULL",
        Fsync::Never => "NORMAL",
    };
    // Checkpoints are made by hand, for SQLite does not report an automatic one that fails.
    db.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 0;"
    ))
    .map_err(&failed)?;
    let check = "PRAGMA quick_check(1)";
    let found: String = db.query_row(check, [], |row| row.get(0)).map_err(&failed)?;
    if found != "ok" {
        // The check has a line for each finding.
        let found = found.replace('\n', " ");
        return Err(Error::Damaged {
            path: path.to_owned(),
            what: found,
        });
    }
    if is_new {
        convert(db, 0).map_err(&failed)?;
    } else if version < SCHEMA_VERSION {
        convert(db, version).map_err(&failed)?;
        let path = path.display();
        log::info!("{path} was converted from schema {version} to {SCHEMA_VERSION}");
    }
    Ok(())
}

/// Whether the free pages of the database can be given back to the disk.
pub(super) fn can_shrink(db: &Connection) -> rusqlite::Result<bool> {
    Ok(number(db, "auto_vacuum")? == INCREMENTAL)
}

/// Rewrites the database, so that its free pages can be given back from then on.
pub(super) fn make_shrinkable(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(&format!("PRAGMA auto_vacuum = {INCREMENTAL}; VACUUM;"))
}

/// The highest id that is there, though its message may be damaged.
pub(super) fn last_id_there(db: &Connection) -> rusqlite::Result<u64> {
    let last_id = "SELECT max(id) FROM (SELECT id FROM messages UNION ALL SELECT id FROM damaged)
                   WHERE typeof(id) = 'integer' AND id BETWEEN 1 AND ?1";
    let last_id: Option<i64> = db.query_row(last_id, [ID_MAX], |row| row.get(0))?;
    Ok(last_id.unwrap_or(0).cast_unsigned())
}

/// What a pragma says that is a number.
pub(super) fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    let mut pragma = db.prepare_cached(&format!("PRAGMA {pragma}"))?;
    pragma.query_row([], |row| row.get(0))
}

/// From a version, 0 being an empty database, to the present one, in one transaction.
fn convert(db: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version == 0 {
        transaction.execute_batch(&format!(
            "{SCHEMA_2} PRAGMA application_id = {APPLICATION_ID};"
        ))?;
    }
    if version == 1 {
        from_1_to_2(&transaction)?;
    }
    if version < 3 {
        from_2_to_3(&transaction)?;
    }
    transaction.execute_batch(SCHEMA_4)?;
    transaction.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION}"))?;
    transaction.commit()
}

/// Version 1 had one queue, and a CRC-32 of the id and the body.
fn from_1_to_2(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute_batch(&format!(
        "ALTER TABLE messages RENAME TO messages_1;
         ALTER TABLE damaged RENAME TO damaged_1;
         {SCHEMA_2}
         INSERT INTO damaged (id, crc, body, found) SELECT id, crc, body, found FROM damaged_1;"
    ))?;
    let name = QueueName::DEFAULT.as_str().into();
    let insert = "INSERT INTO messages (id, queue, place, delayed, attempts, crc, body)
                  VALUES (?1, ?2, ?3, 0, 0, ?4, ?5)";
    let mut insert = transaction.prepare(insert)?;
    let mut select = transaction.prepare("SELECT id, crc, body FROM messages_1 ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        /// No CRC-32: the row is damaged, and will be found so.
        const NONE: i64 = -1;
        let id: i64 = row.get(0)?;
        let (crc, body) = (row.get_ref(1)?.as_i64(), row.get_ref(2)?.as_blob());
        let crc = match (crc, body) {
            (Ok(crc), Ok(body)) if crc == crc_1(id, body) => {
                let message = Message {
                    id: id.cast_unsigned(),
                    position: Position::new(Priority::default(), id.cast_unsigned()),
                    ..Message::plain(body).with_checksum()
                };
                Row::new(&name, &message, false, None, 0).crc()
            }
            _ => NONE,
        };
        insert.execute(params![id, name, id, crc, row.get::<_, Value>(2)?])?;
    }
    drop(rows);
    transaction.execute_batch("DROP TABLE messages_1; DROP TABLE damaged_1;")
}

fn crc_1(id: i64, body: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_be_bytes());
    crc.update(body);
    i64::from(crc.finalize())
}

fn from_2_to_3(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute_batch(SCHEMA_3)?;
    let moment = Moment::now();
    let state = State {
        // Of those that are there alone it is known that they were given.
        last_id: last_id_there(transaction)?,
        // Positions were by the system's clock.
        note: Note {
            clock: moment.wall,
            moment,
        },
    };
    tables::write_state(transaction, &state)
}
