//! One that follows the history: it asks once, and is told each line once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proto::frame::{Message as _, split, starts_with_whole};
use proto::history::{Operation, Reply, Request};

use super::{Checked, Conversation, Wrong};

/// The text of the note behind which nobody follows any more.
pub const END: &str = "the end";

/// A connection that follows until it is told of the note [`END`].
pub struct FollowTalk {
    /// The sequence number of the last line.
    last: Option<u64>,
    following: Arc<AtomicUsize>,
}

impl FollowTalk {
    /// Counts itself in `following` when it is told of its first line.
    pub fn new(following: Arc<AtomicUsize>) -> Self {
        let last = None;
        Self { last, following }
    }
}

impl Conversation for FollowTalk {
    fn ask(&mut self, _: usize, out: &mut Vec<u8>) {
        let operation = Operation::Follow { last: 0, behind: 0 };
        let user = "alice";
        Request { user, operation }.encode(out);
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        if !starts_with_whole(input) {
            return Ok(None);
        }
        let bytes = 4 + input
            .first_chunk()
            .map_or(0, |length| u32::from_be_bytes(*length)) as usize;
        let frame = &input[..bytes];
        let reply = split(frame).map(|(kind, payload)| Reply::decode(kind, payload));
        let is_last = match reply {
            Ok(Ok(Reply::About(_) | Reply::Text(b""))) => false,
            Ok(Ok(Reply::Line { sequence, text })) => {
                match self.last {
                    None => drop(self.following.fetch_add(1, Ordering::Relaxed)),
                    Some(last) if sequence == last + 1 => {}
                    Some(_) => return Err(Wrong::new("the next line", frame)),
                }
                self.last = Some(sequence);
                text.ends_with(END.as_bytes())
            }
            Ok(_) | Err(_) => return Err(Wrong::new("a line", frame)),
        };
        Ok(Some(Checked {
            bytes,
            completes: is_last,
            is_last,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let text = text.as_bytes();
        Reply::Line { sequence, text }.encode(&mut bytes);
        bytes
    }

    #[test]
    fn each_line_must_come_once_and_in_order() {
        let following = Arc::new(AtomicUsize::new(0));
        let mut talk = FollowTalk::new(Arc::clone(&following));
        let first = line(7, "one");
        assert_eq!(talk.check(&first[..first.len() - 1]), Ok(None));
        assert_eq!(following.load(Ordering::Relaxed), 0);
        let checked = talk.check(&first).unwrap().unwrap();
        assert!(checked.bytes == first.len() && !checked.is_last);
        assert_eq!(following.load(Ordering::Relaxed), 1);
        for wrong in [line(7, "one"), line(9, "three"), b"\0\0\0\x01\x63".to_vec()] {
            assert!(talk.check(&wrong).is_err());
        }
        let end = line(8, END);
        assert!(talk.check(&end).unwrap().unwrap().is_last);
        assert_eq!(following.load(Ordering::Relaxed), 1);
    }
}
