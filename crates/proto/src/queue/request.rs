//! What a client asks of the queue.

use uuid::Uuid;

use super::{DURATION_MAX, MessageId, QueueName, Token};
use crate::fields::{Fields, PayloadError, put_name};
use crate::frame::Message;

/// What a client asks. Times are in milliseconds, at most [`DURATION_MAX`]; what is longer is
/// refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Put `body` at the end of a queue.
    Send {
        /// Which queue.
        queue: QueueName<'a>,
        /// How long to keep it back first.
        delay_millis: u32,
        /// The message, at most the server's `--max-message` bytes.
        body: &'a [u8],
    },
    /// Hand out the message at the front of a queue.
    Receive {
        /// Which queue.
        queue: QueueName<'a>,
        /// How long to wait for a message if there is none. Only over TCP.
        wait_millis: u32,
        /// When the server may forget the message.
        delivery: Delivery,
    },
    /// Forget a message that was handed out.
    Ack {
        /// Which one.
        claim: Claim,
    },
    /// Take back a message that was handed out, and put it at the end of its queue, or into that of
    /// its dead if it was handed out too often.
    Release {
        /// Which one.
        claim: Claim,
        /// How long to keep it back first.
        delay_millis: u32,
    },
    /// Take back a message as if it had not been handed out: it goes to its old place, and the
    /// attempt does not count. For whoever could not begin with it, or was stopped.
    Unreserve {
        /// Which one.
        claim: Claim,
    },
    /// Take back everything that this connection has reserved, in the same way. For a client that ends
    /// its wait and cannot know whether a message is on its way. Only over TCP.
    UnreserveAll,
    /// Let a lease run out later.
    Extend {
        /// Which one.
        token: Token,
        /// How long from now.
        lease_millis: u32,
    },
    /// Show the first message of a queue whose place is behind `after`, and leave it there.
    Peek {
        /// Which queue.
        queue: QueueName<'a>,
        /// A place; 0 is in front of all.
        after: u64,
    },
    /// Say how the queues and the server are.
    Stats,
    /// Forget all messages of a queue that nobody holds.
    Purge {
        /// Which queue.
        queue: QueueName<'a>,
    },
    /// Hand out nothing from a queue until it is resumed.
    Pause {
        /// Which queue.
        queue: QueueName<'a>,
    },
    /// End a pause.
    Resume {
        /// Which queue.
        queue: QueueName<'a>,
    },
    /// Move the messages of `NAME.dead` back to the end of the queue `NAME`.
    Kick {
        /// The queue `NAME`.
        queue: QueueName<'a>,
    },
    /// Begin or end to refuse new messages, for all queues.
    Drain {
        /// Whether to refuse.
        on: bool,
    },
}

/// When the server forgets a message it hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// When the client acknowledges it; until then it belongs to the connection, and it goes back
    /// to the front of the queue if the connection ends. Only over TCP.
    AtLeastOnce,
    /// As it is sent, like Redis' `LPOP`: it is lost if the reply does not arrive.
    AtMostOnce,
    /// When whoever knows the lease's token acknowledges it; it goes back to the front of the
    /// queue if nobody does so in time.
    Lease {
        /// How long the lease is.
        millis: u32,
    },
}

/// What somebody has who was handed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// This connection holds it.
    Reserved(MessageId),
    /// It is leased.
    Leased(Token),
}

impl From<Token> for Claim {
    fn from(token: Token) -> Self {
        Self::Leased(token)
    }
}

const SEND: u8 = 0x01;
const RECEIVE: u8 = 0x02;
const ACK: u8 = 0x03;
const RELEASE: u8 = 0x04;
const EXTEND: u8 = 0x05;
const PEEK: u8 = 0x06;
const STATS: u8 = 0x07;
const PURGE: u8 = 0x08;
const PAUSE: u8 = 0x09;
const RESUME: u8 = 0x0a;
const KICK: u8 = 0x0b;
const DRAIN: u8 = 0x0c;
const UNRESERVE: u8 = 0x0d;
const UNRESERVE_ALL: u8 = 0x0e;

