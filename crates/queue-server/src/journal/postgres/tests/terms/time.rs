//! What time it is for the server that leads next.

use super::*;
use crate::clock::micros;

/// How much of the lease is left.
fn left(term: &Term, token: Token) -> Duration {
    let queues = &term.queues;
    let left = queues.expires_at(token).saturating_sub(queues.now());
    assert!(left <= micros(LONG), "{left}");
    Duration::from_micros(left)
}

#[test]
fn a_lease_keeps_what_is_left_of_it_while_nobody_leads_also_if_the_next_server_does_not_get_far() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    term.send("a");
    let token = term.queues.lease(Q, LONG);
    drop(term);
    for unreadable in ["messages", "keys"] {
        database.sql("UPDATE leader SET heartbeat = heartbeat - INTERVAL '1 day'");
        let (revoke, grant) = (
            format!("REVOKE SELECT ON {unreadable} FROM {SERVER_USER}"),
            format!("GRANT SELECT ON {unreadable} TO {SERVER_USER}"),
        );
        database.sql(&revoke);
        // It says that it lives while it reads, as often as it can.
        let mut next = candidate(&database, Duration::ZERO);
        let read = next.compete().and_then(|opened| {
            let opened = opened.expect("it takes over");
            Queues::load(opened, Limits::roomy(), || {}).map(drop)
        });
        let error = read.unwrap_err().to_string();
        assert!(error.starts_with("permission denied"), "{error}");
        database.sql(&grant);
        let term = Term::instead_of_another(&database);
        let left = left(&term, token);
        assert!(left > LONG / 2, "{unreadable}: {left:?}");
    }
}

#[test]
fn the_clock_of_the_queues_goes_on_while_nobody_leads_and_never_back() {
    let Some(database) = Database::new() else {
        return;
    };
    let first = Term::on(&database);
    let begun = first.queues.now();
    drop(first);
    // The database's clock was set back, or is another one's by now.
    for passes in ["+", "-"] {
        let set = format!("UPDATE leader SET heartbeat = heartbeat {passes} INTERVAL '1 day'");
        database.sql(&set);
        let term = Term::on(&database);
        let now = term.queues.now();
        let day = micros(24 * LONG);
        assert!(now >= begun && now < begun + day + micros(LONG), "{passes}");
        assert_eq!(now >= begun + day, passes == "-", "{passes}");
    }
}

#[test]
fn a_server_that_has_written_for_long_when_it_took_over_may_act() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    term.send("a");
    term.queues.lease(Q, LONG);
    drop(term);
    // As with very many leases, which all end later now.
    database.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
         AS $$BEGIN PERFORM pg_sleep(6); RETURN NULL; END$$;
         CREATE TRIGGER wait BEFORE UPDATE ON messages EXECUTE FUNCTION wait()",
    );
    let mut next = candidate(&database, Duration::from_secs(10));
    assert!(Term::begin(&mut next).queues.has_authority());
}
