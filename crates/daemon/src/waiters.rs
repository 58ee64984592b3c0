//! How many connections may wait, or have something reserved, at once.
//!
//! Those are not evicted, so there is a limit to them, of which each address has a share. A connection
//! that was one of them counts until it ends; one that is idle again may be evicted for another.

use std::collections::HashMap;

use crate::peer::Source;

/// How many connections may wait, or have something reserved, at once. An eighth of all is for those
/// that do neither.
pub(crate) fn waiters_max(connections_max: usize) -> usize {
    (connections_max - connections_max.div_ceil(8)).max(1)
}

/// How many of those may come from one address: a quarter of all places.
fn waiters_of_one_max(connections_max: usize) -> usize {
    (connections_max / 4).max(1)
}

/// How many connections wait, by address.
#[derive(Debug)]
pub(crate) struct Waiters {
    connections_max: usize,
    total: usize,
    by_source: HashMap<Source, usize>,
}

/// Whether there is room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Some,
    /// There is when one from the same address goes.
    NoneForThis,
    /// There is when any goes.
    None,
}

impl Waiters {
    /// None yet, of at most `connections_max` connections.
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            total: 0,
            by_source: HashMap::new(),
        }
    }

    /// Whether there is room for one more from there.
    pub(crate) fn room(&self, from: Source) -> Room {
        let of_one = self.by_source.get(&from).copied().unwrap_or(0);
        if of_one >= waiters_of_one_max(self.connections_max) {
            Room::NoneForThis
        } else if self.total >= waiters_max(self.connections_max) {
            Room::None
        } else {
            Room::Some
        }
    }

    /// What one is told that there is no room for.
    pub(crate) fn refusal(&self, room: Room) -> String {
        let (count, whose, share) = match room {
            Room::NoneForThis => (
                waiters_of_one_max(self.connections_max),
                "of this address or user ",
                "a quarter",
            ),
            Room::Some | Room::None => (waiters_max(self.connections_max), "", "seven eighths"),
        };
        format!(
            "{count} connections {whose}wait or have something reserved, {share} of --max-connections: \
             close some, try again later, or raise it"
        )
    }

    pub(crate) fn add(&mut self, from: Source) {
        self.total += 1;
        *self.by_source.entry(from).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, from: Source) {
        self.total -= 1;
        if let Some(of_one) = self.by_source.get_mut(&from) {
            *of_one -= 1;
            if *of_one == 0 {
                self.by_source.remove(&from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;

    #[test]
    fn each_address_has_a_share_and_there_is_a_reserve() {
        #[track_caller]
        fn check(connections_max: usize, of_one: usize, of_all: usize) {
            let mut waiters = Waiters::new(connections_max);
            let of = |peer: &str| Source::from(Peer::Ip(peer.parse().unwrap()));
            let mut fill = |from: Source| {
                let mut added = 0;
                while waiters.room(from) == Room::Some {
                    waiters.add(from);
                    added += 1;
                }
                (added, waiters.room(from))
            };
            assert_eq!(fill(of("10.0.0.1:1")), (of_one, Room::NoneForThis));
            assert_eq!(fill(of("[::ffff:10.0.0.1]:1")), (0, Room::NoneForThis));
            // A network of IPv6 is one, a user of this machine too.
            assert_eq!(fill(of("[2001:db8::1]:1")), (of_one, Room::NoneForThis));
            assert_eq!(fill(of("[2001:db8::2]:2")), (0, Room::NoneForThis));
            assert_eq!(fill(Source::User(7)), (of_one, Room::NoneForThis));
            let rest = of_all - 3 * of_one;
            assert_eq!(fill(Source::User(8)), (rest, Room::None));
            for _ in 0..of_one {
                waiters.remove(of("10.0.0.1:2"));
                waiters.remove(of("[2001:db8::3]:1"));
                waiters.remove(Source::User(7));
            }
            for _ in 0..rest {
                waiters.remove(Source::User(8));
            }
            assert_eq!((waiters.by_source.len(), waiters.total), (0, 0));
        }
        check(4, 1, 3);
        check(8, 2, 7);
        check(100, 25, 87);
        check(4096, 1024, 3584);
    }

    #[test]
    fn in_a_small_server_there_is_room_for_one() {
        for connections_max in [1, 2] {
            let mut waiters = Waiters::new(connections_max);
            assert_eq!(waiters.room(Source::User(1)), Room::Some);
            waiters.add(Source::User(1));
            assert_eq!(waiters.room(Source::User(1)), Room::NoneForThis);
            assert_eq!(waiters.room(Source::User(2)), Room::None);
        }
    }

    #[test]
    fn a_refusal_says_which_limit_it_is() {
        let waiters = Waiters::new(4096);
        assert_eq!(
            waiters.refusal(Room::NoneForThis),
            "1024 connections of this address or user wait or have something reserved, a quarter of \
             --max-connections: close some, try again later, or raise it"
        );
        assert_eq!(
            waiters.refusal(Room::None),
            "3584 connections wait or have something reserved, seven eighths of --max-connections: \
             close some, try again later, or raise it"
        );
    }
}
