//! What a server finds when it starts.

use std::sync::{Arc, Barrier};

use super::*;

#[test]
fn two_servers_that_make_the_tables_at_once_both_find_them() {
    for _ in 0..20 {
        let Some(database) = Database::new() else {
            return;
        };
        let all_know = Barrier::new(4);
        let leads = || {
            let opened = candidate(&database, LONG).compete();
            all_know.wait();
            opened.unwrap().is_some()
        };
        let lead = thread::scope(|scope| {
            let all = [(); 4].map(|()| scope.spawn(leads));
            all.map(|one| one.join().unwrap())
        });
        let leaders = lead.iter().filter(|leads| **leads);
        assert_eq!(leaders.count(), 1);
    }
}

#[track_caller]
fn check_refused(database: &Database, want: &str) {
    let error = candidate(database, LONG).compete().err().unwrap();
    assert!(error.to_string().contains(want), "{error}");
}

#[test]
fn a_database_that_cannot_be_used_is_refused_with_a_reason() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let server = Arc::new(cluster.start(&[]));
    let latin = Database::with(&server, "ENCODING 'LATIN1'");
    check_refused(&latin, "encoded in LATIN1, and must be in UTF8");

    let later = Database::of(&server);
    drop(Term::on(&later));
    later.sql("UPDATE leader SET version = 2");
    check_refused(&later, "schema version 2, this program knows 1");

    let foreign = Database::of(&server);
    let table = format!("CREATE TABLE leader (name TEXT); GRANT ALL ON leader TO {SERVER_USER}");
    foreign.sql(&table);
    check_refused(&foreign, "\"version\" does not exist");

    let without_row = Database::of(&server);
    drop(Term::on(&without_row));
    without_row.sql("DELETE FROM leader");
    check_refused(&without_row, "the table 'leader' has no row");

    let of_others = Database::of(&server);
    of_others.sql("REVOKE ALL ON SCHEMA public FROM pg_database_owner");
    check_refused(&of_others, "permission denied for schema public");

    let replica = Database::of(&server);
    let name = replica.sql("SELECT current_database()");
    replica.sql(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    check_refused(&replica, "it can only be read");
}

#[test]
fn a_table_that_is_missing_is_told_and_loses_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    term.send("a");
    database.sql("ALTER TABLE messages RENAME TO moved");
    refused(term.try_send("b"), "relation \"messages\" does not exist");
    drop(term);
    let mut next = candidate(&database, LONG);
    let error = next.compete().err().unwrap().to_string();
    assert_eq!(error, "relation \"messages\" does not exist");
    database.sql("ALTER TABLE moved RENAME TO messages");
    assert_eq!(Term::begin(&mut next).all(), ["a"]);
}

#[test]
fn a_table_whose_ids_are_of_another_type_ends_the_start() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    term.send("a");
    drop(term);
    database.sql("ALTER TABLE messages ALTER id TYPE numeric");
    let opened = candidate(&database, LONG).compete().unwrap().unwrap();
    let error = Queues::load(opened, Limits::roomy(), || {}).err().unwrap();
    let says = cli::exit::with_causes(&error);
    assert!(says.contains("error deserializing column 0"), "{says}");
    // It is as it was.
    database.sql("ALTER TABLE messages ALTER id TYPE bigint");
    assert_eq!(Term::instead_of_another(&database).all(), ["a"]);
}
