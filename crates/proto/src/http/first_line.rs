//! Whether a stream begins with HTTP, on a port where it may also begin with a text.
//!
//! Any web page can have a browser send HTTP to such a port, and none of it may be taken for a text. So a
//! first line is HTTP if it begins with a word in capitals and its last word is `HTTP/` and a digit,
//! whether or not HTTP allows the rest of it. One that is cut off is HTTP if it may be the start of such a
//! line (RFC 9112 section 3):
//!
//! - a word in capitals, a path or a URL, and at most the start of `HTTP/` behind that;
//! - the same with a target that is cut off, also before its first byte, behind a method of HTTP. The
//!   target of `CONNECT` may be any word.
//!
//! A word that is cut off itself is a text: `GET` is one, `GET` and a space is not.

use memchr::{memchr, memrchr};

use super::head::HEAD_BYTES_MAX;
use super::request::METHODS;

/// The longest first line that is waited for, in bytes. What is longer is cut off there.
pub const FIRST_LINE_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// What the beginning of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLine {
    /// HTTP, of whichever version.
    Http,
    /// HTTP, unless what has not arrived shows that it is something else.
    HttpSoFar,
    /// Something else, unless what has not arrived shows that it is HTTP.
    OtherSoFar,
    /// Something else.
    Other,
}

impl FirstLine {
    /// What begins with these bytes.
    pub fn of(start: &[u8]) -> Self {
        let line = first_line(start);
        let has_end = line.len() < start.len();
        match line.iter().position(|b| !is_of_method(*b)) {
            None if !has_end => Self::OtherSoFar,
            Some(end) if end > 0 && line[end] == b' ' => match ends_like_http(line) {
                true if has_end => Self::Http,
                true => Self::HttpSoFar,
                false if has_end => Self::Other,
                false if is_begun_request(line) => Self::HttpSoFar,
                false => Self::OtherSoFar,
            },
            Some(_) | None => Self::Other,
        }
    }
}

/// Whether these bytes begin with HTTP, if they are all there are.
pub fn is_http(whole: &[u8]) -> bool {
    let line = first_line(whole);
    ends_like_http(line) && FirstLine::of(line) == FirstLine::HttpSoFar
}

/// The first line, or what there is of it, without its end.
fn first_line(start: &[u8]) -> &[u8] {
    memchr(b'\n', start).map_or(start, |end| &start[..end])
}

fn ends_like_http(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let last_word = memrchr(b' ', line).map_or(line, |space| &line[space + 1..]);
    matches!(last_word, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..])
}

/// Whether a line is the start of a request, at least up to the space behind its method.
fn is_begun_request(line: &[u8]) -> bool {
    let mut words = line.split(|b| *b == b' ');
    let [method, target, version] = [(); 3].map(|()| words.next().unwrap_or_default());
    let is_connect = method == b"CONNECT";
    let is_known = is_connect || METHODS.iter().any(|known| known.as_bytes() == method);
    let begins_like = |form: &&str| {
        let both = target.len().min(form.len());
        let is_alike = target[..both].eq_ignore_ascii_case(&form.as_bytes()[..both]);
        is_alike && (both == form.len() || is_known)
    };
    let is_target = ["/", "http:", "https:"].iter().any(begins_like)
        || (is_known && target == b"*")
        || is_connect;
    is_target && b"HTTP/".starts_with(version) && words.next().is_none()
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
            assert_eq!(FirstLine::of(start.as_bytes()), want, "{start:?}");
        }
        assert_eq!(
            is_http(line.as_bytes()),
            want == FirstLine::Http,
            "{line:?}"
        );
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
                // A word in capitals alone.
                _ if length <= b"GET".len() => FirstLine::OtherSoFar,
                // The line feed is what decides.
                _ if length <= line => FirstLine::HttpSoFar,
                _ => FirstLine::Http,
            };
            assert_eq!(FirstLine::of(&request[..length]), want, "{length}");
        }
        for start in ["g", "<", "GEt", "HELLO\r", "HELLO,", "1", " ", "\u{e4}"] {
            let first_line = FirstLine::of(start.as_bytes());
            assert_eq!(first_line, FirstLine::Other, "{start:?}");
        }
    }

    #[test]
    fn a_line_that_is_cut_off_is_http_if_it_may_be_the_start_of_a_request() {
        for http in [
            "GET ",
            "POST ",
            "DELETE h",
            "DELETE http",
            "PUT HTTPS",
            "OPTIONS *",
            "CONNECT example.com:4",
            "HELLO /",
            "HELLO https:",
            "GET /",
            "POST /xyz",
            "GET http://x",
            "CONNECT HTTPS:",
            "GET / ",
            "GET / H",
            "GET / HTTP/",
            "PRI * HTTP/2.0",
        ] {
            let first_line = FirstLine::of(http.as_bytes());
            assert_eq!(first_line, FirstLine::HttpSoFar, "{http}");
        }
        for other in [
            "",
            "GET",
            "HELLO ",
            "HELLO h",
            "HELLO http",
            "HELLO *",
            "GET x",
            "POST hello",
            "GET *.txt",
            "RESTART httpd",
            "CONNECT to it",
            "ERROR /var/log is full",
            "GET / HTTX",
            "GET / HTTP/x",
            "GET / H ",
        ] {
            let first_line = FirstLine::of(other.as_bytes());
            assert_eq!(first_line, FirstLine::OtherSoFar, "{other}");
        }
        for other in ["get /", " /", "/"] {
            assert_eq!(FirstLine::of(other.as_bytes()), FirstLine::Other, "{other}");
        }
    }
}
