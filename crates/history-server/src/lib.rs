//! The history server: who asked what, in a file that its users can read and prune.
//!
//! [`args`] reads the command line; `history` is the file and its rules; `users` is who may;
//! `connection` is the life of a connection in either dialect.

pub mod args;
mod connection;
mod history;
mod users;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use cli::{Exit, Failure};
use daemon::{Daemon, Handle, StartError};
use storage::{Fsync, Limits};

pub use history::{History, HistoryError, Snapshot};
pub use users::{Users, UsersError};

use connection::Connections;

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The port; 0 is any free one.
    pub port: u16,
    /// The folder of `history.txt`; it is made if it is missing.
    pub data_dir: PathBuf,
    /// The file that names the users who may; `None` lets anyone.
    pub users: Option<PathBuf>,
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
    /// How long the history may become, and what it leaves of the disk.
    pub limits: Limits,
    /// Connections open at once.
    pub connections_max: usize,
}

/// Why a server could not run, or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Other machines could reach it, and nothing says who may use it.
    Exposed(IpAddr),
    /// Who may use it is not known.
    Users(UsersError),
    /// The history could not be opened.
    History(HistoryError),
    /// The disk failed in a way that leaves open what is on it, or the file was taken away.
    Disk(io::Error),
    /// It could not listen.
    Start(StartError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exposed(ip) => write!(
                f,
                "{ip} can be reached from other machines: --users must say who may use the history"
            ),
            Self::Users(error) => error.fmt(f),
            Self::History(error) => error.fmt(f),
            Self::Disk(_) => f.write_str("stopping"),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Exposed(_) => None,
            Self::Disk(cause) => Some(cause),
            Self::Users(error) => error.source(),
            Self::History(error) => error.source(),
            Self::Start(error) => error.source(),
        }
    }
}

impl From<UsersError> for Error {
    fn from(error: UsersError) -> Self {
        Self::Users(error)
    }
}

impl From<HistoryError> for Error {
    fn from(error: HistoryError) -> Self {
        Self::History(error)
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
            Self::Start(error) if error.is_of_network() => Exit::Network,
            Self::Exposed(_)
            | Self::Users(_)
            | Self::History(_)
            | Self::Disk(_)
            | Self::Start(_) => Exit::Local,
        }
    }
}

/// A history server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    history: Arc<History>,
    local_addr: SocketAddr,
}

/// What other machines can do, if they can reach it.
const EXPOSURE: &str =
    "everyone who knows a user's name can read the history, add to it and delete it";

impl Server {
    /// Reads the users, opens the history, and listens.
    ///
    /// # Errors
    /// If any of that fails, or if the address can be reached from other machines and there is no
    /// file of users.
    pub fn bind(config: Config) -> Result<Self, Error> {
        config.fsync.warn();
        if config.users.is_none() && !config.ip.is_loopback() {
            return Err(Error::Exposed(config.ip));
        }
        let users = config.users.as_deref().map(Users::read).transpose()?;
        let mut daemon = Daemon::new(config.connections_max, EXPOSURE)?;
        let handle = daemon.handle();
        let stop = move || {
            handle.stop();
        };
        let history = Arc::new(History::open(
            &config.data_dir,
            config.fsync,
            config.limits,
            stop,
        )?);
        let service = Connections::new(Arc::clone(&history), users);
        let local_addr = daemon.listen(config.ip, config.port, "", Arc::new(service))?;
        Ok(Self {
            daemon,
            history,
            local_addr,
        })
    }

    /// The address it listens on, with the port it took.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops the server from elsewhere.
    pub fn handle(&self) -> Handle {
        self.daemon.handle()
    }

    /// What SIGHUP calls: reads and opens again what can be.
    pub fn reload(&self) -> impl Fn() + Send + Sync + 'static {
        // Not to keep it open when the server has ended.
        let history = Arc::downgrade(&self.history);
        move || {
            if let Some(history) = history.upgrade() {
                history.reopen();
            }
        }
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If it cannot start its threads, or had to stop because of its disk.
    pub fn run(self) -> Result<(), Error> {
        self.daemon.run()?;
        let failure = self.history.failure();
        failure.map_or(Ok(()), |cause| Err(Error::Disk(cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposed_server_needs_users() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            ip: IpAddr::from([0, 0, 0, 0]),
            port: 0,
            data_dir: dir.path().join("data"),
            users: None,
            fsync: Fsync::Always,
            limits: Limits::default(),
            connections_max: 1,
        };
        let Err(error) = Server::bind(config.clone()) else {
            panic!("it listens");
        };
        assert_eq!(error.exit(), Exit::Local);
        assert!(!config.data_dir.exists(), "it touched the disk");
        let users = dir.path().join("users");
        std::fs::write(&users, "alice\n").unwrap();
        config.users = Some(users);
        assert!(Server::bind(config).is_ok());
    }
}
