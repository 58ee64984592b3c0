//! What a client asks of the queue.

use std::fmt;

use serde::Serialize;

use super::{MessageId, Properties, QueueName, QueueNames, Reason, Token};
use crate::message::tagged;

tagged! {
    /// What a client asks. Durations are in milliseconds, at most
    /// [`DURATION_MAX`](super::DURATION_MAX); a longer one is refused.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Request<'a> {
        /// Appends `body` to a queue.
        0x01 => Send {
            /// Which queue.
            queue: QueueName<'a>,
            /// What the message has beside its body.
            properties: Properties<'a>,
            /// The message, at most the server's `--max-message` bytes.
            body: &'a [u8],
        },
        /// Hands out the message at the front of a queue: of several, the first that has one.
        0x02 => Receive {
            /// Which queues.
            queues: QueueNames<'a>,
            /// How long to wait for a message if there is none, in all of them at once. Only over TCP.
            wait_millis: u32,
            /// What the server keeps of the message.
            delivery: Delivery,
        },
        /// Acknowledges a message that was handed out: the server deletes it.
        0x03 => Ack {
            /// Which message.
            claim: Claim,
        },
        /// Gives up a message on purpose.
        0x04 => Release {
            /// Which message.
            claim: Claim,
            /// Whether and when it is tried again.
            retry: Retry,
            /// Why. It is kept with the message.
            reason: Reason<'a>,
        },
        /// Lets a lease end later.
        0x05 => Extend {
            /// Which lease.
            token: Token,
            /// How long from now.
            lease_millis: u32,
        },
        /// Shows the first message of a queue in a state whose position is behind `after`, and leaves it
        /// there.
        0x06 => Peek {
            /// Which queue.
            queue: QueueName<'a>,
            /// In which state.
            state: MessageState,
            /// A position; 0 is in front of all.
            after: u64,
        },
        /// Asks how the server and its queues are.
        0x07 => Stats,
        /// Deletes all messages of a queue that are neither reserved nor leased.
        0x08 => Purge {
            /// Which queue.
            queue: QueueName<'a>,
        },
        /// Pauses a queue: it hands out nothing until it is resumed.
        0x09 => Pause {
            /// Which queue.
            queue: QueueName<'a>,
        },
        /// Ends a pause.
        0x0a => Resume {
            /// Which queue.
            queue: QueueName<'a>,
        },
        /// Moves the dead letters of a queue back to its end.
        0x0b => Kick {
            /// The queue `NAME`, whose dead letters are in `NAME.dead`.
            queue: QueueName<'a>,
        },
        /// Begins or ends to refuse new messages, for all queues.
        0x0c => Drain {
            /// Whether to refuse.
            on: bool,
        },
        /// Undoes a reservation or a lease: the message returns to its old position, and the attempt
        /// does not count. For a client that could not begin with it, or was stopped.
        0x0d => Unreserve {
            /// Which message.
            claim: Claim,
        },
        /// Undoes all reservations of this connection. For a client that ends its wait and cannot
        /// know whether a message is on its way. Only over TCP.
        0x0e => UnreserveAll,
        /// Shows one message, whatever its state.
        0x11 => PeekOne {
            /// The queue `NAME` that has it, or whose dead letters have it.
            queue: QueueName<'a>,
            /// Which message.
            id: MessageId,
        },
        /// Deletes one message, whatever its state.
        0x12 => Delete {
            /// The queue `NAME` that has it, or whose dead letters have it.
            queue: QueueName<'a>,
            /// Which message.
            id: MessageId,
        },
        /// Makes one message ready that is delayed or dead, at the end of its queue.
        0x13 => KickOne {
            /// The queue `NAME` that has it, or whose dead letters have it.
            queue: QueueName<'a>,
            /// Which message.
            id: MessageId,
        },
        /// Moves one message to the end of another queue, whatever its state.
        0x14 => Move {
            /// The queue `NAME` that has it, or whose dead letters have it.
            queue: QueueName<'a>,
            /// Which message.
            id: MessageId,
            /// Where it goes.
            to: QueueName<'a>,
        },
        /// Requeues one message that is reserved or leased, as if its holder were gone.
        0x15 => ReleaseOne {
            /// The queue that has it.
            queue: QueueName<'a>,
            /// Which message.
            id: MessageId,
        },
        /// Requeues all that a connection has reserved, as if the connection were gone.
        0x16 => ReleaseHolder {
            /// The connection's number, as a look at a reserved message has shown it.
            holder: u64,
        },
        /// Begins or continues a session: the requests behind it on this connection have the numbers from
        /// `next` on, and one whose number has been carried out already is answered as it was then. Only
        /// over TCP; a datagram has both in front.
        0x17 => Session {
            /// 128 bits that a client chooses at random, once.
            id: uuid::Uuid,
            /// The number of the next request.
            next: u64,
        },
    }
}

tagged! {
    /// Where a message is on its way through a queue.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum MessageState {
        /// It can be received.
        0 => Ready,
        /// A connection or a lease has it.
        1 => Reserved,
        /// It becomes ready later.
        2 => Delayed,
    }
}

