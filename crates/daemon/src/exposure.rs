//! Who can do something with a server that other machines can reach, in words for its warning.

use cli::ServerOptions;

const CERTIFIED: &str = "everyone with a client certificate";

/// Who may read, and who may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audience {
    /// Who may read.
    pub readers: &'static str,
    /// Who may do more.
    pub writers: &'static str,
}

impl Audience {
    /// The audience of a server with these options.
    pub fn of(options: &ServerOptions) -> Self {
        let client_ca = options.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        let connected = client_ca.map_or("everyone", |_| CERTIFIED);
        let (readers, writers) = match &options.auth {
            None => (connected, connected),
            Some(auth) if auth.is_read_free => (connected, "everyone with an account"),
            Some(_) => ("everyone with an account", "everyone with an account"),
        };
        Self { readers, writers }
    }
}

/// What the log warns of, where other machines can reach the server: what they can do with it, in half a
/// sentence, and what others can see on the way. `None` if every request needs an account, and nobody
/// sees it.
pub(crate) fn warning(options: &ServerOptions, can: &str) -> Option<String> {
    let is_encrypted = options.tls.is_some();
    match &options.auth {
        Some(auth) if is_encrypted && !auth.is_read_free => None,
        Some(_) if !is_encrypted => {
            Some(format!("{can}; passwords travel unencrypted (--tls-cert)"))
        }
        Some(_) | None => Some(can.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use cli::tls::KeyPair;
    use cli::{Auth, ServerTls};

    use super::*;

    #[test]
    fn the_warning_says_who_can_do_what_and_whether_others_see_it() {
        #[track_caller]
        fn check(auth: Option<bool>, tls: Option<bool>, want: Option<&str>) {
            let options = ServerOptions {
                auth: auth.map(|is_read_free| Auth {
                    file: "f".into(),
                    is_read_free,
                }),
                tls: tls.map(|has_ca| ServerTls {
                    pair: KeyPair {
                        cert: "c".into(),
                        key: "k".into(),
                    },
                    client_ca: has_ca.then(|| "a".into()),
                }),
                ..ServerOptions::new(1)
            };
            let Audience { readers, writers } = Audience::of(&options);
            let can = format!("{readers} can read, {writers} can write");
            assert_eq!(warning(&options, &can).as_deref(), want);
        }
        let everyone = "everyone can read, everyone can write";
        let certified = "everyone with a client certificate can read, everyone with a client \
                         certificate can write";
        check(None, None, Some(everyone));
        check(None, Some(false), Some(everyone));
        check(None, Some(true), Some(certified));
        let seen = "everyone with an account can read, everyone with an account can write; passwords \
                    travel unencrypted (--tls-cert)";
        check(Some(false), None, Some(seen));
        check(Some(false), Some(false), None);
        check(Some(false), Some(true), None);
        let free = "everyone can read, everyone with an account can write";
        check(Some(true), Some(false), Some(free));
        let seen = format!("{free}; passwords travel unencrypted (--tls-cert)");
        check(Some(true), None, Some(&seen));
    }
}
