//! The options that every server has: where it listens, for how many, and who may.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::address::unbracketed;
use crate::args::{Opt, Options};
use crate::error::UsageError;
use crate::tls::KeyPair;

/// How a server's front door is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where to listen (`--bind`), at least one place; loopback unless told otherwise.
    pub binds: Vec<Bind>,
    /// Whether the command line says where, by `--bind` or a port.
    pub is_place_given: bool,
    /// The mode of sockets in the file system (`--socket-mode`).
    pub socket_mode: u32,
    /// Connections open at once (`--max-connections`).
    pub connections_max: usize,
    /// The files for TLS; without them TCP is not encrypted.
    pub tls: Option<ServerTls>,
    /// The accounts; without them everyone may do everything.
    pub auth: Option<Auth>,
    /// The host names that it answers for over HTTP, besides its own (`--host`).
    pub hosts: Vec<String>,
    /// Whether `/metrics` needs no account (`--metrics-free`).
    pub is_metrics_free: bool,
    /// Whether it waits for a data folder that another server uses (`--standby`).
    pub stands_by: bool,
    /// The folder whose files clients can download, if there is one: the accounts and the key must not be
    /// in it. No option says so, but the server.
    pub served: Option<PathBuf>,
}

/// A place to listen at (`--bind`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// An IP address.
    Ip(IpAddr),
    /// A host name: all of its addresses.
    Name(String),
    /// A socket in the file system, `unix:PATH`.
    Unix(PathBuf),
}

/// The files of a server that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and its key (`--tls-cert`, `--tls-key`).
    pub pair: KeyPair,
    /// The roots of the certificates that clients must have, in PEM (`--tls-client-ca`).
    pub client_ca: Option<PathBuf>,
}

/// The accounts of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The file that they are in (`--auth-file`).
    pub file: PathBuf,
    /// Whether everyone may read (`--auth-read-free`).
    pub is_read_free: bool,
}

/// The mode of a socket in the file system unless told otherwise: its owner alone may connect.
pub const SOCKET_MODE_DEFAULT: u32 = 0o600;

impl ServerOptions {
    /// What [`ServerOptions::read`] reads.
    pub const TABLE: &[Opt] = &[
        Opt::list("--bind"),
        Opt::value("--socket-mode"),
        Opt::value("--max-connections"),
        Opt::value("--tls-cert"),
        Opt::value("--tls-key"),
        Opt::value("--tls-client-ca"),
        Opt::value("--auth-file"),
        Opt::list("--host"),
        Opt::flag("--metrics-free"),
    ];

    /// The help for these.
    pub const HELP: &str =
        "  --bind ADDR            listen on this IP address, host name, or unix:PATH; may be
                         repeated [default: 127.0.0.1]
  --socket-mode MODE     the mode of a unix:PATH [default: 0600]
  --max-connections N    connections open at once, 1 to 15000 [default: 4096]; a quarter is
                         the share of one address or user when others come
  --tls-cert FILE        speak TLS over TCP, with the certificates in this PEM file
  --tls-key FILE         the certificate's private key, which only its owner may read
  --tls-client-ca FILE   refuse clients without a certificate from these authorities
  --auth-file FILE       only the accounts in FILE may use the server, USER:HASH[:ROLE] on
                         each line; the hash is made by openssl passwd -6, the ROLE is
                         read, write (default) or admin
  --host NAME            answer for this host name too, besides IP addresses, localhost
                         and the machine's own name; may be repeated
  --metrics-free         with --auth-file, /metrics needs no account
";

    /// What it reads at a server where reading can be free.
    pub const READ_FREE: &[Opt] = &[
        Opt::flag("--auth-read-free"),
        Opt::gone(
            "--auth-all",
            "--auth-all is gone: --auth-file alone closes reading, too, and --auth-read-free opens it",
        ),
    ];

    /// The help for those.
    pub const READ_FREE_HELP: &str =
        "  --auth-read-free       with --auth-file, reading needs no account\n";

    /// What it reads at a server that can wait for its data folder.
    pub const STANDBY: &[Opt] = &[Opt::flag("--standby")];

