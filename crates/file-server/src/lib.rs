//! The file server: gives and takes files over HTTP.
//!
//! [`args`] reads the command line; `path` turns request targets into paths; `files` is the tree
//! on disk and its rules; `connection` answers requests: `give` the downloads, with `listing` for
//! folders, and `take` the uploads; `access_log` is the log of requests.

mod access_log;
pub mod args;
mod connection;
mod files;
mod give;
mod listing;
mod path;
mod take;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cli::{Exit, Failure};
use daemon::http::Http;
use daemon::{Daemon, Handle, StartError};

pub use files::{ENTRIES_MAX, Entry, Files, FilesError, Found, Upload};
pub use path::{PathError, TreePath};

use connection::Connections;

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The port; 0 is any free one.
    pub port: u16,
    /// The folder that is served.
    pub root: PathBuf,
    /// The server ends after so long without a request.
    pub idle_exit: Option<Duration>,
    /// Whether uploads are refused.
    pub read_only: bool,
    /// Whether folders without an index page are listed.
    pub has_listing: bool,
    /// The largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// How much of the disk uploads leave free, in bytes.
    pub keep_free_bytes: u64,
    /// Whether a line for each request goes to standard output.
    pub has_access_log: bool,
    /// Connections open at once.
    pub connections_max: usize,
}

/// Why a server could not run.
#[derive(Debug)]
pub enum Error {
    /// It could not listen.
    Start(StartError),
    /// The folder it is to serve cannot be opened.
    Root {
        /// The folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Root { path, .. } => write!(f, "cannot serve the folder {}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
            Self::Root { cause, .. } => Some(cause),
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
            Self::Root { .. } => Exit::Usage,
        }
    }
}

/// A file server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    local_addr: SocketAddr,
}

impl Server {
    /// Opens the root and listens.
    ///
    /// # Errors
    /// If the root is not a folder that can be opened, or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let files =
            Files::open(&config.root, config.keep_free_bytes).map_err(|cause| Error::Root {
                path: config.root,
                cause,
            })?;
        if !config.read_only {
            files.remove_leftovers();
        }
        let service = Arc::new(Http(Connections {
            files,
            read_only: config.read_only,
            has_listing: config.has_listing,
            upload_bytes_max: config.upload_bytes_max,
            has_access_log: config.has_access_log,
        }));
        let mut daemon = Daemon::new(config.connections_max);
        if let Some(idle) = config.idle_exit {
            daemon.exit_when_idle(idle);
        }
        let local_addr = daemon.listen(config.ip, config.port, service)?;
        Ok(Self { daemon, local_addr })
    }

    /// The address it listens on, with the port it took.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the server from elsewhere.
    pub fn handle(&self) -> Handle {
        self.daemon.handle()
    }

    /// Serves until it is stopped, or had no request for too long.
    ///
    /// # Errors
    /// If it cannot start its threads.
    pub fn run(self) -> Result<(), Error> {
        log::info!("Server started on {}", self.local_addr);
        Ok(self.daemon.run()?)
    }
}
