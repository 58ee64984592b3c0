//! HTTP/1.1 (RFC 9110, RFC 9112), as much of it as an origin server and its client need.
//!
//! [`request`] reads and checks request heads, [`response`] writes and reads response heads,
//! [`body`] reads message bodies on either side,
//! [`basic`] says who asks, [`conditional`] judges a request's conditions, [`Range`] is the part of a file it is for,
//! [`multipart`] reads forms with files in them, [`digest`] says what a file's contents must be,
//! [`resumable`] how much of it has come, [`Status`] names the status codes. What is ambiguous is
//! refused rather than guessed at: two readings of one message are how requests are smuggled past a
//! proxy.

pub mod basic;
pub mod body;
pub mod conditional;
pub mod date;
pub mod digest;
mod head;
pub mod multipart;
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
pub use head::{FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX};
pub use range::Range;
pub use request::{Refusal, RequestHead};
pub use response::ResponseHead;
pub use status::Status;
