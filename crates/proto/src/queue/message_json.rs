//! A message as JSON: what a server says of it over HTTP, and what a client shows.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::{MessageId, MessageState, Reply};

/// All that is known of a message that was looked at. What it does not have is null.
#[derive(Debug, Serialize)]
pub struct MessageJson<'a> {
    id: MessageId,
    queue: &'a str,
    state: MessageState,
    /// Text, because a program may read a number of JSON as a float, which has 53 bits.
    position: String,
    priority: u8,
    key: Option<&'a str>,
    attempts: u32,
    attempts_max: Option<u32>,
    age_millis: u64,
    delay_millis: Option<u32>,
    expiry_millis: Option<u32>,
    holder: Option<HolderJson<'a>>,
    reason: Option<&'a str>,
    body_bytes: usize,
    #[serde(flatten)]
    body: BodyJson<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum HolderJson<'a> {
    Connection { id: u64, peer: &'a str },
    Lease { lease_millis: u32 },
}

/// The start of a body; of one that is no UTF-8 in Base64, under another name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum BodyJson<'a> {
    Body(&'a str),
    BodyBase64(String),
}

impl<'a> MessageJson<'a> {
    /// What a reply says of a message, with at most this much of its body, in bytes. `None` if it is another reply.
    pub fn of(peeked: &Reply<'a>, body_bytes_max: usize) -> Option<Self> {
        let Reply::Peeked {
            queue,
            position,
            state,
            holder,
            id,
            attempts,
            age_millis,
            properties,
            reason,
            body,
        } = *peeked
        else {
            return None;
        };
        let number = |number: u32| (number > 0).then_some(number);
        Some(Self {
            id,
            queue: queue.as_str(),
            state,
            position: position.to_string(),
            priority: properties.priority.get(),
            key: properties.key.map(|key| key.as_str()),
            attempts,
            attempts_max: number(properties.attempts_max),
            age_millis,
            delay_millis: number(properties.delay_millis),
            expiry_millis: number(properties.expiry_millis),
            holder: match (state, holder.id) {
                (MessageState::Ready | MessageState::Delayed, _) => None,
                (MessageState::Reserved, 0) => Some(HolderJson::Lease {
                    lease_millis: holder.lease_millis,
                }),
                (MessageState::Reserved, id @ 1..) => Some(HolderJson::Connection {
                    id,
                    peer: holder.peer.0,
                }),
            },
            reason: (!reason.is_empty()).then_some(reason.as_str()),
            body_bytes: body.len(),
            body: BodyJson::of(body, body_bytes_max),
        })
    }
}

impl<'a> BodyJson<'a> {
    fn of(body: &'a [u8], bytes_max: usize) -> Self {
        let start = &body[..body.len().min(bytes_max)];
        let text = match str::from_utf8(start) {
            Ok(text) => Some(text),
            // A start may end in the middle of a character.
            Err(error) if error.error_len().is_none() && start.len() < body.len() => {
                str::from_utf8(&start[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        text.map_or_else(
            || Self::BodyBase64(BASE64_STANDARD.encode(start)),
            Self::Body,
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fields::Name;
    use crate::queue::{Holder, Priority, Properties, QueueName, Reason};

    fn peeked<'a>(holder: Holder<'a>, body: &'a [u8]) -> Reply<'a> {
        Reply::Peeked {
            queue: QueueName::DEFAULT,
            position: 1 << 63,
            state: MessageState::Reserved,
            holder,
            id: 7,
            attempts: 2,
            age_millis: 3000,
            properties: Properties {
                priority: Priority::new(9).unwrap(),
                expiry_millis: 5,
                ..Properties::default()
            },
            reason: Reason::new("exit status: 1: no"),
            body,
        }
    }

    fn json_of(reply: &Reply, bytes: usize) -> Value {
        json!(MessageJson::of(reply, bytes))
    }

    #[test]
    fn a_message_as_json_has_all_that_is_known_of_it() {
        let holder = Holder {
            id: 4,
            peer: Name("127.0.0.1:5"),
            ..Holder::default()
        };
        let want = json!({
            "id": 7,
            "queue": "default",
            "state": "reserved",
            "position": "9223372036854775808",
            "priority": 9,
            "key": null,
            "attempts": 2,
            "attempts_max": null,
            "age_millis": 3000,
            "delay_millis": null,
            "expiry_millis": 5,
            "holder": {"id": 4, "peer": "127.0.0.1:5"},
            "reason": "exit status: 1: no",
            "body_bytes": 9,
            "body": "two\nlines",
        });
        assert_eq!(json_of(&peeked(holder, b"two\nlines"), 9), want);
        let lease = Holder {
            lease_millis: 8,
            ..Holder::default()
        };
        let leased = json_of(&peeked(lease, b""), 9);
        assert_eq!(leased["holder"], json!({"lease_millis": 8}));
        assert_eq!(json_of(&Reply::Empty, 9), Value::Null);
    }

    #[test]
    fn the_start_of_a_body_ends_between_two_characters() {
        let start = |body: &[u8], bytes| {
            let json = json_of(&peeked(Holder::default(), body), bytes);
            (json["body"].clone(), json["body_base64"].clone())
        };
        assert_eq!(start("aä".as_bytes(), 9), ("aä".into(), Value::Null));
        assert_eq!(start("aä".as_bytes(), 2), ("a".into(), Value::Null));
        // There is no rest that it could be the start of.
        assert_eq!(start(b"a\xc3", 9), (Value::Null, "YcM=".into()));
        assert_eq!(start(b"\xff", 9), (Value::Null, "/w==".into()));
    }
}
