//! What the queue answers.

use std::borrow::Cow;

use serde::Serialize;
use uuid::Uuid;

use super::{MessageId, QueueName, Token};
use crate::error::ErrorReply;
use crate::fields::{Fields, PayloadError, put_name};
use crate::frame::{self, Message};

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The message is in the queue.
    Stored {
        /// The message's id.
        id: MessageId,
    },
    /// The oldest message.
    Message {
        /// The message's id.
        id: MessageId,
        /// How often it was handed out, this time included.
        attempt: u32,
        /// What was sent.
        body: &'a [u8],
    },
    /// The oldest message, leased.
    Leased {
        /// What to acknowledge.
        token: Token,
        /// The message's id.
        id: MessageId,
        /// How often it was handed out, this time included.
        attempt: u32,
        /// What was sent.
        body: &'a [u8],
    },
    /// There is no message in the queue, or none behind the place that was asked for.
    Empty,
    /// What was asked for is done.
    Done {
        /// To how many messages. To a release: 1 if the message is in its queue again, 0 if it
        /// was handed out too often and is among the dead now.
        messages: u64,
    },
    /// A message that stays where it is.
    Peeked {
        /// Where it is; to ask for the next one.
        place: u64,
        /// The message's id.
        id: MessageId,
        /// How often it was handed out.
        attempts: u32,
        /// What was sent.
        body: &'a [u8],
    },
    /// How the server and its queues are.
    Stats {
        /// Over all queues, since the server started.
        totals: Totals,
        /// One by one, by name.
        queues: Vec<QueueStats<'a>>,
    },
    /// The request was refused.
    Error(ErrorReply<'a>),
}

/// Counts over all queues since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Messages put in.
    pub sent: u64,
    /// Messages handed out, each as often as it was.
    pub received: u64,
    /// Messages forgotten because they were acknowledged, or forgotten as they were sent.
    pub acked: u64,
    /// Messages given back on purpose.
    pub released: u64,
    /// Messages given back because a connection ended or a lease ran out.
    pub returned: u64,
    /// Messages moved to a `.dead` queue.
    pub died: u64,
    /// What all messages take at the moment, in bytes of memory...
    pub memory_bytes: u64,
    /// ...and what they may take.
    pub memory_bytes_max: u64,
    /// How long the server has been running, in milliseconds.
    pub uptime_millis: u64,
    /// Whether new messages are refused.
    pub is_draining: bool,
}

/// One queue at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueStats<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Messages that can be received.
    pub ready: u64,
    /// Messages that somebody holds or has leased.
    pub held: u64,
    /// Messages that are kept back.
    pub delayed: u64,
    /// Messages in the queue of its dead.
    pub dead: u64,
    /// Receivers that wait for a message.
    pub waiting: u64,
    /// How long the message at the front has been in the queue, in milliseconds; 0 if there is
    /// none.
    pub oldest_millis: u64,
    /// Whether it hands out nothing.
    pub is_paused: bool,
}

const STORED: u8 = 0x41;
const MESSAGE: u8 = 0x42;
const LEASED: u8 = 0x43;
const EMPTY: u8 = 0x44;
const DONE: u8 = 0x45;
const PEEKED: u8 = 0x46;
const STATS: u8 = 0x47;

impl<'a> Message<'a> for Reply<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Stored { .. } => STORED,
            Self::Message { .. } => MESSAGE,
            Self::Leased { .. } => LEASED,
            Self::Empty => EMPTY,
            Self::Done { .. } => DONE,
            Self::Peeked { .. } => PEEKED,
            Self::Stats { .. } => STATS,
            Self::Error(_) => ErrorReply::KIND,
        }
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        self.put_head(out);
        out.extend_from_slice(self.body());
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        let reply = match kind {
            STORED => Self::Stored {
                id: fields.u64("id")?,
            },
            MESSAGE => {
                return Ok(Self::Message {
                    id: fields.u64("id")?,
                    attempt: fields.u32("attempt")?,
                    body: fields.rest(),
                });
            }
            LEASED => {
                return Ok(Self::Leased {
                    token: Uuid::from_bytes(fields.take("token")?),
                    id: fields.u64("id")?,
                    attempt: fields.u32("attempt")?,
                    body: fields.rest(),
                });
            }
            EMPTY => Self::Empty,
            DONE => Self::Done {
                messages: fields.u64("messages")?,
            },
            PEEKED => {
                return Ok(Self::Peeked {
                    place: fields.u64("place")?,
                    id: fields.u64("id")?,
                    attempts: fields.u32("attempts")?,
                    body: fields.rest(),
                });
            }
            STATS => {
                let totals = Totals::take(&mut fields)?;
                let mut queues = Vec::new();
                while !fields.is_empty() {
                    queues.push(QueueStats::take(&mut fields)?);
                }
                Self::Stats { totals, queues }
            }
            ErrorReply::KIND => return Ok(Self::Error(ErrorReply::decode(fields)?)),
            other => return Err(PayloadError::UnknownKind(other)),
        };
        fields.end()?;
        Ok(reply)
    }
}

