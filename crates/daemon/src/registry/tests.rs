//! Who is evicted, and how many may wait.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

#[test]
fn resting_connections_are_evicted_before_slow_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let states = [
        State::Slow(10),
        State::Resting(50),
        State::Resting(30),
        State::Busy,
        State::Kept,
        State::Waiting,
        State::Resting(70),
        State::Slow(70),
    ];
    let entries = states.map(|state| {
        let entry = Entry::new(TcpStream::connect(addr).unwrap(), addr);
        entry.eviction.set(state);
        Arc::new(entry)
    });
    let connected = Connected {
        entries: (0..).zip(entries.iter().cloned()).collect(),
        ..Connected::default()
    };
    let mut evicted = Vec::new();
    while connected.evict_one(60) {
        let is_new = |at: &usize| entries[*at].is_cut() && !evicted.contains(at);
        evicted.extend((0..entries.len()).find(is_new));
    }
    assert_eq!(evicted, [2, 1, 0]);
    for (entry, state) in entries.iter().zip(states).skip(3) {
        assert_eq!(entry.eviction.state(), state);
    }
}

/// A server with room for one connection that is there, its peer, and what tries to get in.
fn full() -> (Registration, TcpStream, impl Fn() -> bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = TcpStream::connect(addr).unwrap();
    let (stream, from) = listener.accept().unwrap();
    let registry = Registry::new(1);
    let registration = registry.register(stream, from).unwrap();
    let gets_in = move || {
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        registry.register(other, addr).is_ok()
    };
    (registration, peer, gets_in)
}

#[test]
fn a_connection_whose_next_request_has_arrived_is_not_evicted() {
    let (registration, mut peer, gets_in) = full();
    let entry = &registration.entry;
    entry.eviction.set(State::Resting(0));
    peer.write_all(b"next").unwrap();
    assert_eq!(entry.stream.peek(&mut [0; 4]).unwrap(), 4);
    assert!(!gets_in());
    assert_eq!(entry.eviction.state(), State::Resting(0));
    // Its thread reads that, and waits for another request.
    (&entry.stream).read_exact(&mut [0; 4]).unwrap();
    assert!(entry.eviction.resume());
    assert!(!gets_in());
    entry.eviction.set(State::Resting(0));
    assert!(gets_in());
    assert_eq!(peer.read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn who_was_evicted_just_when_its_request_came_does_not_act() {
    let (registration, mut peer, gets_in) = full();
    let entry = &registration.entry;
    entry.eviction.set(State::Resting(0));
    peer.write_all(b"next").unwrap();
    // Its thread has read it, and was not quick enough.
    (&entry.stream).read_exact(&mut [0; 4]).unwrap();
    assert!(gets_in());
    assert!(!entry.eviction.resume());
    assert!(!entry.eviction.resume(), "it stays so");
    assert!(entry.is_cut());
}

#[test]
fn a_stop_ends_waits_and_not_requests() {
    let (registration, mut peer, _) = full();
    let entry = &registration.entry;
    for state in [State::Busy, State::Slow(0)] {
        entry.eviction.set(state);
        entry.end_wait();
        assert_eq!(entry.eviction.state(), state);
    }
    peer.write_all(b"next").unwrap();
    assert_eq!(entry.stream.peek(&mut [0; 4]).unwrap(), 4);
    for state in [State::Resting(u64::MAX >> 3), State::Kept] {
        entry.eviction.set(state);
        entry.end_wait();
        assert_eq!(entry.eviction.state(), state, "its request has arrived");
    }
    (&entry.stream).read_exact(&mut [0; 4]).unwrap();
    entry.end_wait();
    assert!(!entry.eviction.resume());
    assert_eq!((&entry.stream).read(&mut [0; 4]).unwrap(), 0);
    // What it still has to say it can say.
    (&entry.stream).write_all(b"last").unwrap();
    peer.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn waiters_have_a_share_for_each_address_and_leave_a_reserve() {
    #[track_caller]
    fn check(connections_max: usize, of_one: usize, of_all: usize) {
        let registry = Registry::new(connections_max);
        let count = |peer: &str| registry.count_waiter(peer.parse().unwrap());
        let all_of = |peer: &str| std::iter::from_fn(|| count(peer)).collect::<Vec<_>>();
        let first = all_of("10.0.0.1:1");
        assert_eq!(first.len(), of_one);
        let mapped = all_of("[::ffff:10.0.0.1]:1");
        assert!(mapped.is_empty());
        let second = all_of("[2001:db8::1]:1");
        assert_eq!(second.len(), of_all - of_one);
        let neighbour = all_of("[2001:db8::2]:2");
        assert!(neighbour.is_empty());
        drop(first);
        assert_eq!(all_of("10.0.0.2:1").len(), of_one);
        drop(second);
        let connected = lock(&registry.connected);
        assert_eq!((connected.waiters.len(), connected.waiters_total), (0, 0));
    }
    check(1, 1, 1);
    check(2, 1, 1);
    check(4, 3, 3);
    check(100, 75, 87);
    check(4096, 3072, 3584);
}
