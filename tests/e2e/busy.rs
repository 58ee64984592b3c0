//! Servers that have no connection left, and clients that may wait for one.

use std::io::Write;
use std::process::Command;

use proto::frame::Message;
use proto::queue::{Delivery, QueueName, Request};

use crate::harness::{Running, Server, eventually, program, send_request};
use crate::work::count_waiters;

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

#[test]
fn a_receiver_without_a_place_tries_again_now_and_then_and_not_for_ever() {
    let server = Server::start("queue-server", &["0", "TCP", "--max-connections", "12"]);
    let mut waits = Vec::new();
    Request::Receive {
        queues: QueueName::new("other").unwrap().into(),
        wait_millis: 60_000,
        delivery: Delivery::AtMostOnce,
    }
    .encode(&mut waits);
    let waiters = [(); 3].map(|()| {
        let mut waiter = server.connect();
        waiter.write_all(&waits).unwrap();
        waiter
    });
    eventually("all wait", || count_waiters(&server) == 3);
    let verbs: [&[&str]; 2] = [
        &["receive", "--wait", "60"],
        &["work", "--wait", "60", "--", "true"],
    ];
    let command = |verb: &[&str], patience| {
        let mut command = Command::new(program("queue-client"));
        let server = server.host_and_ports();
        command
            .args(server)
            .arg("TCP")
            .args(["--wait-for-server", patience]);
        command.args(verb);
        command
    };
    for verb in verbs {
        let client = Running::start(command(verb, "1"));
        assert_eq!(client.wait(), Some(1), "{verb:?}");
        let told = client.stderr.text();
        // That it tries again, and what came of it.
        assert_eq!(told.lines().count(), 2, "{told}");
        let why = "at most 3 connections of one address or user may wait";
        let advice = "--max-connections), and there are as many: close some, or try again later";
        assert_eq!(told.matches(advice).count(), 2, "{told}");
        assert_eq!(told.matches(why).count(), 2, "{told}");
    }
    // Who has the patience gets the place that becomes free.
    let client = Running::start(command(&["receive", "--wait", "60"], "60"));
    client.wait_for_stderr(|told| told.contains("Trying again"));
    drop(waiters);
    let mut message = Vec::new();
    send_request(b"here").encode(&mut message);
    server.connect().write_all(&message).unwrap();
    assert_eq!(client.wait(), Some(0), "{}", client.stderr.text());
    assert_eq!(client.stdout_text(), "here");
}
