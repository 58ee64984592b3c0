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

/// How many of those may come from one address: three quarters of all places.
fn waiters_of_one_max(connections_max: usize) -> usize {
    (connections_max * 3 / 4).max(1)
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
            let mut fill = |peer: &str| {
                let mut added = 0;
                while waiters.room(of(peer)) == Room::Some {
                    waiters.add(of(peer));
                    added += 1;
                }
                (added, waiters.room(of(peer)))
            };
            assert_eq!(fill("10.0.0.1:1"), (of_one, Room::NoneForThis));
            assert_eq!(fill("[::ffff:10.0.0.1]:1"), (0, Room::NoneForThis));
            let rest = of_all - of_one;
            assert_eq!(fill("[2001:db8::1]:1"), (rest, Room::None));
            assert_eq!(fill("[2001:db8::2]:2"), (0, Room::None));
            for _ in 0..of_one {
                waiters.remove(of("10.0.0.1:2"));
            }
            for _ in 0..rest {
                waiters.remove(of("[2001:db8::3]:1"));
            }
            assert_eq!((waiters.by_source.len(), waiters.total), (0, 0));
        }
        check(1, 1, 1);
        check(2, 1, 1);
        check(4, 3, 3);
        check(100, 75, 87);
        check(4096, 3072, 3584);
    }
}
