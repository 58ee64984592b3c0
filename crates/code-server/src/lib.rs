//! The code server: hands out one unique code per UUID on one HTTP port, and logs messages from holders
//! of a code on another.
//!
//! [`args`] reads the command line; `service` has the handlers of both ports; `codes` is the codes and
//! their file, `known` the part of them in memory; `messages` is the log.

pub mod args;
mod codes;
mod error;
mod known;
mod messages;
mod metrics;
mod service;

use std::path::PathBuf;
use std::sync::Arc;

use cli::ServerOptions;
use daemon::http::{Http, Probes};
use daemon::{Address, Audience, Daemon, Standby};
use storage::{DataFolder, Fsync, LegacyLock, Limits};

pub use codes::{Codes, CodesError};
pub use daemon::Serve;
pub use error::Error;
pub use messages::Messages;

use metrics::CodeFigures;
use service::{CodePort, MessagePort, Port};

/// The file in the data folder that earlier versions locked against a second server.
const LEGACY_LOCK_NAME: &str = ".code-server.lock";

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its front door.
    pub door: ServerOptions,
    /// The port for codes; 0 is any free one.
    pub code_port: u16,
    /// The port for messages; 0 is any free one.
    pub message_port: u16,
    /// Where `codes.txt` and `messages.log` are kept; made if it does not exist.
    pub data_dir: PathBuf,
    /// The most codes that are handed out.
    pub codes_max: usize,
    /// Whether to reply as the original Python client expects.
    pub python_replies: bool,
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
    /// The longest `messages.log`, and how much of the disk both files leave free.
    pub limits: Limits,
}

/// A code server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    codes: Arc<Codes>,
    messages: Arc<Messages>,
    _legacy_lock: LegacyLock,
    code_addr: Address,
    message_addr: Address,
    // Last, because the folder is removed only when the files in it are gone.
    _folder: DataFolder,
}

/// What other machines can do, if they can reach it.
fn exposure(door: &ServerOptions) -> String {
    let writers = Audience::of(door).writers;
    format!("{writers} can ask for codes and leave messages")
}

impl Server {
    /// Opens the data folder and listens on both ports. If another server uses the folder and the
    /// options say so, it stands by until that one ends.
    ///
    /// # Errors
    /// If the folder or a port cannot be had.
    pub fn bind(config: Config, standby: &Standby) -> Result<Self, Error> {
        config.fsync.warn();
        // First, so that it is dropped last if something fails, after everything that uses the files.
        let mut folder = DataFolder::create(&config.data_dir)?;
        if config.door.stands_by {
            folder.stand_by(standby.on_wait());
        }
        let mut daemon = Daemon::new(config.door.clone(), 2, exposure(&config.door))?;
        let legacy_lock = folder.legacy_lock(LEGACY_LOCK_NAME)?;
        let stop = || {
            let handle = daemon.handle();
            move || {
                handle.stop();
            }
        };
        let (fsync, limits) = (config.fsync, config.limits);
        let codes = Codes::open(&mut folder, config.codes_max, fsync, limits, stop())?;
        let codes = Arc::new(codes);
        let messages = Messages::open(&mut folder, fsync, limits, stop())?;
        let messages = Arc::new(messages);
        let figures = Arc::new(CodeFigures {
            codes: Arc::clone(&codes),
            messages: Arc::clone(&messages),
        });
        let probes = Probes::new("", figures);
        let http = |handler| Http {
            handler,
            probes: probes.clone(),
        };
        let python_replies = config.python_replies;
        let code_port = http(Arc::new(Port {
            service: CodePort {
                codes: Arc::clone(&codes),
            },
            python_replies,
        }));
        let message_port = http(Arc::new(Port {
            service: MessagePort {
                codes: Arc::clone(&codes),
                messages: Arc::clone(&messages),
            },
            python_replies,
        }));
        let code_addr = daemon.listen(config.code_port, "codes", code_port)?;
        let message_addr = daemon.listen(config.message_port, "messages", message_port)?;
        Ok(Self {
            daemon,
            codes,
            messages,
            _legacy_lock: legacy_lock,
            code_addr,
            message_addr,
            _folder: folder,
        })
    }

    /// The address for codes, with the port it took.
    pub fn code_addr(&self) -> &Address {
        &self.code_addr
    }

    /// The address for messages, with the port it took.
    pub fn message_addr(&self) -> &Address {
        &self.message_addr
    }
}

impl Serve for Server {
    type Error = Error;

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn reload(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        // Not to keep it open when the server has ended.
        let messages = Arc::downgrade(&self.messages);
        Some(Box::new(move || {
            if let Some(messages) = messages.upgrade() {
                messages.reopen();
            }
        }))
    }

    fn run(self) -> Result<(), Error> {
        self.daemon.run()?;
        let failure = self.codes.failure().or_else(|| self.messages.failure());
        failure.map_or(Ok(()), |lost| Err(lost.into()))
    }
}
