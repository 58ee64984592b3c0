//! As whom a server connects, and whom it trusts, if the URL does not say it: the user, the database, the password,
//! `sslmode` and `sslrootcert` of its environment, as libpq has them (PostgreSQL manual, 34.15 and 34.16).
//!
//! A password is `PGPASSWORD`, or stands in the file that `PGPASSFILE` names, by default `~/.pgpass`. A line
//! of it is `HOST:PORT:DATABASE:USER:PASSWORD`, where `*` is anything, `\` makes the next character an
//! ordinary one, and `#` begins a comment. The first line that fits counts. The file is read for each
//! attempt to connect, so that a new password needs no restart.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use cli::SecretFile;
use rustix::process::geteuid;

use super::url::{FOLDER_DEFAULT, Host, Server};

/// The longest file of passwords, in bytes.
const PASSFILE_BYTES_MAX: u64 = 1 << 20;

/// Who is who on this system.
const USERS: &str = "/etc/passwd";

/// What the environment says. It holds a password, so nothing shows it.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    /// `PGUSER`.
    pub user: Option<String>,
    /// `PGDATABASE`.
    pub database: Option<String>,
    /// `PGPASSWORD`.
    pub password: Option<OsString>,
    /// `PGPASSFILE`.
    pub passfile: Option<PathBuf>,
    /// `PGSSLMODE`.
    pub ssl_mode: Option<String>,
    /// `PGSSLROOTCERT`.
    pub ssl_root: Option<String>,
    /// The name of the user who runs this process.
    pub login: Option<String>,
    /// Its home.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        let there = |name| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name| there(name).and_then(|value| value.into_string().ok());
        // One that is no text must not pass for one that is not there: it is refused by its value.
        let any = |name| there(name).map(|value| value.to_string_lossy().into_owned());
        let (login, home) = account().unzip();
        Self {
            user: text("PGUSER"),
            database: text("PGDATABASE"),
            password: there("PGPASSWORD"),
            passfile: there("PGPASSFILE").map(PathBuf::from),
            ssl_mode: any("PGSSLMODE"),
            ssl_root: any("PGSSLROOTCERT"),
            login,
            home: there("HOME").map(PathBuf::from).or(home),
        }
    }

    /// The password for this server, if there is one.
    pub(crate) fn password(&self, server: &Server, database: &str, user: &str) -> Option<Vec<u8>> {
        if let Some(password) = &self.password {
            return Some(password.clone().into_vec());
        }
        let path = self.passfile()?;
        let lines = read(&path)?;
        let port = server.port.to_string();
        let hosts = match &server.host {
            Host::Name(name) => [name.as_str(), name],
            Host::Folder(path) => {
                let path = path.to_str().unwrap_or_default();
                // Anybody may have a server in another folder (PostgreSQL manual, 34.16).
                let name = if path == FOLDER_DEFAULT {
                    "localhost"
                } else {
                    path
                };
                [path, name]
            }
        };
        let rest = [port.as_str(), database, user];
        lines.split(|byte| *byte == b'\n').find_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            find(line, &hosts, &rest)
        })
    }

    /// The file of passwords, if this process can have one.
    pub(crate) fn passfile(&self) -> Option<PathBuf> {
        let own = || Some(self.home.as_ref()?.join(".pgpass"));
        self.passfile.clone().or_else(own)
    }
}

/// The name and the home of the user who runs this process.
fn account() -> Option<(String, PathBuf)> {
    let id = geteuid().as_raw().to_string();
    let users = fs::read_to_string(USERS).ok()?;
    users.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        match fields[..] {
            [name, _, user, _, _, home, ..] if user == id => Some((name.to_owned(), home.into())),
            _ => None,
        }
    })
}

/// The file of passwords. One that others can read is not used, as in libpq.
fn read(path: &Path) -> Option<Vec<u8>> {
    if !path.exists() {
        return None;
    }
    match SecretFile::read(path, PASSFILE_BYTES_MAX) {
        Ok(file) if file.is_private() => Some(file.bytes),
        Ok(_) => {
            log::warn!(
                "{path} is not used, because others can read the passwords in it; chmod 600 {path} ends that",
                path = path.display()
            );
            None
        }
        Err(error) => {
            log::warn!("the passwords are not used: {error}");
            None
        }
    }
}

