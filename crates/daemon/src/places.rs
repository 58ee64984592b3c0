//! The places of a server's connections, and whose is taken for another.
//!
//! An idle connection goes first, then one that is slow. If there is none, it depends on who needs the
//! place. A source that has its share of the places does not get another. One that has less gets the place
//! of a source that has more, if that connection is not worked on at this moment, or else waits for one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::entry::Entry;
use crate::eviction::{Ease, State};
use crate::peer::Source;
use crate::shares::{Full, Scarce, Shares};

/// How many connections are tried until one can be evicted. It is unlikely that the next request of
/// all of them arrives at the same moment; the new connection is then turned away.
const EVICTIONS_TRIED_MAX: usize = 16;

/// All open connections.
pub(crate) struct Places {
    next_id: u64,
    by_id: HashMap<u64, Place>,
    pub(crate) shares: Shares,
    /// How many threads wait for something scarce.
    pub(crate) waiting: usize,
    futile: Futile,
}

/// For what and for whom no connection could be evicted at this time. To look at all of them is dear, and a
/// peer must not cause that with each of its requests.
#[derive(Default)]
struct Futile {
    at: u64,
    looks: HashSet<(Scarce, Source)>,
}

/// What one connection has.
struct Place {
    entry: Arc<Entry>,
    from: Source,
    /// Which of [`Scarce::ALL`].
    has: [bool; Scarce::ALL.len()],
}

impl Places {
    pub(crate) fn new(connections_max: usize) -> Self {
        Self {
            next_id: 0,
            by_id: HashMap::new(),
            shares: Shares::new(connections_max),
            waiting: 0,
            futile: Futile::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_id.values().map(|place| &place.entry)
    }

    /// Gives a connection a place; returns its number.
    pub(crate) fn add(&mut self, entry: &Arc<Entry>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let place = Place {
            entry: Arc::clone(entry),
            from: Source::from(entry.peer),
            has: Default::default(),
        };
        self.by_id.insert(id, place);
        self.acquire(id, Scarce::Place);
        id
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.release_all(id);
        self.by_id.remove(&id);
    }

    /// Whether a connection has one of these.
    pub(crate) fn has(&self, id: u64, what: Scarce) -> bool {
        let place = self.by_id.get(&id);
        place.is_some_and(|place| place.has[what as usize])
    }

    /// Counts that a connection has something from now on.
    pub(crate) fn acquire(&mut self, id: u64, what: Scarce) {
        if let Some(place) = self.by_id.get_mut(&id)
            && !std::mem::replace(&mut place.has[what as usize], true)
        {
            self.shares.add(what, place.from);
        }
    }

    /// Ends that.
    pub(crate) fn release(&mut self, id: u64, what: Scarce) {
        if let Some(place) = self.by_id.get_mut(&id)
            && std::mem::take(&mut place.has[what as usize])
        {
            self.shares.remove(what, place.from);
        }
    }

    fn release_all(&mut self, id: u64) {
        for what in Scarce::ALL {
            self.release(id, what);
        }
    }

    /// Evicts a connection for one from there that needs a place; returns whether there was one that could
    /// be. If none can, but it has less than its share, one of a source that has more is to leave when its
    /// present request is done: a peer that always has a next request is never idle.
    pub(crate) fn evict_for(&mut self, from: Source, now: u64) -> bool {
        let is_entitled = self.shares.is_within(Scarce::Place, from);
        let is_evicted = self.evict(now, is_entitled, |_| true);
        if !is_evicted && is_entitled {
            let beyond = self.shares.beyond(Scarce::Place);
            let busy = self.by_id.values().filter(|place| {
                beyond.contains(&place.from) && place.entry.eviction.state() == State::Busy
            });
            let _ = busy.map(|place| &place.entry).find(|entry| entry.leave());
        }
        is_evicted
    }

    /// Makes room for one from there that needs something else than a place, if there is none. For that, one
    /// that has it is evicted; it must be idle or slow, and from the same source if that has its share.
    /// Returns whether one was. What was in vain is not tried again at the same time.
    ///
    /// # Errors
    /// Why there is no room.
    pub(crate) fn make_room(&mut self, what: Scarce, from: Source, now: u64) -> Result<bool, Full> {
        let Err(full) = self.shares.room(what, from) else {
            return Ok(false);
        };
        if self.futile.at != now {
            self.futile.at = now;
            self.futile.looks.clear();
        }
        if self.futile.looks.contains(&(what, from)) {
            return Err(full);
        }
        let is_evicted = match full {
            Full::Share => self.evict(now, false, |place| {
                place.has[what as usize] && place.from == from
            }),
            Full::All => self.evict(now, false, |place| place.has[what as usize]),
        };
        if is_evicted {
            return Ok(true);
        }
        self.futile.looks.insert((what, from));
        Err(full)
    }

    /// Evicts one of these connections; returns whether there was one that could be.
    fn evict(&mut self, now: u64, is_entitled: bool, may_be: impl Fn(&Place) -> bool) -> bool {
        let beyond = self.shares.beyond(Scarce::Place);
        let mut tried = None;
        for _ in 0..EVICTIONS_TRIED_MAX {
            let evictable = self.by_id.iter().filter_map(|(id, place)| {
                let state = place.entry.eviction.state();
                let (ease, from) = state.ease(now)?;
                let is_beyond = beyond.contains(&place.from);
                let (is_spared, may_go) = match ease {
                    Ease::Idle | Ease::Slow => (false, true),
                    Ease::New | Ease::Moving => (true, is_entitled && is_beyond),
                };
                let rank = (is_spared, !is_beyond, ease, from, *id);
                let is_next = may_go && Some(rank) > tried && may_be(place);
                is_next.then_some((rank, state, place))
            });
            let Some((rank, state, place)) = evictable.min_by_key(|(rank, ..)| *rank) else {
                return false;
            };
            if place.entry.end(state) {
                log::debug!("{} is evicted for another", place.entry.peer);
                place.entry.abort();
                let (.., id) = rank;
                self.release_all(id);
                return true;
            }
            tried = Some(rank);
        }
        false
    }
}

#[cfg(test)]
mod tests;
