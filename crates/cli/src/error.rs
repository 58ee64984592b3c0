//! The errors of the edge: a wrong command line, and what every client can fail with, whichever
//! service it speaks to.
//!
//! Each client's own error enum holds [`ClientError`] as one variant, so its sentences and exit codes
//! stand here once.

use std::error::Error;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use crate::exit::{Exit, Failure};
use crate::server_stream::is_timeout;
use crate::tls_error::TlsError;

/// What is wrong with a command line. All of them end the program with [`Exit::Local`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// An option lacks its value, or has one that it does not take.
    #[error(transparent)]
    Option(#[from] lexopt::Error),
    /// There is no such option.
    #[error("unknown option '{}'{}", option.escape_debug(), did_you_mean(*nearest))]
    UnknownOption {
        /// What was given, with its dashes.
        option: String,
        /// The one that is nearly the same.
        nearest: Option<&'static str>,
    },
    /// There is no such verb.
    #[error("unknown verb '{}', {}", verb.escape_debug(), right_verbs(verbs, server.as_deref()))]
    UnknownVerb {
        /// What was given.
        verb: String,
        /// The one that is nearly the same, or all of them.
        verbs: Vec<&'static str>,
        /// How a server is named, if that is what the word may have been meant for.
        server: Option<String>,
    },
    /// An option has two values.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A value is not what its place wants.
    #[error("{what} must be {want}, not '{}'", value.escape_debug())]
    Value {
        /// The option or argument.
        what: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        want: String,
    },
    /// An argument is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// There is an argument too many.
    #[error("there is one argument too many: '{}'", .0.escape_debug())]
    Unexpected(String),
    /// The verb does not use this option.
    #[error("{option} {}", misplaced(*verb))]
    Misplaced {
        /// The option, with its dashes.
        option: &'static str,
        /// The verb; `None` if there is none.
        verb: Option<&'static str>,
    },
    /// Two things do not go together, or one needs another; the sentence says which.
    #[error("{0}")]
    Conflict(&'static str),
}

impl UsageError {
    /// A value that is not what its place wants.
    pub fn value(what: &'static str, value: &OsStr, want: impl Into<String>) -> Self {
        Self::Value {
            what,
            value: value.to_string_lossy().into_owned(),
            want: want.into(),
        }
    }
}

fn misplaced(verb: Option<&str>) -> String {
    verb.map_or("needs a verb".to_owned(), |verb| {
        format!("does not go with {verb}")
    })
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |nearest| {
        format!(", did you mean {nearest}?")
    })
}

fn right_verbs(verbs: &[&str], server: Option<&str>) -> String {
    match (verbs, server) {
        ([nearest], _) => format!("did you mean {nearest}?"),
        (all, None) => format!("the verbs are {}", all.join(", ")),
        (all, Some(server)) => {
            format!("the verbs are {}; a server is {server}", all.join(", "))
        }
    }
}

/// Why a file with a secret, or with certificates, is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is longer than any file of its kind.
    #[error("{} exceeds {bytes_max} bytes", path.display())]
    TooLong {
        /// Its path.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// Others can read the secret in it.
    #[error("{path} holds {secret} and others can read it; chmod 600 {path} ends that", path = path.display())]
    Exposed {
        /// Its path.
        path: PathBuf,
        /// What it holds.
        secret: &'static str,
    },
    /// Clients could download it.
    #[error("{} is in the folder that is served, where anybody could download it", .0.display())]
    Served(PathBuf),
    /// Its first line is no account.
    #[error("the first line of {} {sentence}", path.display())]
    NotAnAccount {
        /// Its path.
        path: PathBuf,
        /// What it is or has.
        sentence: &'static str,
    },
    /// It is not PEM.
    #[error("{} is not in PEM format, or is cut off", .0.display())]
    NotPem(PathBuf),
    /// There is no certificate in it.
    #[error("{} holds no certificate (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate in it is malformed.
    #[error("{} holds a malformed certificate", .0.display())]
    BadCertificate(PathBuf),
    /// There is no private key in it.
    #[error("{} holds no private key (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// Its key has a passphrase.
    #[error(
        "the key in {path} has a passphrase; openssl pkey -in {path} -out FILE removes it",
        path = .0.display()
    )]
    EncryptedKey(PathBuf),
    /// Its key is of a kind that is not supported.
    #[error("the key in {} is neither ECDSA (P-256, P-384), Ed25519 nor RSA", .0.display())]
    UnknownKey(PathBuf),
    /// The key is that of another certificate.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    OtherKey {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl Failure for FileError {
    fn exit(&self) -> Exit {
        Exit::Local
    }
}

/// Why a client could not reach its server, understand its reply, or use a standard stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address of the server accepted the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The host and the port, as in a URL: `[::1]:80`.
        address: String,
        /// Why the last address did not.
        #[source]
        cause: io::Error,
    },
    /// The server was reached, but not over TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file with a secret or with certificates cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The server sent nothing, or too little, before the timeout.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection to the server was lost")]
    Lost(#[source] io::Error),
    /// The reply violates its protocol.
    #[error("the server's reply is malformed")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// The reply is a valid one, but not to this request.
    #[error("the server's reply does not match the request")]
    Unexpected,
    /// Standard input could not be read.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl ClientError {
    /// What an error of the connection means: [`ClientError::TimedOut`], [`ClientError::Malformed`] or
    /// [`ClientError::Lost`]; or [`ClientError::Tls`].
    pub fn lost(cause: io::Error) -> Self {
        let cause = match cause.downcast::<TlsError>() {
            Ok(error) => return Self::Tls(error),
            Err(cause) => cause,
        };
        match cause.kind() {
            _ if is_timeout(&cause) => Self::TimedOut,
            io::ErrorKind::InvalidData => Self::Malformed(Box::new(cause)),
            _ => Self::Lost(cause),
        }
    }

    /// Whether a request was on its way: the server may have done what it was asked, or not.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TimedOut)
    }

    /// A reply that violates its protocol.
    pub fn malformed(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::Malformed(Box::new(cause))
    }
}

impl Failure for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Connect { .. }
            | Self::Tls(_)
            | Self::TimedOut
            | Self::Lost(_)
            | Self::Malformed(_)
            | Self::Unexpected => Exit::Network,
            Self::File(error) => error.exit(),
            Self::Input(_) => Exit::Local,
            // The reader has seen enough and is gone. That is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Local,
        }
    }
}