impl<'a> Message<'a> for Request<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Send { .. } => SEND,
            Self::Receive { .. } => RECEIVE,
            Self::Ack { .. } => ACK,
            Self::Release { .. } => RELEASE,
            Self::Unreserve { .. } => UNRESERVE,
            Self::UnreserveAll => UNRESERVE_ALL,
            Self::Extend { .. } => EXTEND,
            Self::Peek { .. } => PEEK,
            Self::Stats => STATS,
            Self::Purge { .. } => PURGE,
            Self::Pause { .. } => PAUSE,
            Self::Resume { .. } => RESUME,
            Self::Kick { .. } => KICK,
            Self::Drain { .. } => DRAIN,
        }
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        match self {
            Self::Send {
                queue,
                delay_millis,
                body,
            } => {
                put_name(out, queue.as_str());
                out.extend_from_slice(&delay_millis.to_be_bytes());
                out.extend_from_slice(body);
            }
            Self::Receive {
                queue,
                wait_millis,
                delivery,
            } => {
                put_name(out, queue.as_str());
                out.extend_from_slice(&wait_millis.to_be_bytes());
                delivery.put(out);
            }
            Self::Ack { claim } | Self::Unreserve { claim } => claim.put(out),
            Self::Release {
                claim,
                delay_millis,
            } => {
                claim.put(out);
                out.extend_from_slice(&delay_millis.to_be_bytes());
            }
            Self::Extend {
                token,
                lease_millis,
            } => {
                out.extend_from_slice(token.as_bytes());
                out.extend_from_slice(&lease_millis.to_be_bytes());
            }
            Self::Peek { queue, after } => {
                put_name(out, queue.as_str());
                out.extend_from_slice(&after.to_be_bytes());
            }
            Self::UnreserveAll | Self::Stats => {}
            Self::Purge { queue }
            | Self::Pause { queue }
            | Self::Resume { queue }
            | Self::Kick { queue } => put_name(out, queue.as_str()),
            Self::Drain { on } => out.push(u8::from(*on)),
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        let request = match kind {
            SEND => {
                return Ok(Self::Send {
                    queue: queue(&mut fields)?,
                    delay_millis: duration(&mut fields, "delay")?,
                    body: fields.rest(),
                });
            }
            RECEIVE => Self::Receive {
                queue: queue(&mut fields)?,
                wait_millis: duration(&mut fields, "wait")?,
                delivery: Delivery::take(&mut fields)?,
            },
            ACK => Self::Ack {
                claim: Claim::take(&mut fields)?,
            },
            RELEASE => Self::Release {
                claim: Claim::take(&mut fields)?,
                delay_millis: duration(&mut fields, "delay")?,
            },
            UNRESERVE => Self::Unreserve {
                claim: Claim::take(&mut fields)?,
            },
            UNRESERVE_ALL => Self::UnreserveAll,
            EXTEND => Self::Extend {
                token: Uuid::from_bytes(fields.take("token")?),
                lease_millis: duration(&mut fields, "lease")?,
            },
            PEEK => Self::Peek {
                queue: queue(&mut fields)?,
                after: fields.u64("after")?,
            },
            STATS => Self::Stats,
            PURGE => Self::Purge {
                queue: queue(&mut fields)?,
            },
            PAUSE => Self::Pause {
                queue: queue(&mut fields)?,
            },
            RESUME => Self::Resume {
                queue: queue(&mut fields)?,
            },
            KICK => Self::Kick {
                queue: queue(&mut fields)?,
            },
            DRAIN => Self::Drain {
                on: fields.bool("on")?,
            },
            other => return Err(PayloadError::UnknownKind(other)),
        };
        fields.end()?;
        Ok(request)
    }
}

fn queue<'a>(fields: &mut Fields<'a>) -> Result<QueueName<'a>, PayloadError> {
    QueueName::new(fields.name("queue")?).map_err(|_| PayloadError::Invalid("queue"))
}

/// A time in milliseconds. What is longer than the longest is refused here, where every request
/// comes through, and never cut.
fn duration(fields: &mut Fields, field: &'static str) -> Result<u32, PayloadError> {
    let millis = fields.u32(field)?;
    match u128::from(millis) <= DURATION_MAX.as_millis() {
        true => Ok(millis),
        false => Err(PayloadError::DurationTooLong(field)),
    }
}

const AT_LEAST_ONCE: u8 = 0;
const AT_MOST_ONCE: u8 = 1;
const LEASE: u8 = 2;

impl Delivery {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::AtLeastOnce => out.push(AT_LEAST_ONCE),
            Self::AtMostOnce => out.push(AT_MOST_ONCE),
            Self::Lease { millis } => {
                out.push(LEASE);
                out.extend_from_slice(&millis.to_be_bytes());
            }
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, PayloadError> {
        match fields.u8("delivery")? {
            AT_LEAST_ONCE => Ok(Self::AtLeastOnce),
            AT_MOST_ONCE => Ok(Self::AtMostOnce),
            LEASE => Ok(Self::Lease {
                millis: duration(fields, "lease")?,
            }),
            _ => Err(PayloadError::Invalid("delivery")),
        }
    }
}

