//! HTTP/1.1 (RFC 9110, RFC 9112), as much of it as an origin server and its client need.
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`], [`response`] | heads: parsing, checking and writing them |
//! | [`FirstLine`] | whether a stream is HTTP at all |
//! | [`body`] | where a body ends: a length, chunks, or the end of the connection |
//! | [`Status`], [`date`] | status codes and dates |
//! | [`Range`], [`conditional`] | parts of a file, and "only if it has changed" |
//! | [`basic`] | user and password |
//! | [`digest`] | the checksum of a file in a field |
//! | [`multipart`] | HTML forms with files in them |
//! | [`negotiation`] | what a client would rather have |
//! | [`namespace`] | where a file is renamed to, and what may be lost |
//! | [`resumable`] | uploads that continue where they were cut off |
//!
//! An ambiguous message is refused, never guessed at: two readings of one message are how requests are
//! smuggled past a proxy (RFC 9112 section 11.2).

pub mod basic;
pub mod body;
pub mod conditional;
pub mod date;
pub mod digest;
mod first_line;
mod head;
pub mod multipart;
pub mod namespace;
pub mod negotiation;
mod parameters;
mod range;
pub mod request;
pub mod response;
pub mod resumable;
mod status;
mod target;
#[cfg(test)]
mod tests;

pub use body::{Body, BodyError, BodyLength};
pub use first_line::{FIRST_LINE_BYTES_MAX, FirstLine, is_http};
pub use head::{FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX};
pub use range::Range;
pub use request::{Refusal, RequestHead};
pub use response::ResponseHead;
pub use status::Status;
pub use target::resolve;
