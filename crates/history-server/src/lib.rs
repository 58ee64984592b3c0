//! The history server: who asked what, and notes, in a file that its users read, follow, search and
//! prune.
//!
//! [`args`] reads the command line. `service` handles the requests of both protocols, and `reply`
//! writes their replies; `follow` sends new lines as they come, and `page` is all of that over HTTP.
//! `history` is the noun, `users` says who may use it, `pruner` forgets the oldest lines.

pub mod args;
mod error;
mod follow;
mod history;
mod metrics;
mod page;
mod pruner;
mod reply;
mod service;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

use cli::ServerOptions;
use daemon::http::{Http, Probes};
use daemon::{Address, Audience, Daemon, Protocols, Standby};
use storage::{DataFolder, Fsync, Limits};

pub use daemon::Serve;
pub use error::{Error, HistoryError};
pub use history::{Condition, Event, Follower, History, Keep, Lines, Moment, Removed, Snapshot};

use metrics::HistoryFigures;
use page::HistoryPage;
use pruner::Pruner;
use service::Service;
use users::{Listed, Users};

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its front door.
    pub door: ServerOptions,
    /// The port; 0 is any free one.
    pub port: u16,
    /// The folder of `history.txt` and `users.txt`; it is created if it is missing.
    pub data_dir: PathBuf,
    /// The file of the users who may use the history; `None` allows everyone.
    pub users: Option<PathBuf>,
    /// Whether names are given to those who ask, also if there is a file of users.
    pub register: bool,
    /// How much of the history stays.
    pub keep: Keep,
    /// Whether replies wait for the disk.
    pub fsync: Fsync,
    /// The longest the history may become, and how much of the disk stays free.
    pub limits: Limits,
}

/// A history server that listens.
#[must_use = "a server listens, but serves nobody until it runs"]
pub struct Server {
    daemon: Daemon,
    /// Before the history, which it uses.
    _pruner: Option<Pruner>,
    users: Arc<Users>,
    history: Arc<History>,
    local_addr: Address,
    // Last, because the folder is removed only when the files in it are gone.
    _folder: DataFolder,
}

/// What other machines can do, if they can reach it.
fn exposure(config: &Config) -> String {
    let door = &config.door;
    let writers = Audience::of(door).writers;
    match door.auth {
        Some(_) => format!("{writers} can read the history and add to it"),
        None if config.register => {
            format!("{writers} can get a name, read the history, add to it and delete it")
        }
        None => format!(
            "{writers} who knows a user's name can read the history, add to it and delete it"
        ),
    }
}

impl Server {
    /// Reads the users, opens the history, and listens. If another server uses the data folder and the
    /// options say so, it stands by until that one ends.
    ///
    /// # Errors
    /// If any of that fails. [`Error::Exposed`] if other machines can reach the address and there is
    /// no file of users.
    pub fn bind(config: Config, standby: &Standby) -> Result<Self, Error> {
        config.fsync.warn();
        let mut daemon = Daemon::new(config.door.clone(), 1, exposure(&config))?;
        if config.users.is_none()
            && config.door.auth.is_none()
            && let Some(exposed) = daemon.exposed()
        {
            return Err(Error::Exposed(exposed));
        }
        let listed = config.users.as_deref().map(Listed::read).transpose()?;
        let stop = || {
            let handle = daemon.handle();
            move || {
                handle.stop();
            }
        };
        let mut folder = DataFolder::create(&config.data_dir)?;
        if config.door.stands_by {
            folder.stand_by(standby.on_wait());
        }
        let (fsync, limits) = (config.fsync, config.limits);
        let history = Arc::new(History::open(&mut folder, fsync, limits, stop())?);
        let users = Arc::new(Users::open(listed, &config, &mut folder, stop())?);
        let service = Arc::new(Service::new(Arc::clone(&history), Arc::clone(&users)));
        let probes = Probes::new("", Arc::new(HistoryFigures(Arc::clone(&history))));
        let protocols = Protocols {
            frames: Some(Arc::clone(&service) as _),
            text: Some(Arc::clone(&service) as _),
            http: Some(Http {
                handler: Arc::new(HistoryPage {
                    service,
                    server: daemon.handle(),
                }),
                probes,
            }),
        };
        let local_addr = daemon.listen(config.port, "", protocols)?;
        let pruner = match config.keep.is_all() {
            true => None,
            false => {
                let handle = daemon.handle();
                let is_stopping = move || handle.is_stopping();
                let pruner = Pruner::start(Arc::clone(&history), config.keep, is_stopping);
                Some(pruner.map_err(Error::Pruner)?)
            }
        };
        Ok(Self {
            daemon,
            _pruner: pruner,
            users,
            history,
            local_addr,
            _folder: folder,
        })
    }

    /// The address it listens on, with the port it took.
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
        // Weak, so that it does not keep the history open after the server has ended.
        let history = Arc::downgrade(&self.history);
        let users = Arc::downgrade(&self.users);
        Some(Box::new(move || {
            if let Some(users) = users.upgrade() {
                users.reload();
            }
            if let Some(history) = history.upgrade() {
                history.reopen();
            }
        }))
    }

    fn run(self) -> Result<(), Error> {
        self.daemon.run()?;
        let failure = self.history.failure().or_else(|| self.users.failure());
        failure.map_or(Ok(()), |lost| Err(lost.into()))
    }
}

#[cfg(test)]
mod tests {
    use cli::{Bind, Exit, Failure};

    use super::*;

    #[test]
    fn an_exposed_server_needs_users() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            door: ServerOptions {
                binds: vec![Bind::Ip([0, 0, 0, 0].into())],
                ..ServerOptions::new(1)
            },
            port: 0,
            data_dir: dir.path().join("data"),
            users: None,
            register: false,
            keep: Keep::default(),
            fsync: Fsync::Always,
            limits: Limits::default(),
        };
        let Err(error) = Server::bind(config.clone(), &Standby::default()) else {
            panic!("it listens");
        };
        assert_eq!(error.exit(), Exit::Local);
        assert!(!config.data_dir.exists(), "it touched the disk");
        let users = dir.path().join("users");
        std::fs::write(&users, "alice\n").unwrap();
        config.users = Some(users);
        assert!(Server::bind(config, &Standby::default()).is_ok());
    }
}
