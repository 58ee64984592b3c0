//! What goes over the wire: bytes to types and back.
//!
//! - [`frame`], [`queue`] and [`history`]: frames and the messages in them;
//! - [`login`]: the account that a connection acts for; [`register`]: a user name that nobody has;
//! - [`http`]: HTTP/1.1 heads and bodies; [`code`]: the JSON bodies of the code service;
//! - [`text`]: the text protocols that `nc` can speak.
//!
//! Nothing in here opens a socket, starts a thread, reads a file or asks what time it is. A parser
//! reads from any [`std::io::BufRead`], so that the servers, the clients and the tests share one
//! implementation of every format.

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
mod kind;
pub mod login;
mod message;
pub mod queue;
pub mod register;
pub mod text;

pub use error::{DecodeError, FrameError};
pub use error_reply::{ErrorCode, ErrorReply};
pub use fields::Name;
pub use interrupted::retry_interrupted;
pub use kind::{KINDS, kind_name};
pub use login::{Login, LoginReply};
pub use register::Register;
