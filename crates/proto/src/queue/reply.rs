//! What the queue replies.

use std::borrow::Cow;
use std::mem;

use serde::Serialize;

use super::{MessageId, MessageState, Properties, QueueName, Reason, Token};
use crate::error_reply::ErrorReply;
use crate::fields::Name;
use crate::frame;
use crate::message::{Tagged, record, tagged};

tagged! {
    /// What the server replies.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Reply<'a> {
        /// The message is in the queue.
        0x41 => Stored {
            /// The message's id.
            id: MessageId,
        },
        /// The message at the front of the queue.
        0x42 => Message {
            /// The message's id.
            id: MessageId,
            /// Which of the queues that were asked it comes from, counted from 0.
            queue_index: u8,
            /// How often it has been handed out, this time included.
            attempt: u32,
            /// What was sent.
            body: &'a [u8],
        },
        /// The message at the front of the queue, leased.
        0x43 => Leased {
            /// What acknowledges it.
            token: Token,
            /// The message's id.
            id: MessageId,
            /// Which of the queues that were asked it comes from, counted from 0.
            queue_index: u8,
            /// How often it has been handed out, this time included.
            attempt: u32,
            /// What was sent.
            body: &'a [u8],
        },
        /// There is no message in the queue, or none behind the position that was asked for.
        0x44 => Empty,
        /// The request is carried out.
        0x45 => Done {
            /// How many messages it changed. What was given up and became a dead letter by that is not one of
            /// them, so a release tells whether it did.
            messages: u64,
        },
        /// A message that stays in its queue.
        0x46 => Peeked {
            /// Which queue that is: also `NAME.dead`, if `NAME` was asked.
            queue: QueueName<'a>,
            /// Where it is; to ask for the next one.
            position: u64,
            /// In which state it is.
            state: MessageState,
            /// Who has it, if it is reserved.
            holder: Holder<'a>,
            /// The message's id.
            id: MessageId,
            /// How often it has been handed out.
            attempts: u32,
            /// How long it has been in the queue; 0 if it is delayed.
            age_millis: u64,
            /// What it was sent with. Of its delay and its expiry, what is left.
            properties: Properties<'a>,
            /// Why its last attempt ended without an acknowledgement; empty if that is not known, or
            /// there was none.
            reason: Reason<'a>,
            /// What was sent.
            body: &'a [u8],
        },
        /// How the server and its queues are.
        0x47 => Stats {
            /// Over all queues, since the server started.
            totals: Totals,
            /// One by one, by name.
            queues: Vec<QueueStats<'a>>,
        },
        /// A message with this key and body was stored before, and is not stored again.
        0x48 => StoredBefore {
            /// That message's id.
            id: MessageId,
        },
        /// The session is begun or continued.
        0x49 => Session {
            /// Whose the ids are: within one epoch none is used twice. A server without a database begins
            /// another one with each start, and one with a database is always in 0.
            epoch: u64,
        },
        /// The request is refused.
        0x7f => Error(error: ErrorReply<'a>),
    }
}

record! {
    /// Who has a reserved message. By default it is nobody.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
    pub struct Holder<'a> {
        /// The connection's number; 0 if the message is leased.
        pub id: u64,
        /// The other end of the connection, for people.
        pub peer: Name<'a>,
        /// What is left of the lease; 0 if it belongs to a connection.
        pub lease_millis: u32,
    }
}

record! {
    /// Counts over all queues since the server started.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
    pub struct Totals {
        /// Messages sent to a queue.
        pub sent: u64,
        /// Messages handed out, each as often as it was.
        pub received: u64,
        /// Messages deleted because they were acknowledged, or delivered at most once.
        pub acked: u64,
        /// Messages released on purpose.
        pub released: u64,
        /// Messages requeued because a connection ended or a lease expired.
        pub requeued: u64,
        /// Messages that became dead letters.
        pub dead_lettered: u64,
        /// Memory that all messages use at the moment, in bytes...
        pub memory_bytes: u64,
        /// ...and what they may use.
        pub memory_bytes_max: u64,
        /// How long the server has been running, in milliseconds.
        pub uptime_millis: u64,
        /// Whether new messages are refused.
        pub is_draining: bool,
    }
}

record! {
    /// One queue at the moment.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
    pub struct QueueStats<'a> {
        /// Its name.
        pub name: Cow<'a, str>,
        /// Messages that can be received.
        pub ready: u64,
        /// Messages that are reserved or leased.
        pub reserved: u64,
        /// Messages that are delayed.
        pub delayed: u64,
        /// Its dead letters.
        pub dead: u64,
        /// Receivers that wait for a message.
        pub waiters: u64,
        /// How long the oldest message that can be received has been in the queue, in milliseconds; 0 if
        /// there is none.
        pub oldest_millis: u64,
        /// The same of the oldest message that is reserved or leased.
        pub oldest_reserved_millis: u64,
        /// Whether it is paused.
        pub is_paused: bool,
    }
}

