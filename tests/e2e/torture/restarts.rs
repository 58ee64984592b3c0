//! Graceful restarts while clients wait: no client that may wait is told that the queue is empty
//! for the server gets all that is sent, and the others say why they have ended.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use queue_client::{Client, Transport};

use super::*;
use crate::harness::{Running, program};
use crate::work::count_waiters;

/// Those who do not wait for a server, by their command lines.
const ENDED: [&str; 5] = [
    "receive --wait 60",
    "receive --follow",
    "work --once --wait 60 -- cat",
    "work --wait 60 -- cat",
    "lease 60 FILE --wait 60",
];

#[test]
fn a_restart_is_never_an_empty_queue() {
    const ROUNDS: usize = 8;
    const MESSAGES: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let start = |port: &str| {
        let data = data.to_str().unwrap();
        Server::start("queue-server", &[port, "tcp", "--data", data])
    };
    let mut server = start("0");
    let port = server.addr().port().to_string();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let client = |line: &str| {
        let mut command = Command::new(program("queue-client"));
        command.args(["127.0.0.1", &port]);
        command.args(line.replace("FILE", &file("leased")).split(' '));
        Running::start(command)
    };
    let works = format!("work --jobs 2 -- tee -a {}", file("done"));
    let stay = [
        client("receive --follow"),
        client("receive --follow --queue other"),
        client(&works),
    ];
    let mut sent = 0;
    let done = rounds(ROUNDS, |round| {
        let ended = ENDED.map(|line| client(&format!("--wait-for-server 0 --queue empty {line}")));
        // The worker has two connections.
        eventually("all wait", || {
            count_waiters(&server) as usize == 4 + ended.len()
        });
        let send = || {
            let mut sender = Client::connect(&server.endpoint(), Transport::Tcp).unwrap();
            (0..MESSAGES).for_each(|n| {
                let body = format!("{}.", sent + n);
                sender.send(body.as_bytes()).unwrap();
            });
        };
        // The last ones are still under way when the server ends, every other time.
        send();
        sent += MESSAGES;
        if round % 2 == 0 {
            eventually("all wait again", || {
                count_waiters(&server) as usize == 4 + ended.len()
            });
        }
        server.signal("TERM");
        for client in ended {
            let code = client.wait();
            let says = client.stderr.text();
            assert_eq!(code, Some(3), "{}: {says}", client.command);
            assert!(says.contains("shutting down"), "{}: {says}", client.command);
        }
        let (code, log) = server.wait();
        assert_eq!(code, Some(0), "{log}");
        server = start(&port);
    });
    let received = || {
        let done = fs::read_to_string(dir.path().join("done")).unwrap_or_default();
        let text = format!("{done}{}", stay[0].stdout_text());
        let mut times = BTreeMap::<usize, usize>::new();
        for number in text.split(['.', '\n']).filter_map(|n| n.parse().ok()) {
            *times.entry(number).or_default() += 1;
        }
        times
    };
    eventually("all have come", || received().len() == sent);
    let doubled = received().values().filter(|times| **times > 1).count();
    println!("torture: restarts: {done} restarts, {sent} sent, {doubled} came twice");
    for client in stay {
        assert_eq!(client.ended(), None, "{}", client.stderr.text());
    }
}
