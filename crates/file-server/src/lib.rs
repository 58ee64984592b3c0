//! The file server: gives and takes files over HTTP.
//!
//! [`args`] reads the command line; `path` turns request targets into paths; `files` is the tree
//! on disk and its rules; `connection` answers requests: `give` the downloads, with `listing` for
//! folders and `content_type` for what files are said to be, `take` the uploads, and `resume` what was
//! broken off of them; `page` is what people see; `access` is who may do what, and `accounts` are their
//! passwords; `digests` are those of the files; `access_log` is the log of requests.

mod access;
mod access_log;
mod accounts;
pub mod args;
mod connection;
mod content_type;
mod digests;
mod download;
mod file_cache;
mod files;
mod form;
mod listing;
mod page;
mod path;
mod resume;
mod take;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cli::{Exit, Failure};
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use daemon::http::{Hosts, Http};
use daemon::{Daemon, Handle, StartError};

pub use accounts::{Access, Accounts, AccountsError};
pub use files::{
    Begun, Column, ENTRIES_MAX, Entries, Entry, Files, FilesError, Found, Mark, Order, Unfinished,
    Upload,
};
pub use path::{PathError, TreePath};

use access_log::AccessLog;
use connection::Connections;
use digests::Digests;
use file_cache::FileCache;

/// What is left of uploads is looked at as often as it is kept long, but not more often than
/// this...
const SWEEP_PAUSE_MIN: Duration = Duration::from_secs(1);
/// ...and not more seldom.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub ip: IpAddr,
    /// The host names that it answers for, besides its own.
    pub hosts: Vec<String>,
    /// The port; 0 is any free one.
    pub port: u16,
    /// The folder that is served.
    pub root: PathBuf,
    /// The server ends after so long without a request.
    pub idle_exit: Option<Duration>,
    /// Whether uploads are refused.
    pub read_only: bool,
    /// Whether uploads that would replace a file are refused.
    pub create_only: bool,
    /// Whether folders without an index page are listed.
    pub has_listing: bool,
    /// The largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// How much of the disk uploads leave free, in bytes.
    pub keep_free_bytes: u64,
    /// How long what has come of an upload is kept for the client to go on with.
    pub resume_keep: Duration,
    /// How long the sender of an upload may be silent.
    pub body_timeout: Duration,
    /// The file of those who may upload; `None` is everybody.
    pub auth_file: Option<PathBuf>,
    /// Whether only they may read, too.
    pub auth_all: bool,
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
    /// The file of accounts is not right.
    Accounts(AccountsError),
    /// It is in the folder that is served.
    AccountsServed(PathBuf),
    /// Standard output cannot take the access log.
    Output(cli::ClientError),
    /// The disk failed in a way that leaves open what is on it.
    Disk(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Root { path, .. } => write!(f, "cannot serve the folder {}", path.display()),
            Self::Accounts(error) => error.fmt(f),
            Self::AccountsServed(path) => write!(
                f,
                "{} is in the folder that is served, so that anybody could get it",
                path.display()
            ),
            Self::Output(_) => f.write_str("cannot write the access log"),
            Self::Disk(_) => f.write_str("stopping: the disk failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => error.source(),
            Self::Root { cause, .. } => Some(cause),
            Self::Accounts(error) => error.source(),
            Self::AccountsServed(_) => None,
            Self::Output(cause) => Some(cause),
            Self::Disk(cause) => Some(cause),
        }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<AccountsError> for Error {
    fn from(error: AccountsError) -> Self {
        Self::Accounts(error)
    }
}

impl Failure for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(error) if error.is_of_network() => Exit::Network,
            Self::Start(_)
            | Self::Root { .. }
            | Self::Accounts(_)
            | Self::AccountsServed(_)
            | Self::Output(_)
            | Self::Disk(_) => Exit::Local,
        }
    }
}

/// A file server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    local_addr: SocketAddr,
    service: Arc<Http<Connections>>,
}

impl Server {
    /// Opens the root and listens.
    ///
    /// # Errors
    /// If the root is not a folder that can be opened, or the port cannot be had.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let mut daemon = Daemon::new(config.connections_max, exposure(&config))?;
        let files = Files::open(&config.root, config.keep_free_bytes, config.resume_keep);
        let files = files.map_err(|cause| Error::Root {
            path: config.root.clone(),
            cause,
        })?;
        let files = files.create_only(config.create_only);
        let handle = daemon.handle();
        files.when_a_sync_fails(move || {
            handle.stop();
        });
        let accounts = config
            .auth_file
            .as_deref()
            .map(|path| accounts(path, &config.root))
            .transpose()?;
        let access_log = match config.has_access_log {
            true => {
                let out = cli::stream::output().map_err(Error::Output)?;
                Some(AccessLog::start(out).map_err(StartError::Thread)?)
            }
            false => None,
        };
        let service = Arc::new(Http {
            handler: Connections {
                files: Arc::new(files),
                read_only: config.read_only,
                has_listing: config.has_listing,
                upload_bytes_max: config.upload_bytes_max,
                access_log,
                resume_keep: config.resume_keep,
                body_timeout: config.body_timeout,
                accounts,
                digests: Digests::default(),
                file_cache: FileCache::default(),
                auth_all: config.auth_all,
            },
            hosts: Hosts::new(config.hosts),
        });
        if let Some(idle) = config.idle_exit {
            daemon.exit_when_idle(idle);
        }
        let local_addr = daemon.listen(config.ip, config.port, "", Arc::clone(&service) as _)?;
        Ok(Self {
            daemon,
            local_addr,
            service,
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
        || log::info!("Nothing to reload")
    }

    /// Serves until it is stopped, or had no request for too long.
    ///
    /// # Errors
    /// If it cannot start its threads, or had to stop because a sync failed.
    pub fn run(self) -> Result<(), Error> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let service = Arc::clone(&self.service);
        let sweeper = thread::Builder::new().name("sweeper".to_owned());
        let sweeper = sweeper.spawn(move || sweep_until(&stopped, &service.handler));
        let sweeper = sweeper.map_err(StartError::Thread)?;
        let ran = self.daemon.run();
        drop(stop);
        if sweeper.join().is_err() {
            log::error!("the sweeper panicked");
        }
        if let Some(log) = &self.service.handler.access_log {
            log.flush();
        }
        ran?;
        let failure = self.service.handler.files.failure();
        failure.map_or(Ok(()), |cause| Err(Error::Disk(cause)))
    }
}

