//! The door: how tests reach their servers, and whether they log in.
//!
//! A run has one door, from `QUARTET_TEST_DOOR`: `tcp` (the default), `tls`, `client-cert` or `unix`,
//! each also with `+accounts`. A server that the harness starts gets the door's options, and so do the
//! command lines of our clients; [`connect`](super::connect) goes through it. A test that is about
//! another door says so with [`has_door`].

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::{fmt, io};

use cli::tls::{KeyPair, TlsFiles};
use cli::{AccountSource, Endpoint, Security};
use tempfile::TempDir;

use super::certificates::{Certificates, Identity};
use super::store::Store;
use super::stream::{Carried, Stream};
use super::tls_stream::TlsStream;
use super::{PATIENCE, account, skipped};

/// The variable that says which door a run has.
pub const VARIABLE: &str = "QUARTET_TEST_DOOR";

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// TCP, readable by everyone on the way.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// TLS, and the server asks for a certificate of the client.
    ClientCert,
    /// A Unix socket.
    Unix,
}

/// The carriers by the names that the variable has for them.
const CARRIERS: [(&str, Carrier); 4] = [
    ("tcp", Carrier::Tcp),
    ("tls", Carrier::Tls),
    ("client-cert", Carrier::ClientCert),
    ("unix", Carrier::Unix),
];

/// What the variable has behind the carrier if there are accounts.
const WITH_ACCOUNTS: &str = "+accounts";

/// How servers are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// What carries the bytes.
    pub carrier: Carrier,
    /// Whether everybody has to log in.
    pub has_accounts: bool,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut names = CARRIERS.iter().filter(|(_, one)| *one == self.carrier);
        let name = names.next().map_or("", |(name, _)| name);
        let accounts = if self.has_accounts { WITH_ACCOUNTS } else { "" };
        write!(f, "{name}{accounts}")
    }
}

/// The door of this run.
#[track_caller]
pub fn door() -> Door {
    static DOOR: OnceLock<Door> = OnceLock::new();
    *DOOR.get_or_init(|| {
        let told = std::env::var(VARIABLE).unwrap_or_else(|_| "tcp".to_owned());
        let (name, has_accounts) = match told.strip_suffix(WITH_ACCOUNTS) {
            Some(name) => (name, true),
            None => (told.as_str(), false),
        };
        let mut carriers = CARRIERS.iter().filter(|(known, _)| *known == name);
        let carrier = carriers.next().map(|(_, carrier)| *carrier);
        let carrier = carrier.unwrap_or_else(|| panic!("{VARIABLE} is no door: '{told}'"));
        Door {
            carrier,
            has_accounts,
        }
    })
}

/// What a test needs of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Plain TCP, and nobody logs in.
    Plain,
    /// TCP, be it inside of TLS.
    Tcp,
    /// That nobody logs in.
    NoAccounts,
}

/// Whether this run has the door that a test needs; says that the test is skipped if not, and why.
pub fn has_door(needs: Needs, why: &str) -> bool {
    let door = door();
    let has_it = match needs {
        Needs::Plain => door.is_plain(),
        Needs::Tcp => door.carrier != Carrier::Unix,
        Needs::NoAccounts => !door.has_accounts,
    };
    if !has_it {
        skipped(&format!("not through {door}: {why}"));
    }
    has_it
}

/// Whether this run has the door that a batch of the file client needs whose lines name the server.
pub fn has_door_of_batches() -> bool {
    let why = "it has two names for the host, and the account is for one";
    has_door(Needs::Tcp, "a batch names a host and a port") && has_door(Needs::NoAccounts, why)
}

/// The transports of a queue server: TCP, and UDP too where the door allows it.
pub fn udp_too() -> &'static str {
    match door().is_plain() {
        true => "BOTH",
        false => "TCP",
    }
}

impl Door {
    /// Whether it is plain TCP, and nobody logs in.
    fn is_plain(self) -> bool {
        self.carrier == Carrier::Tcp && !self.has_accounts
    }

