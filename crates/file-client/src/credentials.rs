//! Credentials: a user and a password (RFC 7617), from a file that only its owner can read.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cli::{ClientError, stream};

use crate::source::{BYTE_ORDER_MARK, STDIN};
use crate::{Error, Input};

/// The longest first line of a file with a password, in bytes.
const LINE_BYTES_MAX: u64 = 1024;

/// The rights of other users in a mode.
const MODE_OF_OTHERS: u32 = 0o077;

/// A user and a password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The value of an `Authorization` field.
    field: String,
}

impl Credentials {
    /// Reads the first line of an input, `USER:PASSWORD`. The user has no colon in it, and the line no
    /// control character.
    ///
    /// # Errors
    /// If the file cannot be read, or other users may read it, or the line is something else or
    /// exceeds 1024 bytes.
    pub fn read(input: &Input) -> Result<Self, Error> {
        let (path, line) = match input {
            Input::File(path) => (path.as_path(), Self::line_of_file(path)?),
            Input::Stdin => {
                let line = first_line(stream::input()?).map_err(ClientError::Input)?;
                (Path::new(STDIN), line)
            }
        };
        Self::parse(&line).ok_or_else(|| Error::AuthFileIsMalformed(path.to_owned()))
    }

    fn line_of_file(path: &Path) -> Result<Vec<u8>, Error> {
        let failed = Error::read(path);
        let file = File::open(path).map_err(&failed)?;
        // Of the open file, so that the file that is read is the one that was checked.
        let mode = file.metadata().map_err(&failed)?.permissions().mode();
        if mode & MODE_OF_OTHERS != 0 {
            return Err(Error::AuthFileIsOpen(path.to_owned()));
        }
        first_line(file).map_err(failed)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        if line.len() as u64 > LINE_BYTES_MAX {
            return None;
        }
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_shaped = line
            .iter()
            .position(|b| *b == b':')
            .is_some_and(|at| at > 0);
        if !is_shaped || line.iter().any(u8::is_ascii_control) {
            return None;
        }
        let field = format!("Basic {}", STANDARD.encode(line));
        Some(Self { field })
    }

    /// The value of the `Authorization` field.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }
}

fn first_line(input: impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut start = BufReader::new(input.take(LINE_BYTES_MAX + 1));
    start.read_until(b'\n', &mut line)?;
    Ok(line)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_line_says_who_asks() {
        // From RFC 7617 section 2.
        let want = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        for line in [
            "Aladdin:open sesame",
            "Aladdin:open sesame\r\n",
            "\u{feff}Aladdin:open sesame\r\n",
        ] {
            assert_eq!(Credentials::parse(line.as_bytes()).unwrap().field(), want);
        }
        assert!(Credentials::parse(b"a:").is_some());
        assert!(Credentials::parse("ä:b:c\n".as_bytes()).is_some());
        let long = format!("a:{}", "b".repeat(LINE_BYTES_MAX as usize));
        for bad in ["", "\n", "a", ":b", "a:\tb", "a:b\0", &long] {
            assert_eq!(Credentials::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth");
        fs::write(&path, "user:password\nmore\n").unwrap();
        for (mode, is_good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Credentials::read(&Input::File(path.clone()));
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            let shown = format!("{read:?}");
            assert!(!shown.contains("password"), "{shown}");
        }
        assert!(Credentials::read(&Input::File(folder.path().join("gone"))).is_err());
    }
}
