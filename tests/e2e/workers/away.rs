//! Servers that are away, or have no connection left.

use std::process::Command;

use super::Place;
use crate::harness::{Running, Server, eventually, program, run_command};
use crate::work::{client, say, start};

/// A client that waits for this server.
fn wait(server: &Server, words: &str) -> Running {
    let mut command = Command::new(program("queue-client"));
    command.args(server.host_and_ports());
    command.args(words.split_whitespace());
    Running::start(command)
}

fn waiting(server: &Server) -> u64 {
    let queues = client(server).stats().unwrap().queues;
    queues.iter().map(|queue| queue.waiting).sum()
}

const WAITS: [&str; 4] = [
    "receive --wait 60",
    "receive --follow",
    "work --once --wait 60 -- cat",
    "lease 60 job --wait 60",
];

#[test]
fn who_waits_for_a_message_is_never_told_that_there_is_none_by_a_server_that_stops() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&["tcp"]);
    let waits = WAITS.map(|words| {
        let words = words.replace(" job ", &format!(" {}/job ", folder.path().display()));
        wait(&server, &words)
    });
    eventually("all wait", || waiting(&server) == WAITS.len() as u64);
    server.signal("TERM");
    for client in waits {
        assert_eq!(
            client.wait(),
            Some(3),
            "{}: {}",
            client.command,
            client.stderr.text()
        );
    }
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn who_may_wait_for_the_server_waits_on_when_it_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job");
    for words in WAITS {
        let server = start(&["tcp"]);
        let port = server.addr().port().to_string();
        let words = words.replace(" job ", &format!(" {} ", job.display()));
        let client = wait(&server, &format!("--wait-for-server 60 {words}"));
        eventually("it waits", || waiting(&server) == 1);
        server.signal("TERM");
        assert_eq!(server.wait().0, Some(0));
        let server = Server::start("queue-server", &[&port, "tcp"]);
        say(&server, "send -", b"late").expect(0);
        if words.contains("--follow") {
            client.wait_for_stderr(|said| said.contains("Received: 4 bytes"));
            assert_eq!(client.ended(), None, "it waits for more");
        } else {
            assert_eq!(client.wait(), Some(0), "{words}: {}", client.stderr.text());
        }
    }
}

#[test]
fn more_jobs_than_connections_are_no_failure() {
    let place = Place::new("--max-connections 2", "1\n2\n3\n4\n5\n6\n7\n8\n");
    let options = "--jobs 4 --drain --wait-for-server 60";
    let script = "read -r job; sleep 0.05; echo $job >> done";
    run_command(place.command(&[], options, script), b"").expect(0);
    assert_eq!(place.read("done").lines().count(), 8);
}

#[test]
fn who_may_wait_for_the_server_waits_for_a_connection() {
    let server = start(&["tcp", "--max-connections", "1"]);
    let mut holder = client(&server);
    holder.send(b"job").unwrap();
    let message = holder.receive().unwrap().unwrap();
    let clients = ["send /dev/null", "list", "send --lines /dev/null"]
        .map(|words| wait(&server, &format!("--wait-for-server 60 {words}")));
    server.wait_for_log(|log| log.contains("WARN"));
    holder.ack(&message).unwrap();
    drop(holder);
    for client in clients {
        assert_eq!(
            client.wait(),
            Some(0),
            "{}: {}",
            client.command,
            client.stderr.text()
        );
    }
}