impl fmt::Display for MessageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Reserved => "reserved",
            Self::Delayed => "delayed",
        })
    }
}

tagged! {
    /// What the server keeps of a message that it hands out, and so what is lost or comes twice when
    /// something fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Delivery {
        /// At least once: the message stays reserved for this connection until it is acknowledged. If
        /// the connection ends first, the message is requeued at the front. Only over TCP.
        0 => AtLeastOnce,
        /// At most once: the message is deleted as it is sent, like Redis' `LPOP`. It is lost if the
        /// reply does not arrive.
        1 => AtMostOnce,
        /// At least once, without a connection: the reply carries a token, and a client that knows it may
        /// acknowledge the message. If nobody does before the lease expires, the message is requeued
        /// at the front.
        2 => Lease {
            /// How long the lease is.
            lease_millis: u32,
        },
    }
}

tagged! {
    /// Whether a message that was given up is tried again.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Retry {
        /// It goes to the end of its queue, or to the dead letters if it has been handed out too often.
        0 => Counted {
            /// How long it is delayed before it is ready.
            delay_millis: u32,
        },
        /// It goes to the end of its queue, and the attempt does not count: what failed was not the
        /// message's fault.
        1 => Uncounted {
            /// How long it is delayed before it is ready.
            delay_millis: u32,
        },
        /// It goes to the dead letters, because it would fail again.
        2 => Never,
    }
}

tagged! {
    /// How a client names a message that was handed out to it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Claim {
        /// By its id: the message is reserved for this connection.
        0 => Reserved(id: MessageId),
        /// By its token: the message is leased.
        1 => Leased(token: Token),
    }
}

