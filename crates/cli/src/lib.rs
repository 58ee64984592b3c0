//! What the edge of every binary needs, so that all eight behave alike: reading arguments
//! ([`args`]), exit codes and printing errors ([`exit`]), the logger ([`logger`]), text that is safe
//! to show ([`escape`]), standard input and output ([`stream`]), and, for the clients, reaching a
//! server ([`Endpoint`]).
//!
//! Data goes to standard output and nothing else does; everything for a person goes to standard
//! error.

pub mod args;
mod endpoint;
mod error;
pub mod escape;
pub mod exit;
mod limiter;
mod line_writer;
pub mod logger;
mod server_stream;
pub mod stream;

pub use args::{Parsed, UsageError, Verbosity, Words};
pub use endpoint::{Endpoint, is_timeout, pause, unbracketed};
pub use error::ClientError;
pub use exit::{App, Exit, Failure};
pub use line_writer::{LineWriter, Note};
pub use server_stream::ServerStream;
