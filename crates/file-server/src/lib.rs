//! The file server: downloads, uploads and lists of folders over HTTP.
//!
//! [`args`] reads the command line and `service` answers the requests: `download` with `representations`,
//! `compression`, `file_cache`, `content_type` and `digests`; `upload` with `form`; `resumable`; `manage`;
//! `listing` with `page`; and `archive`. `path` turns request targets into paths, and `files` is the tree on
//! disk and its rules. `access` says which role a request needs, `access_log` writes a line for each, and
//! `permits` bounds what takes much work. `prefix` is what stands in front of all paths, and `reach` tells
//! where other machines find the server.

mod access;
mod access_log;
mod archive;
pub mod args;
mod compression;
mod content_type;
mod digests;
mod disposition;
mod download;
mod error;
mod file_cache;
mod files;
mod form;
mod listing;
mod manage;
mod metrics;
mod page;
mod path;
mod permits;
mod prefix;
mod reach;
mod representations;
mod resumable;
mod service;
mod upload;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cli::ServerOptions;
use crossbeam_channel::{Receiver, TryRecvError, select};
use daemon::http::{Http, HttpHandler, Probes};
use daemon::{Address, Audience, Daemon, StartError};

pub use daemon::Serve;
pub use error::Error;

use access_log::AccessLog;
use digests::Digests;
use file_cache::FileCache;
use files::Files;
use metrics::FileFigures;
use permits::Permits;
use prefix::Prefixed;
use service::FileService;

/// The sweeper runs as often as an interrupted upload is kept long, but at most this often...
const SWEEP_PAUSE_MIN: Duration = Duration::from_secs(1);
/// ...and at least this often.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Where probes are answered: `/metrics` may be somebody's file.
const PROBES_BELOW: &str = "/.quartet";

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its front door.
    pub door: ServerOptions,
    /// The port; 0 is any free one.
    pub port: u16,
    /// The folder that is served, or a file, which is served at `/`.
    pub root: PathBuf,
    /// What stands in front of every path: empty, or a path that begins with a slash and does not end in
    /// one.
    pub path_prefix: String,
    /// The server ends after this time without a request.
    pub idle_exit: Option<Duration>,
    /// The server ends when it has served for this time.
    pub exit_after: Option<Duration>,
    /// Whether a QR code of its address is shown.
    pub has_qr: bool,
    /// Whether uploads are refused.
    pub read_only: bool,
    /// Whether what would replace or delete a file is refused.
    pub create_only: bool,
    /// Whether files and folders may be deleted and renamed, and folders created.
    pub manage: bool,
    /// Whether folders without an index page are listed.
    pub has_listing: bool,
    /// How many archives of folders are made at once; with 0 there are none.
    pub archives_max: usize,
    /// Whether lists and texts are compressed for the clients that accept that.
    pub has_compression: bool,
    /// The largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// The room on the disk that uploads leave free, in bytes.
    pub keep_free_bytes: u64,
    /// How long an interrupted upload is kept, so that its client can continue.
    pub resume_keep: Duration,
    /// How long the sender of an upload may be silent.
    pub body_timeout: Duration,
    /// Whether a line for each request is written to standard output.
    pub has_access_log: bool,
}

impl Config {
    /// Whether reading needs an account.
    pub(crate) fn is_reading_closed(&self) -> bool {
        let auth = self.door.auth.as_ref();
        auth.is_some_and(|auth| !auth.is_read_free)
    }

    /// The files of this server that nobody may download.
    fn secrets(&self) -> Vec<PathBuf> {
        let accounts = self.door.auth.as_ref().map(|auth| &auth.file);
        let key = self.door.tls.as_ref().map(|tls| &tls.pair.key);
        accounts.into_iter().chain(key).cloned().collect()
    }
}

/// What stands at the path of the root.
struct Served {
    /// The folder there, or that of the file there.
    folder: PathBuf,
    /// The name of the file.
    file: Option<PathBuf>,
}

impl Served {
    fn at(root: &Path) -> io::Result<Self> {
        if !root.metadata()?.is_file() {
            return Ok(Self {
                folder: root.to_owned(),
                file: None,
            });
        }
        // A link may lead to another folder.
        let path = root.canonicalize()?;
        Ok(Self {
            folder: path.parent().unwrap_or(Path::new("/")).to_owned(),
            file: path.file_name().map(PathBuf::from),
        })
    }
}

/// A file server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    local_addr: Address,
    service: Arc<FileService>,
}

