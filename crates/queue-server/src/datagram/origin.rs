//! Where a datagram comes from, and how long its reply may be. The address of another machine may be
//! forged, so it gets at most [`REPLY_BYTES_FACTOR`] times what was sent in its name.

use std::net::SocketAddr;

use proto::ErrorCode;
use proto::ErrorReply;
use proto::queue::{DATAGRAM_BYTES_MAX, REPLY_BYTES_FACTOR, Reply, RequestId, put_datagram};

use crate::error::QueueError;
use crate::queues::Outcome;
use crate::replies;

/// What stands in a reply in front of a message, in bytes...
const MESSAGE_HEAD_BYTES: usize = 59;

/// ...and in front of a sentence.
const SENTENCE_HEAD_BYTES: usize = 31;

const TOO_LONG: &str = "the reply is too long for a datagram; ask over TCP";
pub(super) const MESSAGE_TOO_LONG: &str =
    "the oldest message is too long for a datagram; receive it over TCP";

/// Where a framed request comes from, its id, and how long its reply may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    pub(super) id: RequestId,
    pub(super) reply_bytes_max: usize,
}

/// Whether a datagram comes from this machine. The kernel drops one from elsewhere that says so.
pub(super) fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

impl Origin {
    pub(super) fn new(peer: SocketAddr, id: RequestId, request_bytes: usize) -> Self {
        let reply_bytes_max = if is_local(peer) {
            DATAGRAM_BYTES_MAX
        } else {
            DATAGRAM_BYTES_MAX.min(REPLY_BYTES_FACTOR * request_bytes)
        };
        Self {
            peer,
            id,
            reply_bytes_max,
        }
    }

    fn wrapped(&self, reply: &Reply) -> Vec<u8> {
        let mut datagram = Vec::new();
        put_datagram(&mut datagram, self.id, reply);
        datagram
    }

    /// A refusal, with as much of the sentence as the reply may have.
    pub(super) fn refusal(&self, code: ErrorCode, sentence: &str) -> Vec<u8> {
        let bytes_max = self.reply_bytes_max.saturating_sub(SENTENCE_HEAD_BYTES);
        let mut bytes = bytes_max.min(sentence.len());
        while !sentence.is_char_boundary(bytes) {
            bytes -= 1;
        }
        let sentence = &sentence[..bytes];
        self.wrapped(&Reply::Error(ErrorReply { code, sentence }))
    }

    /// The longest body that fits into the reply, in bytes.
    pub(super) fn body_bytes_max(&self) -> usize {
        self.reply_bytes_max.saturating_sub(MESSAGE_HEAD_BYTES)
    }

    /// The reply to a request.
    pub(super) fn reply(&self, result: Result<&Outcome, &QueueError>) -> Vec<u8> {
        match result {
            Ok(outcome) => {
                let reply = self.wrapped(&replies::reply(outcome));
                if reply.len() <= self.reply_bytes_max {
                    reply
                } else {
                    self.too_long(reply.len(), TOO_LONG)
                }
            }
            Err(QueueError::TooLong { body_bytes }) => {
                self.too_long(MESSAGE_HEAD_BYTES + body_bytes, MESSAGE_TOO_LONG)
            }
            Err(error) => self.refusal(replies::code(error), &error.to_string()),
        }
    }

    /// What is said instead of a reply that would have this many bytes.
    fn too_long(&self, reply_bytes: usize, sentence: &str) -> Vec<u8> {
        match reply_bytes {
            ..=DATAGRAM_BYTES_MAX => {
                let bytes = reply_bytes.div_ceil(REPLY_BYTES_FACTOR);
                let sentence = format!("pad it to {bytes} bytes");
                self.refusal(ErrorCode::BadRequest, &sentence)
            }
            _ => self.refusal(ErrorCode::TooLarge, sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId {
        session: uuid::Uuid::nil(),
        number: 1,
    };

    #[test]
    fn a_request_is_local_or_from_another_machine() {
        let reply_bytes_max =
            |peer: &str| Origin::new(peer.parse().unwrap(), ID, 100).reply_bytes_max;
        for here in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(reply_bytes_max(here), DATAGRAM_BYTES_MAX, "{here}");
        }
        for afar in [
            "192.0.2.1:1",
            "[2001:db8::1]:1",
            "[::ffff:192.0.2.1]:1",
            "0.0.0.0:1",
        ] {
            assert_eq!(reply_bytes_max(afar), 300, "{afar}");
        }
        let long = Origin::new("192.0.2.1:1".parse().unwrap(), ID, 65_507);
        assert_eq!(long.reply_bytes_max, DATAGRAM_BYTES_MAX);
    }
}
