//! The fields of requests that delete and rename (RFC 4918 section 10): where to, and how much may be lost.

use super::request::{Refusal, RequestHead, bad};
use super::status::Status;
use super::target;

/// Where a `MOVE` goes to.
pub const DESTINATION: &str = "Destination";

/// Whether a `MOVE` replaces what is there.
pub const OVERWRITE: &str = "Overwrite";

/// How far below its target a request goes.
pub const DEPTH: &str = "Depth";

/// The `Depth` of a request for a folder with all that is in it.
pub const INFINITY: &str = "infinity";

/// How far below its target a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Nowhere.
    Zero,
    /// As far as there is anything.
    Infinity,
}

/// The `Depth` of a request, if it has one.
///
/// # Errors
/// If it is neither `0` nor `infinity`.
pub fn depth(request: &RequestHead) -> Result<Option<Depth>, Refusal> {
    match request.single(DEPTH) {
        None if !request.has(DEPTH) => Ok(None),
        Some(b"0") => Ok(Some(Depth::Zero)),
        Some(value) if value.eq_ignore_ascii_case(INFINITY.as_bytes()) => Ok(Some(Depth::Infinity)),
        Some(_) | None => Err(bad("the Depth is '0' or 'infinity'")),
    }
}

/// Whether a request replaces what is at its destination, if it says so.
///
/// # Errors
/// If it is neither `T` nor `F`.
pub fn overwrite(request: &RequestHead) -> Result<Option<bool>, Refusal> {
    match request.single(OVERWRITE) {
        None if !request.has(OVERWRITE) => Ok(None),
        Some(b"T" | b"t") => Ok(Some(true)),
        Some(b"F" | b"f") => Ok(Some(false)),
        Some(_) | None => Err(bad("the Overwrite is 'T' or 'F'")),
    }
}

/// The path of the `Destination`, still percent-encoded, starting with `/`. The field is a URL of the same
/// host and port or an absolute path (RFC 4918 section 10.3). A path that starts with a dot is relative to
/// the target, which is right also behind a proxy that cuts the front off the target and not off this.
/// `prefix` is what was in front of the target and is in front of the others; it is empty, or starts with a slash
/// and does not end in one.
///
/// # Errors
/// If there is none, it is malformed, it leads above the root, or it is on another server.
pub fn destination(request: &RequestHead, prefix: &str) -> Result<String, Refusal> {
    const SHAPE: Refusal = Refusal {
        status: Status::BadRequest,
        sentence: std::borrow::Cow::Borrowed(
            "one Destination is needed: a path from the root, as '/a/b', or a URL of this server, \
             percent-encoded",
        ),
    };
    let value = request.single(DESTINATION).ok_or(SHAPE)?;
    let value = std::str::from_utf8(value).map_err(|_| SHAPE)?;
    let (port, url) = match value.split_once("://") {
        // It begins with a host.
        _ if value.starts_with("//") => return Err(SHAPE),
        _ if value.starts_with('/') => ("", value.to_owned()),
        _ if value.starts_with('.') => {
            let path = target::resolve(request.path, value);
            let path = path.ok_or(bad("the Destination leads above the root"))?;
            ("", prefix.to_owned() + &path)
        }
        // Whether TLS ends here or at a proxy, the host is the same.
        Some((scheme, rest)) => (port_of(scheme).ok_or(SHAPE)?, format!("http://{rest}")),
        None => return Err(SHAPE),
    };
    let parsed = target::parse(request.method, url.as_bytes()).map_err(|_| SHAPE)?;
    let bare = |host| match target::split_port(host) {
        (name, behind) if behind.is_empty() || behind == port.as_bytes() => name,
        _ => host,
    };
    if let Some(host) = parsed.host
        && !bare(host).eq_ignore_ascii_case(bare(request.host))
    {
        let sentence = format!(
            "the Destination is on {}, and this request is for {}; a Destination without a host is on \
             the same server",
            host.escape_ascii(),
            request.host.escape_ascii()
        );
        return Err(Refusal::new(Status::BadGateway, sentence));
    }
    if parsed.query.is_some() {
        return Err(bad("the Destination has a query; a '?' in a name is %3F"));
    }
    match parsed.path.strip_prefix(prefix) {
        Some("") => Ok("/".to_owned()),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(_) | None => {
            let sentence = format!("the files of this server are below {prefix}/");
            Err(Refusal::new(Status::BadGateway, sentence))
        }
    }
}