impl Server {
    /// Opens the root and listens.
    ///
    /// # Errors
    /// If the root cannot be opened, the accounts are wrong, or the port is not free.
    pub fn bind(mut config: Config) -> Result<Self, Error> {
        let root = config.root.clone();
        let no_root = |cause| Error::Root {
            path: root.clone(),
            cause,
        };
        let served = Served::at(&root).map_err(no_root)?;
        // What is beside it is not for clients.
        config.read_only |= served.file.is_some();
        config.manage &= served.file.is_none();
        config.has_listing &= served.file.is_none();
        config.door.served = Some(root.clone());
        let besides = archive::descriptors(&config);
        let mut daemon = Daemon::needing(besides, config.door.clone(), 1, exposure(&config))?;
        let files = Files::open(&served.folder, config.keep_free_bytes, config.resume_keep);
        let files = files.map_err(no_root)?;
        let files = files
            .only(served.file)
            .create_only(config.create_only)
            .withhold(config.secrets());
        let handle = daemon.handle();
        files.on_sync_failure(move || {
            handle.stop();
        });
        let access_log = match config.has_access_log {
            true => {
                let out = cli::stream::output().map_err(Error::Output)?;
                Some(AccessLog::start(out).map_err(StartError::Thread)?)
            }
            false => None,
        };
        if let Some(idle) = config.idle_exit {
            daemon.exit_when_idle(idle);
        }
        if let Some(time) = config.exit_after {
            daemon.exit_after(time);
        }
        let port = config.port;
        let service = Arc::new(FileService {
            config,
            files: Arc::new(files),
            file_cache: FileCache::default(),
            digests: Digests::default(),
            archives: Permits::default(),
            compressions: Permits::default(),
            access_log,
        });
        let handler: Arc<dyn HttpHandler> = match service.config.path_prefix.as_str() {
            "" => Arc::clone(&service) as _,
            prefix => Arc::new(Prefixed {
                service: Arc::clone(&service),
                prefix: prefix.to_owned(),
            }),
        };
        let figures = Arc::new(FileFigures(Arc::clone(&service)));
        let http = Http {
            handler,
            probes: Probes::new(PROBES_BELOW, figures),
        };
        let local_addr = daemon.listen(port, "", http)?;
        Ok(Self {
            daemon,
            local_addr,
            service,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> &Address {
        &self.local_addr
    }
}

impl Serve for Server {
    type Error = Error;

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn reload(&self) -> Option<Box<dyn Fn() + Send + Sync>> {
        let service = Arc::clone(&self.service);
        let has_secrets = !service.config.secrets().is_empty();
        has_secrets.then(|| Box::new(move || service.files.remember_secrets()) as _)
    }

    fn run(self) -> Result<(), Error> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let service = Arc::clone(&self.service);
        let sweeper = thread::Builder::new().name("sweeper".to_owned());
        let sweeper = sweeper.spawn(move || sweep_until(&stopped, &service));
        let sweeper = sweeper.map_err(StartError::Thread)?;
        let config = &self.service.config;
        let below = format!("{}/", config.path_prefix);
        let addresses = self.daemon.addresses();
        reach::tell(addresses, config.door.tls.is_some(), &below, config.has_qr);
        let ran = self.daemon.run();
        drop(stop);
        if sweeper.join().is_err() {
            log::error!("the sweeper panicked");
        }
        if let Some(log) = &self.service.access_log {
            log.flush();
        }
        ran?;
        let failure = self.service.files.sync_failure();
        failure.map_or(Ok(()), |cause| Err(Error::Disk(cause)))
    }
}

/// What everybody who reaches the server can do with it.
fn exposure(config: &Config) -> String {
    let Audience { readers, writers } = Audience::of(&config.door);
    let (and, write) = match (config.create_only, config.manage) {
        (true, false) => (" and", "add to"),
        (false, false) => (" and", "write"),
        (true, true) => (",", "add to and rename"),
        (false, true) => (",", "write, rename and delete"),
    };
    let root = config.root.canonicalize();
    let root = root.as_deref().unwrap_or(&config.root);
    let files = match root.is_file() {
        true => root.display().to_string(),
        false => format!("the files in {}", root.display()),
    };
    match config.read_only {
        true => format!("{readers} can read {files}"),
        false if readers == writers => format!("{readers} can read{and} {write} {files}"),
        false => format!("{readers} can read {files}, and {writers} can {write} them"),
    }
}

/// Removes expired uploads, what is left of deleted folders, and changed files from the cache, until the
/// other end of `stopped` is dropped.
fn sweep_until(stopped: &Receiver<()>, service: &FileService) {
    let keep = service.config.resume_keep;
    let pause = keep.clamp(SWEEP_PAUSE_MIN, SWEEP_PAUSE_MAX);
    let must_continue = || stopped.try_recv() == Err(TryRecvError::Empty);
    let sweep = || {
        if !service.config.read_only {
            service.files.sweep(&must_continue);
        }
    };
    sweep();
    let due = crossbeam_channel::tick(pause);
    loop {
        select! {
            recv(stopped) -> _ => return,
            recv(service.files.removals()) -> deleted => {
                // The files have the other end, too.
                if let Ok(deleted) = deleted {
                    service.files.finish_removal(&deleted, &must_continue);
                }
            }
            recv(due) -> _ => {
                service.file_cache.evict_changed();
                sweep();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The configuration that these options make.
    pub(crate) fn config_of(options: &str) -> Config {
        args::APP.config_of(options.split_whitespace()).unwrap()
    }

    #[test]
    fn the_exposure_says_who_can_do_what() {
        let check = |options: &str, want: &str| {
            let config = config_of(&format!("--root / {options}"));
            assert_eq!(exposure(&config), want, "{options}");
        };
        check("", "everyone can read and write the files in /");
        check("--read-only", "everyone can read the files in /");
        check(
            "--create-only",
            "everyone can read and add to the files in /",
        );
        check(
            "--auth-file f --auth-read-free",
            "everyone can read the files in /, and everyone with an account can write them",
        );
        check(
            "--auth-file f --auth-read-free --create-only",
            "everyone can read the files in /, and everyone with an account can add to them",
        );
        check(
            "--manage",
            "everyone can read, write, rename and delete the files in /",
        );
        check(
            "--manage --create-only",
            "everyone can read, add to and rename the files in /",
        );
        check(
            "--manage --auth-file f --auth-read-free",
            "everyone can read the files in /, and everyone with an account can write, rename and \
             delete them",
        );
        check(
            "--auth-file f",
            "everyone with an account can read and write the files in /",
        );
        check(
            "--auth-file f --tls-cert c --tls-key k",
            "everyone with an account can read and write the files in /",
        );
        check(
            "--auth-file f --read-only",
            "everyone with an account can read the files in /",
        );
    }
}
