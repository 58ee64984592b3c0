//! Queues and messages as JSON, made while it is sent: what is sent of it takes no memory any more.

use std::io;
use std::sync::Arc;

use daemon::http::page::with_always;
use daemon::http::{Content, PieceStream, Pieces, Response};
use proto::http::Status;
use proto::queue::{MessageJson, Reply, Request};
use serde_json::json;

use super::asked::Asked;
use super::reply::{JSON, refused};
use super::{Denied, apply};
use crate::keys::Sender;
use crate::memory::Room;
use crate::queues::{Outcome, Pending, Queues, Stats};
use crate::replies::{queue_stats, reply};

/// About how much is made at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;

/// How many messages a list has unless told otherwise...
const MESSAGES_USUAL: usize = 100;

/// ...and at most.
const MESSAGES_MAX: usize = 1000;

/// The figures of all queues. `room` is what they take meanwhile.
pub(super) fn queues(stats: Box<Stats>, room: Room) -> Response {
    stream(QueuesJson {
        stats,
        next: 0,
        _room: room,
    })
}

/// Messages of one queue, in their order.
pub(super) fn messages(queues: Arc<Queues>, asked: Arc<Asked>) -> Response {
    match MessagesJson::new(queues, asked) {
        Ok(messages) => stream(messages),
        Err(denied) => refused(&denied),
    }
}

fn stream(pieces: impl Pieces + 'static) -> Response {
    let body = Content::Stream(PieceStream::new(pieces));
    with_always(Response {
        body,
        ..Response::new(Status::Ok, JSON, "")
    })
}

struct QueuesJson {
    stats: Box<Stats>,
    next: usize,
    _room: Room,
}

impl Pieces for QueuesJson {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.next == 0 {
            let totals = serde_json::to_string(&self.stats.totals)?;
            let start = totals.strip_suffix('}').unwrap_or_default();
            out.extend_from_slice(start.as_bytes());
            out.extend_from_slice(b",\"queues\":[");
        }
        let queues = &self.stats.queues;
        while out.len() < PIECE_BYTES {
            let Some(figures) = queues.get(self.next) else {
                out.extend_from_slice(b"\n]}\n");
                return Ok(false);
            };
            out.extend_from_slice(separator(self.next));
            serde_json::to_writer(&mut *out, &queue_stats(figures))?;
            self.next += 1;
        }
        Ok(true)
    }
}

struct MessagesJson {
    queues: Arc<Queues>,
    asked: Arc<Asked>,
    position: u64,
    made: usize,
    messages_max: usize,
    start_bytes: usize,
    /// The one that is to come next.
    first: Option<Outcome>,
}

impl MessagesJson {
    fn new(queues: Arc<Queues>, asked: Arc<Asked>) -> Result<Self, Denied> {
        let messages_max = asked.limit(MESSAGES_USUAL, MESSAGES_MAX)?;
        let start_bytes = asked.start_bytes;
        let mut messages = Self {
            position: 0,
            made: 0,
            messages_max,
            start_bytes,
            first: None,
            queues,
            asked,
        };
        messages.first = messages.peek(&messages.asked.request()?)?;
        Ok(messages)
    }

    fn peek(&self, request: &Request) -> Result<Option<Outcome>, Denied> {
        let mut room = Room::new(self.queues.memory());
        match apply(&self.queues, &Sender::default(), request, &mut room)? {
            Pending::Done(outcome @ Outcome::Peeked(..)) => Ok(Some(outcome)),
            Pending::Done(_) | Pending::Submitted(..) => Ok(None),
        }
    }

    /// The message behind the last one.
    fn peek_next(&self) -> io::Result<Option<Outcome>> {
        let next = self
            .asked
            .request()
            .map_err(Denied::from)
            .and_then(|request| {
                let Request::Peek { queue, state, .. } = request else {
                    return Ok(None);
                };
                let after = self.position;
                self.peek(&Request::Peek {
                    queue,
                    state,
                    after,
                })
            });
        next.map_err(|denied| io::Error::other(denied.to_string()))
    }
}

impl Pieces for MessagesJson {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.made == 0 {
            out.extend_from_slice(b"{\"messages\":[");
        }
        while out.len() < PIECE_BYTES {
            let message = match self.first.take() {
                Some(first) => Some(first),
                None if self.made == 0 => None,
                None => self.peek_next()?,
            };
            let is_full = self.made == self.messages_max;
            let Some(message) = message.filter(|_| !is_full) else {
                // A number of JSON may not be exact.
                let next = is_full.then(|| self.position.to_string());
                out.extend_from_slice(format!("\n],\"next\":{}}}\n", json!(next)).as_bytes());
                return Ok(false);
            };
            let peeked = reply(&message);
            if let Reply::Peeked { position, .. } = peeked {
                self.position = position;
            }
            out.extend_from_slice(separator(self.made));
            serde_json::to_writer(&mut *out, &MessageJson::of(&peeked, self.start_bytes))?;
            self.made += 1;
        }
        Ok(true)
    }
}

fn separator(before: usize) -> &'static [u8] {
    if before == 0 { b"\n" } else { b",\n" }
}
