//! The front door of every server: what all four have in common happens here, once.
//!
//! ```text
//!  accept ─▶ limits and eviction ─▶ [TLS] ─▶ which protocol? ─┬─▶ frames loop ─▶ FrameHandler
//!                                                            ├─▶ HTTP loop   ─▶ HttpHandler
//!                                                            └─▶ text        ─▶ TextHandler
//! ```
//!
//! A [`Daemon`] listens, gives every connection a named thread of its own, counts them, evicts one or
//! answers "busy" at the limit, and ends gracefully. A service implements one small trait for each
//! protocol that it speaks, and writes no loop.
//!
//! One blocking thread a connection is the whole model: what a connection does is written from top to
//! bottom, and it simply waits for what it needs. Only a reply that waits for the disk is a
//! [`PendingReply`], so that no thread is woken just to send it. A thread costs 192 KiB of address
//! space for its stack, and a few KiB of memory.

mod accept;
mod access;
mod accounts;
mod caller;
mod connection;
mod daemon;
mod datagrams;
mod descriptors;
mod entry;
mod error;
mod eviction;
mod exposure;
mod frames;
pub mod http;
mod inherited;
mod input;
mod listen;
mod listener;
mod metrics;
mod output;
mod peer;
mod pending_reply;
mod places;
mod protocol;
mod registry;
mod serve;
mod service_manager;
mod shares;
mod signals;
mod socket_file;
mod socket_options;
mod standby;
mod stream;
mod switch;
mod sync;
mod text;
mod threads;
mod tls;
mod tls_session;
mod visitors;
mod wakeup;
mod write_rate;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use caller::{Caller, Role};
pub use connection::{AbortHandle, Connection, Waited};
pub use daemon::{Daemon, Handle};
pub use datagrams::{DatagramCounter, DatagramService};
pub use descriptors::Besides;
pub use error::{AccountsError, StartError};
pub use exposure::Audience;
pub use frames::{FrameHandler, FrameSession, Next, put_error};
pub use http::HttpHandler;
pub use input::Deadline;
pub use metrics::page::{Figures, Page};
pub use metrics::{Asked, Outcome};
pub use peer::{Address, Peer, Source};
pub use pending_reply::{PendingReply, SharedBytes};
pub use protocol::Protocols;
pub use serve::{Serve, run};
pub use standby::Standby;
pub use switch::Switch;
pub use text::TextHandler;
pub use wakeup::Wakeup;

/// How many connections a server keeps open unless told otherwise (`--max-connections`).
pub const CONNECTIONS_DEFAULT: usize = 4096;

/// The most connections that a server can be told to keep. Each is a thread, and past about 16,000
/// threads (two memory mappings each, 65,530 allowed) the Rust runtime aborts the process.
pub const CONNECTIONS_MAX: usize = 15_000;

/// The stack of every thread, in bytes. One that overflows ends the process, so it is twice what was
/// measured in a debug build, where a function takes the most. The deepest is the check of a client
/// certificate behind six others, the longest chain that is looked at: 88 KiB. Any other handshake needs
/// at most 60 KiB (RSA keys of 4,096 bits, and client certificates), and everything that the services do
/// less than that: passwords, forms, pages, uploads.
pub const STACK_BYTES: usize = 192 * 1024;

/// Locks a mutex whether or not a thread panicked while it held it: one connection's panic must
/// not end the others. What is guarded this way is never left half-changed by code that can panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
