//! The account of a client: the user and the password that it logs in with.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{ClientError, FileError};
use crate::secret_file::SecretFile;
use crate::stream;

/// The longest file with an account, in bytes. Its first line is what counts.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The longest user name, in bytes, as a `Login` frame carries it.
const USER_BYTES_MAX: usize = 255;

/// The longest password, in bytes. No server has a longer one.
const PASSWORD_BYTES_MAX: usize = 256;

/// Some editors begin a UTF-8 file with this mark.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What standard input is called in messages.
const STDIN: &str = "standard input";

/// Where the account is (`--auth-file`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountSource {
    /// A file that its owner alone may read.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// A user and a password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    line: String,
    user_bytes: usize,
}

impl Account {
    /// Reads the first line of a source, `USER:PASSWORD`: the same as a line of a server's accounts with
    /// a plain password.
    ///
    /// # Errors
    /// [`ClientError::File`] if the file cannot be read, or others may read it, or its first line is
    /// something else; [`ClientError::Input`].
    pub fn read(source: &AccountSource) -> Result<Self, ClientError> {
        let (path, line) = match source {
            AccountSource::File(path) => {
                let file = SecretFile::read(path, FILE_BYTES_MAX)?;
                if !file.is_private() {
                    return Err(FileError::Exposed {
                        path: path.clone(),
                        secret: "a password",
                    }
                    .into());
                }
                let line = first_line(file.bytes.as_slice()).map_err(ClientError::Input)?;
                (path.as_path(), line)
            }
            AccountSource::Stdin => {
                let line = first_line(stream::input()?).map_err(ClientError::Input)?;
                (Path::new(STDIN), line)
            }
        };
        Self::parse(&line).map_err(|sentence| {
            ClientError::File(FileError::NotAnAccount {
                path: path.to_owned(),
                sentence,
            })
        })
    }

    /// The error says what the line is or has.
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let account = line.split_once(':').filter(|(user, _)| !user.is_empty());
        let (user, password) = account.ok_or("is not USER:PASSWORD")?;
        // No client can send them (RFC 7617 section 2).
        if line.contains(char::is_control) {
            return Err("has control characters");
        }
        if user.len() > USER_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            return Err("has a user of over 255 bytes or a password of over 256");
        }
        if password.starts_with('$') {
            return Err("has a hash; a client needs the password itself");
        }
        Ok(Self {
            line: line.to_owned(),
            user_bytes: user.len(),
        })
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.line[..self.user_bytes]
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.line[self.user_bytes + 1..]
    }
}

fn first_line(input: impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut start = BufReader::new(input.take(FILE_BYTES_MAX));
    start.read_until(b'\n', &mut line)?;
    Ok(line)
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_line_says_who_asks() {
        for line in [
            "Aladdin:open sesame",
            "Aladdin:open sesame\r\n",
            "\u{feff}Aladdin:open sesame\r\n",
        ] {
            let account = Account::parse(line.as_bytes()).unwrap();
            assert_eq!(account.user(), "Aladdin");
            assert_eq!(account.password(), "open sesame");
        }
        let account = Account::parse("ä:b:c\n".as_bytes()).unwrap();
        assert_eq!((account.user(), account.password()), ("ä", "b:c"));
        assert_eq!(Account::parse(b"a:").unwrap().password(), "");
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(Account::parse(line.as_bytes()), Err(want), "{line:?}");
    }

    #[test]
    fn anything_else_is_refused() {
        for line in ["", "\n", "a", ":b"] {
            check_refused(line, "is not USER:PASSWORD");
        }
        check_refused("a:\tb", "has control characters");
        check_refused("a:b\0", "has control characters");
        let long = "has a user of over 255 bytes or a password of over 256";
        check_refused(&format!("a:{}", "b".repeat(257)), long);
        check_refused(&format!("{}:b", "a".repeat(256)), long);
        check_refused("a:$6$x$y", "has a hash; a client needs the password itself");
        assert_eq!(Account::parse(b"a:\xff"), Err("is not UTF-8"));
    }

    #[test]
    fn nobody_else_may_read_it() {
        let path = std::env::temp_dir().join(format!("quartet-account-{}", std::process::id()));
        fs::write(&path, "user:password\nmore\n").unwrap();
        for (mode, is_good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = Account::read(&AccountSource::File(path.clone()));
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            let shown = format!("{:?}", read.map_err(|error| error.to_string()));
            let without_words = shown.replace("holds a password", "");
            assert!(!without_words.contains("password"), "{shown}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Account::read(&AccountSource::File(path)).is_err());
    }
}
