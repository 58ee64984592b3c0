//! How much of what is scarce each source has, and how much it may have.
//!
//! Scarce are the places for connections, and what keeps a connection in its place: to wait, to owe a
//! message, to be sent a page. Of each, a quarter is the share of one source. So it takes more than one peer
//! to hold all of it.

use std::collections::HashMap;

use crate::peer::Source;

/// What a connection may have one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scarce {
    /// A place. Every connection has one, and at the limit the share says whose is taken first.
    Place,
    /// That it is not evicted now and then: it waits, or owes its peer a message that is in no queue any more.
    Kept,
    /// That it waits for a message, or has one reserved, now and then. It is kept for that.
    Wait,
    /// A page of metrics that is sent. It takes memory.
    Page,
}

impl Scarce {
    pub(crate) const ALL: [Self; 4] = [Self::Place, Self::Kept, Self::Wait, Self::Page];

    /// How many there are at a server with this many places. A sixteenth of the places is for those that
    /// can be evicted, and another one for those that do not wait.
    pub(crate) fn max(self, connections_max: usize) -> usize {
        match self {
            Self::Place => connections_max,
            Self::Kept => connections_max - connections_max / 16,
            Self::Wait => (connections_max - connections_max.div_ceil(8)).max(1),
            Self::Page => PAGES_MAX,
        }
    }

    /// How many of those one source may have. While it has its share of those that wait, it can still
    /// receive; and three that have all of theirs leave room for a fourth.
    fn share(self, connections_max: usize) -> usize {
        let quarter = connections_max / 4;
        let share = match self {
            Self::Place | Self::Wait => quarter,
            Self::Kept => quarter + connections_max / 16,
            Self::Page => PAGES_MAX / 4,
        };
        share.max(1)
    }
}

/// How many pages of metrics may be on their way at once.
const PAGES_MAX: usize = 8;

/// How much of it each source has.
#[derive(Debug)]
pub(crate) struct Shares {
    connections_max: usize,
    by_source: HashMap<Source, Counts>,
    total: Counts,
}

/// How many of each thing, in the order of [`Scarce::ALL`].
type Counts = [usize; Scarce::ALL.len()];

/// Why there is no room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The source has its share: there is room when one of its own goes.
    Share,
    /// There is room when any goes.
    All,
}

impl Shares {
    /// Nobody has anything yet.
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            by_source: HashMap::new(),
            total: Counts::default(),
        }
    }

    /// Whether there is room for one more from there.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn room(&self, what: Scarce, from: Source) -> Result<(), Full> {
        if !self.is_within(what, from) {
            return Err(Full::Share);
        }
        match self.total[what as usize] < what.max(self.connections_max) {
            true => Ok(()),
            false => Err(Full::All),
        }
    }

    /// Whether a source would not exceed its share with one more.
    pub(crate) fn is_within(&self, what: Scarce, from: Source) -> bool {
        let counts = self.by_source.get(&from);
        let has = counts.map_or(0, |counts| counts[what as usize]);
        has < what.share(self.connections_max)
    }

    /// The sources that exceed their share. They are at most three, because a share is a quarter, unless
    /// there are so few places that each source has one.
    pub(crate) fn beyond(&self, what: Scarce) -> Vec<Source> {
        let share = what.share(self.connections_max);
        let counts = self.by_source.iter();
        let beyond = counts.filter(|(_, counts)| counts[what as usize] > share);
        beyond.map(|(from, _)| *from).collect()
    }

    pub(crate) fn add(&mut self, what: Scarce, from: Source) {
        self.total[what as usize] += 1;
        self.by_source.entry(from).or_default()[what as usize] += 1;
    }

    pub(crate) fn remove(&mut self, what: Scarce, from: Source) {
        self.total[what as usize] -= 1;
        if let Some(counts) = self.by_source.get_mut(&from) {
            counts[what as usize] -= 1;
            if *counts == Counts::default() {
                self.by_source.remove(&from);
            }
        }
    }

    /// What one is told that there is no room for.
    pub(crate) fn refusal(&self, what: Scarce, full: Full) -> String {
        let (count, whose) = match full {
            Full::Share => (what.share(self.connections_max), " of one address or user"),
            Full::All => (what.max(self.connections_max), ""),
        };
        let (may, part) = match (what, full) {
            (Scarce::Place, Full::Share) => ("be open", "a quarter of --max-connections"),
            (Scarce::Place, Full::All) => ("be open", "--max-connections"),
            (Scarce::Wait, Full::Share) => (WAIT, "a quarter of --max-connections"),
            (Scarce::Wait, Full::All) => (WAIT, "seven eighths of --max-connections"),
            (Scarce::Kept, Full::Share) => (KEPT, "five sixteenths of --max-connections"),
            (Scarce::Kept, Full::All) => (KEPT, "fifteen sixteenths of --max-connections"),
            (Scarce::Page, Full::Share | Full::All) => ("be sent a page of metrics", "at once"),
        };
        format!(
            "at most {count} connections{whose} may {may} ({part}), and there are as many: close some, or try again later"
        )
    }
}

