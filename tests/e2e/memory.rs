//! What peers have a queue server keep counts against `--max-memory`: also frames that do not end, and
//! replies that are not read.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;
use std::thread;

use proto::ErrorCode;
use proto::frame::Message;
use proto::queue::{Priority, Properties, QueueName, Request};
use queue_client::{Client, Error, Transport};

use crate::harness::{Server, Stream, eventually, program, send_request};

/// [`proto::ErrorCode::Full`] on the wire.
const FULL: u8 = 8;

const MIB: usize = 1 << 20;

fn start(options: &[&str]) -> Server {
    let mut command = Command::new(program("queue-server"));
    command.args(["0", "--max-message", "12M", "--max-memory", "16M"]);
    command.args(options);
    // Else the allocator keeps the more of what is freed the more processors there are.
    command.env("MALLOC_ARENA_MAX", "1");
    Server::spawn(command)
}

fn client(server: &Server) -> Client {
    Client::connect(&server.endpoint(), Transport::Tcp).unwrap()
}

fn taken(server: &Server) -> u64 {
    client(server).stats().unwrap().totals.memory_bytes
}

#[track_caller]
fn check_peak(server: &Server, bytes_max: usize) {
    let peak = server.peak_bytes();
    assert!(peak < bytes_max, "{} MiB", peak / MIB);
}

#[test]
fn frames_that_do_not_end_are_held_to_the_limit() {
    let server = start(&[]);
    let mut holder = client(&server);
    holder.send(b"held").unwrap();
    let held = holder.receive().unwrap().unwrap();
    let mut frame = Vec::new();
    send_request(&vec![b'x'; 4 * MIB]).encode(&mut frame);
    let cut = &frame[..frame.len() - 1];
    let streams: Vec<Stream> = thread::scope(|scope| {
        let one = || {
            let mut stream = server.connect();
            stream.write_all(cut).unwrap();
            stream
        };
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    eventually("as many as may are kept", || {
        taken(&server) > 8 * MIB as u64
    });
    check_peak(&server, 64 * MIB);
    // What needs no room goes on.
    holder.ack(&held).unwrap();
    // Who had no room is told so when the frame ends, and is still understood.
    let mut refused = 0;
    for mut stream in streams {
        stream.write_all(&frame[frame.len() - 1..]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        match reply[4..6] {
            [0x41, _] => {}
            [0x7f, code] => {
                assert_eq!(code, FULL);
                refused += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert!((30..40).contains(&refused), "{refused}");
    let mut client = client(&server);
    assert_eq!(client.purge().unwrap(), 40 - refused);
    eventually("all of it is given back", || taken(&server) == 0);
}

#[track_caller]
fn check_replies_that_are_not_read(options: &[&str]) {
    let server = start(options);
    let mut sender = client(&server);
    let body = vec![b'x'; 8 * MIB];
    sender.send(&body).unwrap();
    let peek = Request::Peek {
        queue: QueueName::DEFAULT,
        state: proto::queue::MessageState::Ready,
        after: 0,
    };
    let mut request = Vec::new();
    peek.encode(&mut request);
    let mut streams: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&request).unwrap();
        // The reply has begun.
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    check_peak(&server, 96 * MIB);
    // It can be received, for that needs no copy; and it counts while it is being sent to others.
    let message = sender.receive().unwrap().unwrap();
    assert!(message.body == body);
    sender.ack(&message).unwrap();
    assert_eq!(taken(&server), 8 * MIB as u64);
    match sender.send(&body[1..]).unwrap_err() {
        Error::Refused { code, .. } => assert_eq!(code, ErrorCode::Full),
        error => panic!("{error}"),
    }
    drop(streams);
    eventually("all of it is given back", || taken(&server) == 0);
    sender.send(&body).unwrap();
    assert_eq!(sender.receive_at_most_once().unwrap().unwrap().body, body);
    eventually("and again", || taken(&server) == 0);
    check_peak(&server, 96 * MIB);
}

#[test]
fn replies_that_are_not_read_are_no_copies() {
    check_replies_that_are_not_read(&[]);
}

#[test]
fn replies_that_are_not_read_are_no_copies_of_a_database_either() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    check_replies_that_are_not_read(&["--data", path.to_str().unwrap(), "--fsync", "never"]);
}

#[test]
fn a_queue_that_is_full_of_long_messages_can_be_drained() {
    let server = start(&[]);
    let mut client = client(&server);
    let body = vec![b'x'; 5 * MIB];
    for _ in 0..3 {
        client.send(&body).unwrap();
    }
    client.send(&body).unwrap_err();
    for _ in 0..3 {
        let message = client.receive().unwrap().unwrap();
        assert!(message.body == body);
        client.ack(&message).unwrap();
    }
    assert_eq!(taken(&server), 0);
}

#[test]
fn plain_text_that_goes_on_beyond_the_limit_is_not_kept() {
    let server = start(&[]);
    // Nothing is taken, so that each message finds the account empty.
    client(&server).drain(true).unwrap();
    let text = vec![b'x'; 13 * MIB];
    let streams: Vec<_> = (0..15)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&text).unwrap();
            stream
        })
        .collect();
    check_peak(&server, 112 * MIB);
    drop(streams);
}

#[test]
fn a_server_that_is_full_says_how_full_it_is() {
    let server = Server::start("queue-server", &["0", "--max-memory", "100000"]);
    let mut client = client(&server);
    let names: Vec<_> = (0..300).map(|number| format!("queue{number}")).collect();
    for name in &names {
        client.set_queue(QueueName::new(name).unwrap());
        client.send(b"").unwrap();
    }
    let error = loop {
        if let Err(error) = client.send(b"") {
            break error;
        }
    };
    assert!(matches!(error, Error::Refused { code, .. } if code == ErrorCode::Full));
    let stats = client.stats().unwrap();
    assert_eq!(stats.queues.len(), 300);
    // What the look takes itself may be beyond the limit.
    assert!(stats.totals.memory_bytes + 64 > stats.totals.memory_bytes_max);
}

/// What messages cost on the account is what they take, also while they are delayed.
#[track_caller]
fn check_counted(properties: Properties) {
    const MESSAGES: usize = 30_000;
    // What the server needs beside its messages, and what the allocator keeps.
    const BESIDE_BYTES: usize = 2 * MIB;
    let server = Server::start("queue-server", &["0"]);
    let before = server.peak_bytes();
    let bodies = (0..MESSAGES).map(|_| [b'x'; 100]);
    client(&server).send_all(bodies, properties).unwrap();
    let counted = usize::try_from(taken(&server)).unwrap();
    let resident = server.peak_bytes() - before;
    let each = (resident / MESSAGES, counted / MESSAGES);
    assert!(resident < counted + BESIDE_BYTES, "{each:?}");
}

#[test]
fn what_messages_take_is_counted() {
    let plain = Properties::default;
    check_counted(plain());
    check_counted(Properties {
        delay_millis: 3_600_000,
        ..plain()
    });
    check_counted(Properties {
        priority: Priority::new(3).unwrap(),
        ..plain()
    });
    check_counted(Properties {
        expiry_millis: 3_600_000,
        ..plain()
    });
}
