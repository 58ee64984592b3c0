//! The suites of the queue with its messages in PostgreSQL, whose commits wait for a replica, instead of
//! memory and SQLite.
//!
//! Where they are is a parameter of the harness, so the test here runs this test program once more, with
//! another one.

use crate::doors::run_once_more;
use crate::harness::{DATA_VARIABLE, Needs, POSTGRES, has_door, has_sqlite, postgres};

/// What runs on it: the tests whose names have one of these in them.
const SUITES: [&str; 14] = [
    "faults::holders::a_client",
    "one_message::",
    "pending_replies::",
    "queue::",
    "queue_http::",
    "refusals::",
    "session_faults::",
    "sessions::",
    "torture::crash::the_queue",
    "torture::operators::",
    "torture::restarts::",
    "udp::",
    "verbs::",
    "workers::",
];

/// What does not: it is slow, and shows nothing of where messages are kept.
const SLOW: &[&str] = &[
    "queue::a_receiver_that_does_not_read",
    "verbs::send_many_lines",
    "workers::death::",
    "workers::priorities::",
];

#[test]
fn the_queue_is_the_same_in_postgresql() {
    let why = "one run goes through both";
    if has_door(Needs::Plain, why) && has_sqlite(why) && postgres::is_installed() {
        run_once_more((DATA_VARIABLE, POSTGRES), &SUITES, SLOW);
    }
}