impl Reply<'_> {
    /// Appends the message as one frame, but without the body at its end: for who sends that behind it,
    /// without a copy.
    pub fn encode_before_body(&self, out: &mut Vec<u8>) {
        frame::put_before(out, self.kind(), self.body().len(), |out| {
            self.put_head(out)
        });
    }

    fn body(&self) -> &[u8] {
        match self {
            Self::Message { body, .. } | Self::Leased { body, .. } | Self::Peeked { body, .. } => {
                body
            }
            Self::Stored { .. }
            | Self::Empty
            | Self::Done { .. }
            | Self::Stats { .. }
            | Self::Error(_) => &[],
        }
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored { id } => out.extend_from_slice(&id.to_be_bytes()),
            Self::Message { id, attempt, .. } => {
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&attempt.to_be_bytes());
            }
            Self::Leased {
                token, id, attempt, ..
            } => {
                out.extend_from_slice(token.as_bytes());
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&attempt.to_be_bytes());
            }
            Self::Empty => {}
            Self::Done { messages } => out.extend_from_slice(&messages.to_be_bytes()),
            Self::Peeked {
                place,
                id,
                attempts,
                ..
            } => {
                out.extend_from_slice(&place.to_be_bytes());
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&attempts.to_be_bytes());
            }
            Self::Stats { totals, queues } => {
                totals.put(out);
                for queue in queues {
                    queue.put(out);
                }
            }
            Self::Error(error) => error.put_fields(out),
        }
    }
}

impl Totals {
    fn put(&self, out: &mut Vec<u8>) {
        for count in [
            self.sent,
            self.received,
            self.acked,
            self.released,
            self.returned,
            self.died,
            self.memory_bytes,
            self.memory_bytes_max,
            self.uptime_millis,
        ] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.push(u8::from(self.is_draining));
    }

    fn take(fields: &mut Fields) -> Result<Self, PayloadError> {
        Ok(Self {
            sent: fields.u64("sent")?,
            received: fields.u64("received")?,
            acked: fields.u64("acked")?,
            released: fields.u64("released")?,
            returned: fields.u64("returned")?,
            died: fields.u64("died")?,
            memory_bytes: fields.u64("memory")?,
            memory_bytes_max: fields.u64("memory limit")?,
            uptime_millis: fields.u64("uptime")?,
            is_draining: fields.bool("draining")?,
        })
    }
}

impl<'a> QueueStats<'a> {
    /// The same, with a name of its own.
    pub fn into_owned(self) -> QueueStats<'static> {
        QueueStats {
            name: Cow::Owned(self.name.into_owned()),
            ..self
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_name(out, &self.name);
        for count in [
            self.ready,
            self.held,
            self.delayed,
            self.dead,
            self.waiting,
            self.oldest_millis,
        ] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.push(u8::from(self.is_paused));
    }

    fn take(fields: &mut Fields<'a>) -> Result<Self, PayloadError> {
        Ok(Self {
            name: queue_name(fields.name("name")?)?.into(),
            ready: fields.u64("ready")?,
            held: fields.u64("held")?,
            delayed: fields.u64("delayed")?,
            dead: fields.u64("dead")?,
            waiting: fields.u64("waiting")?,
            oldest_millis: fields.u64("oldest")?,
            is_paused: fields.bool("paused")?,
        })
    }
}

/// A name, if it is that of a queue: people see it, and programs put it into their next request.
fn queue_name(name: &str) -> Result<&str, PayloadError> {
    let name = QueueName::new(name).map_err(|_| PayloadError::Invalid("queue name"))?;
    Ok(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;
    use crate::frame::check::{self, same_message};

    same_message!(Reply);

    #[test]
    fn replies_on_the_wire() {
        let id = 0x0102;
        check::message(Reply::Stored { id }, b"\0\0\0\x09\x41\0\0\0\0\0\0\x01\x02");
        let message = Reply::Message {
            id,
            attempt: 3,
            body: b"hi",
        };
        check::message(
            message.clone(),
            b"\0\0\0\x0f\x42\0\0\0\0\0\0\x01\x02\0\0\0\x03hi",
        );
        let leased = Reply::Leased {
            token: Uuid::from_bytes(*b"abcdefghijklmnop"),
            id,
            attempt: 3,
            body: b"hi",
        };
        check::message(
            leased,
            b"\0\0\0\x1f\x43abcdefghijklmnop\0\0\0\0\0\0\x01\x02\0\0\0\x03hi",
        );
        check::message(Reply::Empty, b"\0\0\0\x01\x44");
        check::message(
            Reply::Done { messages: 2 },
            b"\0\0\0\x09\x45\0\0\0\0\0\0\0\x02",
        );
        let peeked = Reply::Peeked {
            place: 7,
            id,
            attempts: 0,
            body: b"",
        };
        check::message(
            peeked,
            b"\0\0\0\x15\x46\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\x01\x02\0\0\0\0",
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
            held: 4,
            delayed: 5,
            dead: 6,
            waiting: 7,
            oldest_millis: 8,
            is_paused: false,
        };
        let mut want = b"\0\0\0\x7d\x47".to_vec();
        for count in [1_u64, 0, 0, 0, 0, 0, 0, 0, 2] {
            want.extend(count.to_be_bytes());
        }
        want.extend(b"\x01\x01q");
        for count in [3_u64, 4, 5, 6, 7, 8] {
            want.extend(count.to_be_bytes());
        }
        want.push(0);
        let queues = vec![queue];
        check::message(Reply::Stats { totals, queues }, &want);
    }
}