    /// Whether it is inside of TLS.
    pub fn is_encrypted(self) -> bool {
        matches!(self.carrier, Carrier::Tls | Carrier::ClientCert)
    }

    /// The options that open it at a server, whose sockets go into this folder if they are Unix ones.
    fn server_options(self, folder: &TempDir) -> Vec<String> {
        let mut options = Vec::new();
        if self.is_encrypted() {
            let made = Certificates::get();
            options.extend(option("--tls-cert", &made.server.cert));
            options.extend(option("--tls-key", &made.server.key));
            if self.carrier == Carrier::ClientCert {
                options.extend(option("--tls-client-ca", &made.authority.cert));
            }
        }
        if self.carrier == Carrier::Unix {
            let bind = format!("unix:{}", folder.path().join("socket").display());
            options.extend(["--bind".to_owned(), bind]);
        }
        if self.has_accounts {
            let file = account::file_of_server(folder.path());
            options.extend(option("--auth-file", &file));
        }
        options
    }

    /// The options with which our clients come through it.
    fn client_options(self) -> Vec<String> {
        let mut options = Vec::new();
        if self.is_encrypted() {
            options.push("--tls".to_owned());
            options.extend(option("--tls-ca", &Certificates::get().authority.cert));
        }
        if let Some(client) = self.shown() {
            options.extend(option("--tls-cert", &client.cert));
            options.extend(option("--tls-key", &client.key));
        }
        options.extend(self.login_options());
        options
    }

    /// Those of them that log in.
    pub fn login_options(self) -> Vec<String> {
        match self.has_accounts {
            true => option("--auth-file", account::file_of_client()).into(),
            false => Vec::new(),
        }
    }

    /// The same for a client in this process.
    fn security(self) -> Security {
        let tls = self.is_encrypted().then(|| TlsFiles {
            ca: Some(Certificates::get().authority.cert.clone()),
            client: self.shown().map(|client| KeyPair {
                cert: client.cert.clone(),
                key: client.key.clone(),
            }),
        });
        let account = self.has_accounts.then(account::file_of_client);
        let account = account.map(|file| AccountSource::File(file.to_owned()));
        Security::new(tls, account)
    }

    /// What a client shows of itself, if it is asked.
    fn shown(self) -> Option<&'static Identity> {
        let is_asked = self.carrier == Carrier::ClientCert;
        is_asked.then(|| &Certificates::get().client)
    }

    /// `HOST PORT...` for the ports of a server, and the options of the door, as our clients' command lines
    /// have them.
    pub fn client_words(self, addrs: &[Address]) -> Vec<String> {
        let mut words = match addrs[0] {
            Address::Tcp(addr) => vec![addr.ip().to_string()],
            Address::Unix(_) => vec![addrs[0].to_string()],
        };
        for addr in addrs {
            if let Address::Tcp(addr) = addr {
                words.push(addr.port().to_string());
            }
        }
        words.extend(self.client_options());
        words
    }

    /// curl, for this path of a server.
    pub fn curl(self, addr: Address, path: &str) -> Command {
        let mut command = Command::new("curl");
        // Without what its user has configured, which has to be said first.
        command.arg("-q").arg(self.url(addr, path));
        if self.is_encrypted() {
            let authority = &Certificates::get().authority;
            command.arg("--cacert").arg(&authority.cert);
        }
        if let Some(client) = self.shown() {
            command.arg("--cert").arg(&client.cert);
            command.arg("--key").arg(&client.key);
        }
        if let Address::Unix(path) = addr {
            command.args(["--unix-socket", path]);
        }
        if self.has_accounts {
            command.args(["--user", account::CREDENTIALS]);
        }
        command
    }

    /// The URL of a path of a server.
    pub fn url(self, addr: Address, path: &str) -> String {
        let scheme = match self.is_encrypted() {
            true => "https",
            false => "http",
        };
        match addr {
            Address::Tcp(addr) => format!("{scheme}://{addr}{path}"),
            Address::Unix(_) => format!("{scheme}://localhost{path}"),
        }
    }

    /// A connection that gives up in time.
    ///
    /// # Errors
    /// If nobody is there, or the handshake fails.
    pub fn connect(self, addr: Address) -> io::Result<Stream> {
        let carried = match addr {
            Address::Tcp(addr) if self.is_encrypted() => {
                let config = Certificates::get().client_config(self.shown());
                let tls = TlsStream::connect(connect_tcp(addr)?, config)?;
                Carried::Tls(Box::new(tls))
            }
            Address::Tcp(addr) => Carried::Tcp(connect_tcp(addr)?),
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Carried::Unix(stream)
            }
        };
        Ok(Stream::new(carried, self.has_accounts))
    }

    /// Has a server that is started like this, by itself or by way of another program, open it, and answer
    /// for the host `h`, as requests in bytes call it.
    pub fn open(self, command: &mut Command) -> Opened {
        let folder = tempfile::tempdir().unwrap();
        let listeners = 1 + usize::from(starts(command, "code-server"));
        let store = starts(command, "queue-server").then(|| Store::open(command));
        command.args(["--host", "h"]);
        command.args(self.server_options(&folder));
        Opened {
            listeners,
            store,
            _folder: folder,
        }
    }
}

