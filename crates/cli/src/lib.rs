//! The edge of every program, so that all eight behave alike: the one function that every `main` is
//! ([`App`]), arguments ([`args`]), exit codes and how an error is shown ([`exit`]), the logger, text
//! that is safe to show ([`escape`]), standard input and output ([`stream`]), and, for the clients,
//! how a server is reached ([`Endpoint`]). README.md beside `src` explains it.
//!
//! Data goes to standard output and nothing else does; everything for a person goes to standard
//! error.

mod account;
mod address;
mod app;
pub mod args;
mod channel;
mod endpoint;
mod error;
pub mod escape;
pub mod exit;
mod limiter;
mod line_writer;
mod logger;
mod losses;
mod options;
mod secret_file;
mod security;
mod server_options;
mod server_stream;
mod socket;
pub mod stream;
pub mod tls;
mod tls_error;

pub use account::{Account, AccountSource};
pub use address::{Address, unbracketed};
pub use app::App;
pub use args::{Args, Parsed, Verbosity, Words};
pub use channel::Channel;
pub use endpoint::{Endpoint, HOST_DEFAULT, pause};
pub use error::{ClientError, FileError, UsageError};
pub use exit::{Exit, Failure};
pub use line_writer::{LineWriter, Note};
pub use losses::Losses;
pub use options::ClientOptions;
pub use secret_file::{SecretFile, check_not_served};
pub use security::Security;
pub use server_options::{Auth, Bind, ServerOptions, ServerTls};
pub use server_stream::{ServerStream, is_timeout};
pub use socket::Socket;
pub use tls_error::TlsError;
