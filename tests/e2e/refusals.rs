//! What a queue server says when it has nothing to hand out: that it stops, that a queue is paused or
//! not there, that a time is too long.

use std::io::{BufReader, Write};
use std::thread;
use std::time::Duration;

use cli::ClientError;
use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::{self, Message};
use proto::queue::{Delivery, Properties, QueueName, Reply, Request};
use queue_client::{Client, Error, Transport};

use crate::harness::{Needs, Ran, Server, eventually, exchange, has_door, run, send_request};

fn client(server: &Server) -> Client {
    Client::connect(&server.endpoint(), Transport::Tcp).unwrap()
}

/// How many wait for a message, in whatever queue.
fn waiting(server: &Server) -> u64 {
    let stats = client(server).stats().unwrap();
    stats.queues.iter().map(|queue| queue.waiters).sum()
}

/// `queue-client HOST PORT ...`
#[track_caller]
fn program(server: &Server, args: &[&str]) -> Ran {
    let mut line = server.host_and_ports();
    line.extend(args.iter().map(|arg| arg.to_string()));
    run("queue-client", &line, b"")
}

#[track_caller]
fn check_refused(server: &Server, args: &[&str], want: &str) {
    let ran = program(server, args).expect(1);
    let want = format!("queue-client: the server refused: {want}\n");
    assert_eq!((ran.out().as_str(), ran.stderr), ("", want));
}

fn receive(wait_millis: u32, delivery: Delivery) -> Request<'static> {
    Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis,
        delivery,
    }
}

#[test]
fn a_waiting_client_is_told_that_the_server_stops_and_not_that_there_is_nothing() {
    let server = Server::start("queue-server", &["0"]);
    let lease = Delivery::Lease { lease_millis: 1000 };
    let deliveries = [Delivery::AtLeastOnce, Delivery::AtMostOnce, lease];
    let waiters = deliveries.map(|delivery| {
        let mut stream = server.connect();
        thread::spawn(move || {
            let mut request = Vec::new();
            receive(600_000, delivery).encode(&mut request);
            // What is asked for behind it is not done either.
            send_request(b"late").encode(&mut request);
            stream.write_all(&request).unwrap();
            let (mut input, mut payload) = (BufReader::new(stream), Vec::new());
            let kind = frame::read(&mut input, 1000, &mut payload)
                .unwrap()
                .unwrap();
            match Reply::decode(kind, &payload).unwrap() {
                Reply::Error(ErrorReply { code, sentence }) => (code, sentence.to_owned()),
                other => panic!("{other:?}"),
            }
        })
    });
    let mut idle = client(&server);
    idle.send_delayed(b"later", Duration::from_secs(600))
        .unwrap();
    eventually("all wait", || waiting(&server) == 3);
    server.signal("TERM");
    for waiter in waiters {
        let want = (
            ErrorCode::ShuttingDown,
            "the server is shutting down".to_owned(),
        );
        assert_eq!(waiter.join().unwrap(), want);
    }
    // A request that comes while it stops.
    match idle.send(b"too late").unwrap_err() {
        Error::Refused { code, .. } => assert_eq!(code, ErrorCode::ShuttingDown),
        Error::Client(ClientError::Lost(_) | ClientError::TimedOut) => {}
        other => panic!("{other}"),
    }
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn what_is_held_when_the_server_stops_does_not_die_of_that() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let options = ["0", "--max-attempts", "1", "--data", path.to_str().unwrap()];
    let server = Server::start("queue-server", &options);
    client(&server).send(b"held").unwrap();
    // One that holds it is in the middle of its next request.
    let mut stream = server.connect();
    let mut request = Vec::new();
    receive(0, Delivery::AtLeastOnce).encode(&mut request);
    send_request(b"next").encode(&mut request);
    stream.write_all(&request[..request.len() - 1]).unwrap();
    let (mut input, mut payload) = (BufReader::new(&stream), Vec::new());
    frame::read(&mut input, 1000, &mut payload).unwrap();
    assert!(payload.ends_with(b"held"));
    server.signal("TERM");
    server.wait_for_log(|log| log.contains("Shutting down"));
    drop(stream);
    assert_eq!(server.wait().0, Some(0));
    let server = Server::start("queue-server", &options);
    let message = client(&server).receive().unwrap().unwrap();
    assert_eq!(
        (message.body.as_slice(), message.attempt),
        (&b"held"[..], 2)
    );
}

