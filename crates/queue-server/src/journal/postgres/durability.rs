//! What a COMMIT waits for.
//!
//! An OK means on disk, so a COMMIT of this server waits for the disk, whatever the default of the database is. With
//! `synchronous_commit=off` alone it would not (PostgreSQL manual, 20.5.1). Whether it waits for a replica as well is
//! the administrator's choice: `on`, `remote_write` and `remote_apply` do if `synchronous_standby_names` names one, and
//! `local` does not.

use postgres::{Client, Error};

/// An engine that only speaks the protocol may not have them; then they are NULL.
const SETTINGS: &str =
    "SELECT current_setting('synchronous_commit', TRUE), current_setting('fsync', TRUE)";

/// Has every COMMIT of this session wait for the disk at least. What is changed in the database's configuration later
/// counts for the next session.
pub(super) fn wait_for_disk(client: &mut Client) -> Result<(), Error> {
    let settings = client.query_one(SETTINGS, &[])?;
    let chosen: Option<&str> = settings.try_get(0)?;
    let fsync: Option<&str> = settings.try_get(1)?;
    if chosen == Some("off") {
        log::warn!(
            "synchronous_commit is off in this database, and on for this server, because an OK means on disk"
        );
    }
    if fsync == Some("off") {
        log::warn!(
            "With fsync off in PostgreSQL, a power cut loses what was acknowledged last, and perhaps the database"
        );
    }
    if let Some(chosen) = chosen {
        let waits = if chosen == "off" { "on" } else { chosen };
        let set = "SELECT set_config('synchronous_commit', $1, FALSE)";
        client.execute(set, &[&waits])?;
    }
    Ok(())
}
