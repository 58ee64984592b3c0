//! `work --drain`: when it is over, and what it says.

use std::fs;
use std::time::{Duration, Instant};

use super::Place;
use crate::harness::{eventually, run_command};
use crate::work::{check, say};

#[test]
fn a_drain_goes_on_while_a_job_runs_that_may_send_more() {
    let place = Place::new("", "first\n");
    // The first job sends eight more, and every job waits until four have run at once.
    let client = crate::harness::program("queue-client");
    let send = format!(
        "{} {}",
        client.display(),
        place.server.host_and_ports().join(" ")
    );
    let script = format!(
        "read -r job; \
         if test $job = first; then seq 8 | {send} send --lines - 2> /dev/null; fi; \
         touch $job.job; until test $(ls | grep -c job) -ge 4; do sleep 0.01; done"
    );
    run_command(place.command(&[], "--jobs 4 --drain", &script), b"").expect(0);
    let jobs = fs::read_dir(place.folder.path()).unwrap().count();
    assert_eq!(jobs, 9);
    assert_eq!(say(&place.server, "list", b"").expect(0).out(), "");
}

#[test]
fn a_drain_waits_for_what_it_has_to_retry() {
    let place = Place::new("", "one\ntwo\nthree\n");
    let script = "echo >> runs; test $QUEUE_ATTEMPT = 3";
    let command = place.command(&[], "--jobs 2 --drain --retry-delay 0.1", script);
    run_command(command, b"").expect(0);
    assert_eq!(place.read("runs").lines().count(), 9);
    assert_eq!(say(&place.server, "list", b"").expect(0).out(), "");
}

#[test]
fn a_drain_does_not_wait_for_what_others_have_delayed() {
    let place = Place::new("", "now\n");
    check(&place.server, "send --delay 3600 -", "later", 0, "");
    run_command(place.command(&[], "--jobs 2 --drain", "cat"), b"").expect(0);
    let listed = say(&place.server, "list", b"").expect(0).out();
    assert!(listed.starts_with("default\t0\t0\t1\t0\t"), "{listed}");
}

#[test]
fn a_drain_names_what_has_died() {
    let place = Place::new("--max-attempts 2", "good\nbad\nworse\n");
    let script = "read -r job; case $job in bad) exit 7;; worse) kill -9 $$;; esac";
    let command = place.command(&[], "--drain --retry-delay 0.01", script);
    let ran = run_command(command, b"").expect(1);
    for line in [
        "[ERROR] [worker 0] Message 2 is a dead letter: its command failed (exit status: 7) at attempt 2\n",
        "[ERROR] [worker 0] Message 3 is a dead letter: its command failed (signal: 9 (SIGKILL)) at attempt 2\n",
        "queue-client: dead letters: 2 (2 in default.dead, 3 in default.dead)\n",
    ] {
        assert!(ran.stderr.contains(line), "{line}\n{}", ran.stderr);
    }
    // Once is told as well, in a sentence.
    say(&place.server, "kick default", b"").expect(0);
    run_command(place.command(&[], "--once", "exit 7"), b"").expect(1);
    run_command(place.command(&[], "--once", "exit 7"), b"").expect(1);
    let ran = run_command(place.command(&[], "--once", "exit 7"), b"").expect(1);
    assert!(
        ran.stderr.contains("the message is a dead letter"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_drain_of_the_dead_tries_each_once() {
    let place = Place::new("--max-attempts 1", "1\n2\n3\n4\n5\n6\n");
    run_command(place.command(&[], "--drain", "false"), b"").expect(1);
    // One of them is better now.
    let script = "read -r job; echo $job >> runs; test $job = 4";
    let command = place.command(&[], "--queue default.dead --jobs 2 --drain", script);
    let ran = run_command(command, b"").expect(1);
    let runs = place.read("runs");
    let mut runs: Vec<_> = runs.lines().collect();
    runs.sort_unstable();
    assert_eq!(runs, ["1", "2", "3", "4", "5", "6"]);
    let last = ran.stderr.lines().last().unwrap();
    assert!(
        last.starts_with("queue-client: dead letters: 5 ("),
        "{last}"
    );
    for id in [1, 2, 3, 5, 6] {
        assert!(last.contains(&format!("{id} in default.dead")), "{last}");
    }
    let listed = say(&place.server, "list", b"").expect(0).out();
    assert!(listed.starts_with("default\t0\t0\t0\t5\t"), "{listed}");
}

#[test]
fn what_fails_among_the_dead_is_not_run_again_at_once() {
    let place = Place::new("--max-attempts 1", "job\n");
    run_command(place.command(&[], "--drain", "false"), b"").expect(1);
    let start = Instant::now();
    let worker = place.work("--queue default.dead", "echo >> runs; exit 1");
    eventually("it is run again", || {
        place.read("runs").lines().count() >= 3
    });
    assert!(start.elapsed() >= Duration::from_secs(2));
    worker.signal("TERM");
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn a_wait_is_not_over_while_a_job_runs_that_may_send_more() {
    let place = Place::new("", "first\n");
    let client = crate::harness::program("queue-client");
    let addr = place.server.host_and_ports().join(" ");
    let send = format!("{} {addr} send --lines -", client.display());
    // The first job runs longer than the others wait; what it then sends has to run all at once.
    let script = format!(
        "read -r job; \
         if test $job = first; then sleep 2; seq 3 | {send} 2> /dev/null; fi; \
         touch $job.job; until test $(ls | grep -c job) = 4; do sleep 0.01; done"
    );
    run_command(place.command(&[], "--jobs 4 --wait 1", &script), b"").expect(0);
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 4);
}
