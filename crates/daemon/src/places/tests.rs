//! Whose place is taken for whom.

use std::net::{TcpListener, TcpStream};

use super::*;
use crate::eviction::State;
use crate::peer::Peer;

/// What the time is.
const NOW: u64 = 60;

/// Connections at a server with as many places, each from the address 10.0.0.N, and in a state.
struct Crowd {
    places: Places,
    entries: Vec<Arc<Entry>>,
}

impl Crowd {
    fn new(connections: &[(u8, State)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut places = Places::new(connections.len());
        let entry = |(from, state): &(u8, State)| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let entry = Arc::new(Entry::new(stream.into(), peer(*from)));
            entry.eviction.set(*state);
            places.add(&entry);
            entry
        };
        let entries = connections.iter().map(entry).collect();
        Self { places, entries }
    }

    /// Who is evicted, in turn, for connections from there.
    fn evicted_for(&mut self, from: u8) -> Vec<usize> {
        let mut evicted = Vec::new();
        while self.places.evict_for(peer(from).into(), NOW) {
            let is_new = |at: &usize| self.entries[*at].is_aborted() && !evicted.contains(at);
            evicted.extend((0..self.entries.len()).find(is_new));
        }
        evicted
    }
}

fn peer(from: u8) -> Peer {
    Peer::Ip(([10, 0, 0, from], 1).into())
}

#[test]
fn resting_connections_are_evicted_before_slow_ones() {
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
    let mut crowd = Crowd::new(&states.map(|state| (1, state)));
    assert_eq!(crowd.evicted_for(1), [2, 1, 0]);
    for (entry, state) in crowd.entries.iter().zip(states).skip(3) {
        assert_eq!(entry.eviction.state(), state);
    }
}

#[test]
fn who_has_more_than_a_share_makes_room_first_and_is_not_spared() {
    let new = State::Resting(NOW + 1);
    let moving = State::Slow(NOW + 1);
    let crowd = || {
        Crowd::new(&[
            (2, State::Resting(1)),
            (2, moving),
            (1, State::Slow(9)),
            (1, moving),
            (1, new),
            (1, State::Busy),
            (1, State::Busy),
            (3, State::Waiting),
        ])
    };
    // Of eight places, two are a share.
    assert_eq!(crowd().evicted_for(4), [2, 0, 4, 3]);
    assert_eq!(crowd().evicted_for(1), [2, 0], "it has its share");
}

#[test]
fn those_that_have_less_than_a_share_are_spared() {
    let new = |from| (from, State::Resting(NOW + 1));
    let mut crowd = Crowd::new(&[new(2), new(1), (3, State::Slow(NOW + 1)), (4, State::Busy)]);
    assert!(crowd.evicted_for(5).is_empty());
}

#[test]
fn what_one_has_is_counted_once_and_until_it_ends() {
    let mut crowd = Crowd::new(&[(1, State::Busy), (2, State::Busy)]);
    let places = &mut crowd.places;
    let from = Source::from(peer(1));
    assert!(places.make_room(Scarce::Page, from, NOW).is_ok());
    for _ in 0..2 {
        places.acquire(0, Scarce::Page);
    }
    assert!(places.make_room(Scarce::Page, from, NOW).is_ok());
    places.acquire(1, Scarce::Page);
    places.remove(0);
    places.release(1, Scarce::Page);
    places.release(1, Scarce::Page);
    places.remove(1);
    assert!(places.shares.is_within(Scarce::Place, from));
    assert_eq!(places.len(), 0);
}

#[test]
fn what_was_in_vain_is_not_tried_again_at_the_same_time() {
    // A share is one connection.
    let mut crowd = Crowd::new(&[
        (1, State::Waiting),
        (2, State::Waiting),
        (3, State::Waiting),
    ]);
    let from = |peer_number| Source::from(peer(peer_number));
    for id in 0..3 {
        crowd.places.acquire(id, Scarce::Wait);
    }
    let mut make_room = |from, now| crowd.places.make_room(Scarce::Wait, from, now);
    assert!(make_room(from(1), NOW).is_err());
    crowd.entries[0].eviction.set(State::Resting(0));
    assert!(make_room(from(1), NOW).is_err());
    // Another one looks for itself.
    assert_eq!(make_room(from(2), NOW), Err(Full::Share));
    assert_eq!(make_room(from(1), NOW + 1), Ok(true));
}
