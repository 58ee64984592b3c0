//! Who may upload, or do anything at all: the file behind `--auth-file`.
//!
//! `USER:PASSWORD` on each line, the password as a SHA-crypt hash (`openssl passwd -6` makes one),
//! or plain if nobody but its owner can read the file. Blank lines, and lines that start with `#`,
//! are for its readers. Whatever else stands there keeps the server from starting.
//!
//! A hash is slow to check, on purpose, so that nobody can guess fast. Who has proven his password
//! once is remembered, and the guesses of all others are checked one after the other, so that they
//! take one processor at most.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::hint;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::http::RequestHead;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Passwords that wait for being checked, at the most; who comes then is told to try again.
const WAITING_MAX: usize = 16;

/// The accounts in a file.
pub struct Accounts {
    passwords: HashMap<String, Password>,
    /// Of this process alone, so that what it remembers is of no use elsewhere.
    key: Uuid,
    /// What each user has proven last.
    proven: Mutex<HashMap<String, Proof>>,
    /// Held while a password is checked.
    checking: Mutex<()>,
    waiting: AtomicUsize,
}

/// A keyed hash of a user's password, quick to compare.
type Proof = [u8; 32];

enum Password {
    Plain(String),
    /// `$5$` or `$6$`, salt and hash.
    Sha256Crypt(String),
    Sha512Crypt(String),
}

