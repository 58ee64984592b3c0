//! Several servers where one is named: `HOST,HOST PORT`.

use std::net::Ipv6Addr;

use cli::{Address, UsageError, unbracketed};

/// The most servers of a command line. Each that is away may cost the client a few seconds.
const SERVERS_MAX: usize = 8;

/// The server and the others that an address names: its host may be several, separated by commas. `what` has
/// named them.
pub(super) fn servers(
    what: &'static str,
    address: Address,
) -> Result<(Address, Vec<Address>), UsageError> {
    let Address::Tcp { host, port } = &address else {
        return Ok((address, Vec::new()));
    };
    let Some((first, others)) = host.split_once(',') else {
        return Ok((address, Vec::new()));
    };
    let others: Option<Vec<_>> = others.split(',').map(|word| server(word, *port)).collect();
    let others = others.filter(|others| others.len() < SERVERS_MAX);
    server(first, *port).zip(others).ok_or_else(|| {
        let want = format!("one host, or 2 to {SERVERS_MAX} with commas between and the same port");
        UsageError::value(what, host.as_ref(), want)
    })
}

/// One of several. The port that they share may stand behind each.
fn server(word: &str, port: u16) -> Option<Address> {
    let host = word.strip_suffix(&format!(":{port}"));
    let host = host.filter(|host| !host.contains(':') || unbracketed(host) != *host);
    let host = unbracketed(host.unwrap_or(word));
    let address = host.split('%').next().unwrap_or(host);
    let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
    let is_one = !host.contains(':') || address.parse::<Ipv6Addr>().is_ok();
    (is_host && is_one).then(|| Address::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(host: &str) -> Result<Vec<Address>, String> {
        let named = servers("HOST", Address::new(host, 7));
        let all = named.map(|(first, others)| [vec![first], others].concat());
        all.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(host: &str, hosts: &[&str]) {
        let want: Vec<_> = hosts.iter().map(|host| Address::new(host, 7)).collect();
        assert_eq!(named(host), Ok(want), "{host}");
    }

    #[test]
    fn a_host_may_be_several() {
        check("a", &["a"]);
        check("unix:/a,b", &["unix:/a,b"]);
        check("a,b", &["a", "b"]);
        check("a:7,b", &["a", "b"]);
        check("::1,127.0.0.1", &["::1", "127.0.0.1"]);
        check("[::1],[fe80::1%lo]", &["::1", "fe80::1%lo"]);
        check("[::1]:7,[::2]", &["::1", "::2"]);
        check("a,b,c,d,e,f,g,h", &["a", "b", "c", "d", "e", "f", "g", "h"]);
    }

    #[test]
    fn a_list_that_cannot_be_right_is_refused() {
        let nine = "a,b,c,d,e,f,g,h,i";
        for host in [
            nine,
            ",",
            "a,",
            ",b",
            "a,,b",
            "a, b",
            "a:8,b",
            "a,unix:/b",
            "[::1]:8,a",
        ] {
            let want = format!(
                "HOST must be one host, or 2 to 8 with commas between and the same port, not '{host}'"
            );
            assert_eq!(named(host), Err(want));
        }
    }
}
