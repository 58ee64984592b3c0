//! The options that every client has. A program puts the table into its [`App`](crate::App) and calls
//! `read`.

use std::time::Duration;

use crate::args::{DURATION_MAX, Opt, Options};
use crate::endpoint::{Endpoint, TIMEOUT_DEFAULT};
use crate::error::UsageError;

/// The shortest timeout. A timeout of zero would mean none.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// How long a client waits for its server, and how much it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOptions {
    /// Bounds every wait (`--timeout`).
    pub timeout: Duration,
    /// How long to keep trying to connect (`--wait-for-server`).
    pub wait_for_server: Duration,
    /// Whether to say nothing but errors (`--quiet`).
    pub is_quiet: bool,
}

impl ClientOptions {
    /// What [`ClientOptions::read`] reads.
    pub const TABLE: &[Opt] = &[
        Opt::value("--timeout"),
        Opt::value("--wait-for-server"),
        Opt::flag("--quiet").short('q'),
    ];

    /// Reads them.
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn read(options: &mut Options) -> Result<Self, UsageError> {
        let timeout = options.duration("--timeout", TIMEOUT_MIN..=DURATION_MAX)?;
        let wait = options.duration("--wait-for-server", Duration::ZERO..=DURATION_MAX)?;
        Ok(Self {
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
            wait_for_server: wait.unwrap_or_default(),
            is_quiet: options.flag("--quiet"),
        })
    }

    /// The server at this address, waited for as these options say.
    pub fn endpoint(&self, host: String, port: u16) -> Endpoint {
        Endpoint {
            host,
            port,
            timeout: self.timeout,
            wait_for_server: self.wait_for_server,
        }
    }
}
