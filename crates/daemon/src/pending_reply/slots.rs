//! The slots of a connection's replies, in the order of the requests; and who sends them.
//!
//! Nothing in here touches a socket or a thread, so that `tests/model.rs` can let loom try every
//! order in which the owner and the completing threads can meet.

use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes that are sent behind a reply, and shared with others instead of copied.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// How many replies may be pending before the owner waits for them.
const SLOTS_MAX: usize = 256;

/// How many bytes pending replies may keep in memory before the owner waits for them.
const BYTES_MAX: usize = 1 << 20;

/// The most bytes that a completing thread sends; more is sent by the owner.
const SENT_BYTES_MAX: usize = 64 * 1024;

/// A completed reply.
#[derive(Default)]
pub(crate) struct Completed {
    pub(crate) bytes: Vec<u8>,
    /// What is sent behind them.
    pub(crate) body: Option<SharedBytes>,
}

impl Completed {
    fn len(&self) -> usize {
        let body = self.body.as_ref().map_or(0, |body| (**body).as_ref().len());
        self.bytes.len() + body
    }
}

/// The queue of slots.
#[derive(Default)]
pub(crate) struct Slots {
    slots: VecDeque<Slot>,
    /// The number of the first of them.
    first: u64,
    open: usize,
    /// What all of them keep in memory, about.
    bytes: usize,
    owner: Owner,
    /// Whether only the owner may send.
    is_encrypted: bool,
}

struct Slot {
    bytes: usize,
    /// `None` while it is open.
    reply: Option<Completed>,
}

/// What the owner is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It works on a request, or sends.
    #[default]
    Busy,
    /// It waits for the next request.
    WaitsForRequest {
        /// Whether the connection may be evicted when everything is sent.
        is_evictable: bool,
    },
    /// It waits until no slot is open.
    WaitsForReplies,
}

/// What a thread that has completed a reply must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Nothing: a slot is open, or the owner is busy and sends later.
    None,
    /// Send everything.
    Send {
        /// Whether the connection may then be evicted.
        is_evictable: bool,
    },
    /// Wake the owner, which sends.
    Wake,
}

/// What an owner that is about to wait finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// No slot at all.
    None,
    /// Something that can be sent.
    Completed,
    /// An open slot in front. The owner waits from now on.
    Open,
    /// An open slot in front, and as much behind it as may be.
    Full,
}

impl Slots {
    pub(crate) fn new(is_encrypted: bool) -> Self {
        Self {
            is_encrypted,
            ..Self::default()
        }
    }

    /// Adds an open slot behind what is in `output`; returns its number. `None` if there are too many
    /// already.
    pub(crate) fn open(&mut self, output: &mut Vec<u8>, bytes: usize) -> Option<u64> {
        self.add(output);
        if self.is_full(bytes) && !self.slots.is_empty() {
            return None;
        }
        self.slots.push_back(Slot { bytes, reply: None });
        self.bytes += bytes;
        self.open += 1;
        Some(self.first + self.slots.len() as u64 - 1)
    }

    /// Whether there is no room for a slot more with this many bytes.
    fn is_full(&self, bytes: usize) -> bool {
        self.slots.len() >= SLOTS_MAX || self.bytes + bytes > BYTES_MAX
    }

    /// Adds what is in `output`, replies that were known at once, if others are before them.
    pub(crate) fn add_behind(&mut self, output: &mut Vec<u8>) {
        if !self.slots.is_empty() {
            self.add(output);
        }
    }

    fn add(&mut self, output: &mut Vec<u8>) {
        if !output.is_empty() {
            let reply = Completed {
                bytes: std::mem::take(output),
                body: None,
            };
            self.bytes += reply.bytes.len();
            self.slots.push_back(Slot {
                bytes: reply.bytes.len(),
                reply: Some(reply),
            });
        }
    }

    /// Completes the reply of a slot. Returns what the completing thread must do.
    pub(crate) fn complete(&mut self, number: u64, reply: Completed) -> Duty {
        let slot = &mut self.slots[(number - self.first) as usize];
        self.bytes = self.bytes - slot.bytes + reply.len();
        slot.bytes = reply.len();
        slot.reply = Some(reply);
        self.open -= 1;
        if self.open > 0 {
            return Duty::None;
        }
        let has_body = |slot: &Slot| {
            slot.reply
                .as_ref()
                .is_some_and(|reply| reply.body.is_some())
        };
        match self.owner {
            Owner::Busy => Duty::None,
            Owner::WaitsForReplies => Duty::Wake,
            Owner::WaitsForRequest { .. }
                if self.is_encrypted
                    || self.bytes > SENT_BYTES_MAX
                    || self.slots.iter().any(has_body) =>
            {
                Duty::Wake
            }
            Owner::WaitsForRequest { is_evictable } => Duty::Send { is_evictable },
        }
    }

