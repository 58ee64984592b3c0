//! The options that programs share: every server has [`ServerOptions`], every client
//! [`ClientOptions`]. A program puts the table into its [`App`](crate::App) and calls `read`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::args::{DURATION_MAX, Opt, Options};
use crate::endpoint::{Endpoint, TIMEOUT_DEFAULT};
use crate::error::UsageError;

/// The shortest timeout. A timeout of zero would mean none.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Where a server listens, and how many connections it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerOptions {
    /// The address to listen on (`--bind`), loopback unless told otherwise.
    pub ip: IpAddr,
    /// Connections open at once (`--max-connections`).
    pub connections_max: usize,
}

impl ServerOptions {
    /// What [`ServerOptions::read`] reads.
    pub const TABLE: &[Opt] = &[Opt::value("--bind"), Opt::value("--max-connections")];

    /// What [`ServerOptions::hosts`] reads, for servers that answer HTTP.
    pub const HOST: &[Opt] = &[Opt::list("--host")];

    /// Reads them. A server holds `connections_default` connections unless told otherwise, and can be
    /// told to hold up to `connections_max`.
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn read(
        options: &mut Options,
        connections_default: usize,
        connections_max: usize,
    ) -> Result<Self, UsageError> {
        let ip = options.value("--bind", "an IP address")?;
        let connections = options.number("--max-connections", 1..=connections_max)?;
        Ok(Self {
            ip: ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            connections_max: connections.unwrap_or(connections_default),
        })
    }

    /// Reads the names of the hosts that a server answers for over HTTP (`--host`).
    ///
    /// # Errors
    /// [`UsageError::Value`].
    pub fn hosts(options: &mut Options) -> Result<Vec<String>, UsageError> {
        const NAME: &str = "--host";
        let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
        let mut hosts = Vec::new();
        while let Some(word) = options.raw(NAME) {
            let host = word.to_str().filter(|host| !host.is_empty());
            let Some(host) = host.filter(|host| host.bytes().all(is_host_byte)) else {
                let want = "the name of a host, without a port, such as files.example.com";
                return Err(UsageError::value(NAME, &word, want));
            };
            hosts.push(host.to_owned());
        }
        Ok(hosts)
    }
}

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
