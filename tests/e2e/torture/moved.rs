//! Files and folders that are moved away or replaced under a running server: it ends, and what it
//! has acknowledged is in what was moved.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// What is moved away, in a data folder, and whether something else takes its place.
type Move = (fn(&Path) -> PathBuf, Replaced);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Yes,
    No,
}

fn the_folder(dir: &Path) -> PathBuf {
    dir.to_owned()
}

/// Moves things away under load, and back when the server has ended.
#[track_caller]
fn check_moved<S: Service + Default>(what: &str, moves: &[Move]) {
    let service = S::default();
    let ledger = Ledger::default();
    let mut noise = noise();
    let done = rounds(moves.len(), |round| {
        let (path, replaced) = moves[round % moves.len()];
        let path = path(service.dir());
        let aside = service.dir().with_file_name("aside");
        let server = service.start();
        thread::scope(|scope| {
            scope.spawn(|| service.load(&server, round, &ledger));
            ledger.wait_for_some(&mut noise);
            fs::rename(&path, &aside).unwrap();
            if replaced == Replaced::Yes {
                fs::copy(&aside, &path).unwrap();
            }
            let (code, log) = server.wait();
            // The writer of another file of the same folder may be the last to say something.
            let says = format!("{}: stopping: ", S::PROGRAM);
            assert!(
                code == Some(2) && log.lines().any(|line| line.starts_with(&says)),
                "{path:?}, replaced: {replaced:?}: exit code {code:?}\n{log}"
            );
        });
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        fs::rename(&aside, &path).unwrap();
    });
    println!(
        "torture: {what}: {done} moves, {} acknowledged",
        ledger.acks()
    );
    service.check(what, &ledger);
}

#[test]
fn a_database_that_is_moved_ends_the_server() {
    let database: fn(&Path) -> PathBuf = |dir| dir.join("queue.db");
    let log: fn(&Path) -> PathBuf = |dir| dir.join("queue.db-wal");
    check_moved::<Queue>(
        "queue, moved",
        &[
            (database, Replaced::No),
            (database, Replaced::Yes),
            (log, Replaced::No),
            (log, Replaced::Yes),
            (the_folder, Replaced::No),
        ],
    );
}

#[test]
fn codes_or_messages_that_are_moved_end_the_server() {
    let codes: fn(&Path) -> PathBuf = |dir| dir.join("codes.txt");
    let messages: fn(&Path) -> PathBuf = |dir| dir.join("messages.log");
    check_moved::<Codes>(
        "code, moved",
        &[
            (codes, Replaced::No),
            (codes, Replaced::Yes),
            // Nobody sends SIGHUP.
            (messages, Replaced::No),
            (messages, Replaced::Yes),
            (the_folder, Replaced::No),
        ],
    );
}

#[test]
fn a_history_that_is_moved_ends_the_server() {
    let history: fn(&Path) -> PathBuf = |dir| dir.join("history.txt");
    check_moved::<History>(
        "history, moved",
        &[
            (history, Replaced::No),
            (history, Replaced::Yes),
            (the_folder, Replaced::No),
        ],
    );
}
