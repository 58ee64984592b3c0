//! What a connection of the load says, and what it must be told.
//!
//! The generator knows no protocol. It asks a conversation for the next requests, sends them, and
//! hands over what arrives; the conversation checks it to the last byte.

mod fixed;
mod follow;
mod queue;

use thiserror::Error;

pub use fixed::{FixedTalk, SameReply};
pub use follow::{END, FollowTalk};
pub use queue::{BODY, Dialect, QueueTalk, Work, begin_session};

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
    /// Its length, in bytes.
    pub bytes: usize,
    /// Whether it completes an operation. (beanstalkd's `reserve` is half of one.)
    pub completes: bool,
    /// Whether it is the last to its request. (One that follows a history gets many.)
    pub is_last: bool,
}

impl Checked {
    /// A reply of `bytes` bytes that completes an operation.
    pub fn operation(bytes: usize) -> Self {
        Self {
            bytes,
            completes: true,
            is_last: true,
        }
    }
}

/// A wrong reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {want}, got '{got}'")]
pub struct Wrong {
    want: &'static str,
    got: String,
}

impl Wrong {
    /// How much of a wrong reply is shown, in bytes.
    const SHOWN_BYTES: usize = 80;

    /// `want` says what would have been right; `got` is what came, of which the beginning is shown.
    pub fn new(want: &'static str, got: &[u8]) -> Self {
        let shown = &got[..got.len().min(Self::SHOWN_BYTES)];
        let got = shown.escape_ascii().to_string();
        Self { want, got }
    }
}
