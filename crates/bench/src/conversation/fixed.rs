//! A service whose reply to one request is always the same bytes: the greeting of the history.

use std::sync::Arc;

use super::{Checked, Conversation, Wrong};

/// A connection that asks the same over and over.
pub struct FixedTalk {
    request: Arc<[u8]>,
    reply: Arc<[u8]>,
}

impl FixedTalk {
    /// Sends `request`, and expects `reply` and nothing else.
    pub fn new(request: Arc<[u8]>, reply: Arc<[u8]>) -> Self {
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
        let have = input.len().min(self.reply.len());
        if input[..have] != self.reply[..have] {
            return Err(Wrong::new("the reply that came first", input));
        }
        Ok((have == self.reply.len()).then(|| Checked::operation(have)))
    }
}
