//! The users whom the administrator lists: the file of the option `--users`.
//!
//! It has one name a line. Blank lines and what follows a `#` are ignored. Any other line stops the
//! start, because a mistyped name would lock a user out without a word. The server only reads it, at
//! the start and at each SIGHUP.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use cli::exit::with_causes;
use proto::history::is_user_name;

use crate::Error;

/// The users in a file.
#[derive(Debug)]
pub(crate) struct Listed {
    path: PathBuf,
    names: RwLock<HashSet<String>>,
}

impl Listed {
    /// Reads a file of names.
    ///
    /// # Errors
    /// [`Error::ReadUsers`], [`Error::NotAName`].
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            names: RwLock::new(read(path)?),
        })
    }

    /// Reads the file again. If that fails, the names stay as they were. A pipe is not read again: it may
    /// never have anything, and signals would wait for it.
    pub(super) fn reload(&self) {
        let path = &self.path;
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            log::warn!(
                "{} is no regular file, and is not read again",
                path.display()
            );
            return;
        }
        match read(path) {
            Ok(names) => {
                let users = names.len();
                *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
                log::info!("{} names {users} users now", path.display());
            }
            Err(error) => log::error!("The users stay as they were: {}", with_causes(&error)),
        }
    }

    /// Whether the file names this user.
    pub(super) fn contains(&self, user: &str) -> bool {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.contains(user)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> Result<HashSet<String>, Error> {
    let text = fs::read(path).map_err(|cause| Error::ReadUsers {
        path: path.to_owned(),
        cause,
    })?;
    let names = parse(&text).map_err(|(line, text)| Error::NotAName {
        path: path.to_owned(),
        line,
        text: text.to_owned(),
    })?;
    if names.is_empty() {
        log::warn!("{} names nobody", path.display());
    }
    Ok(names)
}

/// The names in a text; or the first line that is not a name, with its number.
fn parse(text: &[u8]) -> Result<HashSet<String>, (usize, &[u8])> {
    let mut users = HashSet::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let before_comment = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        match before_comment.trim_ascii() {
            [] => {}
            word => match std::str::from_utf8(word) {
                Ok(user) if is_user_name(user) => drop(users.insert(user.to_owned())),
                _ => return Err((number, word)),
            },
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], want: &[&str]) {
        let users = parse(text).unwrap();
        let mut users: Vec<_> = users.iter().map(String::as_str).collect();
        users.sort_unstable();
        assert_eq!(users, want);
    }

    #[test]
    fn one_name_a_line() {
        check(b"", &[]);
        check(b"alice", &["alice"]);
        check(b"bob\nalice\nbob\n", &["alice", "bob"]);
        check(
            b"# Staff\r\n\r\n  alice \r\nb.o_b-2 # on leave\n\n",
            &["alice", "b.o_b-2"],
        );
    }

    #[track_caller]
    fn check_refused(text: &[u8], want: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        fs::write(&path, text).unwrap();
        let error = Listed::read(&path).unwrap_err().to_string();
        let want = format!("{}, {want}", path.display());
        assert_eq!(error, want);
    }

    #[test]
    fn a_line_that_is_not_a_name_is_refused_with_its_number() {
        let rule = "a user name is 1 to 64 of A-Z a-z 0-9 . _ -";
        check_refused(
            b"alice\nbob carol\n",
            &format!("line 2: {rule}, not 'bob carol'"),
        );
        check_refused(
            b"\n\n\xff\x1b[",
            &format!(r"line 3: {rule}, not '\xff\u{{1b}}['"),
        );
        check_refused(
            &[b'a'; 101],
            &format!("line 1: {rule}, not '{}…'", "a".repeat(100)),
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Listed::read(Path::new("/nowhere/users")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the users in /nowhere/users");
    }

    #[test]
    fn only_named_users_may_and_a_wrong_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        fs::write(&path, "alice\n").unwrap();
        let users = Listed::read(&path).unwrap();
        assert!(users.contains("alice"));
        assert!(!users.contains("Alice"));
        assert!(!users.contains("alic"));
        fs::write(&path, "bob\nnot a name\n").unwrap();
        users.reload();
        assert!(users.contains("alice") && !users.contains("bob"));
        fs::write(&path, "bob\n").unwrap();
        users.reload();
        assert!(!users.contains("alice") && users.contains("bob"));
        fs::remove_file(&path).unwrap();
        users.reload();
        assert!(users.contains("bob"));
    }
}