#[test]
fn who_waits_for_longer_than_the_pause_is_served_and_who_does_not_hears_of_it() {
    if !has_door(Needs::Plain, "it speaks UDP, too") {
        return;
    }
    let server = Server::start("queue-server", &["0", "both"]);
    let paused = "the queue 'jobs' is paused";
    program(&server, &["send", "--queue", "jobs", "/dev/null"]).expect(0);
    program(&server, &["pause", "--queue", "jobs"]).expect(0);
    check_refused(&server, &["receive", "--queue", "jobs"], paused);
    check_refused(&server, &["udp", "receive", "--queue", "jobs"], paused);
    check_refused(
        &server,
        &["receive", "--queue", "jobs", "--wait", "0.05"],
        paused,
    );
    check_refused(&server, &["lease", "5", "file", "--queue", "jobs"], paused);
    check_refused(
        &server,
        &["work", "--queue", "jobs", "--drain", "--", "true"],
        paused,
    );
    thread::scope(|scope| {
        let waiting_one = || {
            let mut client = client(&server);
            client.set_queue(QueueName::new("jobs").unwrap());
            client
                .receive_wait(Duration::from_secs(60))
                .unwrap()
                .is_some()
        };
        let one = scope.spawn(waiting_one);
        eventually("it waits", || waiting(&server) == 1);
        program(&server, &["resume", "--queue", "jobs"]).expect(0);
        assert!(one.join().unwrap());
    });
    // Who speaks in plain text knows one error sentence.
    client(&server).send(b"plain").unwrap();
    program(&server, &["pause"]).expect(0);
    let reply = exchange(server.addr(), b"<<GET>>");
    assert_eq!(reply, proto::text::QUEUE_EMPTY.as_bytes());
}

#[test]
fn a_follower_waits_for_the_end_of_a_pause() {
    let server = Server::start("queue-server", &["0"]);
    let mut client = client(&server);
    client.send(b"x").unwrap();
    client.pause().unwrap();
    assert_eq!(
        client.receive_patiently(Duration::from_millis(1)).unwrap(),
        None
    );
    client.resume().unwrap();
    assert!(client.receive_patiently(Duration::ZERO).unwrap().is_some());
}

#[test]
fn a_queue_that_is_not_there_is_not_made_by_asking() {
    if !has_door(Needs::Plain, "it speaks UDP, too") {
        return;
    }
    let server = Server::start("queue-server", &["0", "both"]);
    let nosuch = "there is no queue 'nosuch'";
    for verb in ["pause", "resume", "purge"] {
        check_refused(&server, &[verb, "--queue", "nosuch"], nosuch);
        check_refused(&server, &["udp", verb, "--queue", "nosuch"], nosuch);
    }
    check_refused(&server, &["kick", "nosuch"], nosuch);
    check_refused(&server, &["udp", "kick", "nosuch"], nosuch);
    assert_eq!(program(&server, &["list"]).expect(0).out(), "");
}

#[test]
fn a_queue_of_dead_letters_alone_is_kicked() {
    let server = Server::start("queue-server", &["0", "--max-attempts", "1"]);
    program(&server, &["send", "--queue", "jobs", "/dev/null"]).expect(0);
    let mut holder = client(&server);
    holder.set_queue(QueueName::new("jobs").unwrap());
    let message = holder.receive().unwrap().unwrap();
    holder.release(&message, Duration::ZERO).unwrap();
    let listed = || program(&server, &["list"]).expect(0).out();
    assert!(listed().contains("\njobs.dead\t"), "{}", listed());
    // To kick them by the name that the list shows would be to kick theirs.
    let want = "'jobs.dead' has no dead letters of its own; kick 'jobs'";
    check_refused(&server, &["kick", "jobs.dead"], want);
    program(&server, &["kick", "jobs"]).expect(0);
    assert!(listed().starts_with("jobs\t1\t"), "{}", listed());
}

#[test]
fn a_time_that_would_be_cut_is_refused_at_both_ends() {
    let server = Server::start("queue-server", &["0"]);
    let year = Duration::from_secs(31_536_000);
    let mut client = client(&server);
    let exceeds = |error: Error, want: Duration| match error {
        Error::DurationTooLong(duration) => assert_eq!(duration, want),
        other => panic!("{other}"),
    };
    let too_long = |error| exceeds(error, year);
    too_long(client.send_delayed(b"x", year).unwrap_err());
    let longest = Properties::delayed(u32::MAX);
    let refused = client.batch(longest).send(b"x").unwrap_err();
    exceeds(refused, Duration::from_millis(u32::MAX.into()));
    too_long(client.receive_wait(year).unwrap_err());
    too_long(client.lease(year, Duration::ZERO).unwrap_err());
    let ran = program(&server, &["send", "/dev/null", "--delay", "31536000"]).expect(2);
    assert!(ran.stderr.contains("from 0 to 49d"), "{}", ran.stderr);
    // What an older client makes of a year.
    let mut request = Vec::new();
    Request::Send {
        queue: QueueName::DEFAULT,
        properties: longest,
        body: b"x",
    }
    .encode(&mut request);
    let reply = exchange(server.addr(), &request);
    let (kind, payload) = frame::split(&reply).unwrap();
    let Reply::Error(error) = Reply::decode(kind, payload).unwrap() else {
        panic!("{kind}")
    };
    assert_eq!(error.sentence, "the delay exceeds 49 days");
    assert_eq!(client.stats().unwrap().queues.len(), 0);
}
