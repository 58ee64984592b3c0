//! Who is evicted for a new connection when there are as many as may be, and who is not.

use std::io::{BufRead, BufReader, Read, Write};
use std::thread;

use proto::frame::{self, Message};
use proto::queue::{Claim, Delivery, QueueName, Reply, Request};
use proto::text::QUEUE_EMPTY;
use proto::{ErrorCode, code};
use uuid::Uuid;

use crate::harness::{
    Address, Server, Stream, connect, eventually, exchange, receive_request, send_request,
};
use crate::limits::{BUSY, GOOD, begin, error_code, is_closed, start};
use crate::pending_replies::{code_of, post, read_http};
use crate::work::count_waiters;

#[test]
fn silent_connections_lock_nobody_out() {
    for (name, request, answer) in GOOD {
        let (server, _dir) = start(name, &["--max-connections", "3"]);
        let mut held = [(); 3].map(|()| begin(&server, b""));
        eventually(name, || is_served(&server, request, answer));
        let closed = held.iter().filter(|stream| is_closed(stream)).count();
        assert_eq!(closed, 1, "{name}");
        // One that has asked, and has its reply, is evicted at once.
        let mut asked = server.connect();
        asked.write_all(request).unwrap();
        asked.read_exact(&mut vec![0; answer.len()]).unwrap();
        for stream in &mut held {
            *stream = begin(&server, b"");
        }
        eventually(name, || is_served(&server, request, answer));
    }
}

/// Whether a request is answered. A history's refusal begins as its answer does.
fn is_served(server: &Server, request: &[u8], answer: &[u8]) -> bool {
    let reply = exchange(server.addr(), request);
    reply.starts_with(answer) && !String::from_utf8_lossy(&reply).contains(BUSY)
}

#[test]
fn a_connection_that_waits_or_has_something_reserved_stays() {
    let (server, _dir) = start("queue-server", &["--max-connections", "24"]);
    let mut holder = server.connect();
    ask(&mut holder, &send_request(b"first"));
    ask(&mut holder, &receive_request(Delivery::AtLeastOnce));
    // A quarter of the places is for those of one address; one has something reserved.
    let mut waiters = [(); 5].map(|()| server.connect());
    for waiter in &mut waiters {
        tell(waiter, &wait_in(QueueName::DEFAULT, 30_000));
    }
    eventually("all wait", || count_waiters(&server) == 5);
    let other = QueueName::new("other").unwrap();
    eventually("there is no place for another that waits", || {
        let reply = ask(&mut server.connect(), &wait_in(other, 1));
        error_code(&reply) == Some(ErrorCode::Busy)
    });
    // There is always one for a client that does not wait.
    let silent = [(); 40].map(|()| server.connect());
    eventually("it is served", || {
        exchange(server.addr(), b"<<GET>>").starts_with(QUEUE_EMPTY.as_bytes())
    });
    drop(silent);
    let mut sender = server.connect();
    for _ in &waiters {
        ask(&mut sender, &send_request(b"more"));
    }
    for waiter in &mut waiters {
        let reply = read_frame(waiter);
        assert!(reply.ends_with(b"more"), "{reply:?}");
    }
    let claim = Claim::Reserved(1);
    let reply = ask(&mut holder, &Request::Ack { claim });
    let (kind, payload) = frame::split(&reply).unwrap();
    let reply = Reply::decode(kind, payload).unwrap();
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
}

#[test]
fn who_has_received_and_is_idle_keeps_nobody_from_receiving() {
    let (server, _dir) = start("queue-server", &["--max-connections", "24"]);
    let receive = receive_request(Delivery::AtLeastOnce);
    // They have all places of their address for those that wait, and connections are left.
    let mut idle = [(); 6].map(|()| server.connect());
    for stream in &mut idle {
        ask(stream, &receive);
    }
    eventually("another may wait", || {
        let reply = ask(&mut server.connect(), &wait_in(QueueName::DEFAULT, 1));
        error_code(&reply).is_none()
    });
    assert!(idle.iter().any(is_closed));
}

#[test]
fn half_a_message_of_an_evicted_client_is_no_message() {
    let (server, _dir) = start("queue-server", &["--max-connections", "2"]);
    let halves = [(); 2].map(|()| begin(&server, b"half a mess"));
    let empty = QUEUE_EMPTY.as_bytes();
    eventually("one is evicted", || {
        let reply = exchange(server.addr(), b"<<GET>>");
        assert!(!reply.starts_with(b"half"));
        reply == empty && halves.iter().any(is_closed)
    });
    assert_eq!(exchange(server.addr(), b"<<GET>>"), empty);
}

fn wait_in(queue: QueueName<'_>, wait_millis: u32) -> Request<'_> {
    Request::Receive {
        queues: queue.into(),
        wait_millis,
        delivery: Delivery::AtMostOnce,
    }
}

fn tell(mut stream: impl Write, request: &Request) {
    let mut framed = Vec::new();
    request.encode(&mut framed);
    stream.write_all(&framed).unwrap();
}

fn read_frame(stream: &mut impl Read) -> Vec<u8> {
    let mut reply = vec![0; 4];
    stream.read_exact(&mut reply).unwrap();
    let length = u32::from_be_bytes(reply[..].try_into().unwrap());
    reply.resize(4 + length as usize, 0);
    stream.read_exact(&mut reply[4..]).unwrap();
    reply
}

fn ask(stream: &mut Stream, request: &Request) -> Vec<u8> {
    tell(&mut *stream, request);
    read_frame(stream)
}

/// Clients that leave messages, each on a connection that may be evicted at any moment.
const CLIENTS: usize = 12;
const MESSAGES: usize = 60;

#[test]
fn for_an_evicted_client_nothing_was_done() {
    // Few connections; and a number with which the thread that writes to the disk sends the replies.
    for connections_max in [4, 40] {
        let max = connections_max.to_string();
        let (server, dir) = start("code-server", &["--max-connections", &max]);
        let uuid = Uuid::from_u128(7);
        let unique = code_of(server.addr(), uuid);
        // There is room for some of the clients.
        let crowd: Vec<_> = (2..connections_max).map(|_| server.connect()).collect();
        let leave = || leave_messages(server.addrs[1], uuid, &unique);
        let answered: usize = thread::scope(|scope| {
            let clients = [(); CLIENTS].map(|()| scope.spawn(leave));
            clients.map(|client| client.join().unwrap()).iter().sum()
        });
        drop(crowd);
        let stored = std::fs::read_to_string(dir.path().join("messages.log")).unwrap();
        assert_eq!(stored.lines().count(), answered, "{connections_max}");
        assert!(answered > 0);
    }
}

/// Leaves messages, three on a connection if it lasts; returns how many were acknowledged.
fn leave_messages(addr: Address, uuid: Uuid, unique: &str) -> usize {
    let message = code::MessageRequest {
        uuid,
        unique: unique.to_owned(),
        text: "left".to_owned(),
    };
    let request = post(&message.encode());
    let mut stream = BufReader::new(connect(addr));
    let mut answered = 0;
    for n in 1..=MESSAGES {
        let is_sent = stream.get_mut().write_all(&request).is_ok();
        // It may have been evicted, or turned away.
        let is_answered = is_sent && stream.fill_buf().is_ok_and(|reply| !reply.is_empty());
        let is_acknowledged = is_answered && read_http(&mut stream).unwrap().0 == 200;
        answered += usize::from(is_acknowledged);
        if !is_acknowledged || n.is_multiple_of(3) {
            stream = BufReader::new(connect(addr));
        }
    }
    answered
}
