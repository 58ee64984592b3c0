//! The accounts: who may use the server, from the file of `--auth-file`.
//!
//! Each line is `USER:PASSWORD`. The password is a SHA-crypt hash, as `openssl passwd -6` makes it, or
//! plain if nobody but the owner can read the file. Blank lines and lines that start with `#` are
//! comments. Any other line stops the start.
//!
//! A hash is slow to check on purpose, so that nobody can guess fast. A password that was right once is
//! remembered, and its user never waits. All others are guesses: they are checked one after the other,
//! so that they use at most one processor, and an address that guesses wrong too often must wait
//! (`guesses`).

mod guesses;
mod password;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::hint;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use daemon::{Source, lock};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::error::AccountsError;

use guesses::Guesses;
use password::{PASSWORD_BYTES_MAX, Password};

/// The longest file of accounts, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Some editors begin a UTF-8 file with this mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The rights of all but the owner. A file with plain passwords has none of them.
const MODE_OF_OTHERS: u32 = 0o077;

/// The right of others to change a file.
const MODE_OF_WRITERS: u32 = 0o022;

/// The right of everybody to read a file.
const MODE_OF_READERS: u32 = 0o004;

/// The accounts in a file.
pub(crate) struct Accounts {
    passwords: HashMap<String, Password>,
    /// The key of this process, so that the proofs are of no use elsewhere.
    key: Uuid,
    /// The last password that each user has proven.
    proven: Mutex<HashMap<String, Proof>>,
    guesses: Guesses,
    /// Held while a password is hashed.
    hashing: Mutex<()>,
}

/// A keyed hash of a user's password, quick to compare.
type Proof = [u8; 32];

/// The result of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// User and password are right.
    Granted,
    /// User or password is wrong.
    Denied,
    /// The password was not checked: the address has sent too many wrong ones. The next one is checked
    /// after this time.
    Wait(Duration),
}

impl Accounts {
    /// Reads a file of accounts. Warns if others can change it, or if everybody can read its hashes.
    ///
    /// # Errors
    /// If it cannot be read, a line is wrong, or others can read a plain password in it.
    pub(crate) fn read(path: &Path) -> Result<Self, AccountsError> {
        let failed = |cause| AccountsError::Read {
            path: path.to_owned(),
            cause,
        };
        // Without O_NONBLOCK, opening a pipe waits for its writer.
        let at_once = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(at_once)
            .open(path)
            .map_err(failed)?;
        // The metadata of the open file: nobody can replace it between the check and the read.
        let there = file.metadata().map_err(failed)?;
        if !there.is_file() {
            return Err(AccountsError::NotAFile(path.to_owned()));
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(AccountsError::TooLong {
                path: path.to_owned(),
                bytes_max: FILE_BYTES_MAX,
            });
        }
        let passwords = parse(&text).map_err(|(line, sentence)| AccountsError::Line {
            path: path.to_owned(),
            line,
            sentence,
        })?;
        if passwords.is_empty() {
            return Err(AccountsError::Empty(path.to_owned()));
        }
        let mode = there.permissions().mode();
        if mode & MODE_OF_OTHERS != 0 && !passwords.values().all(Password::is_hash) {
            return Err(AccountsError::Exposed(path.to_owned()));
        }
        let shown = path.display();
        if mode & MODE_OF_WRITERS != 0 {
            log::warn!("{shown} can be changed by others, who can add accounts: chmod 600 {shown}");
        } else if mode & MODE_OF_READERS != 0 {
            log::warn!(
                "{shown} can be read by others, who can guess at its hashes: chmod 600 {shown}"
            );
        }
        Ok(Self {
            passwords,
            key: Uuid::new_v4(),
            proven: Mutex::default(),
            guesses: Guesses::default(),
            hashing: Mutex::new(()),
        })
    }

    /// Checks a user and a password that come from this address.
    pub(crate) fn check(&self, from: Source, user: &str, password: &str) -> Access {
        // Hashing takes longer for a longer password, and no account has one this long.
        if password.len() > PASSWORD_BYTES_MAX {
            return Access::Denied;
        }
        let proof = self.proof(user, password);
        if self.is_proof(user, &proof) {
            return Access::Granted;
        }
        // An address guesses one password at a time: its many connections guess no faster than one,
        // and do not delay others.
        let guesses = self.guesses.of(from);
        let mut wrong = lock(&guesses);
        // Another connection of the user may have proven it meanwhile.
        if self.is_proof(user, &proof) {
            return Access::Granted;
        }
        let now = Instant::now();
        if let Some(wait) = wrong.wait(now) {
            return Access::Wait(wait);
        }
        // It counts as wrong until it is right, whatever happens in between.
        wrong.add(now);
        let hashing = lock(&self.hashing);
        let is_right = self.is_right(user, password);
        drop(hashing);
        if !is_right {
            return Access::Denied;
        }
        wrong.forgive_last();
        lock(&self.proven).insert(user.to_owned(), proof);
        Access::Granted
    }

    /// Whether this user has proven this password before.
    pub(crate) fn is_proven(&self, user: &str, password: &str) -> bool {
        password.len() <= PASSWORD_BYTES_MAX && self.is_proof(user, &self.proof(user, password))
    }

    fn is_proof(&self, user: &str, proof: &Proof) -> bool {
        let proven = lock(&self.proven);
        proven.get(user).is_some_and(|known| is_same(known, proof))
    }

    fn is_right(&self, user: &str, password: &str) -> bool {
        let there = self.passwords.get(user);
        let is_right = there.is_some_and(|right| self.is_password(right, user, password));
        // An unknown user takes as long to refuse as a wrong password.
        if !there.is_some_and(Password::is_hash) {
            let decoy = self.passwords.values().find(|other| other.is_hash());
            hint::black_box(decoy.map(|decoy| self.is_password(decoy, user, password)));
        }
        is_right
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

/// Reads the accounts of a text. The error is the number of the first wrong line, and what is wrong.
fn parse(text: &[u8]) -> Result<HashMap<String, Password>, (usize, &'static str)> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut passwords = HashMap::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let account = parse_line(line).map_err(|sentence| (number, sentence))?;
        let Some((user, password)) = account else {
            continue;
        };
        if passwords.insert(user, password).is_some() {
            return Err((number, "this user has a line already"));
        }
    }
    Ok(passwords)
}

/// Reads the account of a line; `None` if it is a comment.
fn parse_line(line: &[u8]) -> Result<Option<(String, Password)>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "a line is UTF-8")?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // No client can send them (RFC 7617 section 2).
    if line.contains(char::is_control) {
        return Err("neither a user nor a password has control characters");
    }
    let account = line.split_once(':');
    let account = account.filter(|(user, password)| !user.is_empty() && !password.is_empty());
    let (user, password) = account.ok_or("a line is USER:PASSWORD")?;
    if user.trim() != user {
        return Err("there is a space around the user's name");
    }
    Ok(Some((user.to_owned(), Password::parse(password)?)))
}