/// A TCP connection that gives up in time.
///
/// # Errors
/// If nobody is there.
pub fn connect_tcp(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn option(name: &str, path: &Path) -> [String; 2] {
    [name.to_owned(), path.to_str().unwrap().to_owned()]
}

/// What a server has of the door while it runs, and where it keeps its messages.
pub struct Opened {
    /// How many addresses it will say that it listens on.
    listeners: usize,
    store: Option<Store>,
    _folder: TempDir,
}

impl Opened {
    /// Whether a server with this log listens everywhere, and serves.
    pub fn is_ready(&self, log: &str) -> bool {
        let serves = self.store.as_ref().is_none_or(|store| store.is_ready(log));
        serves && listening(log) == self.listeners
    }
}

/// Whether a command starts one of our programs, by itself or by way of another.
fn starts(command: &Command, name: &str) -> bool {
    let program = super::program(name);
    let mut words = std::iter::once(command.get_program()).chain(command.get_args());
    words.any(|word| word == program)
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket. It is never freed, so that an address can be copied as the other kind
    /// can.
    Unix(&'static str),
}

impl Address {
    fn parse(word: &str) -> Option<Self> {
        match word.strip_prefix("unix:") {
            Some(path) => Some(Self::Unix(path.to_owned().leak())),
            None => word.parse().ok().map(Self::Tcp),
        }
    }

    /// The address of a port, for a test that needs one.
    #[track_caller]
    pub fn tcp(self) -> SocketAddr {
        match self {
            Self::Tcp(addr) => addr,
            Self::Unix(path) => panic!("no TCP port: {path}"),
        }
    }

    /// The port, for a test that needs one.
    #[track_caller]
    pub fn port(self) -> u16 {
        self.tcp().port()
    }

    /// The same for a client, and how it gets through the door of the run.
    pub fn endpoint(self) -> Endpoint {
        let mut endpoint = match self {
            Self::Tcp(addr) => Endpoint::new(addr.ip().to_string(), addr.port()),
            Self::Unix(_) => Endpoint::new(self.to_string(), 0),
        };
        static SECURITY: OnceLock<Security> = OnceLock::new();
        endpoint.security = SECURITY.get_or_init(|| door().security()).clone();
        endpoint
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// What the log of a server says that it listens on.
fn listens_on(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Server started on ")?;
        rest.split_whitespace().next()
    })
}

/// On how many addresses a server listens so far, by its log.
pub fn listening(log: &str) -> usize {
    listens_on(log).count()
}

/// The addresses that a server listens on, by its log.
pub fn addresses(log: &str) -> Vec<Address> {
    listens_on(log).filter_map(Address::parse).collect()
}
