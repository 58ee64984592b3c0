//! The options that every client has. A program puts the table into its [`App`](crate::App) and calls
//! `read`.

use std::time::Duration;

use crate::account::AccountSource;
use crate::address::Address;
use crate::args::{DURATION_MAX, Opt, Options};
use crate::endpoint::{Endpoint, TIMEOUT_DEFAULT};
use crate::error::UsageError;
use crate::security::Security;
use crate::tls::{KeyPair, TlsFiles};

/// The shortest timeout. A timeout of zero would mean none.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// How a client reaches its server, and how much it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Bounds every wait (`--timeout`).
    pub timeout: Duration,
    /// How long to keep trying to connect (`--wait-for-server`), if that is said.
    pub wait_for_server: Option<Duration>,
    /// Whether to say nothing but errors (`--quiet`).
    pub is_quiet: bool,
    /// `--tls` and the options with it, and `--auth-file`.
    pub security: Security,
}

impl ClientOptions {
    /// What [`ClientOptions::read`] reads.
    pub const TABLE: &[Opt] = &[
        Opt::value("--timeout"),
        Opt::value("--wait-for-server"),
        Opt::flag("--quiet").short('q'),
        Opt::flag("--tls"),
        Opt::value("--tls-ca"),
        Opt::value("--tls-cert"),
        Opt::value("--tls-key"),
        Opt::value("--auth-file"),
    ];

    /// Reads them.
    ///
    /// # Errors
    /// [`UsageError::Value`]; [`UsageError::Conflict`] for an option that needs another one.
    pub fn read(options: &mut Options) -> Result<Self, UsageError> {
        let timeout = options.duration("--timeout", TIMEOUT_MIN..=DURATION_MAX)?;
        let wait = options.duration("--wait-for-server", Duration::ZERO..=DURATION_MAX)?;
        let account = options.raw("--auth-file").map(|word| match word == "-" {
            true => AccountSource::Stdin,
            false => AccountSource::File(word.into()),
        });
        Ok(Self {
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
            wait_for_server: wait,
            is_quiet: options.flag("--quiet"),
            security: Security::new(tls(options)?, account),
        })
    }

    /// The server at this address, reached as these options say.
    ///
    /// # Errors
    /// [`UsageError::Conflict`] for TLS over a Unix socket.
    pub fn endpoint(self, address: Address) -> Result<Endpoint, UsageError> {
        if self.security.has_tls() && matches!(address, Address::Unix(_)) {
            let sentence = "--tls is for TCP; nobody listens in on a Unix socket, whose mode says \
                            who may connect";
            return Err(UsageError::Conflict(sentence));
        }
        Ok(Endpoint {
            address,
            others: Vec::new(),
            timeout: self.timeout,
            wait_for_server: self.wait_for_server.unwrap_or_default(),
            security: self.security,
        })
    }

    /// Checks that standard input is read for one thing only. `is_input` is whether the verb reads it.
    ///
    /// # Errors
    /// [`UsageError::Conflict`].
    pub fn check_stdin(&self, is_input: bool) -> Result<(), UsageError> {
        match is_input && self.security.reads_stdin() {
            true => Err(UsageError::Conflict(
                "standard input is for one thing: --auth-file, or what is to be sent or done",
            )),
            false => Ok(()),
        }
    }
}

fn tls(options: &mut Options) -> Result<Option<TlsFiles>, UsageError> {
    let is_on = options.flag("--tls");
    let ca = options.path("--tls-ca");
    let client = match (options.path("--tls-cert"), options.path("--tls-key")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(KeyPair { cert, key }),
        (Some(_), None) => return Err(UsageError::Conflict("--tls-cert needs --tls-key")),
        (None, Some(_)) => return Err(UsageError::Conflict("--tls-key needs --tls-cert")),
    };
    match (is_on, &ca, &client) {
        (true, _, _) => Ok(Some(TlsFiles { ca, client })),
        (false, None, None) => Ok(None),
        (false, Some(_), _) => Err(UsageError::Conflict("--tls-ca needs --tls")),
        (false, None, Some(_)) => Err(UsageError::Conflict("--tls-cert needs --tls")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::App;

    const APP: App<ClientOptions> = App {
        name: "app",
        version: "0",
        help: &[],
        options: &[ClientOptions::TABLE],
        read: |args| ClientOptions::read(&mut args.options),
    };

    fn parse(line: &str) -> Result<ClientOptions, String> {
        APP.config_of(line.split_whitespace())
    }

    #[track_caller]
    fn check(line: &str, want: &Result<Security, &str>) {
        let parsed = parse(line).map(|options| options.security);
        let parsed = parsed.as_ref().map_err(String::as_str);
        assert_eq!(parsed, want.as_ref().map_err(|error| *error), "{line}");
    }

    #[test]
    fn tls_has_its_files() {
        let tls = |ca: Option<&str>, client: Option<(&str, &str)>| {
            let client = client.map(|(cert, key)| KeyPair {
                cert: cert.into(),
                key: key.into(),
            });
            let ca = ca.map(Into::into);
            Ok(Security::new(Some(TlsFiles { ca, client }), None))
        };
        check("", &Ok(Security::default()));
        check("--tls", &tls(None, None));
        check("--tls --tls-ca a", &tls(Some("a"), None));
        let pair = "--tls --tls-cert c --tls-key k";
        check(pair, &tls(None, Some(("c", "k"))));
        check("--tls-ca a", &Err("--tls-ca needs --tls"));
        check("--tls-cert c --tls-key k", &Err("--tls-cert needs --tls"));
        check("--tls --tls-cert c", &Err("--tls-cert needs --tls-key"));
        check("--tls --tls-key k", &Err("--tls-key needs --tls-cert"));
    }

    #[test]
    fn an_account_is_in_a_file_or_on_standard_input() {
        let account = |source| Ok(Security::new(None, Some(source)));
        check("--auth-file a", &account(AccountSource::File("a".into())));
        check("--auth-file -", &account(AccountSource::Stdin));
    }

    #[test]
    fn a_unix_socket_is_not_encrypted() {
        let unix = || Address::new("unix:/q", 0);
        let refused = parse("--tls").unwrap().endpoint(unix()).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.starts_with("--tls is for TCP; "), "{refused}");
        let reached = parse("--auth-file a").unwrap().endpoint(unix()).unwrap();
        assert_eq!(reached.address, unix());
    }
}
