//! What a connection says and what it must hear: one file a protocol.
//!
//! The generator knows nothing of protocols. It asks a conversation for the next requests, sends
//! them, and hands back what arrives; the conversation checks it to the last byte.

mod beanstalk;
mod fixed;
mod http;
mod messages;
mod queue;
mod redis;

use std::fmt;

pub use beanstalk::BeanstalkTalk;
pub use fixed::FixedTalk;
pub use http::HttpTalk;
pub use messages::{BODY_BYTES, Ledger, Messages};
pub use queue::QueueTalk;
pub use redis::RedisTalk;

/// One connection's requests and replies.
pub trait Conversation: Send {
    /// Appends the next `in_flight` requests. All replies to earlier ones have been checked.
    fn ask(&mut self, in_flight: usize, out: &mut Vec<u8>);

    /// Checks the reply at the start of `input`; `None` if it has not arrived whole.
    ///
    /// # Errors
    /// If it is not the reply to the oldest request that has none.
    fn check(&mut self, input: &[u8]) -> Result<Option<Checked>, Wrong>;

    /// Whether the connection may stop here, with all that it sent also received.
    fn may_stop(&self) -> bool {
        true
    }
}

/// A right reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// How many bytes of the input it took.
    pub bytes: usize,
    /// Whether an operation is finished with it. (beanstalkd's `reserve` is only half of one.)
    pub finishes: bool,
}

impl Checked {
    /// A reply of so many bytes that finishes an operation.
    pub fn operation(bytes: usize) -> Self {
        Self {
            bytes,
            finishes: true,
        }
    }
}

/// A wrong reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    want: &'static str,
    got: String,
}

impl Wrong {
    /// How much of a wrong reply is shown, in bytes.
    const SHOWN_BYTES: usize = 80;

    /// `want` says what would have been right; `got` is what came, and may be longer.
    pub fn new(want: &'static str, got: &[u8]) -> Self {
        let shown = &got[..got.len().min(Self::SHOWN_BYTES)];
        let got = shown.escape_ascii().to_string();
        Self { want, got }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got '{}'", self.want, self.got)
    }
}

/// What the connections of a queue do in turn. Each sends before it receives, so the queue is never
/// empty when somebody receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Sends as many as are in flight, then receives as many.
    SendAndReceive,
    /// Only sends.
    Fill,
    /// Only receives.
    Drain,
}

/// The first line of `input` without its `\r\n`, if it is there.
fn line(input: &[u8]) -> Option<&[u8]> {
    // The lines of Redis and beanstalkd are a few dozen bytes.
    let end = input.windows(2).position(|two| two == b"\r\n")?;
    Some(&input[..end])
}

/// The decimal number that `digits` are.
fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}