/// The password of a line that is for one of these hosts and for the port, the database and the user.
fn find(line: &[u8], hosts: &[&str], rest: &[&str]) -> Option<Vec<u8>> {
    if line.first() == Some(&b'#') {
        return None;
    }
    let fits =
        |pattern: &[u8], value: &str| pattern == b"*" || unescaped(pattern) == value.as_bytes();
    let (host, mut line) = split(line)?;
    if !hosts.iter().any(|value| fits(host, value)) {
        return None;
    }
    for value in rest {
        let (pattern, after) = split(line)?;
        if !fits(pattern, value) {
            return None;
        }
        line = after;
    }
    // An empty password is none.
    Some(unescaped(line)).filter(|password| !password.is_empty())
}

/// What stands before the first colon that is not escaped, and what after it.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut is_escaped = false;
    let colon = line.iter().position(|byte| {
        let is_colon = *byte == b':' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_colon
    })?;
    Some((&line[..colon], &line[colon + 1..]))
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => *bytes.next().unwrap_or(byte),
            byte => *byte,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn server(host: &str) -> Server {
        let host = match host.starts_with('/') {
            true => Host::Folder(host.into()),
            false => Host::Name(host.to_owned()),
        };
        Server { host, port: 5432 }
    }

    /// What a file with these lines says for the database `d` and the user `u`.
    #[track_caller]
    fn check(lines: &str, host: &str, want: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        fs::write(&path, lines).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let environment = Environment {
            passfile: Some(path),
            ..Environment::default()
        };
        let password = environment.password(&server(host), "d", "u");
        assert_eq!(password.as_deref(), want.map(str::as_bytes), "{lines}");
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        check("h:5432:d:u:p\n", "h", Some("p"));
        check("h:5432:d:u:p", "h", Some("p"));
        check("h:5432:d:u:p\r\n", "h", Some("p"));
        check(
            "x:5432:d:u:1\nh:5433:d:u:2\nh:5432:x:u:3\nh:5432:d:x:4\nh:5432:d:u:5\n",
            "h",
            Some("5"),
        );
        check("h:*:*:*:1\nh:5432:d:u:2\n", "h", Some("1"));
        check("*:*:*:*:any", "h", Some("any"));
        check("# h\n#h:5432:d:u:1\n\nh:5432:d:u:2\n", "h", Some("2"));
        check("h:5432:d:u", "h", None);
        check("h:5432:d:u:\n", "h", None);
        check("H:5432:d:u:p\n", "h", None);
        check("", "h", None);
    }

    #[test]
    fn a_backslash_makes_the_next_character_an_ordinary_one() {
        check(r"\:\:1:5432:d:u:p", "::1", Some("p"));
        check(r"h:5432:d:u:a\:b\\c:d", "h", Some(r"a:b\c:d"));
        check(r"h:5432:\d:u:p", "h", Some("p"));
        check(r"\*:5432:d:u:p", "h", None);
        check(r"h:5432:d:u:p\", "h", Some(r"p\"));
    }

    #[test]
    fn a_unix_socket_is_its_folder_and_localhost_if_it_is_the_default_one() {
        check("localhost:5432:d:u:p", "/run/x", None);
        check("localhost:5432:d:u:p", FOLDER_DEFAULT, Some("p"));
        let path = format!("{FOLDER_DEFAULT}:5432:d:u:p");
        check(&path, FOLDER_DEFAULT, Some("p"));
        check("/run/x:5432:d:u:p", "/run/x", Some("p"));
        check("/run/y:5432:d:u:p", "/run/x", None);
        check("localhost:5432:d:u:p", "h", None);
    }

    #[test]
    fn pgpassword_goes_before_a_file_and_a_file_for_others_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".pgpass");
        fs::write(&path, "*:*:*:*:of the file\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mut environment = Environment {
            home: Some(home.path().to_owned()),
            ..Environment::default()
        };
        let password = |environment: &Environment| {
            let password = environment.password(&server("h"), "d", "u");
            password.map(|password| String::from_utf8(password).unwrap())
        };
        assert_eq!(password(&environment).as_deref(), Some("of the file"));
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(&environment), None, "{mode:o}");
        }
        environment.passfile = Some(home.path().join("none"));
        assert_eq!(password(&environment), None);
        environment.password = Some("of the environment".into());
        assert_eq!(
            password(&environment).as_deref(),
            Some("of the environment")
        );
    }

    #[test]
    fn the_account_of_this_process_has_a_home() {
        // Root is in every such file; another user may be known elsewhere.
        if geteuid().is_root() {
            assert_eq!(account().unwrap().0, "root");
        }
    }
}
