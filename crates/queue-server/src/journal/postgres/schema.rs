//! The tables: those of the SQLite database in PostgreSQL's types, and the row of the leader.
//!
//! They are made in the first schema of the role's `search_path`, so one database may have several queue
//! servers' tables, each in a schema of its own.

use postgres::Client;
use postgres::error::SqlState;
use postgres::types::ToSql;

use crate::error::PostgresError;

/// Rows are found by their indexes. PostgreSQL plans a statement when it is first used, when the tables may be nearly
/// empty, and would read whole tables later. A plan that it dislikes so much it would also compile.
const SETTINGS: [&str; 4] = [
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET jit = off",
];

/// CockroachDB would commit in front of each CREATE, and keep some of the tables if the server ended there.
const AT_ONCE: &str = "SET autocommit_before_ddl = off";

/// The version of the tables.
pub(super) const SCHEMA_VERSION: i32 = 1;

/// How often two servers that make the tables at once may meet.
const MAKE_TRIES: usize = 3;

/// Moments and durations are in microseconds, by the queues' clock; `heartbeat` is by the database's.
const SCHEMA: &str = "
    CREATE TABLE messages (
        id BIGINT PRIMARY KEY,
        queue TEXT NOT NULL,
        place BIGINT NOT NULL,      -- its position; the lowest is next
        delayed BOOLEAN NOT NULL,   -- it is delayed until the moment of its position
        attempts BIGINT NOT NULL,   -- how often it was handed out and requeued
        token BYTEA,                -- the lease, if there is one...
        until BIGINT,               -- ...and when it expires
        remaining BIGINT,           -- how much of the lease or the delay was left when this was written
        crc BIGINT NOT NULL,        -- CRC-32 of all the rest
        body BYTEA NOT NULL,
        key TEXT,                   -- what makes it the same message when it is sent again...
        account TEXT,               -- ...and the account that the key belongs to, if there are any
        attempts_max BIGINT,        -- how often it is handed out before it is a dead letter, if that is said
        expires BIGINT,             -- when it is a dead letter if it was not handed out by then...
        expires_left BIGINT,        -- ...and how much of that was left when this was written
        reason BYTEA                -- in UTF-8, why its last attempt ended without an acknowledgement
    );
    CREATE TABLE damaged (LIKE messages, found TIMESTAMPTZ);
    CREATE TABLE paused (queue TEXT PRIMARY KEY);
    -- What was answered to the last requests of each session; a row is what one transaction adds.
    CREATE TABLE answers (
        number BIGINT PRIMARY KEY,
        crc BIGINT NOT NULL,        -- CRC-32 of the number and the answers
        answers BYTEA NOT NULL
    );
    -- What happened to the messages of each queue.
    CREATE TABLE totals (
        queue TEXT PRIMARY KEY,
        sent BIGINT NOT NULL,
        acked BIGINT NOT NULL,
        failed BIGINT NOT NULL,     -- attempts that ended without an acknowledgement
        died BIGINT NOT NULL,       -- became dead letters...
        expired BIGINT NOT NULL,    -- ...of these, because nobody received them in time
        crc BIGINT NOT NULL         -- CRC-32 of all the rest
    );
    -- The keys that acknowledged messages hold on.
    CREATE TABLE keys (
        id BIGINT PRIMARY KEY,      -- of the message
        queue TEXT NOT NULL,
        account TEXT,
        key TEXT NOT NULL,
        digest BYTEA NOT NULL,      -- the first half of the SHA-256 of the body
        until BIGINT NOT NULL,      -- when it is free
        crc BIGINT NOT NULL         -- CRC-32 of all the rest
    );
    CREATE INDEX keys_until ON keys (until);
    -- Who may write, in one row. Each transaction changes it first, and is undone if the epoch is not its own.
    CREATE TABLE leader (
        one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one),
        version INT4 NOT NULL,          -- of these tables; INTEGER has 64 bits in CockroachDB
        epoch BIGINT NOT NULL,          -- one more with each takeover; before the first it is the time in
                                        -- milliseconds, so that tables made anew have none that these had
        who TEXT NOT NULL,
        heartbeat TIMESTAMPTZ NOT NULL, -- when the leader has written last, by the database's clock
        clock BIGINT NOT NULL,          -- what the queues' clock showed then
        last_id BIGINT NOT NULL,        -- the ids up to this one may have been given
        is_released BOOLEAN NOT NULL,   -- the leader has ended, and anybody may take over
        has_lock BOOLEAN NOT NULL       -- it holds an advisory lock, which ends with its connection
    );
";

/// Makes the tables, if they are not there.
///
/// # Errors
/// If they cannot be made, are of a later version or without the row of the leader, or the database is not in UTF-8.
pub(super) fn prepare(client: &mut Client) -> Result<(), PostgresError> {
    let mut tries = 1;
    loop {
        match try_prepare(client) {
            // Another server has made them at the same time.
            Err(PostgresError::Statement(error))
                if is_there_already(&error) && tries < MAKE_TRIES =>
            {
                tries += 1;
            }
            prepared => return prepared,
        }
    }
}

fn try_prepare(client: &mut Client) -> Result<(), PostgresError> {
    let failed = PostgresError::Statement;
    let encoding = client
        .query_one("SHOW server_encoding", &[])
        .map_err(failed)?;
    let encoding: String = encoding.try_get(0).map_err(failed)?;
    if !encoding.eq_ignore_ascii_case("UTF8") {
        return Err(PostgresError::Encoding(encoding));
    }
    SETTINGS.iter().for_each(|setting| set(client, setting));
    let table = "SELECT to_regclass('leader') IS NOT NULL";
    let is_made = client.query_one(table, &[]).map_err(failed)?;
    if !is_made.try_get::<_, bool>(0).map_err(failed)? {
        set(client, AT_ONCE);
        let mut transaction = client.transaction().map_err(failed)?;
        transaction.batch_execute(SCHEMA).map_err(failed)?;
        let insert = "
            INSERT INTO leader (version, epoch, who, heartbeat, clock, last_id, is_released, has_lock)
            SELECT $1::int4, (extract(epoch FROM now) * 1000)::bigint, '', now, (extract(epoch FROM now) * 1000000)::bigint, 0,
                   TRUE, FALSE
            FROM clock_timestamp() AS now";
        let version = [&SCHEMA_VERSION as &(dyn ToSql + Sync)];
        transaction.execute(insert, &version).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    let version = client
        .query_opt("SELECT version FROM leader", &[])
        .map_err(failed)?
        .ok_or(PostgresError::NoLeader)?;
    let version: i32 = version.try_get(0).map_err(failed)?;
    if version != SCHEMA_VERSION {
        return Err(PostgresError::UnknownVersion {
            version,
            known: SCHEMA_VERSION,
        });
    }
    Ok(())
}

/// An engine that has no such setting does not do what the setting is against.
fn set(client: &mut Client, setting: &str) {
    if let Err(error) = client.batch_execute(setting) {
        log::debug!("{setting}: {error}");
    }
}

/// Whether somebody else has made a table of that name.
fn is_there_already(error: &postgres::Error) -> bool {
    let meant = [SqlState::DUPLICATE_TABLE, SqlState::UNIQUE_VIOLATION];
    error.code().is_some_and(|code| meant.contains(code))
}