    /// The help for that.
    pub const STANDBY_HELP: &str =
        "  --standby              if another server uses the data folder, wait until it ends, and
                         then serve; without it, the start is refused
";

    /// A server on loopback with nothing but a limit to its connections.
    pub fn new(connections_max: usize) -> Self {
        Self {
            binds: vec![Bind::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST))],
            is_place_given: false,
            socket_mode: SOCKET_MODE_DEFAULT,
            connections_max,
            tls: None,
            auth: None,
            hosts: Vec::new(),
            is_metrics_free: false,
            stands_by: false,
            served: None,
        }
    }

    /// Reads them. A server holds `connections_default` connections unless told otherwise, and can be
    /// told to hold up to `connections_max`.
    ///
    /// # Errors
    /// [`UsageError::Value`], and [`UsageError::Conflict`] if one lacks another that it needs.
    pub fn read(
        options: &mut Options,
        connections_default: usize,
        connections_max: usize,
    ) -> Result<Self, UsageError> {
        let mut read = Self::new(connections_default);
        let binds = all(options, "--bind", Bind::parse)?;
        if !binds.is_empty() {
            read.binds = binds;
            read.is_place_given = true;
        }
        if let Some(mode) = options.raw("--socket-mode") {
            read.socket_mode = socket_mode(&mode)?;
            if !read.binds.iter().any(|bind| matches!(bind, Bind::Unix(_))) {
                let sentence = "--socket-mode goes with --bind unix:PATH";
                return Err(UsageError::Conflict(sentence));
            }
        }
        let connections = options.number("--max-connections", 1..=connections_max)?;
        read.connections_max = connections.unwrap_or(read.connections_max);
        read.tls = tls(options)?;
        read.auth = auth(options)?;
        read.hosts = all(options, "--host", host)?;
        read.is_metrics_free = options.flag("--metrics-free");
        read.stands_by = options.flag("--standby");
        if read.is_metrics_free && read.auth.is_none() {
            let sentence = "--metrics-free goes with --auth-file; without it everything is free";
            return Err(UsageError::Conflict(sentence));
        }
        Ok(read)
    }

    /// The port to listen on, of a command line that may name one; 0 is any free one, and no more than
    /// that.
    ///
    /// # Errors
    /// [`UsageError::Conflict`] if one is named and there is no address.
    pub fn port(&mut self, named: Option<u16>, default: u16) -> Result<u16, UsageError> {
        if named.is_some_and(|port| port != 0) {
            if self.binds.iter().all(|bind| matches!(bind, Bind::Unix(_))) {
                let sentence = "unix:PATH has no port; a port goes with --bind and an address";
                return Err(UsageError::Conflict(sentence));
            }
            self.is_place_given = true;
        }
        Ok(named.unwrap_or(default))
    }

    /// The first place to listen at that other machines may reach. A name is taken for one, unless it is
    /// `localhost`.
    pub fn exposed(&self) -> Option<&Bind> {
        self.binds.iter().find(|bind| match bind {
            Bind::Ip(ip) => !ip.is_loopback(),
            Bind::Name(name) => name != "localhost",
            Bind::Unix(_) => false,
        })
    }

    /// Refuses what UDP cannot have: it is not encrypted, and has no logins.
    ///
    /// # Errors
    /// [`UsageError::Conflict`].
    pub fn check_udp(&self) -> Result<(), UsageError> {
        if self.tls.is_some() {
            let sentence = "--tls-cert does not go with UDP, which is not encrypted; use TCP";
            return Err(UsageError::Conflict(sentence));
        }
        if self.auth.is_some() {
            let sentence = "--auth-file does not go with UDP, which has no logins; use TCP";
            return Err(UsageError::Conflict(sentence));
        }
        if self.binds.iter().any(|bind| matches!(bind, Bind::Unix(_))) {
            let sentence = "--bind unix:PATH does not go with UDP; use TCP";
            return Err(UsageError::Conflict(sentence));
        }
        Ok(())
    }
}

