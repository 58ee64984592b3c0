//! One account for the memory that peers make the server keep: messages, frames that are being read, and
//! long replies. What a connection needs for short ones is not counted.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{QUEUES_MAX, QueueError};

/// What part of the limit reserved messages may go beyond it.
const RESERVING_PART: usize = 4;

/// What is not counted of the frame that a connection reads, and of the reply that it gathers, in bytes.
/// So an acknowledgement never needs room.
pub(crate) const FREE_BYTES: usize = 16 * 1024;

/// What the replies to `stats` may take together beyond the limit, in bytes, so that one can see that the
/// server is full: four replies about all the queues that there may be.
const STATS_BYTES_MAX: usize = 4 * QUEUES_MAX * FIGURES_BYTES;

/// What the figures of one queue take in a reply at most, in bytes; with those of the queue whose dead letters it has.
const FIGURES_BYTES: usize = 256;

/// The account. Any thread may use it at any time.
#[derive(Debug)]
pub(crate) struct Memory {
    allocated: AtomicUsize,
    bytes_max: usize,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            allocated: AtomicUsize::new(0),
            bytes_max,
        })
    }

    /// What it may have at most, in bytes.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Puts this many bytes on the account.
    ///
    /// # Errors
    /// [`QueueError::NoMemory`].
    pub(crate) fn allocate(&self, bytes: usize) -> Result<(), QueueError> {
        self.allocate_within(self.bytes_max, bytes)
    }

    fn allocate_within(&self, bytes_max: usize, bytes: usize) -> Result<(), QueueError> {
        let with = |allocated: usize| {
            let sum = allocated.checked_add(bytes)?;
            (sum <= bytes_max).then_some(sum)
        };
        let relaxed = Ordering::Relaxed;
        let updated = self.allocated.fetch_update(relaxed, relaxed, with);
        updated.map(drop).map_err(|_| self.full())
    }

    /// Puts this many bytes on the account that are there already, also beyond the limit.
    pub(crate) fn allocate_always(&self, bytes: usize) {
        self.allocated.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether one more message may be reserved. That is so beyond the limit too, and beyond what sessions may
    /// have there, so that a full server can be emptied.
    pub(crate) fn has_room_to_reserve(&self) -> bool {
        self.allocated()
            < self
                .bytes_max
                .saturating_add(self.bytes_max / RESERVING_PART)
    }

    /// Takes this many bytes off the account.
    pub(crate) fn free(&self, bytes: usize) {
        self.allocated.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The refusal when the account is full.
    pub(crate) fn full(&self) -> QueueError {
        QueueError::NoMemory(self.bytes_max)
    }
}

/// What one connection has on the account for a moment. Dropping it frees that.
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

    /// Grows to this many bytes, of which [`FREE_BYTES`] are not counted. Returns whether there is room. If
    /// not, all of it is freed, so that of many connections that grow some succeed.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        self.grow_within(self.memory.bytes_max, bytes)
    }

    /// Grows for a reply to `stats` about this many queues, also beyond the limit.
    pub(crate) fn grow_for_stats(&mut self, queues: usize) -> bool {
        let bytes_max = self.memory.bytes_max.saturating_add(STATS_BYTES_MAX);
        self.grow_within(bytes_max, queues * FIGURES_BYTES)
    }

    fn grow_within(&mut self, bytes_max: usize, bytes: usize) -> bool {
        let more = bytes.saturating_sub(FREE_BYTES).saturating_sub(self.bytes);
        let grown = self.memory.allocate_within(bytes_max, more).is_ok();
        if grown {
            self.bytes += more;
        } else {
            self.clear();
        }
        grown
    }

    /// Frees all of it.
    pub(crate) fn clear(&mut self) {
        self.memory.free(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What was sent. A long body is shared by its queue and its replies, so that nobody copies it.
#[derive(Clone)]
pub(crate) enum Body {
    /// A short one, or one that is not on the account yet.
    Short(Box<[u8]>),
    /// One that stays on the account until the last reply with it is sent.
    Long(Arc<LongBody>),
}

/// A long body. Dropping it takes it off the account.
pub(crate) struct LongBody {
    bytes: Box<[u8]>,
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
        self.memory.free(self.bytes.len());
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
    fn what_is_allocated_is_freed() {
        let memory = Memory::new(100_000);
        let mut room = Room::new(&memory);
        assert!(room.grow_to(FREE_BYTES) && memory.allocated() == 0);
        assert!(room.grow_to(FREE_BYTES + 50_000) && room.grow_to(60_000));
        assert_eq!(memory.allocated(), 50_000);
        let mut other = Room::new(&memory);
        assert!(!other.grow_to(FREE_BYTES + 50_001) && other.grow_to(FREE_BYTES + 50_000));
        assert!(memory.allocate(1).is_err() && memory.allocate(usize::MAX).is_err());
        other.clear();
        memory.allocate(1).unwrap();
        drop(room);
        assert_eq!(memory.allocated(), 1);
    }

    #[test]
    fn stats_have_room_when_the_server_is_full_but_not_without_end() {
        let memory = Memory::new(100_000);
        memory.allocate(100_000).unwrap();
        let looks: Vec<_> = (0..10)
            .map(|_| {
                let mut room = Room::new(&memory);
                let has_room = room.grow_for_stats(QUEUES_MAX);
                assert!(!Room::new(&memory).grow_to(FREE_BYTES + 1));
                (has_room, room)
            })
            .collect();
        let with_room = looks.iter().filter(|(has_room, _)| *has_room).count();
        assert_eq!(with_room, 4);
        drop(looks);
        assert_eq!(memory.allocated(), 100_000);
    }

    #[test]
    fn a_long_body_counts_until_the_last_reply_with_it_is_dropped() {
        assert_eq!(size_of::<Body>(), size_of::<Box<[u8]>>());
        let memory = Memory::new(100_000);
        memory.allocate(50_000).unwrap();
        let body = Body::Short(vec![b'x'; 50_000].into()).counted(&memory);
        let Body::Long(long) = body.clone() else {
            panic!("a body of 50000 bytes is long");
        };
        drop(body);
        assert_eq!((memory.allocated(), long.len()), (50_000, 50_000));
        drop(long);
        assert_eq!(memory.allocated(), 0);
        let short = Body::Short(vec![b'x'; FREE_BYTES].into()).counted(&memory);
        assert!(matches!(short, Body::Short(_)));
    }
}
