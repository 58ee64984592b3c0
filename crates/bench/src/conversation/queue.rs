//! A queue: messages are sent, and as many are received. The same for our queue, Redis and
//! beanstalkd, which differ in their bytes alone.
//!
//! Our receive is at-most-once, as `LPOP` is. Of beanstalkd `reserve` and `delete` together are one
//! receive. A job's number is only known from the reply to `reserve`, so 16 in flight are 16
//! `reserve`s, and when all are answered, 16 `delete`s; the time runs from the `reserve`. The same holds
//! for ours where each message is acknowledged.

use proto::frame::{Message as _, split_first, starts_with_whole};
use proto::queue::{Claim, Delivery, Properties, QueueName, Reply, Request};
use uuid::Uuid;

use super::{Checked, Conversation, Wrong};

/// The body of every message. No line break in it, so that a server's log stays readable.
pub const BODY: &[u8; 100] =
    b"The quick brown fox jumps over the lazy dog, again and again, and the dog sleeps on, here in the sun";

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Ours, in frames.
    Quartet,
    /// The same, each connection in a session of its own.
    Session,
    /// The same as the first, each message acknowledged when it has arrived.
    Acked,
    /// Ours before it knew sessions, keys and priorities: for a comparison with such a build.
    Before,
    /// Redis: `RPUSH` and `LPOP` on one list.
    Redis,
    /// beanstalkd.
    Beanstalkd,
}

/// What a connection does in turn. Each sends before it receives, so the queue is never empty when
/// a connection receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Sends as many as are in flight, then receives as many.
    SendAndReceive,
    /// Only sends.
    Fill,
    /// Only receives.
    Receive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Send,
    Receive,
    Delete,
}

impl Dialect {
    fn steps(self, work: Work) -> &'static [Step] {
        match (work, self) {
            (Work::Fill, _) => &[Step::Send],
            (Work::Receive, _) => &[Step::Receive],
            (Work::SendAndReceive, Self::Beanstalkd | Self::Acked) => {
                &[Step::Send, Step::Receive, Step::Delete]
            }
            (Work::SendAndReceive, _) => &[Step::Send, Step::Receive],
        }
    }

    fn send(self) -> Vec<u8> {
        match self {
            Self::Redis => {
                let head = b"*3\r\n$5\r\nRPUSH\r\n$7\r\ndefault\r\n$100\r\n";
                [head, &BODY[..], b"\r\n"].concat()
            }
            // Priority, delay and time to run (s), and the length (bytes).
            Self::Beanstalkd => [b"put 0 0 3600 100\r\n", &BODY[..], b"\r\n"].concat(),
            Self::Quartet | Self::Session | Self::Acked => encoded(&Request::Send {
                queue: QueueName::DEFAULT,
                properties: Properties::default(),
                body: BODY,
            }),
            Self::Before => [b"\0\0\0\x71\x01\x07default\0\0\0\0", &BODY[..]].concat(),
        }
    }

    fn receive(self) -> Vec<u8> {
        match self {
            Self::Redis => b"*2\r\n$4\r\nLPOP\r\n$7\r\ndefault\r\n".to_vec(),
            Self::Beanstalkd => b"reserve\r\n".to_vec(),
            Self::Quartet | Self::Session => encoded(&receive(Delivery::AtMostOnce)),
            Self::Acked => encoded(&receive(Delivery::AtLeastOnce)),
            Self::Before => b"\0\0\0\x0e\x02\x07default\0\0\0\0\x01".to_vec(),
        }
    }
}

fn receive(delivery: Delivery) -> Request<'static> {
    Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis: 0,
        delivery,
    }
}

/// What begins a session.
pub fn begin_session() -> Request<'static> {
    Request::Session {
        id: Uuid::new_v4(),
        next: 0,
    }
}

