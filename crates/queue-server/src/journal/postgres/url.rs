//! The address of a database, as libpq writes it (PostgreSQL manual, 34.1.1.2):
//! `postgresql://USER@HOST1:PORT,HOST2:PORT/DATABASE?PARAMETER=VALUE&…`.
//!
//! A host is a name, an IP address, or the folder of a Unix socket (`%2Fvar%2Frun` or `?host=/var/run`).
//! There is never a password in it, because every user of a machine can read the command lines of all.
//! A parameter that is not known here is refused, and none may be given twice: what libpq would use of
//! the two is not what everybody expects. The session is always one that can write, so
//! `target_session_attrs` has no other value than `read-write`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::UrlError;

/// How many servers one URL may name.
pub(crate) const SERVERS_MAX: usize = 8;

/// The port of PostgreSQL.
const PORT_DEFAULT: u16 = 5432;

/// Where the Unix socket is by default, as Debian's and Red Hat's PostgreSQL have it.
pub(crate) const FOLDER_DEFAULT: &str = "/var/run/postgresql";

/// How long an attempt to connect lasts, and how long sent bytes stay unacknowledged at most.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// The longest such time: a day.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// What PostgreSQL shows as the name of this program.
const APPLICATION_DEFAULT: &str = "queue-server";

const PARAMETERS: [&str; 10] = [
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// What a part of a URL shows as it is.
const SHOWN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Where a database is, and how it is reached. It shows itself without its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// The servers, at least one, in the order in which they are tried.
    pub servers: Vec<Server>,
    /// The user; `None` is the environment's.
    pub user: Option<String>,
    /// The database; `None` is the environment's.
    pub database: Option<String>,
    /// Whether the connection is encrypted; `None` is the environment's.
    pub ssl_mode: Option<SslMode>,
    /// Whose signature a server's certificate needs; `None` is the environment's.
    pub ssl_root: Option<SslRoot>,
    /// How long an attempt to connect to one server lasts at most.
    pub connect_timeout: Duration,
    /// How long sent bytes stay unacknowledged before the connection is given up.
    pub tcp_user_timeout: Duration,
    /// The name of this program in PostgreSQL's lists and logs.
    pub application_name: String,
}

/// One server of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// Where it is.
    pub host: Host,
    /// Its port, which is part of the name of a Unix socket, too.
    pub port: u16,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name or an IP address.
    Name(String),
    /// The folder of its Unix socket.
    Folder(PathBuf),
}

/// Whether a connection is encrypted, and what is checked (PostgreSQL manual, 34.19.1). Unix sockets never
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can; nothing is checked.
    Prefer,
    /// Encrypted; as `verify-ca` if there is a root certificate, and otherwise nothing is checked.
    Require,
    /// Encrypted, and the certificate is signed by whom the root certificate says.
    VerifyCa,
    /// The same, and the certificate is for the host.
    VerifyFull,
}

/// Who may sign a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SslRoot {
    /// Those whom the system trusts.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`]. It never shows what may be a password.
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = text
            .strip_prefix("postgresql://")
            .or_else(|| text.strip_prefix("postgres://"))
            .ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an unescaped @.
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(UrlError::Password);
        }
        let mut parameters = parameters(query)?;
        merge(&mut parameters, "user", decode(user)?)?;
        merge(&mut parameters, "dbname", decode(database)?)?;
        let mut take = |name| parameters.remove(name).filter(|value| !value.is_empty());
        let servers = match (take("host"), take("port")) {
            (None, None) => in_authority(hosts)?,
            (_, _) if !hosts.is_empty() => return Err(UrlError::Twice("host")),
            (hosts, ports) => in_parameters(
                hosts.as_deref().unwrap_or_default(),
                ports.as_deref().unwrap_or_default(),
            )?,
        };
        if servers.len() > SERVERS_MAX {
            return Err(UrlError::TooManyServers {
                count: servers.len(),
                max: SERVERS_MAX,
            });
        }
        if let Some(value) = take("target_session_attrs").filter(|value| value != "read-write") {
            return Err(UrlError::value(
                "target_session_attrs",
                &value,
                "read-write",
            ));
        }
        let ssl_mode = take("sslmode").map(|mode| SslMode::parse("sslmode", &mode));
        Ok(Self {
            servers,
            user: take("user"),
            database: take("dbname"),
            ssl_mode: ssl_mode.transpose()?,
            ssl_root: take("sslrootcert").as_deref().map(SslRoot::parse),
            connect_timeout: timeout(
                "connect_timeout",
                take("connect_timeout"),
                Duration::from_secs(1),
                "a number of seconds from 1 to 86400",
            )?,
            tcp_user_timeout: timeout(
                "tcp_user_timeout",
                take("tcp_user_timeout"),
                Duration::from_millis(1),
                "a number of milliseconds from 1 to 86400000",
            )?,
            application_name: take("application_name")
                .unwrap_or_else(|| APPLICATION_DEFAULT.to_owned()),
        })
    }
}

