//! Redis: `RPUSH` and `LPOP` on one list, in RESP.

use super::messages::{BODY_BYTES, Messages};
use super::{Checked, Conversation, Work, Wrong, line, number};

const RPUSH: &[u8] = b"*3\r\n$5\r\nRPUSH\r\n$7\r\ndefault\r\n$100\r\n";
const LPOP: &[u8] = b"*2\r\n$4\r\nLPOP\r\n$7\r\ndefault\r\n";

/// A connection to Redis.
pub struct RedisTalk {
    messages: Messages,
    work: Work,
    sending: bool,
}

impl RedisTalk {
    /// A new connection's conversation.
    pub fn new(messages: Messages, work: Work) -> Self {
        Self {
            messages,
            work,
            sending: false,
        }
    }
}

impl Conversation for RedisTalk {
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>) {
        self.sending = match self.work {
            Work::SendAndReceive => !self.sending,
            Work::Fill => true,
            Work::Drain => false,
        };
        for _ in 0..in_flight {
            if self.sending {
                out.extend_from_slice(RPUSH);
                self.messages.put_next(out);
                out.extend_from_slice(b"\r\n");
            } else {
                out.extend_from_slice(LPOP);
            }
        }
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        let Some(line) = line(input) else {
            return Ok(None);
        };
        let bytes = line.len() + 2;
        if self.sending {
            // The length of the list.
            match line.split_first() {
                Some((b':', digits)) if number(digits) > Some(0) => {}
                _ => return Err(Wrong::new("a length of the list", input)),
            }
            return Ok(Some(Checked::operation(bytes)));
        }
        if line != b"$100" {
            return Err(Wrong::new("a message of 100 bytes", input));
        }
        let Some(body) = input.get(bytes..bytes + BODY_BYTES + 2) else {
            return Ok(None);
        };
        let (body, end) = body.split_at(BODY_BYTES);
        if end != b"\r\n" {
            return Err(Wrong::new("the end of a message", end));
        }
        self.messages.check(body)?;
        Ok(Some(Checked::operation(bytes + BODY_BYTES + 2)))
    }

    fn may_stop(&self) -> bool {
        self.work != Work::SendAndReceive || !self.sending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Ledger;
    use super::*;

    #[test]
    fn replies_in_pieces_and_wrong_ones() {
        let ledger = Arc::new(Ledger::default());
        let mut talk = RedisTalk::new(Messages::new(&ledger), Work::SendAndReceive);
        let mut asked = Vec::new();
        talk.ask(1, &mut asked);
        let body = asked[RPUSH.len()..RPUSH.len() + BODY_BYTES].to_vec();
        assert_eq!(talk.check(b":1"), Ok(None));
        assert_eq!(talk.check(b":1\r\n"), Ok(Some(Checked::operation(4))));
        assert!(talk.check(b":0\r\n").is_err());
        assert!(talk.check(b"-ERR no\r\n").is_err());
        assert!(!talk.may_stop());
        talk.ask(1, &mut asked);
        let reply = [b"$100\r\n", &body[..], b"\r\n"].concat();
        for end in 0..reply.len() {
            assert_eq!(talk.check(&reply[..end]), Ok(None), "{end} bytes");
        }
        let whole = Checked::operation(reply.len());
        assert_eq!(talk.check(&reply), Ok(Some(whole)));
        assert!(talk.check(b"$-1\r\n").is_err());
        assert!(talk.may_stop());
    }
}
