//! The server that the environment names, for a command line that names none.

use std::env;
use std::ffi::OsStr;

use super::value::port;
use crate::{Address, HOST_DEFAULT, UsageError};

/// The addresses of the server in a variable of the environment, one for each of its `ports`; if it is
/// not set, or is empty, those on this machine with the default ports. The variable is as on a command
/// line, `HOST PORT` or `unix:/path`; a single port may stand behind a colon.
///
/// # Errors
/// [`UsageError::Value`].
pub fn server_default<const N: usize>(
    variable: &'static str,
    ports: [(&'static str, u16); N],
) -> Result<[Address; N], UsageError> {
    match env::var_os(&variable[1..]) {
        Some(text) if !text.is_empty() => server(variable, &text, ports.map(|(name, _)| name)),
        Some(_) | None => Ok(ports.map(|(_, port)| Address::new(HOST_DEFAULT, port))),
    }
}

fn server<const N: usize>(
    variable: &'static str,
    text: &OsStr,
    ports: [&'static str; N],
) -> Result<[Address; N], UsageError> {
    let addresses = text.to_str().and_then(|text| {
        if let Some(socket) = Address::unix(text) {
            return Some([(); N].map(|()| socket.clone()));
        }
        let mut words = text.split_whitespace().collect::<Vec<_>>();
        if let ([word], 1) = (words.as_slice(), N) {
            let (host, port) = word.rsplit_once(':')?;
            words = vec![host, port];
        }
        let (host, numbers) = words.split_first()?;
        let number = |word: &&str| port("", OsStr::new(word)).ok();
        let numbers: Vec<u16> = numbers.iter().map(number).collect::<Option<_>>()?;
        let numbers: [u16; N] = numbers.try_into().ok()?;
        Some(numbers.map(|port| Address::new(host, port)))
    });
    addresses.ok_or_else(|| {
        let want = format!("HOST {} or unix:/path", ports.join(" "));
        UsageError::value(variable, text, want)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, number: u16) {
        let got = server("$S", OsStr::new(text), ["PORT"]).unwrap();
        assert_eq!(got, [Address::new(host, number)], "{text}");
    }

    #[test]
    fn a_variable_names_a_server_as_a_command_line_does() {
        check("h 7", "h", 7);
        check(" h  7 ", "h", 7);
        check("h:7", "h", 7);
        check("::1 7", "::1", 7);
        check("[::1]:7", "::1", 7);
        check("[::1] 7", "::1", 7);
        check("unix:/a b", "unix:/a b", 0);
        let two = server("$S", OsStr::new("h 7 8"), ["A", "B"]).unwrap();
        assert_eq!(two, [Address::new("h", 7), Address::new("h", 8)]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["h", "h x", "h 7 8", "h:x", "h 65536", " "] {
            let refused = server("$S", OsStr::new(text), ["PORT"]).unwrap_err();
            let want = format!("$S must be HOST PORT or unix:/path, not '{text}'");
            assert_eq!(refused.to_string(), want);
        }
        let refused = server("$S", OsStr::new("h:7"), ["A", "B"]).unwrap_err();
        let want = "$S must be HOST A B or unix:/path, not 'h:7'";
        assert_eq!(refused.to_string(), want);
    }
}
