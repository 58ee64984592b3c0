//! A service that always gives the same reply to the same request: the history to a greeting, a web
//! server to a `GET`, the code server to a known UUID.
//!
//! The first reply is checked in full when the row starts. Each later one must be the same to the
//! byte, except for an HTTP `Date`: so each is checked whole, and cheaply.

use std::ops::Range;
use std::sync::Arc;

use super::{Checked, Conversation, Wrong};

/// The length of every HTTP date, in bytes.
const DATE_BYTES: usize = b"Sun, 06 Nov 1994 08:49:37 GMT".len();

/// The reply that every request must get.
#[derive(Debug, Clone)]
pub struct SameReply {
    bytes: Arc<[u8]>,
    /// Where the value of `Date` stands; empty without one.
    date: Range<usize>,
}

impl SameReply {
    /// The reply that came first.
    pub fn new(reply: &[u8]) -> Self {
        const NAME: &[u8] = b"\r\ndate: ";
        let is_name = |bytes: &[u8]| bytes.eq_ignore_ascii_case(NAME);
        let name = reply.windows(NAME.len()).position(is_name);
        let date = name.map_or(0..0, |at| at + NAME.len()..at + NAME.len() + DATE_BYTES);
        Self {
            bytes: reply.into(),
            date,
        }
    }
}

/// A connection that asks the same again and again.
pub struct FixedTalk {
    request: Arc<[u8]>,
    reply: SameReply,
}

impl FixedTalk {
    /// Sends `request`, and expects `reply` and nothing else.
    pub fn new(request: Arc<[u8]>, reply: SameReply) -> Self {
        Self { request, reply }
    }
}

impl Conversation for FixedTalk {
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>) {
        for _ in 0..in_flight {
            out.extend_from_slice(&self.request);
        }
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        let SameReply { bytes: reply, date } = &self.reply;
        let have = input.len().min(reply.len());
        let is_same = |part: Range<usize>| {
            let part = part.start.min(have)..part.end.min(have);
            input[part.clone()] == reply[part]
        };
        if !is_same(0..date.start) || !is_same(date.end..reply.len()) {
            return Err(Wrong::new("the reply that came first", input));
        }
        Ok((have == reply.len()).then(|| Checked::operation(have)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(date: &str, length: usize, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    #[test]
    fn all_but_the_date_must_be_right() {
        let first = reply("Sat, 21 Nov 2026 07:13:57 GMT", 5, "hello");
        let mut talk = FixedTalk::new(Arc::from(*b"GET"), SameReply::new(&first));
        for end in 0..first.len() {
            assert_eq!(talk.check(&first[..end]), Ok(None), "{end} bytes");
        }
        let whole = Ok(Some(Checked::operation(first.len())));
        assert_eq!(talk.check(&first), whole);
        let later = reply("Sat, 21 Nov 2026 07:13:58 GMT", 5, "hello");
        assert_eq!(talk.check(&later), whole);
        let other_body = reply("Sat, 21 Nov 2026 07:13:58 GMT", 5, "hallo");
        assert!(talk.check(&other_body).is_err());
        let other_length = reply("Sat, 21 Nov 2026 07:13:58 GMT", 6, "hello!");
        assert!(talk.check(&other_length).is_err());
        let not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello".repeat(3);
        assert!(talk.check(&not_found).is_err());
    }
}
