//! Sessions where something is in the way: a server that is killed, a number that has none behind it, and a change
//! that waits for the disk while another connection takes its session over.

use std::cell::Cell;
use std::io::{BufReader, Read, Write};
use std::net::UdpSocket;

use proto::frame::{self, Message as _};
use proto::queue::{QueueName, Reply, Request, RequestId, Token, put_datagram, split_datagram};

use crate::harness::{
    Needs, PATIENCE, Server, Stream, eventually, has_door, has_sqlite, send_request,
};
use crate::sessions::ask;
use crate::work::say;

const ID: Token = Token::from_u128(7);

/// The highest number that a request may have.
const NUMBER_MAX: u64 = u64::MAX / 2;

fn session(next: u64) -> Request<'static> {
    Request::Session { id: ID, next }
}

#[track_caller]
fn check_ready(server: &Server, count: u32) {
    let list = say(server, "list", b"").expect(0).out();
    assert!(
        list.starts_with(&format!("default\t{count}\t0\t")),
        "{list}"
    );
}

#[test]
fn a_purge_that_comes_again_after_a_kill_spares_what_has_come_since() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let start = || {
        Server::start(
            "queue-server",
            &["0", "tcp", "--data", data.to_str().unwrap()],
        )
    };
    let purge = Request::Purge {
        queue: QueueName::DEFAULT,
    };
    let server = start();
    let first = [
        session(1),
        send_request(b"a"),
        send_request(b"b"),
        purge.clone(),
    ];
    let told = ask(&server, &first);
    assert_eq!(told[3], "Done { messages: 2 }");
    say(&server, "send -", b"since").expect(0);
    server.kill();
    let server = start();
    let told = ask(&server, &[session(3), purge.clone()]);
    assert_eq!(told[1], "Done { messages: 2 }");
    check_ready(&server, 1);
    // The next number is another purge.
    let told = ask(&server, &[session(4), purge]);
    assert_eq!(told[1], "Done { messages: 1 }");
}

#[test]
fn the_last_numbers_of_a_session_are_refused_and_cost_nothing() {
    let server = Server::start("queue-server", &["0", "tcp"]);
    for next in [NUMBER_MAX + 1, u64::MAX - 1, u64::MAX] {
        let told = ask(&server, &[session(next), send_request(b"never")]);
        assert!(told[0].starts_with("Error"), "{next}: {told:?}");
        assert!(
            told[1..].iter().all(|one| one.starts_with("Error")),
            "{told:?}"
        );
    }
    // A request whose number is too high is refused at first and when it comes again.
    let last = [
        session(NUMBER_MAX),
        send_request(b"last"),
        send_request(b"never"),
    ];
    for _ in 0..2 {
        let told = ask(&server, &last);
        assert_eq!(told[1], "Stored { id: 1 }");
        assert!(told[2].contains("too high a number"), "{}", told[2]);
    }
    check_ready(&server, 1);
    assert!(server.peak_bytes() < 100 << 20, "{}", server.peak_bytes());
}

#[test]
fn a_datagram_with_the_last_number_is_refused() {
    if !has_door(Needs::Tcp, "UDP has no other door") {
        return;
    }
    let server = Server::start("queue-server", &["0", "udp"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server.addr().tcp()).unwrap();
    let reply = |number: u64| {
        let session = ID;
        let mut datagram = Vec::new();
        put_datagram(
            &mut datagram,
            RequestId { session, number },
            &send_request(b"x"),
        );
        socket.send(&datagram).unwrap();
        let mut buffer = [0; 1500];
        let bytes = socket.recv(&mut buffer).unwrap();
        let (id, kind, payload) = split_datagram(&buffer[..bytes]).unwrap();
        assert_eq!(id.number, number);
        format!("{:?}", Reply::decode(kind, payload).unwrap())
    };
    for number in [u64::MAX, u64::MAX - 1, NUMBER_MAX + 1] {
        assert!(reply(number).starts_with("Error"), "{number}");
    }
    assert_eq!(reply(NUMBER_MAX), "Stored { id: 1 }");
    assert_eq!(reply(NUMBER_MAX), "Stored { id: 1 }");
    assert!(server.peak_bytes() < 100 << 20, "{}", server.peak_bytes());
}

/// A connection that has sent these requests.
fn ask_on(server: &Server, requests: &[Request]) -> Stream {
    let mut frames = Vec::new();
    requests.iter().for_each(|one| one.encode(&mut frames));
    let mut stream = server.connect();
    stream.write_all(&frames).unwrap();
    stream
}

#[track_caller]
fn next_reply(stream: &Stream) -> String {
    let mut payload = Vec::new();
    let kind = frame::read(&mut BufReader::with_capacity(1, stream), 1000, &mut payload);
    let kind = kind.unwrap().expect("a reply");
    format!("{:?}", Reply::decode(kind, &payload).unwrap())
}

/// Has two connections take the session over; the one that waits, when the other one was told that it lost it.
#[track_caller]
fn who_waits(server: &Server) -> Stream {
    let mut both = [(); 2].map(|()| Some(ask_on(server, &[session(1)])));
    let loser = Cell::new(None);
    eventually("one has lost it to the other", || {
        let is_told = |stream: &Option<Stream>| {
            let mut stream = stream.as_ref().unwrap();
            stream.set_nonblocking(true).unwrap();
            let is_told = stream.read(&mut [0; 1000]).is_ok();
            stream.set_nonblocking(false).unwrap();
            is_told
        };
        loser.set(both.iter().position(is_told));
        loser.get().is_some()
    });
    both[1 - loser.get().unwrap()].take().unwrap()
}

#[test]
fn who_waits_for_a_session_is_seen_to_hang_up_and_told_of_a_stop() {
    if !has_sqlite("it locks the database") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let server = Server::start(
        "queue-server",
        &["0", "tcp", "--data", data.to_str().unwrap()],
    );
    let lock = rusqlite::Connection::open(&data).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The change waits for the lock, at most 20 s.
    let first = ask_on(&server, &[session(1), send_request(b"a")]);
    assert_eq!(next_reply(&first), "Session { epoch: 0 }");
    drop(who_waits(&server));
    eventually("the others are gone", || server.connections() == 1);
    let waiting = who_waits(&server);
    first.set_nonblocking(true).unwrap();
    let is_answered = (&first).read(&mut [0; 1000]).is_ok();
    assert!(!is_answered, "the others have waited for the whole time");
    server.signal("TERM");
    let told = next_reply(&waiting);
    assert!(told.contains("ShuttingDown"), "{told}");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(server.wait().0, Some(0));
}
