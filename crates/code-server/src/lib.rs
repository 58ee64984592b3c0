//! The code server: one unique code per UUID on one HTTP port, and a log of messages from whoever
//! holds a code on another.
//!
//! [`args`] reads the command line; `codes` knows who has which code and keeps that on disk, `known` is
//! the part of it in memory; `messages` is the log; `connection` answers the requests on both ports.

pub mod args;
mod codes;
mod connection;
mod error;
mod known;
mod messages;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use daemon::http::{Hosts, Http};
use daemon::{Daemon, Handle};
use storage::{DataFolder, Fsync, LegacyLock, Limits};

pub use codes::{Codes, CodesError};
pub use error::Error;
pub use messages::Messages;

use connection::{CodePort, MessagePort, Port};

/// The file in the data folder by which earlier versions kept a second server away.
const LEGACY_LOCK_NAME: &str = ".code-server.lock";

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The host names that it answers for, besides its own.
    pub hosts: Vec<String>,
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
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
    /// How long `messages.log` may become, and what both files leave of the disk.
    pub limits: Limits,
    /// Connections open at once, over both ports.
    pub connections_max: usize,
}

/// A code server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    codes: Arc<Codes>,
    messages: Arc<Messages>,
    _legacy_lock: LegacyLock,
    code_addr: SocketAddr,
    message_addr: SocketAddr,
    // Last, for it goes when the files in it are gone.
    _folders: DataFolder,
}

/// What other machines can do, if they can reach it.
const EXPOSURE: &str = "everyone can ask for codes and leave messages";

impl Server {
    /// Opens the data folder and listens on both ports.
    ///
    /// # Errors
    /// If the folder or a port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        config.fsync.warn();
        let path = &config.data_dir;
        // First, for if something fails, it goes last, behind all that has the files.
        let folders = DataFolder::create(path)?;
        let mut daemon = Daemon::new(config.connections_max, EXPOSURE)?;
        let legacy_lock = LegacyLock::acquire(&path.join(LEGACY_LOCK_NAME))?;
        let stop = || {
            let handle = daemon.handle();
            move || {
                handle.stop();
            }
        };
        let codes = Codes::open(path, config.codes_max, config.fsync, config.limits, stop())?;
        let codes = Arc::new(codes);
        let messages = Messages::open(path, config.fsync, config.limits, stop())?;
        let messages = Arc::new(messages);
        let python_replies = config.python_replies;
        let hosts = Hosts::new(config.hosts);
        let code_port = Http {
            handler: Arc::new(Port {
                service: CodePort {
                    codes: Arc::clone(&codes),
                },
                python_replies,
            }),
            hosts: hosts.clone(),
        };
        let message_port = Http {
            handler: Arc::new(Port {
                service: MessagePort {
                    codes: Arc::clone(&codes),
                    messages: Arc::clone(&messages),
                },
                python_replies,
            }),
            hosts,
        };
        let ip = config.ip;
        let code_addr = daemon.listen(ip, config.code_port, "codes", code_port.into())?;
        let message_addr =
            daemon.listen(ip, config.message_port, "messages", message_port.into())?;
        Ok(Self {
            daemon,
            codes,
            messages,
            _legacy_lock: legacy_lock,
            code_addr,
            message_addr,
            _folders: folders,
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

    /// What SIGHUP calls: reads and opens again what can be.
    pub fn reload(&self) -> impl Fn() + Send + Sync + 'static {
        // Not to keep it open when the server has ended.
        let messages = Arc::downgrade(&self.messages);
        move || {
            if let Some(messages) = messages.upgrade() {
                messages.reopen();
            }
        }
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If it cannot start its threads, or had to end because the disk failed.
    pub fn run(self) -> Result<(), Error> {
        self.daemon.run()?;
        let failure = self.codes.failure().or_else(|| self.messages.failure());
        failure.map_or(Ok(()), |lost| Err(lost.into()))
    }
}
