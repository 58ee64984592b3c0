//! A history that takes a while to copy: who deletes a line of it holds up nobody, whatever comes in
//! between.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use history_client::Client;
use tempfile::TempDir;

use crate::harness::{Needs, Server, eventually, has_door, records};

/// How many lines the history has, of [`line`]'s length: 32 MB together.
const LINES: usize = 320_000;

fn line(n: usize) -> String {
    format!("{n:.>99}\n")
}

struct Service {
    server: Server,
    dir: TempDir,
}

impl Service {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..LINES).map(line).collect();
        fs::write(dir.path().join("history.txt"), text).unwrap();
        let args = ["0", "--data-dir", dir.path().to_str().unwrap()];
        let server = Server::start("history-server", &args);
        Self { server, dir }
    }

    fn client(&self) -> Client {
        Client::connect(&self.server.endpoint()).unwrap()
    }

    fn new_path(&self) -> PathBuf {
        self.dir.path().join(".history.txt.new")
    }

    fn wait_until_it_is_copied(&self) {
        eventually("the history is copied", || self.new_path().exists());
    }

    fn text(&self) -> String {
        records(self.dir.path())
    }

    /// Checks that the old lines that are left are these, and returns the lines behind them without
    /// their times and peers.
    #[track_caller]
    fn check(&self, left: impl Iterator<Item = usize>) -> Vec<String> {
        let text = self.text();
        let mut lines = text.split_inclusive('\n');
        for n in left {
            assert_eq!(lines.next(), Some(line(n).as_str()));
        }
        let requests = lines.map(|line| line.trim_end().splitn(3, ' ').nth(2).unwrap());
        requests.map(str::to_owned).collect()
    }
}

#[test]
fn appends_and_readers_go_on_while_a_line_is_deleted() {
    if !has_door(Needs::NoAccounts, "many users ask, and one has an account") {
        return;
    }
    let service = Service::start();
    let is_done = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        scope.spawn(|| {
            let deleted = service.client().delete("alice", 7);
            is_done.store(true, Ordering::SeqCst);
            assert_eq!(deleted.unwrap(), "Line 7 deleted.");
        });
        let mut client = service.client();
        service.wait_until_it_is_copied();
        let mut meanwhile = 0;
        while !is_done.load(Ordering::SeqCst) {
            client.hello(&format!("user{meanwhile}")).unwrap();
            meanwhile += 1;
        }
        meanwhile
    });
    // The last of them may have waited for the deletion.
    assert!(meanwhile > 2, "only {meanwhile} appends");
    let requests = service.check((0..LINES).filter(|n| *n != 6));
    let hellos = (0..meanwhile).map(|n| format!("user{n} hello"));
    assert!(requests[0] == "alice 1 7" && requests[1..].iter().cloned().eq(hellos));
    assert!(!service.new_path().exists());
}

#[test]
fn deletions_that_come_meanwhile_are_all_done() {
    const DELETIONS: usize = 12;
    let service = Service::start();
    thread::scope(|scope| {
        let delete = || {
            let deleted = service.client().delete("alice", 1).unwrap();
            assert_eq!(deleted, "Line 1 deleted.");
        };
        scope.spawn(delete);
        service.wait_until_it_is_copied();
        for _ in 1..DELETIONS {
            scope.spawn(delete);
        }
    });
    assert_eq!(service.check(DELETIONS..LINES), ["alice 1 1"; DELETIONS]);
}

#[test]
fn a_history_is_cleared_while_it_is_copied() {
    let service = Service::start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let deleted = service.client().delete("alice", 1).unwrap();
            assert_eq!(deleted, "Line 1 deleted.");
        });
        service.wait_until_it_is_copied();
        let cleared = service.client().clear("alice").unwrap();
        assert_eq!(cleared, "History deleted.");
    });
    assert_eq!(service.check(0..0), ["alice deleted the history"]);
    service.client().delete("alice", 1).unwrap();
    assert_eq!(service.check(0..0), ["alice 1 1"]);
    assert!(!service.new_path().exists());
}

#[test]
fn a_server_that_is_stopped_while_it_copies_ends_when_that_is_done() {
    let service = Service::start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let deleted = service.client().delete("alice", 1).unwrap();
            assert_eq!(deleted, "Line 1 deleted.");
        });
        service.wait_until_it_is_copied();
        service.server.signal("TERM");
    });
    assert_eq!(service.check(1..LINES), ["alice 1 1"]);
    let Service { server, dir } = service;
    assert_eq!(server.wait().0, Some(0));
    assert!(!dir.path().join(".history.txt.new").exists());
}