    /// Takes the first reply, if it is completed.
    fn pop_completed(&mut self) -> Option<Completed> {
        let reply = self.slots.front_mut()?.reply.take()?;
        let slot = self.slots.pop_front()?;
        self.first += 1;
        self.bytes -= slot.bytes;
        Some(reply)
    }

    /// Takes the completed replies up to the first that is open.
    pub(crate) fn take_completed(&mut self) -> Vec<Completed> {
        std::iter::from_fn(|| self.pop_completed()).collect()
    }

    /// Takes the bytes of the completed replies up to the first that is open.
    pub(crate) fn gather(&mut self) -> Vec<u8> {
        let mut gathered = self.pop_completed().unwrap_or_default().bytes;
        while let Some(reply) = self.pop_completed() {
            gathered.extend(reply.bytes);
        }
        gathered
    }

    /// Puts a rest that was not sent in front of all.
    pub(crate) fn put_back(&mut self, rest: Vec<u8>) {
        self.first -= 1;
        self.bytes += rest.len();
        let reply = Completed {
            bytes: rest,
            body: None,
        };
        self.slots.push_front(Slot {
            bytes: reply.bytes.len(),
            reply: Some(reply),
        });
    }

    /// Whether the first reply can be sent, and all of them have this many bytes.
    pub(crate) fn has_much_completed(&self, bytes: usize) -> bool {
        let is_completed = |slot: &Slot| slot.reply.is_some();
        self.bytes >= bytes && self.slots.front().is_some_and(is_completed)
    }

    /// The owner waits from now on if there is something to wait for.
    pub(crate) fn begin_wait(&mut self, owner: Owner) -> Pending {
        let is_completed = |slot: &Slot| slot.reply.is_some();
        let can_send = self.slots.front().is_some_and(is_completed);
        if self.slots.is_empty() {
            Pending::None
        } else if self.open == 0 || (can_send && owner != Owner::WaitsForReplies) {
            Pending::Completed
        } else if owner != Owner::WaitsForReplies && self.is_full(0) {
            Pending::Full
        } else {
            self.owner = owner;
            Pending::Open
        }
    }

    /// The owner does not wait any more. Returns whether nothing is pending.
    pub(crate) fn end_wait(&mut self) -> bool {
        self.owner = Owner::Busy;
        self.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn has_open(&self) -> bool {
        self.open > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Completed {
        Completed {
            bytes: text.as_bytes().to_vec(),
            body: None,
        }
    }

    #[test]
    fn replies_keep_the_order_of_the_requests_in_any_order_of_completion() {
        let mut slots = Slots::default();
        let mut early = b"nothing is pending".to_vec();
        slots.add_behind(&mut early);
        assert!(!early.is_empty());
        let first = slots.open(&mut Vec::new(), 1).unwrap();
        let second = slots.open(&mut Vec::new(), 1).unwrap();
        slots.add_behind(&mut b"3".to_vec());
        let last = slots.open(&mut Vec::new(), 1).unwrap();
        assert_eq!(slots.complete(second, reply("2")), Duty::None);
        assert!(slots.take_completed().is_empty());
        assert_eq!(slots.complete(first, reply("1")), Duty::None);
        assert_eq!(slots.gather(), b"123");
        slots.put_back(b"3".to_vec());
        assert_eq!(slots.complete(last, reply("4")), Duty::None);
        assert_eq!(slots.gather(), b"34");
        assert_eq!((slots.bytes, slots.open, slots.slots.len()), (0, 0, 0));
    }

    #[test]
    fn the_last_completion_sends_or_wakes_the_owner() {
        let waits = Owner::WaitsForRequest { is_evictable: true };
        let sends = Duty::Send { is_evictable: true };
        let check = |owner: Owner, has_body: bool, want: Duty| {
            let mut slots = Slots::default();
            assert_eq!(slots.begin_wait(owner), Pending::None);
            let [first, last] = [(); 2].map(|()| slots.open(&mut Vec::new(), 0).unwrap());
            assert_eq!(slots.begin_wait(owner), Pending::Open);
            let body: Option<SharedBytes> = has_body.then(|| Arc::new("body") as _);
            let first_reply = Completed {
                body,
                ..reply("first")
            };
            assert_eq!(slots.complete(first, first_reply), Duty::None);
            assert_eq!(slots.complete(last, reply("last")), want, "{owner:?}");
            assert_eq!(slots.begin_wait(owner), Pending::Completed);
        };
        check(Owner::Busy, false, Duty::None);
        check(waits, false, sends);
        check(waits, true, Duty::Wake);
        check(Owner::WaitsForReplies, false, Duty::Wake);
    }

    #[test]
    fn there_is_a_limit_to_what_is_pending() {
        let mut slots = Slots::default();
        assert!(
            slots.open(&mut Vec::new(), BYTES_MAX + 1).is_some(),
            "one always fits"
        );
        assert!(slots.open(&mut Vec::new(), 0).is_none());
        let mut slots = Slots::default();
        let opened = (0..).map_while(|_| slots.open(&mut Vec::new(), 1)).count();
        assert_eq!(opened, SLOTS_MAX);
    }
}
