//! Messages that were handed out and reached nobody: that is no attempt.

use std::io::{Read, Write};
use std::process::Command;

use proto::frame::Message as _;
use proto::queue::{Delivery, Properties, QueueName, Request};

use super::Place;
use crate::harness::{eventually, program, run_command};
use crate::work::client;

#[test]
fn workers_that_are_stopped_at_the_moment_when_messages_come_lose_no_attempt() {
    const JOBS: u64 = 8;
    let place = Place::new("--max-attempts 1", "");
    for _ in 0..2 {
        let worker = place.work("--jobs 8", "exit 0");
        let waiting = || {
            let queues = client(&place.server).stats().unwrap().queues;
            queues.iter().map(|queue| queue.waiters).sum::<u64>()
        };
        eventually("all wait", || waiting() == JOBS);
        let received = client(&place.server).stats().unwrap().totals.received;
        worker.signal("STOP");
        let jobs = (0..JOBS).map(|n| n.to_string());
        let mut sender = client(&place.server);
        sender.send_all(jobs, Properties::default()).unwrap();
        eventually("all are handed out", || {
            client(&place.server).stats().unwrap().totals.received == received + JOBS
        });
        worker.signal("TERM");
        worker.signal("CONT");
        assert_eq!(worker.wait(), Some(0), "{}", worker.stderr.text());
    }
    eventually("all are back or done", || {
        let stats = client(&place.server).stats().unwrap();
        let reserved: u64 = stats.queues.iter().map(|queue| queue.reserved).sum();
        reserved == 0
    });
    let mut receiver = client(&place.server);
    while let Some(message) = receiver.receive().unwrap() {
        assert_eq!(message.attempt, 1);
        receiver.ack(&message).unwrap();
    }
    assert_eq!(receiver.stats().unwrap().totals.dead_lettered, 0);
}

#[test]
fn a_connection_gives_back_at_once_all_that_it_has_reserved() {
    for options in ["--max-attempts 1", "--max-attempts 1 --data q.db"] {
        let folder = tempfile::tempdir().unwrap();
        let options = options.replace("q.db", folder.path().join("q.db").to_str().unwrap());
        let place = Place::new(&options, "one\ntwo\nthree\n");
        let mut requests = Vec::new();
        for _ in 0..2 {
            let receive = Request::Receive {
                queues: QueueName::DEFAULT.into(),
                wait_millis: 0,
                delivery: Delivery::AtLeastOnce,
            };
            receive.encode(&mut requests);
        }
        for _ in 0..2 {
            Request::UnreserveAll.encode(&mut requests);
        }
        let mut stream = place.server.connect();
        stream.write_all(&requests).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies).unwrap();
        let done = |messages: u8| [&[0, 0, 0, 9, 0x45][..], &[0; 7], &[messages]].concat();
        assert!(
            replies.ends_with(&[done(2), done(0)].concat()),
            "{replies:?}"
        );
        place.check_attempt("one", 1);
    }
}

#[test]
fn what_cannot_be_written_is_no_attempt() {
    let place = Place::new("--max-attempts 1", "job\n");
    let run = |words: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" > /dev/full", "sh"]);
        command.arg(program("queue-client"));
        command.args(place.server.host_and_ports()).args(words);
        run_command(command, b"").expect(2)
    };
    let file = place.path("file");
    for _ in 0..2 {
        run(&["receive"]);
        // Standard output gets the token.
        run(&["lease", "3600", file.to_str().unwrap()]);
    }
    place.check_attempt("job", 1);
}
