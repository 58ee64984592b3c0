//! Our queue: framed `Send`, and `Receive` that forgets, as Redis' `LPOP` does.

use proto::frame::{HEADER_BYTES, Message as _, starts_with_whole};
use proto::queue::{Delivery, QueueName, Reply, Request};

use super::messages::{BODY_BYTES, Messages};
use super::{Checked, Conversation, Work, Wrong};

/// A connection to our queue.
pub struct QueueTalk {
    messages: Messages,
    work: Work,
    sending: bool,
    /// A `Send` without its body, which is the last field.
    send: Vec<u8>,
    receive: Vec<u8>,
}

impl QueueTalk {
    /// A new connection's conversation.
    pub fn new(messages: Messages, work: Work) -> Self {
        let mut send = Vec::new();
        let mut receive = Vec::new();
        let queue = QueueName::DEFAULT;
        let body = &[0; BODY_BYTES];
        let request = Request::Send {
            queue,
            delay_millis: 0,
            body,
        };
        request.encode(&mut send);
        send.truncate(send.len() - BODY_BYTES);
        let request = Request::Receive {
            queue,
            wait_millis: 0,
            delivery: Delivery::AtMostOnce,
        };
        request.encode(&mut receive);
        Self {
            messages,
            work,
            sending: false,
            send,
            receive,
        }
    }
}

impl Conversation for QueueTalk {
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>) {
        self.sending = match self.work {
            Work::SendAndReceive => !self.sending,
            Work::Fill => true,
            Work::Drain => false,
        };
        for _ in 0..in_flight {
            if self.sending {
                out.extend_from_slice(&self.send);
                self.messages.put_next(out);
            } else {
                out.extend_from_slice(&self.receive);
            }
        }
    }

    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong> {
        if !starts_with_whole(input) {
            return Ok(None);
        }
        let length = u32::from_be_bytes([input[0], input[1], input[2], input[3]]) as usize;
        let bytes = 4 + length;
        let reply = match input.get(HEADER_BYTES..bytes) {
            Some(payload) => Reply::decode(input[4], payload),
            None => return Err(Wrong::new("a frame", input)),
        };
        match reply {
            Ok(Reply::Stored { .. }) if self.sending => {}
            Ok(Reply::Message { body, .. }) if !self.sending => self.messages.check(body)?,
            _ => return Err(Wrong::new("a queue's reply", input)),
        }
        Ok(Some(Checked::operation(bytes)))
    }

    fn may_stop(&self) -> bool {
        self.work != Work::SendAndReceive || !self.sending
    }
}
