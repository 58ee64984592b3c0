//! The memory that peers make the server keep, on one account: messages, frames that are being read,
//! and long replies. What a connection needs for short ones is not counted.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{QUEUES_MAX, QueueError};

/// What each connection may have without its being counted, in bytes: of the frame that it reads, or
/// the reply that it gathers. So an acknowledgement never needs room.
pub(crate) const FREE_BYTES: usize = 16 * 1024;

/// What those who look at all queues may take together beyond the limit, in bytes, because somebody has
/// to see that the server is full: a few replies about as many queues as there may be.
const LOOKS_BYTES: usize = 4 * QUEUES_MAX * STATS_BYTES;

/// What the figures of one queue take in a reply, at the most, in bytes.
pub(crate) const STATS_BYTES: usize = 128;

/// The account. Everybody takes from it and gives back to it, at any time.
#[derive(Debug)]
pub(crate) struct Memory {
    taken: AtomicUsize,
    bytes_max: usize,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            bytes_max,
        })
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`QueueError::NoMemory`].
    pub(crate) fn take(&self, bytes: usize) -> Result<(), QueueError> {
        self.take_up_to(self.bytes_max, bytes)
    }

    fn take_up_to(&self, bytes_max: usize, bytes: usize) -> Result<(), QueueError> {
        let with = |taken: usize| {
            let sum = taken.checked_add(bytes)?;
            (sum <= bytes_max).then_some(sum)
        };
        let relaxed = Ordering::Relaxed;
        let updated = self.taken.fetch_update(relaxed, relaxed, with);
        updated.map(drop).map_err(|_| self.full())
    }

    /// Takes so many bytes that are there already, whether or not there is room for them.
    pub(crate) fn take_in_any_case(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub(crate) fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn full(&self) -> QueueError {
        QueueError::NoMemory(self.bytes_max)
    }
}

/// What one connection has taken for the moment. Dropping it gives that back.
pub(crate) struct Room {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Room {
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            bytes: 0,
        }
    }

    /// Takes what is missing to so many bytes, if they are more than is free. Returns whether that was
    /// possible; if not, all of it is given back, so that of many who want more some get it.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        self.grow_within(self.memory.bytes_max, bytes)
    }

    /// The same for a look at this many queues, which may go beyond the limit.
    pub(crate) fn grow_for_look(&mut self, queues: usize) -> bool {
        let bytes_max = self.memory.bytes_max.saturating_add(LOOKS_BYTES);
        self.grow_within(bytes_max, queues * STATS_BYTES)
    }

    fn grow_within(&mut self, bytes_max: usize, bytes: usize) -> bool {
        let more = bytes.saturating_sub(FREE_BYTES).saturating_sub(self.bytes);
        let grown = self.memory.take_up_to(bytes_max, more).is_ok();
        match grown {
            true => self.bytes += more,
            false => self.clear(),
        }
        grown
    }

    /// Gives back all of it.
    pub(crate) fn clear(&mut self) {
        self.memory.give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What was sent. The queue and the replies share it, so nobody copies it.
#[derive(Clone)]
pub(crate) enum Body {
    /// A short one, or one that is not on the account yet.
    Short(Arc<[u8]>),
    /// One that stays on the account until the last reply with it is sent.
    Long(Arc<LongBody>),
}

/// A long body. Dropping it takes it off the account.
pub(crate) struct LongBody {
    bytes: Arc<[u8]>,
    memory: Arc<Memory>,
}

impl Body {
    /// The same body, after it was put on the account.
    pub(crate) fn counted(self, memory: &Arc<Memory>) -> Self {
        match self {
            Self::Short(bytes) if bytes.len() > FREE_BYTES => Self::Long(Arc::new(LongBody {
                bytes,
                memory: Arc::clone(memory),
            })),
            Self::Short(_) | Self::Long(_) => self,
        }
    }
}

impl Drop for LongBody {
    fn drop(&mut self) {
        self.memory.give(self.bytes.len());
    }
}

impl AsRef<[u8]> for LongBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for LongBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(long) => long,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Body {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let memory = Memory::new(100_000);
        let mut room = Room::new(&memory);
        assert!(room.grow_to(FREE_BYTES) && memory.taken() == 0);
        assert!(room.grow_to(FREE_BYTES + 50_000) && room.grow_to(60_000));
        assert_eq!(memory.taken(), 50_000);
        let mut other = Room::new(&memory);
        assert!(!other.grow_to(FREE_BYTES + 50_001) && other.grow_to(FREE_BYTES + 50_000));
        assert!(memory.take(1).is_err() && memory.take(usize::MAX).is_err());
        other.clear();
        memory.take(1).unwrap();
        drop(room);
        assert_eq!(memory.taken(), 1);
    }

    #[test]
    fn who_looks_has_room_when_the_server_is_full_but_not_for_ever() {
        let memory = Memory::new(100_000);
        memory.take(100_000).unwrap();
        let looks: Vec<_> = (0..10)
            .map(|_| {
                let mut room = Room::new(&memory);
                let has_room = room.grow_for_look(QUEUES_MAX);
                assert!(!Room::new(&memory).grow_to(FREE_BYTES + 1));
                (has_room, room)
            })
            .collect();
        let with_room = looks.iter().filter(|(has_room, _)| *has_room).count();
        assert_eq!(with_room, 4);
        drop(looks);
        assert_eq!(memory.taken(), 100_000);
    }

    #[test]
    fn a_long_body_counts_until_the_last_one_lets_go_of_it() {
        assert_eq!(size_of::<Body>(), size_of::<Box<[u8]>>());
        let memory = Memory::new(100_000);
        memory.take(50_000).unwrap();
        let body = Body::Short(vec![b'x'; 50_000].into()).counted(&memory);
        let Body::Long(long) = body.clone() else {
            panic!("a body of 50000 bytes is long");
        };
        drop(body);
        assert_eq!((memory.taken(), long.len()), (50_000, 50_000));
        drop(long);
        assert_eq!(memory.taken(), 0);
        let short = Body::Short(vec![b'x'; FREE_BYTES].into()).counted(&memory);
        assert!(matches!(short, Body::Short(_)));
    }
}
