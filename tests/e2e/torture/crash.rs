//! kill -9 at random moments, and of the logs, while they are rotated.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::services::piece;
use super::*;

/// How many times each server is killed, unless there is a time to fill.
const CRASHES: usize = 50;

#[test]
fn the_queue_keeps_what_it_acknowledged() {
    crash_and_crash("queue", CRASHES, &Queue::default(), |_, _, _| {});
}

#[test]
fn the_code_server_keeps_what_it_acknowledged() {
    crash_and_crash("code", CRASHES, &Codes::default(), |_, _, _| {});
}

#[test]
fn the_history_keeps_what_it_acknowledged() {
    crash_and_crash("history", CRASHES, &History::default(), |_, _, _| {});
}

/// Moves the log away and has the server make a new one, as logrotate does, a few times in each
/// life, while the server is killed again and again.
#[track_caller]
fn check_rotated(what: &str, service: impl Service, log: &str) {
    const CRASHES: usize = 10;
    const ROTATIONS: usize = 2;
    let (pieces, rotations) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rotate = |service: &_, server: &Server, ledger: &Ledger| {
        let path = Service::dir(service).join(log);
        for rotation in 1..=ROTATIONS {
            let number = pieces.fetch_add(1, Ordering::SeqCst);
            fs::rename(&path, piece(Service::dir(service), log, number)).unwrap();
            if server.has_ended() {
                return;
            }
            server.signal("HUP");
            let is_done = || server.log().matches("was reopened").count() == rotation;
            eventually("there is a new log", || is_done() || server.has_ended());
            // Two rotations within one commit are one too many.
            let acks = ledger.acks();
            eventually("it is written to", || {
                ledger.acks() > acks || server.has_ended()
            });
            if server.has_ended() {
                return;
            }
            rotations.fetch_add(1, Ordering::SeqCst);
        }
    };
    crash_and_crash(what, CRASHES, &service, rotate);
    let rotations = rotations.into_inner();
    println!("torture: {what}: {rotations} rotations");
    assert!(rotations > 0);
}

#[test]
fn messages_are_kept_over_rotations_and_crashes() {
    check_rotated("messages, rotated", Codes::default(), "messages.log");
}

#[test]
fn a_history_is_kept_over_rotations_and_crashes() {
    check_rotated("history, rotated", History::default(), "history.txt");
}
