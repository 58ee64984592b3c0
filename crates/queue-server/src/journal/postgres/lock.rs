//! The advisory lock of the leader, which makes a takeover quicker, and on which nothing rests.
//!
//! The database frees it when the leader's connection ends, so also when the leader was killed. Not every engine that
//! speaks the protocol has such locks, or ones that exclude anybody, so the leader tries that out before it notes in its
//! row that it has one.

use postgres::Client;

use super::connect::Connector;
use super::url::Server;
use crate::error::{Error, PostgresError};

/// The first number of the lock: "Qrtt". The second is the table.
const KEY: i32 = 0x5172_7474;

/// How long it may take, in milliseconds.
const WAIT_MILLIS: u32 = 500;

/// The statement that takes the lock if it is free, and says whether it was.
pub(super) fn try_to_gain() -> String {
    format!("SELECT pg_try_advisory_lock({KEY}, 'leader'::regclass::oid::integer)")
}

/// Takes the lock, also from a connection before that has not ended yet. Returns whether it excludes others.
pub(super) fn gain(
    client: &mut Client,
    connector: &Connector,
    server: &Server,
) -> Result<bool, Error> {
    let failed = PostgresError::Statement;
    // The database ends a session only for the user of that session. It may not be allowed.
    let end_holder = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND classid = {KEY} AND objid = 'leader'::regclass::oid
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND pid <> pg_backend_pid()"
    );
    if let Err(error) = client.execute(&end_holder, &[]) {
        log::debug!("The holder of the advisory lock cannot be ended: {error}");
    }
    let mut transaction = client.transaction().map_err(failed)?;
    let take = format!(
        "SET LOCAL lock_timeout = '{WAIT_MILLIS}ms';
         SELECT pg_advisory_lock({KEY}, 'leader'::regclass::oid::integer)"
    );
    transaction.batch_execute(&take).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    let mut other = connector.connect_to(server)?.client;
    let lock = other.query_one(&try_to_gain(), &[]).map_err(failed)?;
    let is_free: bool = lock.try_get(0).map_err(failed)?;
    Ok(!is_free)
}