impl From<Token> for Claim {
    fn from(token: Token) -> Self {
        Self::Leased(token)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::error::DecodeError;
    use crate::frame::Message as _;
    use crate::frame::check::{self, same_message};
    use crate::queue::{DURATION_MAX, Key, Priority};

    same_message!(Request);

    const QUEUE: QueueName = QueueName::DEFAULT;

    #[test]
    fn requests_on_the_wire() {
        let send = |properties, body| Request::Send {
            queue: QUEUE,
            properties,
            body,
        };
        let delayed = Properties::delayed(500);
        check::message(
            send(delayed, b"hi"),
            b"\0\0\0\x19\x01\x07default\0\0\x01\xf4\0\0\0\0\0\0\0\0\0\0hi",
        );
        check::message(
            send(delayed, b""),
            b"\0\0\0\x17\x01\x07default\0\0\x01\xf4\0\0\0\0\0\0\0\0\0\0",
        );
        let all = Properties {
            delay_millis: 1,
            priority: Priority::new(9).unwrap(),
            key: Key::new("k1"),
            expiry_millis: 2,
            attempts_max: 3,
        };
        check::message(
            send(all, b"hi"),
            b"\0\0\0\x1b\x01\x07default\0\0\0\x01\x09\x02k1\0\0\0\x02\0\0\0\x03hi",
        );
        let receive = |delivery| Request::Receive {
            queues: QUEUE.into(),
            wait_millis: 7,
            delivery,
        };
        check::message(
            receive(Delivery::AtLeastOnce),
            b"\0\0\0\x0f\x02\x01\x07default\0\0\0\x07\0",
        );
        check::message(
            receive(Delivery::AtMostOnce),
            b"\0\0\0\x0f\x02\x01\x07default\0\0\0\x07\x01",
        );
        check::message(
            receive(Delivery::Lease {
                lease_millis: 0x0102,
            }),
            b"\0\0\0\x13\x02\x01\x07default\0\0\0\x07\x02\0\0\x01\x02",
        );
        let two = ["a", "bc"].map(|name| QueueName::new(name).unwrap());
        let of_two = Request::Receive {
            queues: QueueNames::new(two).unwrap(),
            wait_millis: 7,
            delivery: Delivery::AtLeastOnce,
        };
        check::message(of_two, b"\0\0\0\x0c\x02\x02\x01a\x02bc\0\0\0\x07\0");
    }

    #[test]
    fn requests_about_what_was_handed_out() {
        let reserved = Claim::Reserved(0x0102);
        let token = Uuid::from_bytes(*b"abcdefghijklmnop");
        let claim = Claim::Leased(token);
        check::message(
            Request::Ack { claim: reserved },
            b"\0\0\0\x0a\x03\0\0\0\0\0\0\0\x01\x02",
        );
        check::message(
            Request::Ack { claim },
            b"\0\0\0\x12\x03\x01abcdefghijklmnop",
        );
        let release = |retry, reason| Request::Release {
            claim: reserved,
            retry,
            reason: Reason::new(reason),
        };
        check::message(
            release(Retry::Counted { delay_millis: 9 }, "why"),
            b"\0\0\0\x14\x04\0\0\0\0\0\0\0\x01\x02\0\0\0\0\x09\0\x03why",
        );
        check::message(
            release(Retry::Uncounted { delay_millis: 9 }, ""),
            b"\0\0\0\x11\x04\0\0\0\0\0\0\0\x01\x02\x01\0\0\0\x09\0\0",
        );
        check::message(
            release(Retry::Never, ""),
            b"\0\0\0\x0d\x04\0\0\0\0\0\0\0\x01\x02\x02\0\0",
        );
        check::message(
            Request::Unreserve { claim: reserved },
            b"\0\0\0\x0a\x0d\0\0\0\0\0\0\0\x01\x02",
        );
        check::message(Request::UnreserveAll, b"\0\0\0\x01\x0e");
        let session = Request::Session { id: token, next: 9 };
        check::message(session, b"\0\0\0\x19\x17abcdefghijklmnop\0\0\0\0\0\0\0\x09");
        let extend = Request::Extend {
            token,
            lease_millis: 9,
        };
        check::message(extend, b"\0\0\0\x15\x05abcdefghijklmnop\0\0\0\x09");
    }

    #[test]
    fn requests_about_queues() {
        let peek = Request::Peek {
            queue: QUEUE,
            state: MessageState::Delayed,
            after: 1,
        };
        check::message(peek, b"\0\0\0\x12\x06\x07default\x02\0\0\0\0\0\0\0\x01");
        check::message(Request::Stats, b"\0\0\0\x01\x07");
        check::message(
            Request::Purge { queue: QUEUE },
            b"\0\0\0\x09\x08\x07default",
        );
        check::message(
            Request::Pause { queue: QUEUE },
            b"\0\0\0\x09\x09\x07default",
        );
        check::message(
            Request::Resume { queue: QUEUE },
            b"\0\0\0\x09\x0a\x07default",
        );
        check::message(Request::Kick { queue: QUEUE }, b"\0\0\0\x09\x0b\x07default");
        check::message(Request::Drain { on: true }, b"\0\0\0\x02\x0c\x01");
    }

    #[test]
    fn requests_about_one_message() {
        let (queue, id) = (QueueName::new("q").unwrap(), 0x0102);
        let to = QueueName::new("to").unwrap();
        let check = |request, kind: u8, rest: &[u8]| {
            let fields = [b"\x01q\0\0\0\0\0\0\x01\x02", rest].concat();
            let head = [0, 0, 0, fields.len() as u8 + 1, kind];
            check::message(request, &[&head[..], &fields].concat());
        };
        check(Request::PeekOne { queue, id }, 0x11, b"");
        check(Request::Delete { queue, id }, 0x12, b"");
        check(Request::KickOne { queue, id }, 0x13, b"");
        check(Request::Move { queue, id, to }, 0x14, b"\x02to");
        check(Request::ReleaseOne { queue, id }, 0x15, b"");
        let release = Request::ReleaseHolder { holder: 7 };
        check::message(release, b"\0\0\0\x09\x16\0\0\0\0\0\0\0\x07");
    }

    #[test]
    fn no_time_is_longer_than_the_longest() {
        let longest = DURATION_MAX.as_millis() as u32;
        let check = |payload: &[u8], rest: &[u8], kind, field| {
            let with = |millis: u32| [payload, &millis.to_be_bytes(), rest].concat();
            Request::decode(kind, &with(longest)).unwrap();
            for millis in [longest + 1, u32::MAX] {
                let refused = Request::decode(kind, &with(millis)).unwrap_err();
                assert_eq!(refused, DecodeError::DurationTooLong(field));
                assert_eq!(refused.to_string(), format!("the {field} exceeds 49 days"));
            }
        };
        check(b"\x01q", &[0; 10], 0x01, "delay");
        check(b"\x01q\0\0\0\0\0\0", &[0; 4], 0x01, "expiry");
        check(b"\x01\x01q", b"\0", 0x02, "wait");
        check(b"\x01\x01q\0\0\0\0\x02", b"", 0x02, "lease");
        check(b"\0\0\0\0\0\0\0\0\x01\0", b"\0\0", 0x04, "delay");
        check(b"\0\0\0\0\0\0\0\0\x01\x01", b"\0\0", 0x04, "delay");
        check(b"abcdefghijklmnop", b"", 0x05, "lease");
    }

    #[test]
    fn what_no_property_can_be_is_refused() {
        let refused = |priority: u8, key: &[u8]| {
            let length = [key.len() as u8];
            let fields = [b"\x01q\0\0\0\0", &[priority][..], &length, key, &[0; 8]].concat();
            Request::decode(0x01, &fields).err()
        };
        assert_eq!(refused(9, b"key"), None);
        assert_eq!(refused(10, b""), Some(DecodeError::Invalid("priority")));
        assert_eq!(refused(0, b"a\nb"), Some(DecodeError::Invalid("key")));
        assert_eq!(refused(0, b"\xff"), Some(DecodeError::Invalid("key")));
    }

    #[test]
    fn a_bad_name_is_refused() {
        let error = Request::decode(0x08, b"\x03a/b").unwrap_err();
        assert_eq!(error, DecodeError::Invalid("queue"));
        for queues in [&b"\0"[..], b"\x01\x03a/b", b"\x11"] {
            let request = [queues, &[0; 5]].concat();
            let error = Request::decode(0x02, &request).unwrap_err();
            assert_eq!(error, DecodeError::Invalid("queues"));
        }
    }
}
