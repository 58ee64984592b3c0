//! Who asked for what: a line for each reply on standard output, in the common log format.

use std::io;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use cli::LineWriter;
use cli::stream::Output;
use proto::http::{Status, date};

/// How much of a request line is shown, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// The log of requests. That nobody reads it is no reason to stop serving.
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

    /// Adds a line.
    pub(crate) fn add(&self, peer: IpAddr, request_line: &[u8], status: Status, bytes: u64) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = since_1970.map_or(0, |since| since.as_secs());
        self.0.put(&line(peer, second, request_line, status, bytes));
    }

    /// Waits until all is written, but not for long.
    pub(crate) fn flush(&self) {
        self.0.flush();
    }
}

fn line(peer: IpAddr, second: u64, request_line: &[u8], status: Status, bytes: u64) -> String {
    let shown = match request_line {
        [] => "-".to_owned(),
        // Neither a quote nor a line break or an escape of the sender's gets into the log.
        line => line[..line.len().min(LINE_BYTES_MAX)]
            .escape_ascii()
            .to_string(),
    };
    let (time, code) = (date::format_log(second), status.code());
    format!("{peer} - - [{time}] \"{shown}\" {code} {bytes}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_whatever_is_in_it() {
        let check = |request_line: &[u8], want: &str| {
            let line = line(
                [127, 0, 0, 1].into(),
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
}
