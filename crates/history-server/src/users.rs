//! Who may use the history: the file of the option `--users`.
//!
//! It has one name a line. Blank lines and what follows a `#` are ignored. Any other line stops the
//! start, because a mistyped name would lock a user out without a word.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use proto::history::is_user_name;

use crate::Error;

/// The users who may use the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users(HashSet<String>);

impl Users {
    /// Reads a file of names.
    ///
    /// # Errors
    /// [`Error::ReadUsers`], [`Error::NotAName`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read(path).map_err(|cause| Error::ReadUsers {
            path: path.to_owned(),
            cause,
        })?;
        let users = parse(&text).map_err(|(line, text)| Error::NotAName {
            path: path.to_owned(),
            line,
            text: text.to_owned(),
        })?;
        if users.is_empty() {
            log::warn!("{} names nobody, so nobody is served", path.display());
        }
        Ok(Self(users))
    }

    /// Whether this user may use the history.
    pub fn contains(&self, user: &str) -> bool {
        self.0.contains(user)
    }
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
        let error = Users::read(&path).unwrap_err().to_string();
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
        let error = Users::read(Path::new("/nowhere/users")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the users in /nowhere/users");
    }

    #[test]
    fn only_named_users_may() {
        let users = Users(parse(b"alice\n").unwrap());
        assert!(users.contains("alice"));
        assert!(!users.contains("Alice"));
        assert!(!users.contains("alic"));
    }
}
