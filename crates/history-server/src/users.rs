//! Who may use the history: the users whom the administrator lists, and those to whom the server has
//! given a name. Without a list everyone may, under any name.

mod allowance;
mod listed;
mod registered;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use daemon::Source;
use storage::{DataFolder, StorageError};

use crate::{Config, Error, HistoryError};

use allowance::Allowance;
pub(crate) use listed::Listed;
use registered::Registered;

/// Who may use the history.
pub(crate) struct Users {
    /// `None` allows everyone.
    listed: Option<Arc<Listed>>,
    /// `None` where names are logins.
    registered: Option<Registered>,
    /// Whether new names are given.
    may_register: bool,
    allowance: Allowance,
}

impl Users {
    /// Opens the names that were given, in the data folder. `on_failure` is called when the
    /// disk fails in a way that leaves open what is on it.
    ///
    /// # Errors
    /// [`Error::OwnUsers`], [`Error::Storage`].
    pub(crate) fn open(
        listed: Option<Listed>,
        config: &Config,
        folder: &mut DataFolder,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let listed = listed.map(Arc::new);
        let mut users = Self {
            may_register: config.register || listed.is_none(),
            registered: None,
            listed,
            allowance: Allowance::default(),
        };
        if config.door.auth.is_some() {
            return Ok(users);
        }
        let path = folder.path().join(registered::FILE_NAME);
        let is_listed = match users.listed.clone() {
            None => Box::new(|_: &str| false) as registered::IsTaken,
            Some(listed) if is_same_file(listed.path(), &path) => {
                return Err(Error::OwnUsers(listed.path().to_owned()));
            }
            Some(listed) => Box::new(move |name: &str| listed.contains(name)),
        };
        let (fsync, limits) = (config.fsync, config.limits);
        let registered = Registered::open(folder, is_listed, fsync, limits, on_failure)?;
        if users.listed.is_some() && registered.names() > 0 {
            log::info!(
                "{} names {} users, who may use the history too",
                path.display(),
                registered.names()
            );
        }
        users.registered = Some(registered);
        Ok(users)
    }

    /// Whether this user may use the history.
    pub(crate) fn may(&self, user: &str) -> bool {
        let Some(listed) = &self.listed else {
            return true;
        };
        let is_registered = |registered: &Registered| registered.contains(user);
        listed.contains(user) || self.registered.as_ref().is_some_and(is_registered)
    }

    /// Gives a name that nobody has, which begins with this prefix, or with two words if it is empty.
    /// The name is on the disk when this returns.
    ///
    /// # Errors
    /// [`HistoryError::NamesAreLogins`], [`HistoryError::NoRegister`], [`HistoryError::TooManyNames`],
    /// [`HistoryError::NotStored`].
    pub(crate) fn register(&self, from: Source, prefix: &str) -> Result<String, HistoryError> {
        let registered = self.registered.as_ref();
        let registered = registered.ok_or(HistoryError::NamesAreLogins)?;
        if !self.may_register {
            return Err(HistoryError::NoRegister);
        }
        if !self.allowance.spend(from, Instant::now()) {
            return Err(HistoryError::TooManyNames);
        }
        registered.add(prefix).map_err(HistoryError::NotStored)
    }

    /// Reads the administrator's list again.
    pub(crate) fn reload(&self) {
        if let Some(listed) = &self.listed {
            listed.reload();
        }
    }

    /// [`StorageError::Lost`] if a commit was lost. It is returned once.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.registered.as_ref().and_then(Registered::failure)
    }
}

/// Whether both paths lead to one file that exists.
fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), _) | (_, Err(_)) => false,
    }
}
