//! Whom a connection trusts, as libpq's `sslmode` says (PostgreSQL manual, 34.19).
//!
//! rustls checks a certificate's signatures and its names together. `verify-ca` checks the signatures
//! only, and `prefer` and `require` without a root certificate check nothing: they keep out who only
//! listens, and nobody who answers in the server's place. That is what libpq's words mean, so it is what
//! they mean here. A name must be in the certificate's `subjectAltName`; the old `CN` does not count.

use std::sync::Arc;

use cli::{TlsError, tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::environment::Environment;
use super::url::{Host, SslMode, SslRoot, Url};
use crate::error::{PostgresError, WhyNot};

/// The user's own root certificate, below its home.
const ROOT_DEFAULT: &str = ".postgresql/root.crt";

/// Whether connections are encrypted, and who may sign a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) mode: SslMode,
    /// `None` is the user's own file, if there is one.
    root: Option<SslRoot>,
}

impl Trust {
    /// What the URL says, or else the environment.
    ///
    /// # Errors
    /// If the environment says what cannot be, or the two together check no certificate.
    pub(super) fn of(url: &Url, environment: &Environment) -> Result<Self, PostgresError> {
        let variable = || {
            let value = environment.ssl_mode.as_deref();
            let mode = value.map(|value| SslMode::parse("PGSSLMODE", value));
            mode.transpose().map_err(PostgresError::Environment)
        };
        let mode = match url.ssl_mode {
            Some(mode) => Some(mode),
            None => variable()?,
        };
        // Without encryption there is no certificate.
        let variable = environment.ssl_root.as_deref();
        let variable = variable.filter(|_| mode != Some(SslMode::Disable));
        let root = url.ssl_root.clone();
        let root = root.or_else(|| variable.map(SslRoot::parse));
        let mode = mode.unwrap_or(match root {
            // Whom the system trusts can have a certificate for any name of its own.
            Some(SslRoot::System) => SslMode::VerifyFull,
            Some(SslRoot::File(_)) | None => SslMode::Prefer,
        });
        match (&root, mode) {
            (None, _)
            | (Some(_), SslMode::VerifyFull)
            | (Some(SslRoot::File(_)), SslMode::Require | SslMode::VerifyCa) => {
                Ok(Self { mode, root })
            }
            (Some(SslRoot::File(_)), SslMode::Disable | SslMode::Prefer) => Err(
                PostgresError::Unchecked("require, verify-ca or verify-full"),
            ),
            (Some(SslRoot::System), _) => Err(PostgresError::Unchecked("verify-full")),
        }
    }
}

/// Reads the root certificates and makes TLS for connections.
///
/// # Errors
/// If there are none and `sslmode` needs them, or they cannot be read.
pub(super) fn connector(
    trust: &Trust,
    environment: &Environment,
) -> Result<MakeRustlsConnect, PostgresError> {
    let builder = ClientConfig::builder_with_provider(tls::provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for both versions");
    let roots = match trust.mode {
        SslMode::Disable | SslMode::Prefer => None,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => roots(trust, environment)?,
    };
    let verifier: Arc<dyn ServerCertVerifier> = match (trust.mode, roots) {
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
            return Err(PostgresError::NoRootCertificate);
        }
        (_, Some(Roots::System)) => {
            let verifier = Verifier::new(tls::provider());
            Arc::new(verifier.map_err(|_| PostgresError::NoRootCertificate)?)
        }
        (SslMode::VerifyFull, Some(Roots::File(roots))) => {
            let config = builder.with_root_certificates(roots);
            return Ok(MakeRustlsConnect::new(config.with_no_client_auth()));
        }
        (_, Some(Roots::File(roots))) => Arc::new(Nameless::new(Some(roots))),
        (_, None) => Arc::new(Nameless::new(None)),
    };
    // "Dangerous" is any verifier that is not rustls' own.
    let builder = builder.dangerous();
    let builder = builder.with_custom_certificate_verifier(verifier);
    Ok(MakeRustlsConnect::new(builder.with_no_client_auth()))
}

/// What an error of TLS means.
pub(super) fn why(error: &rustls::Error, host: &Host) -> WhyNot {
    let host = match host {
        Host::Name(name) => name,
        Host::Folder(_) => "a Unix socket",
    };
    match TlsError::new(error, host) {
        // These name options of other programs.
        TlsError::UnknownIssuer => WhyNot::UnknownIssuer,
        TlsError::Refused | TlsError::CertificateRequired => WhyNot::ClientCertificate,
        other => WhyNot::Tls(other),
    }
}