fn encoded(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

/// A connection to a queue.
pub struct QueueTalk {
    dialect: Dialect,
    steps: &'static [Step],
    /// The step that is under way.
    step: usize,
    /// Whether it has its session, if it wants one.
    has_session: bool,
    send: Vec<u8>,
    receive: Vec<u8>,
    /// What is reserved for this connection: jobs of beanstalkd, and messages that it acknowledges.
    reserved: Vec<u64>,
}

impl QueueTalk {
    /// A new connection's conversation.
    pub fn new(dialect: Dialect, work: Work) -> Self {
        let steps = dialect.steps(work);
        Self {
            dialect,
            steps,
            step: steps.len() - 1,
            has_session: dialect != Dialect::Session,
            send: dialect.send(),
            receive: dialect.receive(),
            reserved: Vec::new(),
        }
    }

    fn check_frame(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        if !starts_with_whole(input) {
            return Ok(None);
        }
        let wrong = || Wrong::new("a queue's reply", input);
        let (kind, payload, rest) = split_first(input).map_err(|_| wrong())?;
        let bytes = input.len() - rest.len();
        let reply = Reply::decode(kind, payload).map_err(|_| wrong())?;
        match (self.steps[self.step], reply) {
            (_, Reply::Session { .. }) if !self.has_session => {
                self.has_session = true;
                return Ok(Some(Checked {
                    bytes,
                    completes: false,
                    is_last: false,
                }));
            }
            (Step::Send, Reply::Stored { .. }) if self.has_session => {}
            (Step::Receive, Reply::Message { id, body, .. }) if body == BODY => {
                if self.dialect == Dialect::Acked {
                    self.reserved.push(id);
                    return Ok(Some(Checked {
                        bytes,
                        completes: false,
                        is_last: true,
                    }));
                }
            }
            (Step::Delete, Reply::Done { messages: 1 }) => {}
            // The body began a byte earlier.
            (Step::Receive, Reply::Message { .. })
                if self.dialect == Dialect::Before && payload.ends_with(BODY) => {}
            (Step::Send | Step::Receive | Step::Delete, _) => return Err(wrong()),
        }
        Ok(Some(Checked::operation(bytes)))
    }

    fn check_line(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        // The lines of Redis and beanstalkd are a few dozen bytes.
        let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let (line, bytes) = (&input[..end], end + 2);
        let is_beanstalkd = self.dialect == Dialect::Beanstalkd;
        match self.steps[self.step] {
            Step::Send => {
                let (prefix, want): (&[u8], _) = match is_beanstalkd {
                    true => (b"INSERTED ", "INSERTED ID"),
                    // The length of the list.
                    false => (b":", "a length of the list"),
                };
                match line.strip_prefix(prefix).and_then(number) {
                    Some(1..) => Ok(Some(Checked::operation(bytes))),
                    Some(0) | None => Err(Wrong::new(want, input)),
                }
            }
            Step::Receive => {
                if is_beanstalkd {
                    let id = line.strip_prefix(b"RESERVED ");
                    let id = id.and_then(|rest| rest.strip_suffix(b" 100"));
                    let id = id.and_then(number);
                    let id = id.ok_or_else(|| Wrong::new("RESERVED ID 100", input))?;
                    return self.check_body(input, bytes, Some(id));
                }
                match line {
                    b"$100" => self.check_body(input, bytes, None),
                    _ => Err(Wrong::new("a message of 100 bytes", input)),
                }
            }
            Step::Delete if line == b"DELETED" => Ok(Some(Checked::operation(bytes))),
            Step::Delete => Err(Wrong::new("DELETED", input)),
        }
    }

    /// Checks the body behind a line, which ends at `start`.
    fn check_body(
        &mut self,
        input: &[u8],
        start: usize,
        reserved: Option<u64>,
    ) -> Result<Option<Checked>, Wrong> {
        let bytes = start + BODY.len() + 2;
        let Some(body) = input.get(start..bytes) else {
            return Ok(None);
        };
        if body.strip_suffix(b"\r\n") != Some(BODY) {
            return Err(Wrong::new("the message that was sent", body));
        }
        self.reserved.extend(reserved);
        Ok(Some(Checked {
            bytes,
            completes: reserved.is_none(),
            is_last: true,
        }))
    }
}

impl Conversation for QueueTalk {
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>) {
        if !self.has_session {
            begin_session().encode(out);
        }
        self.step = (self.step + 1) % self.steps.len();
        match self.steps[self.step] {
            Step::Send => (0..in_flight).for_each(|_| out.extend_from_slice(&self.send)),
            Step::Receive => (0..in_flight).for_each(|_| out.extend_from_slice(&self.receive)),
            Step::Delete => {
                for id in self.reserved.drain(..) {
                    match self.dialect {
                        Dialect::Beanstalkd => {
                            out.extend_from_slice(format!("delete {id}\r\n").as_bytes());
                        }
                        Dialect::Acked => {
                            let claim = Claim::Reserved(id);
                            Request::Ack { claim }.encode(out);
                        }
                        // None of these has anything reserved.
                        Dialect::Quartet | Dialect::Session | Dialect::Before | Dialect::Redis => {}
                    }
                }
            }
        }
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        match self.dialect {
            Dialect::Quartet | Dialect::Session | Dialect::Acked | Dialect::Before => {
                self.check_frame(input)
            }
            Dialect::Redis | Dialect::Beanstalkd => self.check_line(input),
        }
    }

    fn may_stop(&self) -> bool {
        self.step == self.steps.len() - 1
    }
}

