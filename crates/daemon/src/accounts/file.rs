//! The file of accounts.
//!
//! Each line is `USER:HASH[:ROLE]`: a SHA-crypt hash, as `openssl passwd -6` makes it, and what the user
//! may do, `read`, `write` or `admin`; without a role it may write. Or a line is `USER:PASSWORD`, if nobody
//! but the owner can read the file: the rest of the line is the password, and its user may write. Blank
//! lines and lines that start with `#` are comments. Any other line is an error.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cli::escape::Escaped;
use cli::{FileError, SecretFile};
use proto::login::USER_BYTES_MAX;

use super::password::Password;
use crate::caller::Role;
use crate::error::AccountsError;

/// The longest file of accounts, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Some editors begin a UTF-8 file with this mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a line says.
#[derive(PartialEq, Eq)]
pub(super) struct Line {
    pub(super) user: Arc<str>,
    pub(super) password: Password,
    pub(super) role: Role,
}

/// Reads a file of accounts. Warns if others can change it, if everybody can read its hashes, and of a plain
/// password that ends like a role.
///
/// # Errors
/// If it cannot be read, a line is wrong, others can read a plain password in it, or it is in the
/// folder that is served.
pub(super) fn read(path: &Path, served: Option<&Path>) -> Result<Vec<Line>, AccountsError> {
    cli::check_not_served(path, served)?;
    let file = SecretFile::read(path, FILE_BYTES_MAX)?;
    let lines = parse(&file.bytes).map_err(|(line, sentence)| AccountsError::Line {
        path: path.to_owned(),
        line,
        sentence,
    })?;
    if lines.is_empty() {
        return Err(AccountsError::Empty(path.to_owned()));
    }
    if !file.is_private() && !lines.iter().all(|line| line.password.is_hash()) {
        return Err(AccountsError::File(FileError::Exposed {
            path: path.to_owned(),
            secret: "a plain password",
        }));
    }
    let shown = path.display();
    if file.others_may_write() {
        log::warn!("{shown} can be changed by others, who can add accounts: chmod 600 {shown}");
    } else if file.everybody_may_read() {
        log::warn!("{shown} can be read by others, who can guess at its hashes: chmod 600 {shown}");
    }
    for line in lines
        .iter()
        .filter(|line| line.may_be_meant_to_have_a_role())
    {
        log::warn!(
            "{shown}: '{}' may {}, because a plain password is the rest of its line; a role stands \
             behind a hash: openssl passwd -6",
            Escaped(&line.user),
            line.role,
        );
    }
    Ok(lines)
}

impl Line {
    /// Whether it has a plain password that ends in a colon and a role.
    fn may_be_meant_to_have_a_role(&self) -> bool {
        match &self.password {
            Password::Plain(password) => password
                .rsplit_once(':')
                .is_some_and(|(_, role)| Role::parse(role).is_some()),
            Password::Hash(_) => false,
        }
    }
}

/// Reads the accounts of a text. The error is the number of the first wrong line, and what is wrong.
fn parse(text: &[u8]) -> Result<Vec<Line>, (usize, &'static str)> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut lines: Vec<Line> = Vec::new();
    let mut users = HashMap::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = parse_line(line).map_err(|sentence| (number, sentence))?;
        let Some(line) = line else {
            continue;
        };
        if users.insert(Arc::clone(&line.user), number).is_some() {
            return Err((number, "this user has a line already"));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Reads the account of a line; `None` if it is a comment.
fn parse_line(line: &[u8]) -> Result<Option<Line>, &'static str> {
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
    let account = account.filter(|(user, rest)| !user.is_empty() && !rest.is_empty());
    let (user, rest) = account.ok_or("a line is USER:HASH[:ROLE] or USER:PASSWORD")?;
    if user.trim() != user {
        return Err("there is a space around the user's name");
    }
    if user.len() > USER_BYTES_MAX {
        return Err("a user's name has at most 255 bytes");
    }
    let hash_and_role = rest
        .split_once(':')
        .filter(|_| Password::looks_hashed(rest));
    let (password, role) = match hash_and_role {
        None => (rest, Role::Write),
        Some((hash, role)) => (
            hash,
            Role::parse(role).ok_or("a role is read, write or admin")?,
        ),
    };
    Ok(Some(Line {
        user: user.into(),
        password: Password::parse(password)?,
        role,
    }))
}
