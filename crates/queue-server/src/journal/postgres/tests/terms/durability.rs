//! What the commits of a server wait for.

use std::sync::Arc;

use super::*;

/// Notes the setting in which each message is committed.
const NOTE: &str = "
    CREATE TABLE noted (number BIGSERIAL, setting TEXT NOT NULL);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    AS $$BEGIN INSERT INTO noted (setting) SELECT current_setting('synchronous_commit'); RETURN NULL; END$$;
    CREATE TRIGGER note AFTER INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION note()";

const LAST: &str = "SELECT setting FROM noted ORDER BY number DESC LIMIT 1";

#[test]
fn a_commit_waits_for_the_disk_and_otherwise_as_the_administrator_chose() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let server = Arc::new(cluster.start(&[]));
    let database = Database::of(&server);
    drop(Term::on(&database));
    database.sql(NOTE);
    let name = database.sql("SELECT current_database()");
    for (chosen, want) in [
        ("on", "on"),
        ("remote_apply", "remote_apply"),
        ("remote_write", "remote_write"),
        ("off", "on"),
        ("local", "local"),
    ] {
        database.sql(&format!(
            "ALTER DATABASE {name} SET synchronous_commit = {chosen}"
        ));
        let term = Term::on(&database);
        term.send("a");
        assert_eq!(database.sql(LAST), want, "{chosen}");
    }
    // Who changes it while a server leads, changes it for the next one.
    database.sql(&format!("ALTER DATABASE {name} RESET synchronous_commit"));
    let term = Term::on(&database);
    database.sql("ALTER SYSTEM SET synchronous_commit = off");
    database.sql("SELECT pg_reload_conf()");
    wait_until(&database, "SHOW synchronous_commit", "off");
    term.send("a");
    assert_eq!(database.sql(LAST), "on");
}
