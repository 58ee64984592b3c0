//! A history that forgets: the newest lines stay, the oldest go, and none in between.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use history_client::Client;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::harness::{Needs, PATIENCE, Server, eventually, has_door, records};

fn start(dir: &Path, options: &[&str]) -> Server {
    let mut line = vec!["0", "--data-dir", dir.to_str().unwrap()];
    line.extend(options);
    Server::start("history-server", &line)
}

fn client(server: &Server) -> Client {
    Client::connect(&server.endpoint()).unwrap()
}

/// The third word of each record: who asked.
fn users(dir: &Path) -> Vec<String> {
    let text = records(dir);
    let user = |line: &str| line.split(' ').nth(2).unwrap().to_owned();
    text.lines().map(user).collect()
}

/// A history whose lines are this many days old.
fn aged(days: &[u32]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 3600);
    let line = |days: &u32| {
        let time = Timestamp::now() - day * *days;
        format!("{time:.3} 127.0.0.1:9 day-{days} hello\n")
    };
    let text: String = days.iter().map(line).collect();
    fs::write(dir.path().join("history.txt"), text).unwrap();
    dir
}

#[test]
fn the_newest_lines_stay() {
    if !has_door(Needs::NoAccounts, "many users ask, and one has an account") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--keep-lines", "80"]);
    let mut client = client(&server);
    for n in 1..=90 {
        client.hello(&format!("u{n}")).unwrap();
    }
    assert_eq!(users(dir.path()).len(), 90);
    assert!(!server.log().contains("Pruned"));
    client.hello("u91").unwrap();
    server.wait_for_log(|log| log.contains("[INFO] [pruner] Pruned the oldest 11 lines\n"));
    let left = users(dir.path());
    assert!(left.iter().cloned().eq((12..=91).map(|n| format!("u{n}"))));
    // Another number at the start of a server.
    server.end();
    let server = start(dir.path(), &["--keep-lines", "1"]);
    server.wait_for_log(|log| log.contains("Pruned the oldest 79 lines\n"));
    assert_eq!(users(dir.path()), ["u91"]);
}

#[test]
fn the_youngest_lines_stay() {
    let dir = aged(&[40, 35, 31, 29, 0]);
    let server = start(dir.path(), &["--keep-days", "30"]);
    server.wait_for_log(|log| log.contains("Pruned the oldest 3 lines\n"));
    assert_eq!(users(dir.path()), ["day-29", "day-0"]);
    server.end();
    // Less than an eighth more than 30 days.
    let dir = aged(&[33, 31, 0]);
    let server = start(dir.path(), &["--keep-days", "30", "--keep-lines", "3"]);
    client(&server).hello("alice").unwrap();
    server.wait_for_log(|log| log.contains("Pruned the oldest line\n"));
    assert_eq!(users(dir.path()), ["day-31", "day-0", "alice"]);
}

/// One that appends, one that deletes and the pruner, over crashes.
#[test]
fn no_line_in_between_is_lost_however_often_the_server_crashes() {
    if !has_door(Needs::NoAccounts, "many users ask, and one has an account") {
        return;
    }
    const ROUNDS: usize = 5;
    const ROUND: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let answered = AtomicUsize::new(0);
    for round in 1..=ROUNDS {
        let server = start(dir.path(), &["--keep-lines", "32"]);
        let answered = &answered;
        thread::scope(|scope| {
            let mut appends = client(&server);
            scope.spawn(move || {
                loop {
                    // One that was not answered may be there, and is asked again.
                    let n = answered.load(Ordering::SeqCst) + 1;
                    match appends.hello(&format!("u{n}")) {
                        Ok(_) => answered.store(n, Ordering::SeqCst),
                        Err(_) => return,
                    }
                }
            });
            eventually("many lines", || {
                answered.load(Ordering::SeqCst) >= round * ROUND
            });
            server.kill();
        });
        let text = users(dir.path());
        let numbers: Vec<usize> = text.iter().map(|user| user[1..].parse().unwrap()).collect();
        // A number is there again after a crash.
        let follows = |pair: &[usize]| pair[1] == pair[0] || pair[1] == pair[0] + 1;
        assert!(numbers.windows(2).all(follows), "{numbers:?}");
        assert!(numbers.len() >= 32, "{numbers:?}");
        let last = answered.load(Ordering::SeqCst);
        assert!((last..=last + 1).contains(numbers.last().unwrap()));
    }
}

#[test]
fn a_server_that_stops_does_not_wait_for_the_pruner() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("{}\n", "x".repeat(99));
    fs::write(dir.path().join("history.txt"), line.repeat(500_000)).unwrap();
    let server = start(dir.path(), &["--keep-lines", "400000"]);
    let new = dir.path().join(".history.txt.new");
    eventually("it is copied, or was", || {
        new.exists() || server.log().contains("Pruned")
    });
    let since = Instant::now();
    server.end();
    assert!(since.elapsed() < PATIENCE / 6, "{:?}", since.elapsed());
    let left = records(dir.path()).lines().count();
    assert!([400_000, 500_000].contains(&left), "{left}");
    assert!(!new.exists());
}
