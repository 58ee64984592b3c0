//! Why PostgreSQL cannot be used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cli::{FileError, TlsError};
use postgres::error::DbError;

/// Why PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The URL of a PostgreSQL database is wrong.
    #[error("the URL of the database is wrong: {0}")]
    Url(#[from] UrlError),
    /// A variable of the environment is wrong, which counts where the URL says nothing.
    #[error("the environment is wrong: {0}")]
    Environment(UrlError),
    /// There are root certificates, with a mode that checks none.
    #[error("a root certificate (sslrootcert) goes with sslmode={0}; others check none")]
    Unchecked(&'static str),
    /// There is no user to connect to PostgreSQL as.
    #[error(
        "there is no PostgreSQL user: name it in the URL, as postgresql://USER@HOST/DATABASE, or in \
         PGUSER"
    )]
    NoUser,
    /// `sslmode` checks certificates, and there is nothing to check them against.
    #[error(
        "this sslmode needs a root certificate: sslrootcert=FILE, sslrootcert=system, or \
         ~/.postgresql/root.crt"
    )]
    NoRootCertificate,
    /// The root certificates cannot be used.
    #[error(transparent)]
    RootCertificate(#[from] FileError),
    /// No server of a PostgreSQL database can be used now. Another attempt may succeed.
    #[error("cannot use the database now: {}", list(.0))]
    Unreachable(Vec<Unusable>),
    /// A server of a PostgreSQL database refuses this program, and no other can be used. Somebody must
    /// change something.
    #[error("cannot use the database: {}", list(.0))]
    Rejected(Vec<Unusable>),
    /// The database keeps text in an encoding that has not every character.
    #[error("the database is encoded in {0}, and must be in UTF8")]
    Encoding(String),
    /// Somebody has deleted the row of the leader, and with it the last epoch.
    #[error(
        "the table 'leader' has no row; restore it, or drop all tables to begin with empty queues"
    )]
    NoLeader,
    /// A later version of this program made the tables.
    #[error("the tables have the schema version {version}, this program knows {known}")]
    UnknownVersion {
        /// Their version.
        version: i32,
        /// The version that this program knows.
        known: i32,
    },
    /// A statement failed.
    #[error("{}", told(.0))]
    Statement(postgres::Error),
    /// What the start has found could not be written.
    #[error("cannot write to the database: {0}")]
    Write(io::Error),
}

/// In the database's words, if it has said something.
fn told(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    }
}

/// What is wrong with the URL of a PostgreSQL database. It never shows what may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is another URL, or none.
    #[error("it must be postgresql://USER@HOST:PORT/DATABASE")]
    Scheme,
    /// There is a password in it.
    #[error(
        "a password in it can be read by every user of this machine; put it into the file that PGPASSFILE \
         names (~/.pgpass), or into PGPASSWORD"
    )]
    Password,
    /// A parameter that is not known.
    #[error("unknown parameter '{}', the known are {known}", name.escape_debug())]
    Unknown {
        /// What was given.
        name: String,
        /// All that are known.
        known: String,
    },
    /// Something is given twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A parameter has a value that it cannot have.
    #[error("{name} must be {want}, not '{}'", value.escape_debug())]
    Value {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        want: &'static str,
    },
    /// Something else stands where a port should.
    #[error("the port of {} must be a number from 1 to 65535", .0.escape_debug())]
    Port(String),
    /// There must be one port, or one for each host.
    #[error("there are {ports} ports for {hosts} hosts; give one, or one for each")]
    Ports {
        /// How many hosts there are.
        hosts: usize,
        /// How many ports.
        ports: usize,
    },
    /// There are more servers than can be tried.
    #[error("it names {count} servers, and {max} are the most")]
    TooManyServers {
        /// How many there are.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// An IPv6 address has no end.
    #[error("an IPv6 address begins with '[' and lacks its ']'")]
    Bracket,
    /// A percent sign without two hexadecimal digits, or what they mean is no text.
    #[error("a % is followed by two hexadecimal digits, and %25 is the % itself")]
    Escape,
}

impl UrlError {
    /// A parameter with a value that it cannot have.
    pub(crate) fn value(name: &'static str, value: &str, want: &'static str) -> Self {
        Self::Value {
            name,
            value: value.to_owned(),
            want,
        }
    }
}

/// A server of a PostgreSQL database that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{server}: {why}")]
pub struct Unusable {
    /// Its host and port.
    pub server: String,
    /// Why.
    pub why: WhyNot,
}

/// Why a server of a PostgreSQL database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// It is a replica, or was set so.
    #[error("it can only be read")]
    ReadOnly,
    /// It does not answer in time.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// Earlier attempts hang.
    #[error("it has not answered the last {0} attempts yet")]
    StillTrying(usize),
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
    /// Nobody in the root certificate has signed the server's.
    #[error("nobody in the root certificate has signed the server's certificate (sslrootcert)")]
    UnknownIssuer,
    /// The server wants a client certificate, or there is no version of TLS that both have.
    #[error(
        "it refuses TLS with this program: it asks for a client certificate, which this program does not \
         have, or has no cipher of TLS 1.2 or 1.3"
    )]
    ClientCertificate,
    /// The encryption failed in another way.
    #[error("{0}")]
    Tls(TlsError),
    /// The server says why.
    #[error("{}", .0.message())]
    Server(Box<DbError>),
    /// It asks for a password, and there is none.
    #[error("it asks for a password; put it into {}, or into PGPASSWORD", file(.0.as_deref()))]
    NoPassword(Option<PathBuf>),
    /// Server and client have nothing in common.
    #[error("{0}")]
    Settings(String),
    /// The attempt failed by a bug.
    #[error("the attempt panicked")]
    Panicked,
}

impl WhyNot {
    /// Whether another attempt would fail in the same way.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::ReadOnly
            | Self::NoAnswer(_)
            | Self::StillTrying(_)
            | Self::Io(_)
            | Self::Panicked => false,
            // A user that is refused, a database that is not there or not for this user.
            Self::Server(error) => {
                let code = error.code().code();
                code.starts_with("28") || code == "3D000" || code == "42501"
            }
            Self::UnknownIssuer
            | Self::ClientCertificate
            | Self::Tls(_)
            | Self::NoPassword(_)
            | Self::Settings(_) => true,
        }
    }
}

fn file(path: Option<&Path>) -> String {
    path.map_or("the file that PGPASSFILE names".to_owned(), |path| {
        path.display().to_string()
    })
}

fn list(unusable: &[Unusable]) -> String {
    let sentences: Vec<_> = unusable.iter().map(Unusable::to_string).collect();
    sentences.join("; ")
}
