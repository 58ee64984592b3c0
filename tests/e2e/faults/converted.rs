//! A database of an earlier version, whose conversion fails or is killed at one call after the other.

use super::failing_disk::{SYNC, Traced, WRITE, fault, has_strace};
use super::*;

/// How many messages the database has.
const MESSAGES: i64 = 6;

/// Converts a database again and again, each time with a fault at a later call for one of its files, until
/// none is met.
/// Returns how many were met.
#[track_caller]
fn check(file: &str, calls: &'static str, what: &'static str, every: usize) -> usize {
    const FAULTS_MAX: usize = 40;
    let schema_2 = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/queue-server/tests/data/schema-2.db"
    );
    for met in 0..FAULTS_MAX {
        let when = 1 + met * every;
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("queue.db");
        fs::copy(schema_2, &database).unwrap();
        let traced = Traced::start_for(Queue, dir.path(), file, &[fault(calls, what, when)]);
        let process = &traced.process;
        if process.serves() {
            process.running.kill();
            process.wait();
            let trace = traced.trace();
            assert!(
                !trace.contains("INJECTED"),
                "{calls} {when}: served\n{trace}"
            );
            return met;
        }
        let code = (!what.starts_with("signal")).then_some(2);
        assert_eq!(process.wait(), code, "{calls} {when}\n{}", process.log());
        Server::spawn(Queue.command(dir.path())).kill();
        let db = rusqlite::Connection::open(&database).unwrap();
        let count = "SELECT count(*) FROM messages";
        let count: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(count, MESSAGES, "{calls} {when}");
    }
    panic!("{calls} {what}: no end of faults");
}

#[test]
fn a_conversion_that_fails_or_is_killed_loses_nothing() {
    if !has_strace() {
        return;
    }
    let met = [
        check("queue.db-wal", SYNC, "error=EIO", 1),
        check("queue.db", SYNC, "error=EIO", 1),
        check("queue.db-wal", WRITE, "signal=KILL", 9),
        check("queue.db", WRITE, "signal=KILL", 1),
    ];
    println!("the conversion failed at {met:?} calls");
    assert!(met.iter().all(|met| *met >= 2), "{met:?}");
}