impl Password {
    fn is_hash(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

/// What a request's credentials are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They are right.
    Granted,
    /// They are missing, or wrong.
    Denied,
    /// Too many are being checked.
    Busy,
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
    /// It is in the folder that is served.
    Served(PathBuf),
}

impl fmt::Display for AccountsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "cannot read the accounts in {}", path.display()),
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
            Self::Served(path) => write!(
                f,
                "{} is in the folder that is served, so that anybody could get it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for AccountsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl Accounts {
    /// Reads a file of accounts, which is not below the root that is served.
    ///
    /// # Errors
    /// If it cannot be read, holds something else, or too many can read it.
    pub fn read(path: &Path, root: &Path) -> Result<Self, AccountsError> {
        let failed = |cause| AccountsError::Read {
            path: path.to_owned(),
            cause,
        };
        let there = path.canonicalize().map_err(failed)?;
        if root
            .canonicalize()
            .is_ok_and(|root| there.starts_with(root))
        {
            return Err(AccountsError::Served(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let passwords = parse(&text).map_err(|(line, sentence)| AccountsError::Line {
            path: path.to_owned(),
            line,
            sentence,
        })?;
        let is_plain = |password: &Password| matches!(password, Password::Plain(_));
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 && passwords.values().any(is_plain) {
            return Err(AccountsError::Exposed(path.to_owned()));
        }
        if passwords.is_empty() {
            return Err(AccountsError::Empty(path.to_owned()));
        }
        Ok(Self {
            passwords,
            key: Uuid::new_v4(),
            proven: Mutex::new(HashMap::new()),
            checking: Mutex::new(()),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether a request comes from somebody who has an account (RFC 7617).
    pub fn check(&self, request: &RequestHead) -> Access {
        let Some((user, password)) = credentials(request) else {
            return Access::Denied;
        };
        let proof = self.proof(&user, &password);
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = proven
            .get(&user)
            .is_some_and(|known| is_same(known, &proof));
        drop(proven);
        if is_known {
            return Access::Granted;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Access::Busy;
        }
        let checking = self.checking.lock().unwrap_or_else(PoisonError::into_inner);
        let is_right = self.is_right(&user, &password);
        drop(checking);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if !is_right {
            return Access::Denied;
        }
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.insert(user, proof);
        Access::Granted
    }

    fn is_right(&self, user: &str, password: &str) -> bool {
        let there = self.passwords.get(user);
        let is_right = there.is_some_and(|right| self.is_password(right, user, password));
        // Whether there is such a user takes as long to tell as whether the password is his.
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
            Password::Sha256Crypt(hash) => sha_crypt::sha256_check(password, hash).is_ok(),
            Password::Sha512Crypt(hash) => sha_crypt::sha512_check(password, hash).is_ok(),
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

/// The user and the password of a request.
fn credentials(request: &RequestHead) -> Option<(String, String)> {
    let mut values = request.fields("authorization");
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, encoded) = value.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The accounts in a text; or the first line that is none, with its number.
fn parse(text: &str) -> Result<HashMap<String, Password>, (usize, &'static str)> {
    let mut passwords = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let account = line.split_once(':');
        let Some((user, password)) = account.filter(|(u, p)| !u.is_empty() && !p.is_empty()) else {
            return Err((number, "a line is USER:PASSWORD"));
        };
        let password = parse_password(password).map_err(|sentence| (number, sentence))?;
        if passwords.insert(user.to_owned(), password).is_some() {
            return Err((number, "this user has a line already"));
        }
    }
    Ok(passwords)
}

fn parse_password(text: &str) -> Result<Password, &'static str> {
    // The salt and the hash; that the numbers in between are in range shows when it is used.
    let is_hash = text
        .split('$')
        .skip(2)
        .filter(|part| !part.is_empty())
        .count()
        >= 2;
    match text {
        hash if hash.starts_with("$5$") && is_hash => Ok(Password::Sha256Crypt(hash.to_owned())),
        hash if hash.starts_with("$6$") && is_hash => Ok(Password::Sha512Crypt(hash.to_owned())),
        other if other.starts_with('$') => Err(
            "a hashed password is a SHA-crypt one, which starts with $5$ or $6$: openssl passwd -6",
        ),
        plain => Ok(Password::Plain(plain.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Of "sesame", as `openssl passwd -5` and `-6` make them.
    const SHA_256: &str = "$5$quartet$K7C2DS9Dq7yQ/l93/AD8dVYZWK6a57uqo5Az3wsic64";
    const SHA_512: &str = "$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/";

    fn accounts(text: &str, mode: u32) -> Result<Accounts, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let shown = path.display().to_string();
        Accounts::read(&path, Path::new("/nowhere"))
            .map_err(|error| error.to_string().replace(&shown, "FILE"))
    }

    #[track_caller]
    fn check(accounts: &Accounts, authorization: &str, want: Access) {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{authorization}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        assert_eq!(accounts.check(&request), want, "{authorization}");
    }

    fn basic(credentials: &str) -> String {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(credentials))
    }

    #[test]
    fn who_knows_the_password_is_let_in() {
        let text = format!("# Us.\n\nann:{SHA_256}\nbob:{SHA_512}\neve:a:b c\n");
        let accounts = accounts(&text, 0o600).unwrap();
        for _ in 0..2 {
            check(&accounts, &basic("ann:sesame"), Access::Granted);
            check(&accounts, &basic("bob:sesame"), Access::Granted);
            check(&accounts, &basic("eve:a:b c"), Access::Granted);
            for wrong in [
                "ann:sesam",
                "ann:",
                "bob:Sesame",
                "eve:a",
                "eve:",
                "dan:sesame",
                ":",
                "ann",
            ] {
                check(&accounts, &basic(wrong), Access::Denied);
            }
        }
        check(
            &accounts,
            &basic("ann:sesame").replace("Basic", "bAsIc"),
            Access::Granted,
        );
        check(&accounts, &basic("ann:sesame").repeat(2), Access::Denied);
        check(&accounts, "", Access::Denied);
        check(&accounts, "Authorization: Basic\r\n", Access::Denied);
        check(&accounts, "Authorization: Basic !\r\n", Access::Denied);
        check(
            &accounts,
            &basic("ann:sesame").replace("Basic", "Bearer"),
            Access::Denied,
        );
    }

    #[test]
    fn how_long_it_takes_does_not_tell_who_has_an_account() {
        let accounts = accounts(&format!("ann:{SHA_512}\nbob:1\neve:2\nflo:3\n"), 0o600).unwrap();
        // The shortest of three, for whatever else the machine has to do only makes it longer.
        let least = |user: &str| {
            let took = (0..3).map(|_| {
                let started = Instant::now();
                assert!(!accounts.is_right(user, "guess"));
                started.elapsed()
            });
            took.min().unwrap()
        };
        let of_hash = least("ann");
        for user in ["bob", "dan"] {
            assert!(least(user) > of_hash / 4, "{user}");
        }
    }

    #[test]
    fn those_who_wait_are_limited() {
        let accounts = accounts(&format!("ann:{SHA_512}\n"), 0o644).unwrap();
        check(&accounts, &basic("ann:sesame"), Access::Granted);
        accounts.waiting.store(WAITING_MAX, Ordering::Relaxed);
        check(&accounts, &basic("ann:guess"), Access::Busy);
        check(&accounts, &basic("ann:sesame"), Access::Granted);
    }

    #[track_caller]
    fn check_refused(text: &str, mode: u32, want: &str) {
        assert_eq!(accounts(text, mode).err().as_deref(), Some(want), "{text}");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused() {
        let exposed = "FILE holds a plain password, so nobody but its owner may be able to read it: chmod 600 FILE";
        check_refused("ann:secret\n", 0o644, exposed);
        check_refused("ann:secret\n", 0o640, exposed);
        check_refused("# Nobody.\n", 0o600, "FILE holds no account");
        check_refused("\nann\n", 0o600, "FILE, line 2: a line is USER:PASSWORD");
        check_refused(":x\n", 0o600, "FILE, line 1: a line is USER:PASSWORD");
        check_refused("ann:\n", 0o600, "FILE, line 1: a line is USER:PASSWORD");
        check_refused(
            "ann:1\nann:2\n",
            0o600,
            "FILE, line 2: this user has a line already",
        );
        let scheme = "FILE, line 1: a hashed password is a SHA-crypt one, which starts with $5$ or $6$: openssl passwd -6";
        check_refused("ann:$apr1$salt$hash\n", 0o600, scheme);
        check_refused("ann:$6$salt\n", 0o600, scheme);
        let nowhere = Path::new("/nowhere");
        assert!(Accounts::read(&nowhere.join("accounts"), nowhere).is_err());
    }

    #[test]
    fn a_file_that_would_be_served_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        let path = root.join("sub/accounts");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(&path, format!("ann:{SHA_256}\n")).unwrap();
        std::os::unix::fs::symlink("root", top.path().join("link")).unwrap();
        for root in [root.clone(), top.path().join("link"), root.join("sub/..")] {
            let read = Accounts::read(&path, &root).map(drop);
            assert!(matches!(read, Err(AccountsError::Served(_))), "{root:?}");
        }
        let beside = top.path().join("root-accounts");
        fs::rename(&path, &beside).unwrap();
        Accounts::read(&beside, &root).unwrap();
    }
}