/// What they do that wait for a message...
const WAIT: &str = "wait or have something reserved";

/// ...and those that are kept for that or another reason.
const KEPT: &str = "wait, have something reserved, or owe a message that is not read yet";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;

    #[test]
    fn each_address_has_a_share_and_there_is_a_reserve() {
        #[track_caller]
        fn check(what: Scarce, connections_max: usize, of_one: usize, of_all: usize) {
            let mut shares = Shares::new(connections_max);
            let of = |peer: &str| Source::from(Peer::Ip(peer.parse().unwrap()));
            let mut fill = |from: Source| {
                let mut added = 0;
                while shares.room(what, from) == Ok(()) {
                    shares.add(what, from);
                    added += 1;
                }
                (added, shares.room(what, from))
            };
            assert_eq!(fill(of("10.0.0.1:1")), (of_one, Err(Full::Share)));
            assert_eq!(fill(of("[::ffff:10.0.0.1]:1")), (0, Err(Full::Share)));
            // A network of IPv6 is one, a user of this machine too.
            assert_eq!(fill(of("[2001:db8::1]:1")), (of_one, Err(Full::Share)));
            assert_eq!(fill(of("[2001:db8::2]:2")), (0, Err(Full::Share)));
            assert_eq!(fill(Source::User(7)), (of_one, Err(Full::Share)));
            let rest = of_all - 3 * of_one;
            assert_eq!(fill(Source::User(8)).0, rest);
            assert_eq!(fill(Source::User(9)), (0, Err(Full::All)));
            for _ in 0..of_one {
                shares.remove(what, of("10.0.0.1:2"));
                shares.remove(what, of("[2001:db8::3]:1"));
                shares.remove(what, Source::User(7));
            }
            for _ in 0..rest {
                shares.remove(what, Source::User(8));
            }
            assert_eq!((shares.by_source.len(), shares.total), (0, [0; 4]));
        }
        check(Scarce::Wait, 4, 1, 3);
        check(Scarce::Wait, 8, 2, 7);
        check(Scarce::Wait, 100, 25, 87);
        check(Scarce::Wait, 4096, 1024, 3584);
        check(Scarce::Kept, 8, 2, 8);
        check(Scarce::Kept, 4096, 1280, 3840);
        check(Scarce::Page, 1, 2, 8);
        check(Scarce::Place, 16, 4, 16);
    }

    #[test]
    fn in_a_small_server_there_is_room_for_one() {
        for connections_max in [1, 2] {
            let mut shares = Shares::new(connections_max);
            assert_eq!(shares.room(Scarce::Wait, Source::User(1)), Ok(()));
            shares.add(Scarce::Wait, Source::User(1));
            let of_one = shares.room(Scarce::Wait, Source::User(1));
            assert_eq!(of_one, Err(Full::Share));
            assert_eq!(shares.room(Scarce::Wait, Source::User(2)), Err(Full::All));
        }
    }

    #[test]
    fn who_has_more_than_a_share_is_known() {
        let mut shares = Shares::new(16);
        for _ in 0..4 {
            shares.add(Scarce::Place, Source::User(1));
        }
        assert!(!shares.is_within(Scarce::Place, Source::User(1)));
        assert_eq!(shares.beyond(Scarce::Place), []);
        shares.add(Scarce::Place, Source::User(1));
        shares.add(Scarce::Place, Source::User(2));
        assert_eq!(shares.beyond(Scarce::Place), [Source::User(1)]);
        assert!(shares.is_within(Scarce::Place, Source::User(2)));
    }

    #[test]
    fn a_refusal_says_which_limit_it_is() {
        let shares = Shares::new(4096);
        assert_eq!(
            shares.refusal(Scarce::Wait, Full::Share),
            "at most 1024 connections of one address or user may wait or have something reserved (a \
             quarter of --max-connections), and there are as many: close some, or try again later"
        );
        assert_eq!(
            shares.refusal(Scarce::Kept, Full::All),
            "at most 3840 connections may wait, have something reserved, or owe a message that is \
             not read yet (fifteen sixteenths of --max-connections), and there are as many: close \
             some, or try again later"
        );
    }
}