impl QueueStats<'_> {
    /// The same, with a name of its own.
    pub fn into_owned(self) -> QueueStats<'static> {
        QueueStats {
            name: Cow::Owned(self.name.into_owned()),
            ..self
        }
    }
}

impl Reply<'_> {
    /// Appends the reply as one frame, but without the body at its end: the caller sends that behind
    /// it, without a copy.
    pub fn encode_before_body(&self, out: &mut Vec<u8>) {
        let mut start = self.clone();
        let body = match &mut start {
            Self::Message { body, .. } | Self::Leased { body, .. } | Self::Peeked { body, .. } => {
                mem::take(body)
            }
            Self::Stored { .. }
            | Self::StoredBefore { .. }
            | Self::Empty
            | Self::Done { .. }
            | Self::Stats { .. }
            | Self::Session { .. }
            | Self::Error(_) => &[],
        };
        let put_start = |out: &mut Vec<u8>| start.write_fields(out);
        frame::put_before(out, self.tag(), body.len(), put_start);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ErrorCode;
    use crate::frame::Message as _;
    use crate::frame::check::{self, same_message};
    use crate::queue::{Key, Priority};

    same_message!(Reply);

    #[test]
    fn replies_on_the_wire() {
        let id = 0x0102;
        check::message(Reply::Stored { id }, b"\0\0\0\x09\x41\0\0\0\0\0\0\x01\x02");
        check::message(
            Reply::StoredBefore { id },
            b"\0\0\0\x09\x48\0\0\0\0\0\0\x01\x02",
        );
        let message = Reply::Message {
            id,
            queue_index: 1,
            attempt: 3,
            body: b"hi",
        };
        check::message(
            message.clone(),
            b"\0\0\0\x10\x42\0\0\0\0\0\0\x01\x02\x01\0\0\0\x03hi",
        );
        let leased = Reply::Leased {
            token: Uuid::from_bytes(*b"abcdefghijklmnop"),
            id,
            queue_index: 0,
            attempt: 3,
            body: b"hi",
        };
        check::message(
            leased,
            b"\0\0\0\x20\x43abcdefghijklmnop\0\0\0\0\0\0\x01\x02\0\0\0\0\x03hi",
        );
        check::message(Reply::Empty, b"\0\0\0\x01\x44");
        check::message(
            Reply::Done { messages: 2 },
            b"\0\0\0\x09\x45\0\0\0\0\0\0\0\x02",
        );
        check::message(
            Reply::Session { epoch: 2 },
            b"\0\0\0\x09\x49\0\0\0\0\0\0\0\x02",
        );
        let peeked = Reply::Peeked {
            queue: QueueName::new("q").unwrap(),
            position: 7,
            state: MessageState::Reserved,
            holder: Holder {
                id: 8,
                peer: Name("me"),
                lease_millis: 9,
            },
            id,
            attempts: 5,
            age_millis: 6,
            properties: Properties {
                priority: Priority::new(4).unwrap(),
                key: Key::new("k"),
                ..Properties::default()
            },
            reason: Reason::new("why"),
            body: b"",
        };
        check::message(
            peeked,
            b"\0\0\0\x43\x46\x01q\0\0\0\0\0\0\0\x07\x01\0\0\0\0\0\0\0\x08\x02me\0\0\0\x09\
              \0\0\0\0\0\0\x01\x02\0\0\0\x05\
              \0\0\0\0\0\0\0\x06\0\0\0\0\x04\x01k\0\0\0\0\0\0\0\0\0\x03why",
        );
        let mut whole = Vec::new();
        message.encode(&mut whole);
        let mut before = Vec::new();
        message.encode_before_body(&mut before);
        assert_eq!([&before[..], b"hi"].concat(), whole);
        let error = ErrorReply {
            code: ErrorCode::TooLarge,
            sentence: "no",
        };
        check::message(Reply::Error(error), b"\0\0\0\x04\x7f\x03no");
    }

    #[test]
    fn stats_on_the_wire() {
        let totals = Totals {
            sent: 1,
            uptime_millis: 2,
            is_draining: true,
            ..Totals::default()
        };
        let queue = QueueStats {
            name: "q".into(),
            ready: 3,
            reserved: 4,
            delayed: 5,
            dead: 6,
            waiters: 7,
            oldest_millis: 8,
            oldest_reserved_millis: 9,
            is_paused: false,
        };
        let mut want = b"\0\0\0\x85\x47".to_vec();
        for count in [1_u64, 0, 0, 0, 0, 0, 0, 0, 2] {
            want.extend(count.to_be_bytes());
        }
        want.extend(b"\x01\x01q");
        for count in [3_u64, 4, 5, 6, 7, 8, 9] {
            want.extend(count.to_be_bytes());
        }
        want.push(0);
        let queues = vec![queue];
        check::message(Reply::Stats { totals, queues }, &want);
    }
}
