//! What to type into another machine's browser: the URLs of a server, and one of them as a QR code.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};

use daemon::Address;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// Logs the URLs by which other machines reach a server that listens at these addresses. `below` is the
/// path of its root, with its final slash. With `has_code`, the first is shown as a QR code, if standard
/// error is a terminal.
pub(crate) fn tell<'a>(
    addresses: impl Iterator<Item = &'a Address>,
    is_encrypted: bool,
    below: &str,
    has_code: bool,
) {
    let scheme = if is_encrypted { "https" } else { "http" };
    let hosts = addresses.flat_map(|address| hosts(address, &of_interfaces));
    let urls: Vec<_> = hosts
        .map(|host| format!("{scheme}://{host}{below}"))
        .collect();
    for url in &urls {
        log::info!("Other machines reach it at {url}");
    }
    if !has_code {
        return;
    }
    match urls.first() {
        None => {
            log::warn!("--qr: no other machine can reach this server; --bind 0.0.0.0 lets them")
        }
        Some(_) if !io::stderr().is_terminal() => {
            log::warn!("--qr: standard error is not a terminal");
        }
        Some(url) => {
            if let Some(code) = code(url) {
                // The log would go the same way.
                let _ = io::stderr().write_all(code.as_bytes());
            }
        }
    }
}

/// The hosts and ports by which other machines reach an address. One that stands for all has those that
/// `all` returns.
fn hosts(address: &Address, all: &dyn Fn() -> Vec<IpAddr>) -> Vec<String> {
    let Address::Ip(address) = address else {
        return Vec::new();
    };
    let ip = address.ip();
    let ips = if ip.is_unspecified() {
        let mut ips = all();
        ips.retain(|one| one.is_ipv4() == ip.is_ipv4());
        ips
    } else {
        vec![ip]
    };
    let reachable = ips.into_iter().filter(|ip| !ip.is_loopback());
    reachable
        .map(|ip| SocketAddr::new(ip, address.port()).to_string())
        .collect()
}

/// The addresses of this machine's interfaces, without those that are good on one link alone: a URL cannot
/// say on which.
fn of_interfaces() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        log::warn!("cannot read the addresses of this machine: {error}");
        Vec::new()
    });
    let is_wide = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let ips = interfaces.into_iter().map(|interface| interface.ip());
    ips.filter(is_wide).collect()
}

/// A QR code for a terminal, light on dark, with its quiet zone; `None` if the text is too long for any.
fn code(url: &str) -> Option<String> {
    let code = QrCode::new(url).ok()?;
    let mut drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    drawn.push('\n');
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_reach_what_is_not_loopback() {
        #[track_caller]
        fn check(address: &str, want: &[&str]) {
            let all = || {
                let all = ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"];
                all.map(|ip| ip.parse().unwrap()).to_vec()
            };
            let address = Address::Ip(address.parse().unwrap());
            assert_eq!(hosts(&address, &all), want);
        }
        check("127.0.0.1:80", &[]);
        check("[::1]:80", &[]);
        check("0.0.0.0:80", &["192.0.2.7:80"]);
        check("[::]:80", &["[2001:db8::7]:80"]);
        check("192.0.2.9:80", &["192.0.2.9:80"]);
        assert!(hosts(&Address::Unix("s".into()), &Vec::new).is_empty());
    }

    #[test]
    fn a_code_has_as_many_columns_as_half_lines() {
        let code = code("http://192.0.2.7:8080/").unwrap();
        let widths: Vec<_> = code.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{code}");
        assert_eq!(widths.len(), widths[0].div_ceil(2), "{code}");
    }
}
