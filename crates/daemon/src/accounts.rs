//! The accounts: who may use the server, and what for, from the file of `--auth-file`.
//!
//! A hash is slow to check on purpose, so that nobody can guess fast. A password that was right once is
//! remembered, and its user never waits. All others are guesses, and take turns (`guesses`).
//!
//! The file can be read again while the server runs. A line that stays as it was stays the same
//! [`Account`], so a connection that has logged in can be told from one whose account is gone.

mod file;
mod guesses;
mod password;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hint;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cli::escape::Escaped;
use proto::login::PASSWORD_BYTES_MAX;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::caller::Role;
use crate::error::AccountsError;
use crate::lock;
use crate::peer::Peer;

use file::Line;
use guesses::Guesses;
use password::Password;

/// The accounts in a file.
pub(crate) struct Accounts {
    path: PathBuf,
    /// By their users.
    known: Mutex<Arc<Known>>,
    /// The key of this process, so that the proofs are of no use elsewhere.
    key: Uuid,
    guesses: Guesses,
}

type Known = HashMap<Arc<str>, Arc<Account>>;

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
}

impl Accounts {
    /// Reads a file of accounts. Warns if others can change it, or if everybody can read its hashes.
    ///
    /// # Errors
    /// If it cannot be read, a line is wrong, or others can read a plain password in it.
    pub(crate) fn read(path: &Path) -> Result<Self, AccountsError> {
        let known = file::read(path)?.into_iter().map(|line| {
            let account = Arc::new(Account::new(line));
            (Arc::clone(account.user()), account)
        });
        Ok(Self {
            path: path.to_owned(),
            known: Mutex::new(Arc::new(known.collect())),
            key: Uuid::new_v4(),
            guesses: Guesses::default(),
        })
    }

    /// Reads the file again. If it is wrong now, the accounts stay as they are.
    ///
    /// # Errors
    /// As [`Accounts::read`].
    pub(crate) fn reload(&self) -> Result<(), AccountsError> {
        let lines = file::read(&self.path)?;
        let before = self.known();
        let known = lines.into_iter().map(|line| {
            let same = before
                .get(&line.user)
                .filter(|account| account.line == line);
            let account = same
                .cloned()
                .unwrap_or_else(|| Arc::new(Account::new(line)));
            (Arc::clone(account.user()), account)
        });
        let known = Arc::new(known.collect::<Known>());
        log::info!("{} holds {} accounts now", self.path.display(), known.len());
        *lock(&self.known) = known;
        Ok(())
    }

    /// Whether an account is still in the file, as it was.
    pub(crate) fn has(&self, account: &Arc<Account>) -> bool {
        let known = self.known();
        let there = known.get(account.user());
        there.is_some_and(|there| Arc::ptr_eq(there, account))
    }

    /// Checks a user and a password that come from this peer. This may wait for others.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(crate) fn log_in(
        &self,
        peer: Peer,
        user: &str,
        password: &str,
    ) -> Result<Arc<Account>, LoginError> {
        // Hashing takes longer for a longer password, and no account has one this long.
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(LoginError::Wrong);
        }
        if let Some(account) = self.proven(user, password) {
            return Ok(account);
        }
        let guess = match self.guesses.begin(peer.into()) {
            Ok(guess) => guess,
            Err(wait) => {
                log::debug!("{peer} has sent too many wrong passwords, and must wait {wait:?}");
                return Err(LoginError::Wait(wait));
            }
        };
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
        let known = self.known();
        let account = known.get(user)?;
        let proven = (*lock(&account.proven))?;
        if password.len() > PASSWORD_BYTES_MAX {
            return None;
        }
        is_same(&proven, &self.proof(user, password)).then(|| Arc::clone(account))
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&lock(&self.known))
    }

    /// The account of a user, if this is the password.
    fn find(&self, user: &str, password: &str) -> Option<Arc<Account>> {
        let known = self.known();
        let account = known.get(user);
        let is_right = |account: &Account| self.is_password(&account.line.password, user, password);
        let right = account.filter(|account| is_right(account));
        // An unknown user takes as long to refuse as a wrong password.
        if !account.is_some_and(|account| account.line.password.is_hash()) {
            let decoy = known.values().find(|other| other.line.password.is_hash());
            hint::black_box(decoy.map(|decoy| is_right(decoy)));
        }
        right.cloned()
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
