//! Whole connections over loopback.

use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::thread;

use rustix::net::{SendFlags, send};

use super::output::{OUTPUT_BYTES, WRITE_STALL_BYTES, WriteRate};
use super::*;
use crate::accept::WRITE_STALL;
use crate::eviction::State;
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
        registered[0].entry.abort();
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
fn a_connection_with_a_reply_outstanding_is_not_idle() {
    for is_evictable in [true, false] {
        let (registered, mut peers) = registered();
        let mut connection = Connection::new(&registered[0]);
        let state = || registered[0].entry.eviction.state();
        peers[0].write_all(b"one").unwrap();
        assert_eq!(connection.next_request(None).unwrap(), Some(b'o'));
        connection.consume(3);
        connection.set_evictable(is_evictable);
        let deferred = connection.try_defer().expect("nothing is in its way");
        thread::scope(|scope| {
            let next = scope.spawn(|| connection.next_request(None));
            assert_eq!(state(), State::Busy);
            deferred.reply(b"reply");
            assert_eq!(matches!(state(), State::Resting(_)), is_evictable);
            assert_eq!(state() == State::Kept, !is_evictable);
            peers[0].read_exact(&mut [0; 5]).unwrap();
            peers[0].write_all(b"two").unwrap();
            assert_eq!(next.join().unwrap().unwrap(), Some(b't'));
            assert_eq!(state(), State::Busy);
        });
    }
}

#[test]
fn a_reply_that_comes_when_the_server_stops_is_the_last() {
    let (registered, mut peers) = registered();
    let (registry, entry) = (&registered[0].registry, &registered[0].entry);
    let mut connection = Connection::new(&registered[0]);
    peers[0].write_all(b"one").unwrap();
    assert_eq!(connection.next_request(None).unwrap(), Some(b'o'));
    connection.consume(3);
    let deferred = connection.try_defer().expect("nothing is in its way");
    thread::scope(|scope| {
        let next = scope.spawn(|| connection.next_request(None));
        registry.stop();
        entry.end_wait();
        assert_eq!(entry.eviction.state(), State::Busy);
        deferred.reply(b"reply");
        assert_eq!(next.join().unwrap().unwrap(), None);
        peers[0].read_exact(&mut [0; 5]).unwrap();
    });
}

#[test]
fn whoever_was_evicted_gets_nothing_done() {
    let (registered, mut peers) = registered();
    let entry = &registered[0].entry;
    let mut connection = Connection::new(&registered[0]);
    peers[0].write_all(b"half a message").unwrap();
    assert_eq!(connection.next_request(None).unwrap(), Some(b'h'));
    connection.consume(14);
    thread::scope(|scope| {
        // It waits for the other half, and is evicted as one that is slow.
        let rest = scope.spawn(|| connection.fill_buf().map(<[u8]>::len));
        while !matches!(entry.eviction.state(), State::Slow(_)) {
            thread::yield_now();
        }
        assert!(entry.eviction.claim(entry.eviction.state()).unwrap().end());
        // Its end is not the end of the message, whatever arrived.
        entry.abort();
        let error = rest.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
}

#[test]
fn what_must_arrive_is_not_cut_short() {
    let (registered, mut peers) = registered();
    let state = || registered[0].entry.eviction.state();
    let mut connection = Connection::new(&registered[0]);
    for must_arrive in [true, false] {
        let large = vec![b'x'; 16 << 20];
        connection.output().extend_from_slice(&large);
        if must_arrive {
            connection.must_arrive();
        }
        thread::scope(|scope| {
            let sent = scope.spawn(|| connection.flush());
            // It waits for a peer that does not read.
            peers[0].read_exact(&mut [0]).unwrap();
            if !must_arrive {
                while !matches!(state(), State::Slow(_)) {
                    thread::yield_now();
                }
            }
            let mut rest = vec![0; large.len() - 1];
            for piece in rest.chunks_mut(1 << 20) {
                assert!(!must_arrive || state() == State::Kept, "{:?}", state());
                peers[0].read_exact(piece).unwrap();
            }
            sent.join().unwrap().unwrap();
        });
    }
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