/// The port of a scheme that a URL of this server may have, if the URL does not say another.
fn port_of(scheme: &str) -> Option<&'static str> {
    let known = [("http", "80"), ("https", "443")];
    let mut known = known.into_iter();
    let found = known.find(|(known, _)| scheme.eq_ignore_ascii_case(known));
    found.map(|(_, port)| port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ask<R>(
        fields: &str,
        read: impl FnOnce(&RequestHead) -> Result<R, Refusal>,
    ) -> Result<R, u16> {
        ask_at("h:80", fields, read)
    }

    fn ask_at<R>(
        host: &str,
        fields: &str,
        read: impl FnOnce(&RequestHead) -> Result<R, Refusal>,
    ) -> Result<R, u16> {
        let head = format!("MOVE /a/b/c HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        read(&request).map_err(|refusal| refusal.status.code())
    }

    #[test]
    fn a_destination_is_a_path_on_this_server() {
        let check = |value: &str, want: Result<&str, u16>| {
            let field = format!("Destination: {value}\r\n");
            let got = ask(&field, |request| destination(request, ""));
            assert_eq!(got.as_deref(), want.as_ref().map(|path| &**path), "{value}");
        };
        check("/x", Ok("/x"));
        check("/x/y%20z/", Ok("/x/y%20z/"));
        check("http://h:80/x", Ok("/x"));
        check("HTTPS://H:80/x", Ok("/x"));
        check("http://h:80", Ok("/"));
        check("/x//y", Ok("/x//y"));
        check("./x", Ok("/a/b/x"));
        check("../x", Ok("/a/x"));
        check("../.././x", Ok("/x"));
        check("../../../x", Err(400));
        // Refused later, as in any target.
        check("./x/../y", Ok("/a/b/x/../y"));
        for other in ["http://h:81/x", "https://h/x", "https://evil.example/x"] {
            check(other, Err(502));
        }
        for bad in [
            "",
            "x",
            "//h/x",
            "//h:80/x",
            "ftp://h:80/x",
            "/a b",
            "/a#b",
            "/a?b",
            "http://u@h:80/x",
            "http:///x",
            "http://h:80.x/",
            "/\u{e4}",
        ] {
            check(bad, Err(400));
        }
        let read = |request: &RequestHead| destination(request, "");
        assert_eq!(ask("", read), Err(400));
        assert_eq!(
            ask("Destination: /x\r\nDestination: /y\r\n", read),
            Err(400)
        );
    }

    #[test]
    fn a_host_is_the_same_with_the_port_of_its_scheme() {
        for (host, url, want) in [
            ("h", "http://h:80/x", Ok("/x")),
            ("h:80", "http://H/x", Ok("/x")),
            ("h", "https://h:443/x", Ok("/x")),
            ("h:443", "https://h/x", Ok("/x")),
            ("[::1]", "http://[::1]:80/x", Ok("/x")),
            ("h", "http://h:443/x", Err(502)),
            ("h", "https://h:80/x", Err(502)),
            ("h:8080", "http://h/x", Err(502)),
            ("h", "http://h:/x", Ok("/x")),
        ] {
            let field = format!("Destination: {url}\r\n");
            let got = ask_at(host, &field, |request| destination(request, ""));
            let want = want.map(str::to_owned);
            assert_eq!(got, want, "{url} at {host}");
        }
    }

    #[test]
    fn a_prefix_is_in_front_of_every_path_but_a_relative_one() {
        for (value, want) in [
            ("/files/x", Ok("/x")),
            ("http://h:80/files/", Ok("/")),
            ("/files", Ok("/")),
            ("../x", Ok("/a/x")),
            ("../../../x", Err(400)),
            ("/x", Err(502)),
            ("/filesystem/x", Err(502)),
        ] {
            let field = format!("Destination: {value}\r\n");
            let got = ask(&field, |request| destination(request, "/files"));
            assert_eq!(got.as_deref(), want.as_ref().map(|path| &**path), "{value}");
        }
    }

    #[test]
    fn what_may_be_lost_is_said_in_one_of_two_words() {
        assert_eq!(ask("", overwrite), Ok(None));
        assert_eq!(ask("Overwrite: T\r\n", overwrite), Ok(Some(true)));
        assert_eq!(ask("overwrite: f\r\n", overwrite), Ok(Some(false)));
        assert_eq!(ask("", depth), Ok(None));
        assert_eq!(ask("Depth: 0\r\n", depth), Ok(Some(Depth::Zero)));
        assert_eq!(ask("Depth: Infinity\r\n", depth), Ok(Some(Depth::Infinity)));
        for value in ["", "true", "T, F", "1"] {
            assert_eq!(
                ask(&format!("Overwrite: {value}\r\n"), overwrite),
                Err(400),
                "{value}"
            );
            assert_eq!(
                ask(&format!("Depth: {value}\r\n"), depth),
                Err(400),
                "{value}"
            );
        }
        assert_eq!(ask("Overwrite: F\r\nOverwrite: T\r\n", overwrite), Err(400));
        assert_eq!(ask("Depth: 0\r\nDepth: infinity\r\n", depth), Err(400));
    }
}