impl Bind {
    fn parse(name: &'static str, word: &OsStr) -> Result<Self, UsageError> {
        let want = "an IP address, a host name, or unix:PATH";
        if let Some(path) = word.as_bytes().strip_prefix(b"unix:") {
            return match path {
                [] => Err(UsageError::value(name, word, want)),
                path => Ok(Self::Unix(OsStr::from_bytes(path).into())),
            };
        }
        let text = word
            .to_str()
            .ok_or_else(|| UsageError::value(name, word, want))?;
        if let Ok(ip) = unbracketed(text).parse() {
            return Ok(Self::Ip(ip));
        }
        match is_host(text) && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            true => Ok(Self::Name(text.to_owned())),
            false => Err(UsageError::value(name, word, want)),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads each value of an option that may be repeated.
fn all<T>(
    options: &mut Options,
    name: &'static str,
    parse: impl Fn(&'static str, &OsStr) -> Result<T, UsageError>,
) -> Result<Vec<T>, UsageError> {
    let words: Vec<OsString> = std::iter::from_fn(|| options.raw(name)).collect();
    words.iter().map(|word| parse(name, word)).collect()
}

fn host(name: &'static str, word: &OsStr) -> Result<String, UsageError> {
    let host = word.to_str().filter(|host| is_host(host));
    let want = "the name of a host, without a port, such as files.example.com";
    let host = host.ok_or_else(|| UsageError::value(name, word, want))?;
    Ok(host.to_owned())
}

fn is_host(text: &str) -> bool {
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
    !text.is_empty() && text.bytes().all(is_host_byte)
}

fn socket_mode(word: &OsStr) -> Result<u32, UsageError> {
    let mode = word
        .to_str()
        .filter(|text| text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit()));
    let mode = mode.and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| UsageError::value("--socket-mode", word, "a mode in octal, such as 0660"))
}

fn tls(options: &mut Options) -> Result<Option<ServerTls>, UsageError> {
    let paths = ["--tls-cert", "--tls-key", "--tls-client-ca"].map(|name| options.path(name));
    match paths {
        [Some(cert), Some(key), client_ca] => Ok(Some(ServerTls {
            pair: KeyPair { cert, key },
            client_ca,
        })),
        [None, None, None] => Ok(None),
        [None, None, Some(_)] => Err(UsageError::Conflict(
            "--tls-client-ca goes with --tls-cert and --tls-key",
        )),
        [Some(_), None, _] => Err(UsageError::Conflict("--tls-cert goes with --tls-key")),
        [None, Some(_), _] => Err(UsageError::Conflict("--tls-key goes with --tls-cert")),
    }
}

fn auth(options: &mut Options) -> Result<Option<Auth>, UsageError> {
    let file = options.path("--auth-file");
    match (file, options.flag("--auth-read-free")) {
        (Some(file), is_read_free) => Ok(Some(Auth { file, is_read_free })),
        (None, false) => Ok(None),
        (None, true) => Err(UsageError::Conflict(
            "--auth-read-free goes with --auth-file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen_at_are_told_apart() {
        #[track_caller]
        fn check(word: &str, want: Option<Bind>) {
            assert_eq!(Bind::parse("--bind", OsStr::new(word)).ok(), want, "{word}");
        }
        let ip = |text: &str| Some(Bind::Ip(text.parse().unwrap()));
        check("127.0.0.1", ip("127.0.0.1"));
        check("::1", ip("::1"));
        check("[::1]", ip("::1"));
        check("localhost", Some(Bind::Name("localhost".to_owned())));
        check("unix:/run/q.sock", Some(Bind::Unix("/run/q.sock".into())));
        for wrong in [
            "",
            "unix:",
            "1.2.3",
            "1.2.3.4.5",
            "127.0.0.1:80",
            "a b",
            "tcp:x",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_mode_is_octal() {
        let mode = |word: &str| socket_mode(OsStr::new(word)).ok();
        assert_eq!(mode("0660"), Some(0o660));
        assert_eq!(mode("777"), Some(0o777));
        for wrong in ["", "8", "1777", "00660", "rw", "+660"] {
            assert_eq!(mode(wrong), None, "{wrong}");
        }
    }
}
