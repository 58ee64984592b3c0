//! Request targets (RFC 9112 section 3.2): which bytes they may hold, and which path on which host they
//! name.

use std::net::Ipv6Addr;

use super::request::{Refusal, bad};
use super::status::Status;

/// The parts of a target.
pub(crate) struct Target<'a> {
    /// The host and the port, if it names them.
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

/// Parses a target in origin-form or absolute-form, or `*` for `OPTIONS` (the asterisk-form).
pub(crate) fn parse<'a>(method: &str, target: &'a [u8]) -> Result<Target<'a>, Refusal> {
    let target = match std::str::from_utf8(target) {
        Ok(text) if target.iter().all(|b| is_target_byte(*b)) => text,
        Ok(_) | Err(_) => {
            return Err(bad(
                "the target holds a byte that may not stand there, or not without percent-encoding",
            ));
        }
    };
    if target == "*" && method == "OPTIONS" {
        return Ok(Target {
            host: None,
            path: target,
            query: None,
        });
    }
    let is_origin_form = target.starts_with('/');
    let scheme = (!is_origin_form)
        .then(|| target.split_once("://"))
        .flatten();
    let (host, origin) = match scheme {
        _ if is_origin_form => (None, target),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            let (host, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if host.is_empty() || !is_host(host.as_bytes()) {
                return Err(bad("the target's host is not a host and a port"));
            }
            (Some(host.as_bytes()), origin)
        }
        // The client was promised a secured connection (RFC 9110 section 7.4).
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            let sentence = "this server speaks http, not https";
            return Err(Refusal::new(Status::MisdirectedRequest, sentence));
        }
        _ => return Err(bad("the target starts with '/' or 'http://'")),
    };
    let (path, query) = match origin.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { host, path, query })
}

/// Whether a byte may stand in a target without percent-encoding: those of a path or a query (RFC 3986
/// sections 3.3 and 3.4), and the two brackets, which browsers do not encode.
fn is_target_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?[]".contains(&b)
}

/// Whether a value is `host [":" port]` (RFC 9110 section 7.2). The host may be empty, for a request whose
/// target has none.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (host, port) = split_port(value);
    let host_is_valid = match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        name => {
            let mut escapes = name.split(|b| *b == b'%').skip(1);
            let is_name_byte = |b| u8::is_ascii_alphanumeric(b) || b"-._~%!$&'()*+,;=".contains(b);
            name.iter().all(is_name_byte)
                && escapes
                    .all(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit))
        }
    };
    host_is_valid && port.iter().all(u8::is_ascii_digit)
}

/// The host, with the brackets of an IPv6 address, and the port behind it, if there is one.
pub(crate) fn split_port(value: &[u8]) -> (&[u8], &[u8]) {
    match value.iter().rposition(|b| *b == b':') {
        Some(at) if !value.ends_with(b"]") => (&value[..at], &value[at + 1..]),
        _ => (value, b""),
    }
}

/// The path that a relative one, which starts with a dot, has for a reader of this target (RFC 3986 section
/// 5.2). `None` if it leads above the root.
pub fn resolve(target: &str, relative: &str) -> Option<String> {
    let mut folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut rest = relative;
    loop {
        rest = match (rest.strip_prefix("./"), rest.strip_prefix("../")) {
            (Some(rest), _) => rest,
            (None, Some(rest)) => {
                (folder, _) = folder.rsplit_once('/')?;
                rest
            }
            (None, None) => return Some(format!("{folder}/{rest}")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_path(target: &str, want: &str) {
        let parsed = parse("GET", target.as_bytes()).map(|target| target.path);
        assert_eq!(parsed, Ok(want), "{target}");
    }

    #[test]
    fn a_target_says_which_path_is_meant() {
        check_path("/", "/");
        check_path("//a", "//a");
        check_path("http://h/a?b", "/a");
        check_path("HTTP://h:80", "/");
        check_path("http://h?b", "/");
        check_path("/http://x", "/http://x");
        check_path("/a[1];b=c", "/a[1];b=c");
    }

    #[test]
    fn what_is_to_be_encoded_stands_in_no_target() {
        for byte in 0..=u8::MAX {
            let is_allowed = byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
            for start in ["/a", "/?", "http://h/"] {
                let target = [start.as_bytes(), &[byte]].concat();
                assert_eq!(parse("GET", &target).is_ok(), is_allowed, "{byte:#x}");
            }
        }
        let latin = parse("GET", b"/caf\xe9").map(|target| target.path);
        let utf8 = parse("GET", "/café".as_bytes()).map(|target| target.path);
        assert_eq!(latin.unwrap_err().status, Status::BadRequest);
        assert_eq!(utf8.unwrap_err().status, Status::BadRequest);
    }
}
