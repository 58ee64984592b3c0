//! Workers and guardians that are killed: no command outlives its worker.

use std::process::Command;

use super::{Place, descendants, is_alive, signal};
use crate::harness::{Running, eventually};
use crate::work::say;

/// Checks that nothing is left of a job when its worker is killed.
#[track_caller]
fn check_that_nothing_outlives_its_worker(command: &[&str]) {
    let place = Place::new("", "job\n");
    let mut line = Command::new(crate::harness::program("queue-client"));
    line.args(place.server.host_and_ports())
        .args(["work", "--"]);
    line.args(command).current_dir(place.folder.path());
    let worker = Running::start(line);
    let command = place.wait_for_pid("running");
    let family = descendants(worker.pid());
    assert!(family.contains(&command) && family.len() >= 3, "{family:?}");
    worker.kill();
    eventually("all have ended", || {
        !family.iter().any(|pid| is_alive(*pid))
    });
    place.check_attempt("job", 2);
}

#[test]
fn a_command_ends_with_its_worker() {
    let script = "sleep 60 & echo $$ > running; wait";
    check_that_nothing_outlives_its_worker(&["sh", "-c", script]);
}

#[test]
fn a_command_ends_with_its_worker_though_it_does_not_want_to() {
    let script = "trap '' TERM; sleep 60 & echo $$ > running; wait";
    check_that_nothing_outlives_its_worker(&["sh", "-c", script]);
}

#[test]
fn a_command_with_a_session_of_its_own_ends_with_its_worker() {
    let script = "sleep 60 & echo $$ > running; wait";
    check_that_nothing_outlives_its_worker(&["setsid", "sh", "-c", script]);
}

#[test]
fn what_takes_its_time_to_end_is_given_it() {
    let place = Place::new("", "job\n");
    // The shell dies of SIGTERM at once; the other one has something to do first.
    let script = "sh -c 'trap \"sleep 0.5; echo > done; exit\" TERM; echo $$ > running; \
                  while :; do sleep 0.01; done'; echo";
    let worker = place.work("", script);
    let slow = place.wait_for_pid("running");
    worker.kill();
    place.wait_for("done");
    eventually("it has ended", || !is_alive(slow));
}

#[test]
fn a_command_does_not_outlive_its_guardian() {
    let place = Place::new("", "one\ntwo\n");
    let script = "read -r job; echo $$ > $job; test $QUEUE_ATTEMPT = 2 || test $job = two || \
                  sleep 60";
    let worker = place.work("--drain", script);
    let command = place.wait_for_pid("one");
    let family = descendants(worker.pid());
    signal("KILL", &family[0].to_string());
    assert_eq!(
        worker.wait(),
        Some(0),
        "it does the others, and this one again"
    );
    assert!(!is_alive(command) && !family.into_iter().any(is_alive));
    assert_eq!(say(&place.server, "list", b"").expect(0).out(), "");
    let said = worker.stderr.text();
    assert!(said.contains("signal: 9"), "{said}");
}