impl SslMode {
    /// Reads what `name` says.
    ///
    /// # Errors
    /// [`UrlError::Value`], also for `allow`, which would rather not encrypt.
    pub(crate) fn parse(name: &'static str, value: &str) -> Result<Self, UrlError> {
        match value {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            other => {
                let want = "disable, prefer, require, verify-ca or verify-full";
                Err(UrlError::value(name, other, want))
            }
        }
    }
}

impl SslRoot {
    pub(crate) fn parse(value: &str) -> Self {
        match value {
            "system" => Self::System,
            path => Self::File(path.into()),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text| utf8_percent_encode(text, SHOWN);
        out.write_str("postgresql://")?;
        if let Some(user) = &self.user {
            write!(out, "{}@", shown(user))?;
        }
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(out, "{comma}{server}")?;
        }
        match &self.database {
            Some(database) => write!(out, "/{}", shown(database)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) if name.contains(':') => write!(out, "[{name}]")?,
            Host::Name(name) => write!(out, "{}", utf8_percent_encode(name, SHOWN))?,
            Host::Folder(path) => {
                let path = path.to_string_lossy();
                write!(out, "{}", utf8_percent_encode(&path, SHOWN))?;
            }
        }
        match self.port {
            PORT_DEFAULT => Ok(()),
            port => write!(out, ":{port}"),
        }
    }
}

/// The parameters behind the question mark.
fn parameters(query: &str) -> Result<BTreeMap<&'static str, String>, UrlError> {
    let mut known = BTreeMap::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = decode(name)?;
        if name == "password" {
            return Err(UrlError::Password);
        }
        let Some(name) = PARAMETERS.into_iter().find(|known| *known == name) else {
            return Err(UrlError::Unknown {
                name,
                known: PARAMETERS.join(", "),
            });
        };
        merge(&mut known, name, decode(value)?)?;
    }
    Ok(known)
}

/// Adds a value, if there is none yet; an empty one says nothing.
fn merge(
    known: &mut BTreeMap<&'static str, String>,
    name: &'static str,
    value: String,
) -> Result<(), UrlError> {
    if value.is_empty() {
        return Ok(());
    }
    match known.insert(name, value) {
        Some(_) => Err(UrlError::Twice(name)),
        None => Ok(()),
    }
}

/// The servers between `@` and `/`.
fn in_authority(hosts: &str) -> Result<Vec<Server>, UrlError> {
    let servers = hosts.split(',').map(|host| {
        let (host, port) = match host.strip_prefix('[') {
            // An IPv6 address has colons itself.
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(UrlError::Bracket)?;
                (host, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        server(decode(host)?, port)
    });
    servers.collect()
}

/// The servers of the parameters `host` and `port`. One port is that of all hosts.
fn in_parameters(hosts: &str, ports: &str) -> Result<Vec<Server>, UrlError> {
    let hosts: Vec<_> = hosts.split(',').collect();
    let ports: Vec<_> = ports.split(',').collect();
    if ports.len() != 1 && ports.len() != hosts.len() {
        return Err(UrlError::Ports {
            hosts: hosts.len(),
            ports: ports.len(),
        });
    }
    let ports = ports.iter().cycle();
    let servers = hosts.into_iter().zip(ports);
    servers
        .map(|(host, port)| server(host.to_owned(), port))
        .collect()
}

fn server(host: String, port: &str) -> Result<Server, UrlError> {
    let port = match port {
        "" => PORT_DEFAULT,
        // The value may be a piece of a password with a slash in it.
        port => match port.parse() {
            Ok(0) | Err(_) => return Err(UrlError::Port(host)),
            Ok(port) => port,
        },
    };
    let host = match host.as_str() {
        "" => Host::Folder(FOLDER_DEFAULT.into()),
        path if path.starts_with('/') => Host::Folder(path.into()),
        _ => Host::Name(host),
    };
    Ok(Server { host, port })
}

fn timeout(
    name: &'static str,
    value: Option<String>,
    unit: Duration,
    want: &'static str,
) -> Result<Duration, UrlError> {
    let Some(value) = value else {
        return Ok(TIMEOUT_DEFAULT);
    };
    let timeout = value.parse().ok().and_then(|count| unit.checked_mul(count));
    match timeout {
        Some(timeout) if (unit..=TIMEOUT_MAX).contains(&timeout) => Ok(timeout),
        Some(_) | None => Err(UrlError::value(name, &value, want)),
    }
}

/// A part of a URL without its escapes.
fn decode(part: &str) -> Result<String, UrlError> {
    let mut escapes = part.split('%').skip(1);
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let decoded = percent_decode_str(part).decode_utf8();
    match decoded {
        Ok(decoded) if escapes.all(is_escape) && !decoded.contains('\0') => {
            Ok(decoded.into_owned())
        }
        Ok(_) | Err(_) => Err(UrlError::Escape),
    }
}

#[cfg(test)]
mod tests;
