//! Whole connections over loopback.

use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::thread;

use rustix::net::{SendFlags, send};

use super::output::{OUTPUT_BYTES, WRITE_STALL_BYTES, WriteRate};
use super::*;
use crate::accept::WRITE_STALL;
use crate::registry::Registry;

/// Connections that are served, enough for replies to be left to other threads; and their peers.
fn registered() -> (Vec<Registration>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let registry = Registry::new(100);
    let one = |_| {
        let peer = TcpStream::connect(addr).unwrap();
        let (stream, from) = listener.accept().unwrap();
        (registry.register(stream, from).unwrap(), peer)
    };
    (0..DEFERRED_CONNECTIONS_MIN).map(one).unzip()
}

#[test]
fn a_reply_is_sent_by_another_thread_if_nothing_is_in_its_way() {
    let (registered, mut peers) = registered();
    let mut connection = Connection::new(&registered[0]);
    let deferred = connection.try_defer().expect("nothing is in its way");
    let mut read = [0; 5];
    thread::scope(|scope| {
        scope.spawn(|| deferred.reply(b"first"));
        peers[0].read_exact(&mut read).unwrap();
        assert_eq!(&read, b"first");
        // The next one waits for it, whenever its request comes.
        peers[0].write_all(b"next").unwrap();
        assert_eq!(connection.next_request(None).unwrap(), Some(b'n'));
    });
    // Something of the next request has arrived.
    assert!(connection.try_defer().is_none());
    connection.consume(4);
    connection
        .write_all(b"something is to be sent before")
        .unwrap();
    assert!(connection.try_defer().is_none());
}

#[test]
fn a_reply_for_which_there_is_no_room_is_sent_by_its_own_thread() {
    let (registered, mut peers) = registered();
    let mut connection = Connection::new(&registered[0]);
    let mut filled = 0;
    while let Ok(sent) = send(connection.stream(), &[0; 10_000], SendFlags::DONTWAIT) {
        filled += sent;
    }
    assert!(connection.try_defer().is_none());
    let deferred = connection.defer();
    let mut read = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| deferred.reply(b"last"));
        scope.spawn(|| peers[0].read_to_end(&mut read).unwrap());
        connection.finish().unwrap();
        registered[0].entry.cut();
    });
    assert_eq!(read.len(), filled + 4);
    assert!(read.ends_with(b"last"));
}

#[test]
fn replies_to_a_long_pipeline_are_sent_when_they_are_many() {
    const REPLY_BYTES: usize = 4096;
    let (registered, mut peers) = registered();
    let mut connection = Connection::new(&registered[0]);
    let replies = OUTPUT_BYTES / REPLY_BYTES;
    peers[0].write_all(&vec![b'x'; replies + 1]).unwrap();
    for _ in 0..replies {
        assert_eq!(connection.next_request(None).unwrap(), Some(b'x'));
        connection.consume(1);
        connection.defer().reply(&[0; REPLY_BYTES]);
    }
    // There is one more request, but all these replies are there already.
    assert_eq!(connection.next_request(None).unwrap(), Some(b'x'));
    peers[0].read_exact(&mut [0; OUTPUT_BYTES]).unwrap();
}

#[test]
fn a_reply_that_is_never_given_ends_the_connection() {
    let (registered, mut peers) = registered();
    let mut connection = Connection::new(&registered[0]);
    drop(connection.defer());
    assert_eq!(peers[0].read(&mut [0]).unwrap(), 0);
    let ended = connection.next_request(None).unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
}

#[test]
fn a_peer_that_takes_too_little_for_too_long_is_given_up() {
    let rate = |bytes: u64, ago: Duration| WriteRate {
        since: Instant::now() - ago,
        bytes,
    };
    rate(0, Duration::ZERO).note(1).unwrap();
    rate(WRITE_STALL_BYTES, WRITE_STALL).note(1).unwrap();
    let slow = rate(WRITE_STALL_BYTES / 2, WRITE_STALL).note(1);
    assert_eq!(slow.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let mut steady = rate(WRITE_STALL_BYTES, WRITE_STALL);
    steady.note(1).unwrap();
    steady.note(1).expect("the next 30 s have only begun");
}
