//! Which requests are let in: by the host that they name, and by the page that they come from.
//!
//! A browser sends what any page tells it to, also to a server on loopback. Two things give such a
//! request away, because no script can change them. If the page has its own name point at this server
//! (DNS rebinding), so that it may read the replies too, `Host` is that name. If the page is another
//! site's, `Origin` or `Sec-Fetch-Site` says so.

use std::net::Ipv4Addr;

use proto::http::{Refusal, RequestHead, Status};
use rustix::system::uname;

/// Which hosts an HTTP server answers for: every IP address, `localhost`, what the machine is called,
/// alone and with `.local`, and the names that it was started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Those that any server answers for, and these names.
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// Checks a request before anything is done about it.
    ///
    /// # Errors
    /// A refusal, if it is for another host, or wants to change something and comes from a page of
    /// another site.
    pub(crate) fn check(&self, request: &RequestHead) -> Result<(), Refusal> {
        self.check_host(request)?;
        check_origin(request)
    }

    /// Only HTTP/1.0 may leave the host out; a host that is empty is none that a page could have.
    fn check_host(&self, request: &RequestHead) -> Result<(), Refusal> {
        let host = request.host_name();
        // An IPv6 address was checked when the head was parsed.
        if host.is_empty() || host.starts_with(b"[") {
            return Ok(());
        }
        let host = String::from_utf8_lossy(host);
        // The dot of the root may stand behind each.
        let name = without_dot(&host);
        let is = |known: &str| name.eq_ignore_ascii_case(without_dot(known));
        // Its neighbours find it by multicast DNS, where no page has a name (RFC 6762).
        let is_machine = |node: &str| is(node) || is(&format!("{node}.local"));
        if name.parse::<Ipv4Addr>().is_ok()
            || is("localhost")
            || self.0.iter().any(|known| is(known))
            || uname().nodename().to_str().is_ok_and(is_machine)
        {
            return Ok(());
        }
        let sentence = format!(
            "this server does not answer for the host '{host}'; if it should, start it with --host \
             {host}"
        );
        Err(Refusal::new(Status::MisdirectedRequest, sentence))
    }
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// What only looks may come from anywhere. Browsers tell where the rest comes from by Fetch Metadata
/// or at least by its origin (RFC 6454); other programs say nothing.
fn check_origin(request: &RequestHead) -> Result<(), Refusal> {
    if matches!(request.method, "GET" | "HEAD" | "OPTIONS") {
        return Ok(());
    }
    let is_other = |origin: &&[u8]| {
        let authority = origin.strip_prefix(b"http://");
        let authority = authority.or_else(|| origin.strip_prefix(b"https://"));
        authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(request.host))
    };
    let sentence = match request.fields("sec-fetch-site").next() {
        // Whatever a proxy on the way has made of the host.
        Some(b"same-origin" | b"none") => return Ok(()),
        Some(_) => "a page of another site may not change anything here".into(),
        None => match request.fields("origin").find(is_other) {
            None => return Ok(()),
            Some(origin) => format!(
                "a page of {} may not change anything at {}; a proxy in between must pass on the \
                 Host that it was asked for, with its port",
                origin.escape_ascii(),
                request.host.escape_ascii()
            ),
        },
    };
    Err(Refusal::new(Status::Forbidden, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of the refusal of a request with these fields, or 0.
    fn check_at(hosts: &Hosts, line: &str, fields: &str) -> u16 {
        let head = format!("{line}\r\n{fields}\r\n\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let checked = hosts.check(&request);
        checked.map_or_else(|refusal| refusal.status.code(), |()| 0)
    }

    #[test]
    fn a_server_answers_for_its_own_names_alone() {
        let hosts = Hosts::new(vec!["Files.example".to_owned()]);
        let node = uname().nodename().to_string_lossy().into_owned();
        let check = |host: &str, want: u16| {
            let status = check_at(&hosts, "GET / HTTP/1.1", &format!("Host: {host}"));
            assert_eq!(status, want, "{host}");
        };
        for ours in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.0.2.1",
            "[::1]",
            "[2001:db8::1]:80",
            "localhost",
            "LocalHost.:8080",
            "files.EXAMPLE:443",
            "",
            &node,
            &format!("{node}.local:8080"),
        ] {
            check(ours, 0);
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "files.example.evil.example",
            "1.2.3",
            "0x7f.1",
            "a..",
            "other.local",
            &format!("{node}.local.evil.example"),
            &format!("{node}.example"),
        ] {
            check(other, 421);
        }
        assert_eq!(check_at(&hosts, "GET / HTTP/1.0", "X: y"), 0);
        let old = check_at(&hosts, "GET / HTTP/1.0", "Host: evil.example");
        assert_eq!(old, 421);
        let absolute = "GET http://evil.example/ HTTP/1.1";
        assert_eq!(check_at(&hosts, absolute, "Host: localhost"), 421);
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let hosts = Hosts::default();
        let check = |method: &str, fields: &str, want: u16| {
            let fields = format!("Host: localhost:80\r\n{fields}");
            let status = check_at(&hosts, &format!("{method} / HTTP/1.1"), &fields);
            assert_eq!(status, want, "{method} {fields}");
        };
        for method in ["POST", "PUT", "PATCH", "DELETE", "MKCOL", "MOVE"] {
            check(method, "X: y", 0);
            check(method, "Origin: http://localhost:80", 0);
            check(method, "Origin: https://LOCALHOST:80", 0);
            check(method, "Origin: http://localhost:81", 403);
            check(method, "Origin: http://evil.example", 403);
            check(method, "Origin: null", 403);
            check(
                method,
                "Sec-Fetch-Site: same-origin\r\nOrigin: http://outside",
                0,
            );
            check(method, "Sec-Fetch-Site: none", 0);
            check(method, "Sec-Fetch-Site: same-site", 403);
            check(method, "Sec-Fetch-Site: cross-site", 403);
        }
        check("GET", "Sec-Fetch-Site: cross-site", 0);
        check("HEAD", "Origin: http://evil.example", 0);
    }

    #[test]
    fn a_proxy_that_keeps_the_host_to_itself_is_thought_of() {
        let head =
            "PUT / HTTP/1.1\r\nHost: 127.0.0.1:80\r\nOrigin: http://files.example:8ä\r\n\r\n";
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let refusal = Hosts::default().check(&request).unwrap_err();
        let want = r"a page of http://files.example:8\xc3\xa4 may not change anything at 127.0.0.1:80; a proxy";
        assert!(refusal.sentence.starts_with(want), "{refusal}");
    }
}
