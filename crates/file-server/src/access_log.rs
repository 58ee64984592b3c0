//! Who asked for what: a line for each reply on standard output, in the common log format.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::http::{Status, date};

/// How much of a request line is shown, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// Writes a line. A log that nobody reads any more is no reason to stop serving.
pub(crate) fn write(peer: IpAddr, request_line: &[u8], status: Status, bytes: u64) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let second = since_1970.map_or(0, |since| since.as_secs());
    let line = line(peer, second, request_line, status, bytes);
    let _ = io::stdout().write_all(line.as_bytes());
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
