//! The suites of the four services, through every door: TCP, TLS, TLS with client certificates and a Unix
//! socket, each with and without accounts.
//!
//! Which door a run has is a parameter of the harness, so each test here runs this test program once more,
//! with another parameter. Plain TCP without accounts is the door of the run that starts them.

use std::process::Command;

use crate::harness::{BUILT_VARIABLE, DOOR_VARIABLE, Needs, has_door, program};

/// What runs through every door: the tests whose names have one of these in them, ...
const SUITES: [&str; 6] = [
    "code::",
    "file::",
    "history::",
    "pending_replies::",
    "queue::",
    "verbs::",
];

/// ... and what runs through a Unix socket and through the door that has all there is, client certificates
/// and accounts. What is between those two shows nothing new of it.
const MORE_SUITES: [&str; 16] = [
    "downloads::",
    "file_client::",
    "file_digest::",
    "file_resume::",
    "file_words::",
    "forms::",
    "http::",
    "interrupted_uploads::",
    "lists::",
    "planted::",
    "refusals::",
    "resumable::",
    "roots::",
    "upload_records::",
    "work::",
    "workers::",
];

/// What does not: it is slow, and knows no door, or less of it than others that are quick.
const SLOW: &[&str] = &[
    "code::a_damaged_file",
    "downloads::what_can_be_read",
    "file::a_download_under_way",
    "file::a_large_file",
    "file::a_server_without_requests",
    "file::an_idle_connection",
    "file::of_files_sent_at_once",
    "file_client::a_download_that_is_cut_short",
    "history::a_crash_while_deleting",
    "history::a_history_of_30_megabytes",
    "history::a_line_that_is_not_there",
    "history::a_request_that_does_not_end",
    "history::an_unfinished_last_line",
    "history::deleting_while_others",
    "history::lines_are_counted",
    "history::many_clients_at_once",
    "lists::a_hostile_list",
    "lists::a_list_that_lacks",
    "lists::lists_that_nobody_reads",
    "long_history::",
    "queue::a_receiver_that_does_not_read",
    "queue::many_clients_at_once",
    "verbs::a_lease_survives",
    "verbs::send_later",
    "verbs::send_many_lines",
    "work::a_thousand_waiting",
    "work::whatever_is_done",
    "workers::death::",
    "workers::priorities::",
];

/// How many of its tests a door runs at once, beside those of the other doors: they mostly wait.
const THREADS: &str = "--test-threads=3";

#[track_caller]
fn check(door: &str, more: &[&str]) {
    if has_door(Needs::Plain, "one run goes through every door") {
        let suites = [&SUITES, more].concat();
        run_once_more((DOOR_VARIABLE, door), &suites, SLOW);
    }
}

/// Runs this test program once more, with this parameter: the tests whose names have one of `suites` in them,
/// and none of `slow`.
#[track_caller]
pub fn run_once_more((variable, value): (&str, &str), suites: &[&str], slow: &[&str]) {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    program("");
    tests.env(BUILT_VARIABLE, "").env(variable, value);
    tests.arg(THREADS).args(suites);
    for slow in slow {
        tests.args(["--skip", slow]);
    }
    // No test among them waits for ever, so this ends.
    let ran = tests.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{variable}={value}\n{said}");
    // A filter that finds nothing would pass, too.
    let passed = said.matches(" ... ok\n").count();
    assert!(passed > 25, "only {passed} tests have run:\n{said}");
}

#[test]
fn through_tls() {
    check("tls", &[]);
}

#[test]
fn through_tls_with_client_certificates() {
    check("client-cert", &[]);
}

#[test]
fn through_a_unix_socket() {
    check("unix", &MORE_SUITES);
}

#[test]
fn with_accounts() {
    check("tcp+accounts", &[]);
}

#[test]
fn through_tls_with_accounts() {
    check("tls+accounts", &[]);
}

#[test]
fn through_tls_with_client_certificates_and_accounts() {
    check("client-cert+accounts", &MORE_SUITES);
}

#[test]
fn through_a_unix_socket_with_accounts() {
    check("unix+accounts", &[]);
}
