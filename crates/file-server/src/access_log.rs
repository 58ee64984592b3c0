//! The access log: a line for each reply, on standard output, in the common log format.

use std::io;

use cli::LineWriter;
use cli::stream::Output;
use daemon::Peer;
use proto::http::{Status, date};

/// The longest request line that is shown, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// The longest user name that is shown, in bytes.
const USER_BYTES_MAX: usize = 256;

/// The access log. If nobody reads it, lines are dropped and the server continues.
pub(crate) struct AccessLog(LineWriter);

impl AccessLog {
    /// Starts the thread that writes it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(out: Output) -> io::Result<Self> {
        let note = |dropped| {
            log::warn!("{dropped} lines of the access log were dropped: nobody read it");
            String::new()
        };
        LineWriter::start("access log", out, note).map(Self)
    }

    /// Adds a [`line`].
    pub(crate) fn add(&self, line: &str) {
        self.0.put(line);
    }

    /// Waits until all lines are written, but not for long.
    pub(crate) fn flush(&self) {
        self.0.flush();
    }
}

/// The line for a reply, which was sent in this second since 1970.
pub(crate) fn line(
    peer: Peer,
    user: Option<&str>,
    second: u64,
    request_line: &[u8],
    status: Status,
    bytes: u64,
) -> String {
    let request_line = shown(request_line, LINE_BYTES_MAX);
    // A space would end the field.
    let user = shown(user.unwrap_or_default().as_bytes(), USER_BYTES_MAX).replace(' ', "\\x20");
    let (time, code) = (date::format_log(second), status.code());
    let host = match peer {
        Peer::Ip(peer) => peer.ip().to_string(),
        Peer::Unix { .. } => peer.to_string(),
    };
    format!("{host} - {user} [{time}] \"{request_line}\" {code} {bytes}\n")
}

/// A client's text for the log: quotes, line breaks and escapes are escaped, and the end is cut off.
fn shown(text: &[u8], bytes_max: usize) -> String {
    match text {
        [] => "-".to_owned(),
        text => text[..text.len().min(bytes_max)].escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_whatever_is_in_it() {
        let check = |request_line: &[u8], want: &str| {
            let line = line(
                Peer::Ip(([127, 0, 0, 1], 80).into()),
                None,
                784_111_777,
                request_line,
                Status::Ok,
                5,
            );
            let want = format!("127.0.0.1 - - [06/Nov/1994:08:49:37 +0000] \"{want}\" 200 5\n");
            assert_eq!(line, want);
        };
        check(b"GET /a%20b HTTP/1.1", "GET /a%20b HTTP/1.1");
        check(b"", "-");
        check(
            b"GET /\" 200 1\n\x1b[31m\xff",
            "GET /\\\" 200 1\\n\\x1b[31m\\xff",
        );
        check(&[b'x'; 9999], &"x".repeat(LINE_BYTES_MAX));
    }

    #[test]
    fn a_user_is_one_field_whatever_it_is_called() {
        let check = |user: &str, want: &str| {
            let peer = Peer::Ip(([127, 0, 0, 1], 80).into());
            let line = line(peer, Some(user), 784_111_777, b"x", Status::Ok, 5);
            let want = format!("127.0.0.1 - {want} [06/Nov/1994:08:49:37 +0000] \"x\" 200 5\n");
            assert_eq!(line, want);
        };
        check("ann", "ann");
        check("", "-");
        check("ann [06/Nov] \"\n", "ann\\x20[06/Nov]\\x20\\\"\\n");
        check("\u{e4}\x1b", "\\xc3\\xa4\\x1b");
        check(&"x".repeat(9999), &"x".repeat(USER_BYTES_MAX));
    }
}
