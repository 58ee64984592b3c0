//! The code server: one unique code per UUID on one HTTP port, and a log of messages from whoever
//! holds a code on another.
//!
//! [`args`] reads the command line; `codes` knows who has which code, `messages` is the log;
//! `connection` answers the requests on both ports.

pub mod args;
mod codes;
mod connection;
mod messages;

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use cli::{Exit, Failure};
use daemon::http::Http;
use daemon::{Daemon, Handle, StartError};

pub use codes::{Codes, CodesError};
pub use messages::Messages;

use connection::{CodePort, MessagePort, Port};

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The port for codes; 0 is any free one.
    pub code_port: u16,
    /// The port for messages; 0 is any free one.
    pub message_port: u16,
    /// Where `codes.txt` and `messages.log` are kept; made if it does not exist.
    pub data_dir: PathBuf,
    /// How many codes are handed out at the most.
    pub codes_max: usize,
    /// Whether to reply as the original Python client expects.
    pub python_replies: bool,
    /// Connections open at once, over both ports.
    pub connections_max: usize,
}

/// Why a server could not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It could not listen.
    Start(StartError),
    /// Something in the data folder could not be opened.
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A line of `codes.txt` is not a UUID and a code.
    DamagedCodes {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Open { path, .. } => write!(f, "cannot open {}", path.display()),
            Self::DamagedCodes { path, line } => write!(
                f,
                "line {line} of {} is damaged; restore it, or remove the line to go on without \
                 its code",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
            Self::Open { cause, .. } => Some(cause),
            Self::DamagedCodes { .. } => None,
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(_) => Exit::Network,
            Self::Open { .. } | Self::DamagedCodes { .. } => Exit::Usage,
        }
    }
}

/// A code server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    code_addr: SocketAddr,
    message_addr: SocketAddr,
}

impl Server {
    /// Opens the data folder and listens on both ports.
    ///
    /// # Errors
    /// If the folder or a port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        fs::create_dir_all(&config.data_dir).map_err(|cause| Error::Open {
            path: config.data_dir.clone(),
            cause,
        })?;
        let codes = Arc::new(Codes::open(&config.data_dir, config.codes_max)?);
        let messages = Messages::open(&config.data_dir)?;
        let mut daemon = Daemon::new(config.connections_max);
        let python_replies = config.python_replies;
        let code_port = Http(Port {
            service: CodePort {
                codes: Arc::clone(&codes),
            },
            python_replies,
        });
        let message_port = Http(Port {
            service: MessagePort { codes, messages },
            python_replies,
        });
        let code_addr = daemon.listen(config.ip, config.code_port, Arc::new(code_port))?;
        let message_addr = daemon.listen(config.ip, config.message_port, Arc::new(message_port))?;
        Ok(Self {
            daemon,
            code_addr,
            message_addr,
        })
    }

    /// The address for codes, with the port it took.
    pub fn code_addr(&self) -> SocketAddr {
        self.code_addr
    }

    /// The address for messages, with the port it took.
    pub fn message_addr(&self) -> SocketAddr {
        self.message_addr
    }

    /// Stops the server from elsewhere.
    pub fn handle(&self) -> Handle {
        self.daemon.handle()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If it cannot start its threads.
    pub fn run(self) -> Result<(), Error> {
        log::info!("Server started on {} (codes)", self.code_addr);
        log::info!("Server started on {} (messages)", self.message_addr);
        Ok(self.daemon.run()?)
    }
}
