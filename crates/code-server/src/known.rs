//! The codes in memory, where any number of threads may look them up at once.
//!
//! A hash table that is full moves into one twice as large, and each lookup waits meanwhile: with
//! millions of codes, for a second or more. So there are many small tables, each with a lock of its own.
//! One that grows moves a thousandth of the codes, in less than a millisecond, and only lookups of these
//! wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use uuid::Uuid;

/// How many tables there are.
const SHARDS: usize = 1024;

/// Which bits of a hash choose the table, counted from the lowest. Inside a table, the lowest bits
/// choose the place and the highest seven tell neighbours apart.
const SHARD_SHIFT: u32 = 40;

/// A UUID and its code.
type Pair = (Uuid, Uuid);

/// UUIDs and their codes.
pub(crate) struct Known {
    /// UUIDs come from peers, which must not be able to choose some that collide. The hash of std
    /// promises that; the one of hashbrown does not.
    hasher: RandomState,
    shards: Box<[RwLock<HashTable<Pair>>]>,
}

impl Known {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }

    /// The code of a UUID, if it has one.
    pub(crate) fn get(&self, uuid: Uuid) -> Option<Uuid> {
        let hash = hash_of(&self.hasher, uuid);
        let shard = self.shards[shard_of(hash)].read();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        let pair = shard.find(hash, |pair| pair.0 == uuid);
        pair.map(|(_, code)| *code)
    }

    /// How many codes there are.
    pub(crate) fn count(&self) -> usize {
        let count = |shard: &RwLock<HashTable<Pair>>| {
            shard.read().unwrap_or_else(PoisonError::into_inner).len()
        };
        self.shards.iter().map(count).sum()
    }

    /// Adds the code of a UUID that has none yet.
    pub(crate) fn add(&self, uuid: Uuid, code: Uuid) {
        let hash = hash_of(&self.hasher, uuid);
        let shard = self.shards[shard_of(hash)].write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        shard.insert_unique(hash, (uuid, code), |pair| hash_of(&self.hasher, pair.0));
    }
}

/// How many codes are added to one table at once when a file is read.
const LOAD_CODES: usize = 256;

/// Codes that are read, millions in a row. Neighbours in the file are far from each other in memory, so
/// adding each to its table at once would wait for memory each time. Instead they are gathered, and each
/// table gets many at once.
#[must_use = "the last codes are added by `end`"]
pub(crate) struct Loading<'a> {
    known: &'a mut Known,
    /// For each table, the hash of a UUID, the number of its line, and the codes.
    gathered: Vec<Vec<(u64, u64, Pair)>>,
    lines: u64,
    /// The first line with a UUID that was there before.
    doubled: Option<u64>,
}

impl Known {
    /// Begins to read about `expected` codes. Room for them is made at once, because a table that grows
    /// moves all of its codes each time.
    pub(crate) fn load(&mut self, expected: usize) -> Loading<'_> {
        let Self { hasher, shards } = self;
        for shard in shards.iter_mut() {
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            shard.reserve(expected / SHARDS, |pair| hash_of(hasher, pair.0));
        }
        Loading {
            known: self,
            gathered: vec![Vec::new(); SHARDS],
            lines: 0,
            doubled: None,
        }
    }
}

impl Loading<'_> {
    /// Adds the code of the next line.
    pub(crate) fn add(&mut self, uuid: Uuid, code: Uuid) {
        self.lines += 1;
        let hash = hash_of(&self.known.hasher, uuid);
        let shard = shard_of(hash);
        self.gathered[shard].push((hash, self.lines, (uuid, code)));
        if self.gathered[shard].len() == LOAD_CODES {
            self.add_gathered(shard);
        }
    }

    fn add_gathered(&mut self, shard: usize) {
        let Known { hasher, shards } = &mut *self.known;
        let table = shards[shard]
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for (hash, line, pair) in self.gathered[shard].drain(..) {
            let is_same = |other: &Pair| other.0 == pair.0;
            match table.entry(hash, is_same, |pair| hash_of(hasher, pair.0)) {
                Entry::Vacant(entry) => drop(entry.insert(pair)),
                Entry::Occupied(_) => {
                    let first = self.doubled.map_or(line, |doubled| doubled.min(line));
                    self.doubled = Some(first);
                }
            }
        }
    }

    /// Returns how many codes were read.
    ///
    /// # Errors
    /// The number of the first line whose UUID has a code before it.
    pub(crate) fn end(mut self) -> Result<usize, u64> {
        for shard in 0..SHARDS {
            self.add_gathered(shard);
        }
        self.doubled.map_or(Ok(self.lines as usize), Err)
    }
}

fn hash_of(hasher: &RandomState, uuid: Uuid) -> u64 {
    hasher.hash_one(uuid.as_u128())
}

fn shard_of(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This many UUIDs, in a row as a peer may choose them.
    fn filled(count: u128) -> Known {
        let known = Known::new();
        for n in 0..count {
            known.add(Uuid::from_u128(n), Uuid::from_u128(!n));
        }
        known
    }

    #[test]
    fn what_was_added_is_found() {
        let known = filled(100_000);
        for n in 0..100_000 {
            assert_eq!(known.get(Uuid::from_u128(n)), Some(Uuid::from_u128(!n)));
        }
        assert_eq!(known.get(Uuid::from_u128(100_000)), None);
    }

    #[test]
    fn what_was_loaded_is_found_and_what_comes_twice_is_named() {
        let count = 3 * SHARDS as u128 * LOAD_CODES as u128 / 2;
        let load = |doubled: &[u128]| {
            let mut known = Known::new();
            let mut loading = known.load(0);
            for n in (0..count).chain(doubled.iter().copied()) {
                loading.add(Uuid::from_u128(n), Uuid::from_u128(!n));
            }
            let loaded = loading.end();
            (known, loaded)
        };
        let (known, loaded) = load(&[]);
        assert_eq!(loaded, Ok(count as usize));
        for n in 0..count {
            assert_eq!(known.get(Uuid::from_u128(n)), Some(Uuid::from_u128(!n)));
        }
        let (_, loaded) = load(&[count, 7, count, 8]);
        assert_eq!(loaded, Err(count as u64 + 2));
    }

    #[test]
    fn no_table_grows_by_more_than_a_small_part_of_all_codes() {
        let count = 200_000;
        let known = filled(count);
        let lens = known.shards.iter().map(|shard| shard.read().unwrap().len());
        let lens: Vec<_> = lens.collect();
        assert_eq!(lens.iter().sum::<usize>(), count as usize);
        let most = *lens.iter().max().unwrap();
        assert!(most < count as usize / 256, "{most} codes in one table");
    }

    #[test]
    fn where_a_code_stands_cannot_be_known_from_outside() {
        let place = |known: &Known| -> Vec<_> {
            let hash = |n| hash_of(&known.hasher, Uuid::from_u128(n));
            (0..8).map(|n| shard_of(hash(n))).collect()
        };
        assert_ne!(place(&Known::new()), place(&Known::new()));
    }
}
