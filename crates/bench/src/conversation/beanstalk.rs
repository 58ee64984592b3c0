//! beanstalkd: `put`, and `reserve` with `delete`, which together do what a receive that forgets
//! does.
//!
//! The number of a job is only known from the reply to `reserve`, so its `delete` cannot be sent
//! with it: with 16 in flight, 16 `reserve`s are sent at once, and when all are answered, 16
//! `delete`s. The two count as one operation, whose time runs from the `reserve`.

use super::messages::{BODY_BYTES, Messages};
use super::{Checked, Conversation, Wrong, line, number};

/// Priority, delay and time to run (s) of every job, and its length (bytes).
const PUT: &[u8] = b"put 0 0 3600 100\r\n";

/// A connection to beanstalkd.
pub struct BeanstalkTalk {
    messages: Messages,
    step: Step,
    reserved: Vec<u64>,
}

enum Step {
    Put,
    Reserve,
    Delete,
}

impl BeanstalkTalk {
    /// A new connection's conversation.
    pub fn new(messages: Messages) -> Self {
        Self {
            messages,
            step: Step::Delete,
            reserved: Vec::new(),
        }
    }

    fn check_reserved(&mut self, line: &[u8], input: &[u8]) -> Result<Option<Checked>, Wrong> {
        let id = line
            .strip_prefix(b"RESERVED ")
            .and_then(|rest| rest.strip_suffix(b" 100"))
            .and_then(number)
            .ok_or_else(|| Wrong::new("RESERVED ID 100", input))?;
        let bytes = line.len() + 2;
        let Some(body) = input.get(bytes..bytes + BODY_BYTES + 2) else {
            return Ok(None);
        };
        let (body, end) = body.split_at(BODY_BYTES);
        if end != b"\r\n" {
            return Err(Wrong::new("the end of a job", end));
        }
        self.messages.check(body)?;
        self.reserved.push(id);
        Ok(Some(Checked {
            bytes: bytes + BODY_BYTES + 2,
            finishes: false,
        }))
    }
}

impl Conversation for BeanstalkTalk {
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>) {
        self.step = match self.step {
            Step::Put => Step::Reserve,
            Step::Reserve => Step::Delete,
            Step::Delete => Step::Put,
        };
        match self.step {
            Step::Put => {
                for _ in 0..in_flight {
                    out.extend_from_slice(PUT);
                    self.messages.put_next(out);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Step::Reserve => {
                for _ in 0..in_flight {
                    out.extend_from_slice(b"reserve\r\n");
                }
            }
            Step::Delete => {
                for id in self.reserved.drain(..) {
                    out.extend_from_slice(format!("delete {id}\r\n").as_bytes());
                }
            }
        }
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        let Some(line) = line(input) else {
            return Ok(None);
        };
        match self.step {
            Step::Put => match line.strip_prefix(b"INSERTED ").and_then(number) {
                Some(_) => Ok(Some(Checked::operation(line.len() + 2))),
                None => Err(Wrong::new("INSERTED ID", input)),
            },
            Step::Reserve => self.check_reserved(line, input),
            Step::Delete if line == b"DELETED" => Ok(Some(Checked::operation(line.len() + 2))),
            Step::Delete => Err(Wrong::new("DELETED", input)),
        }
    }

    fn may_stop(&self) -> bool {
        matches!(self.step, Step::Delete)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Ledger;
    use super::*;

    #[test]
    fn a_job_is_put_reserved_and_deleted() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = BeanstalkTalk::new(Messages::new(&ledger));
        let mut asked = Vec::new();
        talk.ask(1, &mut asked);
        let body = asked[PUT.len()..PUT.len() + BODY_BYTES].to_vec();
        assert_eq!(talk.check(b"INSERTED 7"), Ok(None));
        let put = Ok(Some(Checked::operation(12)));
        assert_eq!(talk.check(b"INSERTED 7\r\n"), put);
        assert!(talk.check(b"BURIED 7\r\n").is_err());

        talk.ask(1, &mut asked);
        let reply = [b"RESERVED 7 100\r\n", &body[..], b"\r\n"].concat();
        for end in 0..reply.len() {
            assert_eq!(talk.check(&reply[..end]), Ok(None), "{end} bytes");
        }
        let half = Checked {
            bytes: reply.len(),
            finishes: false,
        };
        assert_eq!(talk.check(&reply), Ok(Some(half)));
        assert!(!talk.may_stop());

        asked.clear();
        talk.ask(1, &mut asked);
        assert_eq!(asked, b"delete 7\r\n");
        let deleted = Ok(Some(Checked::operation(9)));
        assert_eq!(talk.check(b"DELETED\r\n"), deleted);
        assert!(talk.check(b"NOT_FOUND\r\n").is_err());
        assert!(talk.may_stop());
        drop(talk);
        ledger.check().unwrap();
    }
}
