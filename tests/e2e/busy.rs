//! Servers that have no connection left, and clients that may wait for one.

use std::io::Write;
use std::process::Command;

use crate::harness::{Running, Server, program};

#[test]
fn a_history_client_that_may_wait_waits_for_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let line = ["0", "--max-connections", "1", "--data-dir"];
    let folder = folder.path().to_str().unwrap();
    let server = Server::start("history-server", &[&line[..], &[folder]].concat());
    let client = |options: &[&str]| {
        let mut command = Command::new(program("history-client"));
        command.args(server.host_and_ports()).args(options);
        Running::start(command)
    };
    // In the middle of a request, nobody has to make room.
    let mut holder = server.connect();
    holder.write_all(b"\0\0").unwrap();
    let refused = client(&["hello", "alice"]);
    assert_eq!(refused.wait(), Some(1));
    let waits = client(&["hello", "alice", "--wait-for-server", "60"]);
    server.wait_for_log(|log| log.matches("[WARN]").count() >= 2);
    drop(holder);
    assert_eq!(waits.wait(), Some(0), "{}", waits.stderr.text());
}