const RESERVED: u8 = 0;
const LEASED: u8 = 1;

impl Claim {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Reserved(id) => {
                out.push(RESERVED);
                out.extend_from_slice(&id.to_be_bytes());
            }
            Self::Leased(token) => {
                out.push(LEASED);
                out.extend_from_slice(token.as_bytes());
            }
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, PayloadError> {
        match fields.u8("claim")? {
            RESERVED => Ok(Self::Reserved(fields.u64("id")?)),
            LEASED => Ok(Self::Leased(Uuid::from_bytes(fields.take("token")?))),
            _ => Err(PayloadError::Invalid("claim")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::check::{self, same_message};

    same_message!(Request);

    const QUEUE: QueueName = QueueName::DEFAULT;

    #[test]
    fn requests_on_the_wire() {
        let send = |body| Request::Send {
            queue: QUEUE,
            delay_millis: 500,
            body,
        };
        check::message(send(b"hi"), b"\0\0\0\x0f\x01\x07default\0\0\x01\xf4hi");
        check::message(send(b""), b"\0\0\0\x0d\x01\x07default\0\0\x01\xf4");
        let receive = |delivery| Request::Receive {
            queue: QUEUE,
            wait_millis: 7,
            delivery,
        };
        check::message(
            receive(Delivery::AtLeastOnce),
            b"\0\0\0\x0e\x02\x07default\0\0\0\x07\0",
        );
        check::message(
            receive(Delivery::AtMostOnce),
            b"\0\0\0\x0e\x02\x07default\0\0\0\x07\x01",
        );
        check::message(
            receive(Delivery::Lease { millis: 0x0102 }),
            b"\0\0\0\x12\x02\x07default\0\0\0\x07\x02\0\0\x01\x02",
        );
    }

    #[test]
    fn requests_about_what_was_handed_out() {
        let held = Claim::Reserved(0x0102);
        let token = Uuid::from_bytes(*b"abcdefghijklmnop");
        let claim = Claim::Leased(token);
        check::message(
            Request::Ack { claim: held },
            b"\0\0\0\x0a\x03\0\0\0\0\0\0\0\x01\x02",
        );
        check::message(
            Request::Ack { claim },
            b"\0\0\0\x12\x03\x01abcdefghijklmnop",
        );
        let release = Request::Release {
            claim: held,
            delay_millis: 9,
        };
        check::message(release, b"\0\0\0\x0e\x04\0\0\0\0\0\0\0\x01\x02\0\0\0\x09");
        check::message(
            Request::Unreserve { claim: held },
            b"\0\0\0\x0a\x0d\0\0\0\0\0\0\0\x01\x02",
        );
        check::message(Request::UnreserveAll, b"\0\0\0\x01\x0e");
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
            after: 1,
        };
        check::message(peek, b"\0\0\0\x11\x06\x07default\0\0\0\0\0\0\0\x01");
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
    fn no_time_is_longer_than_the_longest() {
        let longest = DURATION_MAX.as_millis() as u32;
        let check = |payload: &[u8], kind, field| {
            let with = |millis: u32| [payload, &millis.to_be_bytes()].concat();
            Request::decode(kind, &with(longest)).unwrap();
            for millis in [longest + 1, u32::MAX] {
                let refused = Request::decode(kind, &with(millis)).unwrap_err();
                assert_eq!(refused, PayloadError::DurationTooLong(field));
                assert_eq!(refused.to_string(), format!("the {field} exceeds 49 days"));
            }
        };
        check(b"\x01q", SEND, "delay");
        check(b"\x01q\0\0\0\0\x02", RECEIVE, "lease");
        check(b"\0\0\0\0\0\0\0\0\x01", RELEASE, "delay");
        check(b"abcdefghijklmnop", EXTEND, "lease");
        let wait = [b"\x01q", &u32::MAX.to_be_bytes()[..], b"\0"].concat();
        let refused = Request::decode(RECEIVE, &wait).unwrap_err();
        assert_eq!(refused, PayloadError::DurationTooLong("wait"));
    }

    #[test]
    fn a_bad_name_is_refused() {
        let error = Request::decode(PURGE, b"\x03a/b").unwrap_err();
        assert_eq!(error, PayloadError::Invalid("queue"));
    }
}