/// The decimal number that `digits` are.
fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(dialect: Dialect) -> QueueTalk {
        QueueTalk::new(dialect, Work::SendAndReceive)
    }

    /// What it sends next.
    fn ask(talk: &mut QueueTalk) -> Vec<u8> {
        let mut asked = Vec::new();
        talk.ask(1, &mut asked);
        asked
    }

    #[track_caller]
    fn check_prefixes(talk: &mut QueueTalk, reply: &[u8]) {
        for end in 0..reply.len() {
            assert_eq!(talk.check(&reply[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn replies_in_pieces_and_wrong_ones() {
        let mut talk = start(Dialect::Redis);
        assert!(ask(&mut talk).ends_with(&[&BODY[..], b"\r\n"].concat()));
        assert_eq!(talk.check(b":1"), Ok(None));
        assert_eq!(talk.check(b":1\r\n"), Ok(Some(Checked::operation(4))));
        assert!(talk.check(b":0\r\n").is_err());
        assert!(talk.check(b"-ERR no\r\n").is_err());
        assert!(!talk.may_stop());
        ask(&mut talk);
        let reply = [b"$100\r\n", &BODY[..], b"\r\n"].concat();
        check_prefixes(&mut talk, &reply);
        let whole = Checked::operation(reply.len());
        assert_eq!(talk.check(&reply), Ok(Some(whole)));
        assert!(talk.check(b"$-1\r\n").is_err());
        let damaged = reply.to_ascii_uppercase();
        assert!(talk.check(&damaged).is_err());
        assert!(talk.may_stop());
    }

    #[test]
    fn a_session_is_begun_once_and_its_reply_is_no_operation() {
        let mut talk = start(Dialect::Session);
        let begun = ask(&mut talk);
        let send = Dialect::Session.send();
        assert!(begun.len() > send.len() && begun.ends_with(&send));
        let frame = |reply: Reply| {
            let mut frame = Vec::new();
            reply.encode(&mut frame);
            frame
        };
        let [done, stored] = [Reply::Session { epoch: 0 }, Reply::Stored { id: 7 }].map(frame);
        assert!(talk.check(&stored).is_err());
        check_prefixes(&mut talk, &done);
        let reply = talk.check(&[&done[..], &stored].concat()).unwrap().unwrap();
        assert_eq!((reply.bytes, reply.is_last), (done.len(), false));
        assert!(!reply.completes && talk.check(&done).is_err());
        let whole = Ok(Some(Checked::operation(stored.len())));
        assert_eq!(talk.check(&stored), whole);
        assert_eq!(ask(&mut talk), Dialect::Session.receive());
    }

    #[test]
    fn a_message_is_sent_received_and_acknowledged() {
        let mut talk = start(Dialect::Acked);
        let body = &BODY[..];
        let replies = [
            Reply::Stored { id: 7 },
            Reply::Message {
                id: 7,
                queue_index: 0,
                attempt: 1,
                body,
            },
            Reply::Done { messages: 1 },
        ];
        for (reply, completes) in replies.into_iter().zip([true, false, true]) {
            assert!(ask(&mut talk).len() > 10);
            let mut frame = Vec::new();
            reply.encode(&mut frame);
            check_prefixes(&mut talk, &frame);
            let checked = talk.check(&frame).unwrap().unwrap();
            assert_eq!((checked.completes, checked.is_last), (completes, true));
        }
        assert!(talk.may_stop());
    }

    #[test]
    fn a_job_is_put_reserved_and_deleted() {
        let mut talk = start(Dialect::Beanstalkd);
        assert!(ask(&mut talk).ends_with(&[&BODY[..], b"\r\n"].concat()));
        assert_eq!(talk.check(b"INSERTED 7"), Ok(None));
        let put = Ok(Some(Checked::operation(12)));
        assert_eq!(talk.check(b"INSERTED 7\r\n"), put);
        assert!(talk.check(b"BURIED 7\r\n").is_err());

        ask(&mut talk);
        let reply = [b"RESERVED 7 100\r\n", &BODY[..], b"\r\n"].concat();
        check_prefixes(&mut talk, &reply);
        let half = Checked {
            bytes: reply.len(),
            completes: false,
            is_last: true,
        };
        assert_eq!(talk.check(&reply), Ok(Some(half)));
        assert!(!talk.may_stop());

        assert_eq!(ask(&mut talk), b"delete 7\r\n");
        let deleted = Ok(Some(Checked::operation(9)));
        assert_eq!(talk.check(b"DELETED\r\n"), deleted);
        assert!(talk.check(b"NOT_FOUND\r\n").is_err());
        assert!(talk.may_stop());
    }
}
