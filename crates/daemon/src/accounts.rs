//! The accounts: who may use the server, and what for, from the file of `--auth-file`.
//!
//! A hash is slow to check on purpose, so that nobody can guess fast. A password that was right once is
//! remembered, and its user never waits. All others are guesses, and take turns (`guesses`). How long one
//! takes does not depend on the user, so nobody can tell by the time which users there are.
//!
//! The file can be read again while the server runs. A line that stays as it was stays the same
//! [`Account`], so a connection that has logged in can be told from one whose account is gone.

mod file;
mod guesses;
mod password;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::hint;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cli::escape::Escaped;
use proto::login::{PASSWORD_BYTES_MAX, USER_BYTES_MAX};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::caller::Role;
use crate::error::AccountsError;
use crate::lock;
use crate::peer::Peer;

use file::Line;
use guesses::Guesses;
use password::{Cost, Password};

/// The accounts in a file.
pub(crate) struct Accounts {
    path: PathBuf,
    /// The folder that it must not be in.
    served: Option<PathBuf>,
    known: Mutex<Arc<Known>>,
    /// The key of this process, so that the proofs are of no use elsewhere.
    key: Uuid,
    guesses: Guesses,
}

struct Known {
    by_user: HashMap<Arc<str>, Arc<Account>>,
    /// One account for each cost of a check that there is.
    decoys: Vec<Arc<Account>>,
}

/// One account.
pub(crate) struct Account {
    line: Line,
    /// The last password that was right.
    proven: Mutex<Option<Proof>>,
}

/// A keyed hash of a user's password, quick to compare.
type Proof = [u8; 32];

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginError {
    /// User or password is wrong.
    Wrong,
    /// The password was not checked: its source has sent too many wrong ones. The next one is checked
    /// after this time.
    Wait(Duration),
    /// The password was not checked: too many others were before it.
    Busy,
    /// The password was not checked, because the connection is gone. Nobody reads why.
    Gone,
}

impl Account {
    fn new(line: Line) -> Self {
        Self {
            line,
            proven: Mutex::default(),
        }
    }

    pub(crate) fn user(&self) -> &Arc<str> {
        &self.line.user
    }

    pub(crate) fn role(&self) -> Role {
        self.line.role
    }

    fn cost(&self) -> Cost {
        self.line.password.cost()
    }
}

impl FromIterator<Arc<Account>> for Known {
    fn from_iter<T: IntoIterator<Item = Arc<Account>>>(accounts: T) -> Self {
        let (mut by_user, mut decoys) = (HashMap::new(), Vec::<Arc<Account>>::new());
        for account in accounts {
            if !decoys.iter().any(|decoy| decoy.cost() == account.cost()) {
                decoys.push(Arc::clone(&account));
            }
            by_user.insert(Arc::clone(account.user()), account);
        }
        Self { by_user, decoys }
    }
}

impl Accounts {
    /// Reads a file of accounts, which must not be in the folder that is served. Warns of what may be a
    /// mistake in it.
    ///
    /// # Errors
    /// If it cannot be read, a line is wrong, others can read a plain password in it, or clients
    /// could download it.
    pub(crate) fn read(path: &Path, served: Option<&Path>) -> Result<Self, AccountsError> {
        let lines = file::read(path, served)?;
        let accounts = lines.into_iter().map(|line| Arc::new(Account::new(line)));
        Ok(Self {
            path: path.to_owned(),
            served: served.map(Path::to_owned),
            known: Mutex::new(Arc::new(accounts.collect())),
            key: Uuid::new_v4(),
            guesses: Guesses::default(),
        })
    }

    /// Reads the file again. If it is wrong now, the accounts stay as they are.
    ///
    /// # Errors
    /// As [`Accounts::read`].
    pub(crate) fn reload(&self) -> Result<(), AccountsError> {
        let lines = file::read(&self.path, self.served.as_deref())?;
        let before = self.known();
        let accounts = lines.into_iter().map(|line| {
            let same = before.by_user.get(&line.user);
            let same = same.filter(|account| account.line == line);
            same.cloned()
                .unwrap_or_else(|| Arc::new(Account::new(line)))
        });
        let known = Arc::new(accounts.collect::<Known>());
        let (path, count) = (self.path.display(), known.by_user.len());
        log::info!("{path} holds {count} accounts now");
        *lock(&self.known) = known;
        Ok(())
    }

    /// Whether an account is still in the file, as it was.
    pub(crate) fn has(&self, account: &Arc<Account>) -> bool {
        let known = self.known();
        let there = known.by_user.get(account.user());
        there.is_some_and(|there| Arc::ptr_eq(there, account))
    }

    /// Checks a user and a password that come from this peer and are not [`Accounts::proven`]. This may wait
    /// for others, unless the peer is gone; then its thread is to be unparked.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(crate) fn log_in(
        &self,
        peer: Peer,
        user: &str,
        password: &str,
        is_gone: &dyn Fn() -> bool,
    ) -> Result<Arc<Account>, LoginError> {
        // No account has a user or a password this long, and hashing takes longer for a longer password.
        if user.len() > USER_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            return Err(LoginError::Wrong);
        }
        let guess = self
            .guesses
            .begin(peer.into(), password.len(), is_gone)
            .inspect_err(|error| log::debug!("No password of {peer} is checked now: {error:?}"))?;
        // Another connection of the user may have proven it meanwhile.
        if let Some(account) = self.proven(user, password) {
            guess.forgive();
            return Ok(account);
        }
        let Some(account) = self.find(user, password) else {
            log::warn!("Wrong user or password from {peer}: '{}'", Escaped(user));
            return Err(LoginError::Wrong);
        };
        guess.forgive();
        *lock(&account.proven) = Some(self.proof(user, password));
        log::info!("'{}' has logged in from {peer}", Escaped(user));
        Ok(account)
    }

    /// The account of a user with a password that was right before.
    pub(crate) fn proven(&self, user: &str, password: &str) -> Option<Arc<Account>> {
        if password.len() > PASSWORD_BYTES_MAX {
            return None;
        }
        let proof = self.proof(user, password);
        let known = self.known();
        let account = known.by_user.get(user)?;
        let proven = (*lock(&account.proven))?;
        is_same(&proven, &proof).then(|| Arc::clone(account))
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&lock(&self.known))
    }

    /// The account of a user, if this is the password. It takes equally long for each user, and for one
    /// that there is not: a password of each cost is checked, the user's own in its place.
    fn find(&self, user: &str, password: &str) -> Option<Arc<Account>> {
        let known = self.known();
        let account = known.by_user.get(user);
        let mut is_right = false;
        for decoy in &known.decoys {
            let own = account.filter(|account| account.cost() == decoy.cost());
            let checked = &own.unwrap_or(decoy).line.password;
            let is_this = hint::black_box(self.is_password(checked, user, password));
            is_right |= is_this && own.is_some();
        }
        account.filter(|_| is_right).cloned()
    }

    fn is_password(&self, right: &Password, user: &str, password: &str) -> bool {
        match right {
            Password::Plain(right) => {
                is_same(&self.proof(user, right), &self.proof(user, password))
            }
            Password::Hash(hash) => hash.is_of(password),
        }
    }

    fn proof(&self, user: &str, password: &str) -> Proof {
        let mut hasher = Sha256::new();
        for part in [
            self.key.as_bytes(),
            user.as_bytes(),
            b":",
            password.as_bytes(),
        ] {
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

fn is_same(one: &Proof, other: &Proof) -> bool {
    one.ct_eq(other).into()
}
