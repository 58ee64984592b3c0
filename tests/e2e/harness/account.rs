//! The account of a run whose door has accounts. Its user is an admin, so that nothing is refused.

use std::borrow::Cow;
use std::fs::{self, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proto::frame::{self, Message};
use proto::login::{Login, LoginReply};

use super::door::door;

/// Who asks. In the history, it is the user that most tests ask as.
const LOGIN: Login = Login {
    user: "alice",
    password: "wonderland",
};

/// Its line in a file of accounts. The hash is as `openssl passwd -6` makes it.
const LINE: &str = "alice:$6$quartet$IlSVTsJb5/miutNtju6cpq0I9Rvjtl47z6/h5Bzkmf4KWhdZA4/\
    WgiIqR6vO5/BeQPuGkfcVhjapH/QCHr43c.:admin\n";

/// The field that logs in over HTTP (RFC 7617).
const FIELD: &str = "Authorization: Basic YWxpY2U6d29uZGVybGFuZA==\r\n";

/// `USER:PASSWORD`, as the file of a client has it, and curl's option.
pub const CREDENTIALS: &str = "alice:wonderland";

/// The longest reply to a login, in bytes.
const REPLY_BYTES_MAX: usize = 1024;

/// A file of accounts for a server.
pub fn file_of_server(folder: &Path) -> PathBuf {
    write(folder.join("accounts"), LINE)
}

/// A file with an account for a client.
pub fn file_of_client() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = super::run_folder().join("account");
        write(path, &format!("{CREDENTIALS}\n"))
    })
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// Logs in with a frame, the first of a connection.
///
/// # Errors
/// If the connection fails, or the server does not answer that it is so.
pub fn log_in(mut stream: impl Read + Write) -> io::Result<()> {
    let (mut bytes, mut payload) = (Vec::new(), Vec::new());
    LOGIN.encode(&mut bytes);
    stream.write_all(&bytes)?;
    // What comes behind the reply is not for us, so nothing is read ahead.
    let mut input = BufReader::with_capacity(1, stream);
    let kind = frame::read(&mut input, REPLY_BYTES_MAX, &mut payload);
    let kind = kind.map_err(io::Error::other)?;
    let kind = kind.ok_or(io::ErrorKind::UnexpectedEof)?;
    match LoginReply::decode(kind, &payload).map_err(io::Error::other)? {
        LoginReply::LoggedIn => Ok(()),
        LoginReply::Refused(error) => Err(io::Error::other(error.sentence.to_owned())),
    }
}

/// HTTP requests, with the field that logs in if this run needs it: it stands behind the first line
/// of each head.
pub fn signed(requests: &[u8]) -> Cow<'_, [u8]> {
    if !door().has_accounts {
        return requests.into();
    }
    let mut all = Vec::new();
    for line in requests.split_inclusive(|byte| *byte == b'\n') {
        all.extend_from_slice(line);
        if line.ends_with(b" HTTP/1.1\r\n") || line.ends_with(b" HTTP/1.0\r\n") {
            all.extend_from_slice(FIELD.as_bytes());
        }
    }
    all.into()
}