enum Roots {
    System,
    File(RootCertStore),
}

/// Those that are to be trusted, or those of the user, if it has any.
fn roots(trust: &Trust, environment: &Environment) -> Result<Option<Roots>, PostgresError> {
    let path = match &trust.root {
        Some(SslRoot::System) => return Ok(Some(Roots::System)),
        Some(SslRoot::File(path)) => Some(path.clone()),
        None => {
            let own = environment.home.as_ref();
            let own = own.map(|home| home.join(ROOT_DEFAULT));
            own.filter(|path| path.exists())
        }
    };
    let roots = path.map(|path| tls::roots(&path).map(Roots::File));
    Ok(roots.transpose()?)
}

/// Checks who has signed a certificate, or nothing, but never for whom it is.
#[derive(Debug)]
struct Nameless {
    /// Who may have signed; `None` is anybody.
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Nameless {
    fn new(roots: Option<RootCertStore>) -> Self {
        let algorithms = tls::provider().signature_verification_algorithms;
        Self { roots, algorithms }
    }
}

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let end_entity = ParsedCertificate::try_from(end_entity)?;
            let all = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&end_entity, roots, intermediates, now, all)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The signature of the handshake is checked always: without that, channel binding would bind to nothing.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this query of a URL and these variables mean: `sslmode`, and the root certificate.
    fn trust(
        query: &str,
        mode: Option<&str>,
        root: Option<&str>,
    ) -> Result<(SslMode, Option<SslRoot>), String> {
        let url = Url::parse(&format!("postgresql://db?{query}")).unwrap();
        let environment = Environment {
            ssl_mode: mode.map(str::to_owned),
            ssl_root: root.map(str::to_owned),
            ..Environment::default()
        };
        let trust = Trust::of(&url, &environment);
        trust
            .map(|trust| (trust.mode, trust.root))
            .map_err(|error| error.to_string())
    }

    fn file(path: &str) -> Option<SslRoot> {
        Some(SslRoot::File(path.into()))
    }

    #[test]
    fn the_environment_counts_where_the_url_is_silent() {
        use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
        let system = || Some(SslRoot::System);
        for (query, mode, root, want) in [
            ("", None, None, (Prefer, None)),
            ("", Some("verify-full"), None, (VerifyFull, None)),
            ("", Some("disable"), Some("a"), (Disable, None)),
            ("", Some("verify-ca"), Some("a"), (VerifyCa, file("a"))),
            ("", None, Some("system"), (VerifyFull, system())),
            (
                "sslmode=require",
                Some("verify-full"),
                None,
                (Require, None),
            ),
            ("sslmode=disable", None, Some("a"), (Disable, None)),
            (
                "sslmode=require",
                Some("allow"),
                Some("a"),
                (Require, file("a")),
            ),
            (
                "sslrootcert=b",
                Some("verify-ca"),
                Some("a"),
                (VerifyCa, file("b")),
            ),
            (
                "sslrootcert=system",
                None,
                Some("a"),
                (VerifyFull, system()),
            ),
        ] {
            let found = trust(query, mode, root);
            assert_eq!(found, Ok(want), "{query} {mode:?} {root:?}");
        }
        let wrong = trust("", Some("allow"), None).unwrap_err();
        let want = "the environment is wrong: PGSSLMODE must be disable, prefer, require, verify-ca or \
                    verify-full, not 'allow'";
        assert_eq!(wrong, want);
    }

    #[test]
    fn a_root_certificate_goes_with_a_mode_that_uses_it() {
        for (query, mode, root, want) in [
            (
                "sslrootcert=a",
                None,
                None,
                "require, verify-ca or verify-full",
            ),
            (
                "sslrootcert=a&sslmode=prefer",
                None,
                None,
                "require, verify-ca or verify-full",
            ),
            (
                "sslrootcert=a",
                Some("disable"),
                None,
                "require, verify-ca or verify-full",
            ),
            ("", None, Some("a"), "require, verify-ca or verify-full"),
            (
                "sslrootcert=system&sslmode=verify-ca",
                None,
                None,
                "verify-full",
            ),
            ("sslmode=require", None, Some("system"), "verify-full"),
        ] {
            let want = format!(
                "a root certificate (sslrootcert) goes with sslmode={want}; others check none"
            );
            assert_eq!(
                trust(query, mode, root),
                Err(want),
                "{query} {mode:?} {root:?}"
            );
        }
    }
}
