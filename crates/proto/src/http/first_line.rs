//! Whether a stream begins with HTTP, on a port where it may also begin with a text.
//!
//! Any web page can have a browser send HTTP to such a port, and none of it may be taken for a text. So a
//! first line is HTTP if it begins with a word in capitals and its last word is `HTTP/` and a digit,
//! whether or not HTTP allows the rest of it.

use memchr::{memchr, memrchr};

use super::head::HEAD_BYTES_MAX;

/// The longest first line that is waited for, in bytes. What is longer is judged by how it begins.
pub const FIRST_LINE_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// What the beginning of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLine {
    /// HTTP, of whichever version.
    Http,
    /// Something else.
    Other,
    /// It depends on bytes that have not arrived.
    Undecided,
}

impl FirstLine {
    /// What begins with these bytes. Nothing follows them if they are `whole`.
    pub fn of(start: &[u8], whole: bool) -> Self {
        let undecided = if whole { Self::Other } else { Self::Undecided };
        match start.iter().position(|b| !is_of_method(*b)) {
            None => return undecided,
            Some(end) if end > 0 && start[end] == b' ' => {}
            Some(_) => return Self::Other,
        }
        let line = match memchr(b'\n', start) {
            Some(end) => &start[..end],
            None if whole => start,
            None => return Self::Undecided,
        };
        let line = line.trim_ascii_end();
        let last_word = memrchr(b' ', line).map_or(line, |space| &line[space + 1..]);
        match last_word {
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => Self::Http,
            _ => Self::Other,
        }
    }
}

/// Whether these bytes begin as all requests of browsers do: with a word in capitals and a target, which
/// is a path or a URL. A line that is too long is HTTP if it begins like that.
pub fn begins_like_http(start: &[u8]) -> bool {
    let word = start.iter().take_while(|b| is_of_method(**b)).count();
    let target = start[word..].strip_prefix(b" ").unwrap_or_default();
    let scheme = target.get(..4).unwrap_or_default();
    word > 0 && (target.starts_with(b"/") || scheme.eq_ignore_ascii_case(b"http"))
}

/// Whether a method may have this byte. Those that browsers send are letters alone; others, like
/// `M-SEARCH`, have a hyphen.
fn is_of_method(b: u8) -> bool {
    b.is_ascii_uppercase() || b == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: FirstLine) {
        for end in ["\n", "\r\n", "\r\nHost: x\r\n"] {
            let start = format!("{line}{end}");
            assert_eq!(FirstLine::of(start.as_bytes(), false), want, "{start:?}");
        }
        assert_eq!(FirstLine::of(line.as_bytes(), true), want, "{line:?}");
    }

    #[test]
    fn http_is_what_any_program_would_take_for_it() {
        use FirstLine::*;
        for http in [
            "GET / HTTP/1.1",
            "POST / HTTP/1.0",
            "M-SEARCH * HTTP/1.1",
            "PRI * HTTP/2.0",
            "GET /a b HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET  HTTP/9",
            "READ about HTTP/3",
        ] {
            check(http, Http);
        }
        for other in [
            "",
            "hello",
            "HELLO",
            "HELLO world",
            "alice 2",
            "ALICE 2",
            "<<GET>>",
            "Get / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/x",
            "GET / HTTP",
            "GET / HTTP/1.1 x",
            "{\"GET\": \"/ HTTP/1.1\"}",
            "\u{e4} HTTP/1.1",
        ] {
            check(other, Other);
        }
    }

    #[test]
    fn only_what_may_become_http_is_waited_for() {
        let request = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        let line = b"GET /a HTTP/1.1\n".len();
        for length in 0..=request.len() {
            let want = match length {
                // The line feed is what decides.
                _ if length <= line => FirstLine::Undecided,
                _ => FirstLine::Http,
            };
            assert_eq!(FirstLine::of(&request[..length], false), want, "{length}");
        }
        for start in ["g", "<", "GEt", "HELLO\r", "HELLO,", "1", " ", "\u{e4}"] {
            let first_line = FirstLine::of(start.as_bytes(), false);
            assert_eq!(first_line, FirstLine::Other, "{start:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_judged_by_how_it_begins() {
        for http in ["GET /", "POST /xyz", "GET http://x", "CONNECT HTTPS"] {
            assert!(begins_like_http(http.as_bytes()), "{http}");
        }
        for other in ["", "GET", "GET ", "GET x", "GET htt", "get /", " /", "/"] {
            assert!(!begins_like_http(other.as_bytes()), "{other}");
        }
    }
}
