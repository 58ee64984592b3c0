//! HTTP/1.1 on a connection that is kept alive: the same request over and over, and each time
//! status 200, the right length and the right body.
//!
//! The first head on a connection is taken apart properly. The ones after it must be the same to
//! the byte, all but the value of `Date`: so each is checked whole, and cheaply.

use std::sync::Arc;

use proto::http::{BodyLength, ResponseHead};

use super::{Checked, Conversation, Wrong};

/// The length of every HTTP date, in bytes.
const DATE_BYTES: usize = b"Sun, 06 Nov 1994 08:49:37 GMT".len();

/// A connection to a web server.
pub struct HttpTalk {
    request: Arc<[u8]>,
    body: Arc<[u8]>,
    /// The first head, up to and with its empty line.
    head: Option<Head>,
}

struct Head {
    bytes: Vec<u8>,
    /// Where the value of `Date` starts.
    date: Option<usize>,
}

impl HttpTalk {
    /// Sends `request`, and expects a 200 with this body.
    pub fn new(request: Arc<[u8]>, body: Arc<[u8]>) -> Self {
        Self {
            request,
            body,
            head: None,
        }
    }

    /// The bytes of the head at the start of `input`, which must be as long as the body is.
    fn check_head(&mut self, input: &[u8]) -> Result<Option<usize>, Wrong> {
        if let Some(head) = &self.head {
            let bytes = head.bytes.len();
            match input.get(..bytes) {
                None => return Ok(None),
                Some(same) if head.is_same_but_for_date(same) => return Ok(Some(bytes)),
                // A server may spell its fields differently later on; then it is read anew.
                Some(_) => {}
            }
        }
        let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let bytes = &input[..end + 4];
        let wrong = || Wrong::new("HTTP/1.1 200, with the right length", input);
        let head = ResponseHead::read(&mut &bytes[..], "GET").map_err(|_| wrong())?;
        let length = BodyLength::Bytes(self.body.len() as u64);
        if head.status != 200 || head.body != length || !head.keep_alive {
            return Err(wrong());
        }
        self.head = Some(Head {
            bytes: bytes.to_vec(),
            date: find_date(bytes),
        });
        Ok(Some(bytes.len()))
    }
}

impl Head {
    fn is_same_but_for_date(&self, other: &[u8]) -> bool {
        match self.date {
            None => self.bytes == other,
            Some(at) => {
                let after = at + DATE_BYTES;
                self.bytes[..at] == other[..at] && self.bytes[after..] == other[after..]
            }
        }
    }
}

/// Where the value of the field `Date` starts.
fn find_date(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ndate: ";
    let is_name = |bytes: &[u8]| bytes.eq_ignore_ascii_case(NAME);
    let at = head.windows(NAME.len()).position(is_name)? + NAME.len();
    let value = head.get(at..at + DATE_BYTES)?;
    value.ends_with(b" GMT").then_some(at)
}

impl Conversation for HttpTalk {
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>) {
        for _ in 0..in_flight {
            out.extend_from_slice(&self.request);
        }
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        let Some(head_bytes) = self.check_head(input)? else {
            return Ok(None);
        };
        let bytes = head_bytes + self.body.len();
        match input.get(head_bytes..bytes) {
            None => Ok(None),
            Some(body) if body == &*self.body => Ok(Some(Checked::operation(bytes))),
            Some(body) => Err(Wrong::new("the right body", body)),
        }
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
        let mut talk = HttpTalk::new(Arc::from(*b"GET"), Arc::from(*b"hello"));
        let first = reply("Sat, 21 Nov 2026 07:13:57 GMT", 5, "hello");
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
