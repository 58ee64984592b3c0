//! The session of a client: what makes a request that is asked again the same request.
//!
//! Each request has a number. One without a reply is asked again with the same number over the next
//! connection, and the server answers it as it did, instead of acting twice.

use proto::queue::{RequestId, Token};

/// A session, and the numbers that it has given.
pub(crate) struct Session {
    id: Token,
    next: u64,
    /// The number of a receive whose reply was lost. The next receive has it again, so that it gets the message
    /// that was handed out then.
    lost_receive: Option<u64>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            id: Token::new_v4(),
            next: 0,
            lost_receive: None,
        }
    }

    /// The first of as many numbers that no request has had.
    pub(crate) fn take(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    /// The number of a receive whose reply was lost.
    pub(crate) fn take_lost_receive(&mut self) -> Option<u64> {
        self.lost_receive.take()
    }

    /// Notes that the reply to a receive was lost.
    pub(crate) fn lose_receive(&mut self, number: u64) {
        self.lost_receive = Some(number);
    }

    /// What a datagram with this number says.
    pub(crate) fn request(&self, number: u64) -> RequestId {
        RequestId {
            session: self.id,
            number,
        }
    }
}
