//! What an eviction and a stop do to a connection, and how many may wait.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::net::{RecvFlags, SendFlags};

use super::*;
use crate::eviction::State;

/// A server with room for one connection that is there, its peer, and what tries to get in.
fn full() -> (Registration, TcpStream, impl Fn() -> bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = TcpStream::connect(addr).unwrap();
    let (stream, from) = listener.accept().unwrap();
    let registry = Registry::new(1);
    let registration = registry.register(stream.into(), from.into()).unwrap();
    let gets_in = move || {
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        registry.register(other.into(), addr.into()).is_ok()
    };
    (registration, peer, gets_in)
}

#[test]
fn a_connection_whose_next_request_has_arrived_is_not_evicted() {
    let (registration, mut peer, gets_in) = full();
    let entry = &registration.entry;
    entry.eviction.set(State::Resting(0));
    peer.write_all(b"next").unwrap();
    assert_eq!(
        entry.socket.receive(&mut [0; 4], RecvFlags::PEEK).unwrap(),
        4
    );
    assert!(!gets_in());
    assert_eq!(entry.eviction.state(), State::Resting(0));
    // Its thread reads that, and waits for another request.
    assert_eq!(
        entry
            .socket
            .receive(&mut [0; 4], RecvFlags::empty())
            .unwrap(),
        4
    );
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
    assert_eq!(
        entry
            .socket
            .receive(&mut [0; 4], RecvFlags::empty())
            .unwrap(),
        4
    );
    assert!(gets_in());
    assert!(!entry.eviction.resume());
    assert!(!entry.eviction.resume(), "it stays so");
    assert!(entry.is_aborted());
}

#[test]
fn a_stop_ends_what_has_no_end_and_is_not_read() {
    let (registration, _peer, _) = full();
    let entry = &registration.entry;
    entry.is_endless.store(true, Ordering::Relaxed);
    for state in [State::Busy, State::Slow(9)] {
        entry.eviction.set(state);
        entry.end_wait(8);
        assert!(!entry.is_aborted(), "it gets on");
    }
    entry.end_wait(9);
    assert!(entry.is_aborted());
}

#[test]
fn a_stop_ends_waits_and_not_requests() {
    let (registration, mut peer, _) = full();
    let entry = &registration.entry;
    for state in [State::Busy, State::Slow(0)] {
        entry.eviction.set(state);
        entry.end_wait(u64::MAX >> 3);
        assert_eq!(entry.eviction.state(), state);
    }
    peer.write_all(b"next").unwrap();
    assert_eq!(
        entry.socket.receive(&mut [0; 4], RecvFlags::PEEK).unwrap(),
        4
    );
    for state in [State::Resting(u64::MAX >> 3), State::Kept] {
        entry.eviction.set(state);
        entry.end_wait(u64::MAX >> 3);
        assert_eq!(entry.eviction.state(), state, "its request has arrived");
    }
    assert_eq!(
        entry
            .socket
            .receive(&mut [0; 4], RecvFlags::empty())
            .unwrap(),
        4
    );
    // A new connection has its moment.
    entry.eviction.set(State::Resting(9));
    entry.end_wait(8);
    assert_eq!(entry.eviction.state(), State::Resting(9));
    entry.end_wait(9);
    assert!(!entry.eviction.resume());
    assert_eq!(
        entry
            .socket
            .receive(&mut [0; 4], RecvFlags::empty())
            .unwrap(),
        0
    );
    // What it still has to say it can say.
    entry.socket.send(b"last", SendFlags::empty()).unwrap();
    peer.read_exact(&mut [0; 4]).unwrap();
}

/// What was in vain is tried again when the clock has ticked.
fn waits_at_the_next_tick(registration: &Registration) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = registration.become_waiter() {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
}

#[test]
fn who_waited_and_is_idle_makes_room_for_another_that_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = Registry::new(8);
    let register = |from: &str| {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Its peer is there, and says nothing.
        let (peer, _) = listener.accept().unwrap();
        let registered = registry.register(stream.into(), Peer::Ip(from.parse().unwrap()));
        (registered.unwrap(), peer)
    };
    let one = "10.0.0.1:1";
    let others = ["10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"];
    // Seven of eight, at most two of one.
    let all = [
        one, one, others[0], others[0], others[1], others[1], others[2],
    ];
    let waiters = all.map(register);
    for (waiter, _) in &waiters {
        waiter.become_waiter().unwrap();
        waiter.entry.eviction.set(State::Waiting);
    }
    let (newcomer, _peer) = register(others[2]);
    let evicted = || {
        waiters
            .iter()
            .filter(|(waiter, _)| waiter.entry.is_aborted())
            .count()
    };
    let error = newcomer.become_waiter().unwrap_err().to_string();
    assert!(
        error.starts_with("at most 7 connections may wait "),
        "{error}"
    );
    assert_eq!(evicted(), 0);
    // All shares are taken, so an idle connection goes.
    waiters[2].0.entry.eviction.set(State::Resting(0));
    waits_at_the_next_tick(&newcomer);
    assert!(waiters[2].0.entry.is_aborted());
    assert_eq!(evicted(), 1);
    drop(waiters);
    drop(newcomer);
    // Nobody is counted any more, nor was anybody uncounted twice.
    let waiters = [one, one].map(register);
    for (waiter, _) in &waiters {
        waiter.become_waiter().unwrap();
    }
    // Of one address the share is taken, so one of its own goes.
    let (newcomer, _peer) = register(one);
    let error = newcomer.become_waiter().unwrap_err().to_string();
    assert!(
        error.starts_with("at most 2 connections of one address "),
        "{error}"
    );
    let idle = &waiters[1].0.entry;
    idle.eviction.set(State::Resting(0));
    waits_at_the_next_tick(&newcomer);
    assert!(idle.is_aborted());
}

#[test]
fn who_has_its_share_of_those_that_wait_can_still_receive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Four may wait, and one more may owe a message.
    let registry = Registry::new(16);
    let connections: Vec<_> = (0..7)
        .map(|_| {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, from) = listener.accept().unwrap();
            let registration = registry.register(stream.into(), from.into()).unwrap();
            (registration, peer)
        })
        .collect();
    let owe = |at: usize| {
        let (registration, _) = &connections[at];
        registration.entry.must_arrive.store(true, Ordering::SeqCst);
        registration.acquire(Scarce::Kept).is_ok()
    };
    let waits = |at: usize| connections[at].0.become_waiter().is_ok();
    let has_arrived = |at: usize| connections[at].0.has_arrived();
    assert!(waits(0) && waits(1) && waits(2) && waits(3) && !waits(4));
    assert!(owe(4) && !owe(5));
    has_arrived(4);
    assert!(owe(5));
    // It counts once for both, and stays counted for the one when the other is over.
    assert!(owe(0) && waits(0));
    has_arrived(0);
    assert!(!owe(6));
    has_arrived(5);
    // What is refused leaves it with what it had.
    assert!(owe(4) && !waits(4) && !owe(5));
}
