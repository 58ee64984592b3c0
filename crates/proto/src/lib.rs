//! What goes over the wire: bytes to types and back.
//!
//! Frames and the messages inside them ([`frame`], [`queue`], [`history`]), HTTP/1.1 heads and
//! bodies ([`http`]), the JSON bodies of the code service ([`code`]), and the plain-text dialects
//! that `nc` can speak ([`plain`]).
//!
//! Nothing in here opens a socket, starts a thread, reads a file or asks what time it is. What
//! reads does so from any [`std::io::BufRead`], so the servers, the clients and the tests share
//! one implementation of every format.

#![cfg_attr(test, allow(missing_docs))]

pub mod code;
pub mod digits;
pub mod error;
mod error_reply;
mod fields;
pub mod frame;
pub mod history;
pub mod http;
mod interrupted;
mod message;
pub mod queue;
pub mod text;

pub use error::{DecodeError, FrameError};
pub use error_reply::{ErrorCode, ErrorReply};
pub use interrupted::retry_interrupted;
