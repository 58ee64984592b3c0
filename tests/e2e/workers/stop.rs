//! Signals: to the worker, to its group, to everybody, to the command, to its guardian.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{Place, descendants, is_alive, signal};
use crate::harness::{Running, eventually};
use crate::work::say;

/// A job that says that it runs, and ends when it is told to.
const PATIENT: &str = "echo $$ > running; until test -e go-on; do sleep 0.01; done; cat >> done";

/// The same, but it never ends by itself.
const ENDLESS: &str = "echo $$ >> running; sleep 60; cat >> done";

const STOPPING: &str = "Receiving no more messages";

/// Checks that the job goes on when its worker is stopped by `stop`, and its message is acknowledged.
#[track_caller]
fn check_that_the_job_goes_on(place: &Place, worker: &Running, stop: impl FnOnce(), code: i32) {
    place.wait_for("running");
    stop();
    worker.wait_for_stderr(|said| said.contains(STOPPING));
    place.touch("go-on");
    assert_eq!(worker.wait(), Some(code));
    assert_eq!(place.read("done"), "job");
    assert_eq!(say(&place.server, "list", b"").expect(0).out(), "");
}

#[test]
fn ctrl_c_lets_the_command_finish() {
    for name in ["INT", "TERM", "HUP"] {
        let place = Place::new("", "job\n");
        let mut command = place.command(&[], "", PATIENT);
        command.process_group(0);
        let worker = Running::start(command);
        let group = format!("-{}", worker.pid());
        check_that_the_job_goes_on(&place, &worker, || signal(name, &group), 0);
    }
}

#[test]
fn a_time_limit_lets_the_command_finish_though_it_signals_twice() {
    let place = Place::new("", "job\n");
    // Its own exit code says that the time was over.
    let worker = Running::start(place.command(&["timeout", "2"], "", PATIENT));
    check_that_the_job_goes_on(&place, &worker, || {}, 124);
}

#[test]
fn a_hang_up_that_is_ignored_stays_ignored() {
    let place = Place::new("", "job\n");
    let script = "trap '' HUP; exec \"$@\"";
    let worker = Running::start(place.command(&["sh", "-c", script, "sh"], "--once", PATIENT));
    let command = place.wait_for_pid("running");
    for pid in [worker.pid(), command] {
        signal("HUP", &pid.to_string());
    }
    place.touch("go-on");
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(place.read("done"), "job");
    assert!(!worker.stderr.text().contains(STOPPING));
}

/// Checks that what a service manager does costs no attempt: it signals every process, in any order.
#[track_caller]
fn check_service_stop(name: &str, is_worker_last: bool) {
    let place = Place::new("--max-attempts 2", "job\n");
    for round in 1..=3 {
        let worker = place.work("", ENDLESS);
        eventually("it runs", || place.read("running").lines().count() == round);
        // A guardian, the shell, and what that runs: before the shell's child has become `sleep`, it has
        // the shell's handlers, and swallows a signal.
        let family = || descendants(worker.pid());
        let is_sleep = |pid: u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        eventually(
            "all run",
            || matches!(family()[..], [_, _, last] if is_sleep(last)),
        );
        let mut all = family();
        all.insert(if is_worker_last { all.len() } else { 0 }, worker.pid());
        let all: Vec<_> = all.iter().map(u32::to_string).collect();
        let sent = Command::new("kill").args(["-s", name]).args(&all).status();
        assert!(sent.unwrap().success());
        assert_eq!(worker.wait(), Some(0), "{name}: {}", worker.stderr.text());
    }
    place.check_attempt("job", 1);
}

#[test]
fn a_service_that_is_stopped_costs_no_attempt() {
    check_service_stop("TERM", false);
    check_service_stop("TERM", true);
    check_service_stop("INT", true);
    check_service_stop("HUP", true);
}

#[test]
fn a_command_that_is_stopped_alone_has_failed() {
    let place = Place::new("", "job\n");
    let worker = place.work("--once", "echo $$ > running; exec sleep 60");
    let command = place.wait_for_pid("running");
    signal("TERM", &command.to_string());
    assert_eq!(worker.wait(), Some(1));
    let said = worker.stderr.text();
    assert!(said.contains("signal: 15"), "{said}");
    place.check_attempt("job", 2);
}

#[test]
fn a_guardian_that_is_stopped_alone_passes_it_on() {
    let place = Place::new("", "job\n");
    let script = "trap 'echo term > heard; exit 3' TERM; echo $$ > running; \
                  while :; do sleep 0.01; done";
    let worker = place.work("--once", script);
    let command = place.wait_for_pid("running");
    let guardian = descendants(worker.pid())[0];
    assert_ne!(guardian, command);
    signal("TERM", &guardian.to_string());
    assert_eq!(worker.wait(), Some(1));
    assert_eq!(place.read("heard"), "term\n");
    let said = worker.stderr.text();
    assert!(said.contains("exit status: 3"), "{said}");
}

#[test]
fn a_second_wish_ends_the_command_and_costs_no_attempt() {
    let place = Place::new("--max-attempts 1", "job\n");
    let worker = place.work("", ENDLESS);
    let command = place.wait_for_pid("running");
    let family = descendants(worker.pid());
    worker.signal("TERM");
    worker.wait_for_stderr(|said| said.contains(STOPPING));
    // What comes sooner is the same wish.
    thread::park_timeout(Duration::from_millis(600));
    worker.signal("TERM");
    assert_eq!(worker.wait(), Some(2));
    assert!(!is_alive(command) && !family.into_iter().any(is_alive));
    place.check_attempt("job", 1);
}
