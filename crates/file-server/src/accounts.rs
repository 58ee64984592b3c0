//! Who may use a server: the file behind `--auth-file`.
//!
//! `USER:PASSWORD` on each line, the password as a SHA-crypt hash (`openssl passwd -6` makes one),
//! or plain if nobody but the owner of the file can read it. Blank lines, and lines that start with
//! `#`, are comments. A line that cannot be right keeps the server from starting.
//!
//! A hash is slow to check, on purpose, so that nobody can guess fast. A password that was right once
//! is remembered, and its user never waits. All others are guesses: they are checked one after the
//! other, so that they use one processor at most, and an address that guesses wrong too often has to
//! wait (`guesses`).

mod guesses;
mod password;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::hint;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use daemon::{Network, lock};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use guesses::Guesses;
use password::{PASSWORD_BYTES_MAX, Password};

/// The longest file of accounts, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How some editors begin a file, to say that it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What nobody but its owner may do with a file that has plain passwords in it: anything.
const MODE_OF_OTHERS: u32 = 0o077;

/// That others can change a file.
const MODE_OF_WRITERS: u32 = 0o022;

/// That everybody can read it.
const MODE_OF_READERS: u32 = 0o004;

/// The accounts in a file.
pub struct Accounts {
    passwords: HashMap<String, Password>,
    /// Of this process alone, so that what it remembers is of no use elsewhere.
    key: Uuid,
    /// What each user has proven last.
    proven: Mutex<HashMap<String, Proof>>,
    guesses: Guesses,
    /// Held while a password is hashed.
    hashing: Mutex<()>,
}

/// A keyed hash of a user's password, quick to compare.
type Proof = [u8; 32];

/// The outcome of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They are right.
    Granted,
    /// They are wrong.
    Denied,
    /// They were not checked: there were too many wrong ones from the same address. One more is
    /// checked after this time.
    Wait(Duration),
}

/// Why the accounts are not known.
#[derive(Debug)]
#[non_exhaustive]
pub enum AccountsError {
    /// The file could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is a folder, a pipe or a device.
    NotAFile(PathBuf),
    /// It is too long.
    TooLong(PathBuf),
    /// A line is not a user and a password.
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        sentence: &'static str,
    },
    /// There is a plain password in it, and others than its owner can read it.
    Exposed(PathBuf),
    /// There is nobody in it.
    Empty(PathBuf),
}

impl fmt::Display for AccountsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "cannot read the accounts in {}", path.display()),
            Self::NotAFile(path) => write!(f, "{} is not a regular file", path.display()),
            Self::TooLong(path) => {
                write!(f, "{} exceeds {FILE_BYTES_MAX} bytes", path.display())
            }
            // Without the line itself, which may hold a password.
            Self::Line {
                path,
                line,
                sentence,
            } => write!(f, "{}, line {line}: {sentence}", path.display()),
            Self::Exposed(path) => write!(
                f,
                "{path} holds a plain password, so nobody but its owner may be able to read it: \
                 chmod 600 {path}",
                path = path.display()
            ),
            Self::Empty(path) => write!(f, "{} holds no account", path.display()),
        }
    }
}

impl std::error::Error for AccountsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { cause, .. } => Some(cause),
            Self::NotAFile(_)
            | Self::TooLong(_)
            | Self::Line { .. }
            | Self::Exposed(_)
            | Self::Empty(_) => None,
        }
    }
}

impl Accounts {
    /// Reads a file of accounts. Warns of one with hashes that everybody can read.
    ///
    /// # Errors
    /// If it cannot be read, holds something else, or holds a plain password and others can read it.
    pub fn read(path: &Path) -> Result<Self, AccountsError> {
        let failed = |cause| AccountsError::Read {
            path: path.to_owned(),
            cause,
        };
        // To open a pipe blocks until somebody writes to it.
        let at_once = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(at_once)
            .open(path)
            .map_err(failed)?;
        // Asked of the open file: the one that is read is the one that was looked at.
        let there = file.metadata().map_err(failed)?;
        if !there.is_file() {
            return Err(AccountsError::NotAFile(path.to_owned()));
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(AccountsError::TooLong(path.to_owned()));
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

    /// Whether this is a user with an account, and its password. `from` is the address that asks.
    pub fn check(&self, from: Network, user: &str, password: &str) -> Access {
        // The time to hash a password grows with its length, and no account has one this long.
        if password.len() > PASSWORD_BYTES_MAX {
            return Access::Denied;
        }
        let proof = self.proof(user, password);
        if self.is_proof(user, &proof) {
            return Access::Granted;
        }
        // An address guesses one password at a time. Many connections from there guess no faster than
        // one, and are not in the way of others.
        let guesses = self.guesses.of(from);
        let mut wrong = lock(&guesses);
        // Another connection of the same user may have proven it meanwhile.
        if self.is_proof(user, &proof) {
            return Access::Granted;
        }
        let now = Instant::now();
        if let Some(wait) = wrong.wait(now) {
            return Access::Wait(wait);
        }
        // Wrong until it is right, whatever happens in between.
        wrong.add(now);
        let hashing = lock(&self.hashing);
        let is_right = self.is_right(user, password);
        drop(hashing);
        if !is_right {
            return Access::Denied;
        }
        wrong.take_back();
        lock(&self.proven).insert(user.to_owned(), proof);
        Access::Granted
    }

    /// Whether this user has proven this password before.
    pub fn is_proven(&self, user: &str, password: &str) -> bool {
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

/// The accounts in a text; or the first line that is none, with its number.
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

/// The account in a line; `None` if it is a comment.
fn parse_line(line: &[u8]) -> Result<Option<(String, Password)>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "a line is UTF-8")?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    // No client can send one (RFC 7617 section 2).
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