/// The accounts in a file that nobody can download.
fn accounts(path: &Path, root: &Path) -> Result<Accounts, Error> {
    let accounts = Accounts::read(path)?;
    let is_served = match (path.canonicalize(), root.canonicalize()) {
        (Ok(path), Ok(root)) => path.starts_with(root),
        // It was there a moment ago. Who can tell where it is now?
        (Err(_), _) | (_, Err(_)) => true,
    };
    match is_served {
        true => Err(Error::AccountsServed(path.to_owned())),
        false => Ok(accounts),
    }
}

/// What other machines can do with a server that is set up like this, if they can reach it.
fn exposure(config: &Config) -> String {
    const ALL: &str = "everyone";
    const USERS: &str = "everyone with an account";
    let has_accounts = config.auth_file.is_some();
    let readers = if config.auth_all { USERS } else { ALL };
    let writers = if has_accounts { USERS } else { ALL };
    let write = if config.create_only {
        "add to"
    } else {
        "write"
    };
    let root = config.root.canonicalize();
    let root = root.as_deref().unwrap_or(&config.root).display();
    let open = match config.read_only {
        true => format!("{readers} can read the files in {root}"),
        false if readers == writers => {
            format!("{readers} can read and {write} the files in {root}")
        }
        false => format!("{readers} can read the files in {root}, and {writers} can {write} them"),
    };
    match has_accounts {
        true => format!("{open}; passwords and files travel unencrypted"),
        false => open,
    }
}

/// Removes the uploads that nobody goes on with, until the other end of `stopped` is dropped.
fn sweep_until(stopped: &Receiver<()>, connections: &Connections) {
    let pause = connections
        .resume_keep
        .clamp(SWEEP_PAUSE_MIN, SWEEP_PAUSE_MAX);
    let files = &connections.files;
    let goes_on = || stopped.try_recv() == Err(TryRecvError::Empty);
    loop {
        if !connections.read_only {
            files.remove_unfinished(&goes_on);
        }
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        connections.file_cache.evict_changed();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn accounts_that_would_be_served_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        let path = root.join("sub/accounts");
        fs::create_dir_all(root.join("sub")).unwrap();
        let hash = "$5$quartet$K7C2DS9Dq7yQ/l93/AD8dVYZWK6a57uqo5Az3wsic64";
        fs::write(&path, format!("ann:{hash}\n")).unwrap();
        symlink("root", top.path().join("link")).unwrap();
        for root in [root.clone(), top.path().join("link"), root.join("sub/..")] {
            let read = accounts(&path, &root).map(drop);
            assert!(matches!(read, Err(Error::AccountsServed(_))), "{root:?}");
        }
        let beside = top.path().join("root-accounts");
        fs::rename(&path, &beside).unwrap();
        accounts(&beside, &root).unwrap();
        symlink("root-accounts", top.path().join("other")).unwrap();
        accounts(&top.path().join("other"), &root).unwrap();
        // A link out of the root is served to nobody, and neither is where it leads.
        symlink("../root-accounts", root.join("link")).unwrap();
        accounts(&root.join("link"), &root).unwrap();
    }

    #[test]
    fn what_is_open_to_whom_is_said() {
        let path = Path::new("/");
        let check = |options: &str, want: &str| {
            let line = format!("file-server --root {} {options}", path.display());
            let parsed = args::parse(lexopt::Parser::from_iter(line.split_whitespace()));
            let Ok(cli::Parsed::Run { config, .. }) = parsed else {
                panic!("{line}");
            };
            assert_eq!(exposure(&config), want, "{options}");
        };
        check("", "everyone can read and write the files in /");
        check("--read-only", "everyone can read the files in /");
        check(
            "--create-only",
            "everyone can read and add to the files in /",
        );
        check(
            "--auth-file f",
            "everyone can read the files in /, and everyone with an account can write them; \
             passwords and files travel unencrypted",
        );
        check(
            "--auth-file f --create-only",
            "everyone can read the files in /, and everyone with an account can add to them; \
             passwords and files travel unencrypted",
        );
        check(
            "--auth-file f --auth-all",
            "everyone with an account can read and write the files in /; \
             passwords and files travel unencrypted",
        );
        check(
            "--auth-file f --auth-all --read-only",
            "everyone with an account can read the files in /; \
             passwords and files travel unencrypted",
        );
    }
}
