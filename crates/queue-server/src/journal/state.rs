//! What a database knows beside the messages: the last id, and what time it was.

use super::row::ID_MAX;
use super::timeline::Note;
use crate::clock::Clock;

/// What the database knows beside the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// The ids up to this one may have been given.
    pub(super) last_id: u64,
    /// What the time was, if that is known.
    pub(super) note: Note,
}

impl State {
    /// It is so now.
    pub(super) fn now(last_id: u64, clock: &Clock) -> Self {
        Self {
            last_id,
            note: Note::of(clock),
        }
    }

    /// What was read with this CRC-32; `None` if it is damaged.
    pub(super) fn checked(self, crc: i64) -> Option<Self> {
        (self.crc() == crc && self.last_id <= ID_MAX.cast_unsigned()).then_some(self)
    }

    /// The CRC-32 of all of it.
    pub(super) fn crc(&self) -> i64 {
        let Note { clock, moment } = &self.note;
        let mut crc = crc32fast::Hasher::new();
        for number in [self.last_id, *clock, moment.uptime, moment.wall] {
            crc.update(&number.to_be_bytes());
        }
        crc.update(moment.boot.as_bytes());
        i64::from(crc.finalize())
    }
}
