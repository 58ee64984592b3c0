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

/// Reads the root certificates and makes TLS for connections to the servers of this URL.
///
/// # Errors
/// If there are none and `sslmode` needs them, or they cannot be read.
pub(super) fn connector(
    url: &Url,
    environment: &Environment,
) -> Result<MakeRustlsConnect, PostgresError> {
    let builder = ClientConfig::builder_with_provider(tls::provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for both versions");
    let roots = match url.ssl_mode {
        SslMode::Disable | SslMode::Prefer => None,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => roots(url, environment)?,
    };
    let verifier: Arc<dyn ServerCertVerifier> = match (url.ssl_mode, roots) {
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

/// Those of the URL, or of the user, if it has any.
fn roots(url: &Url, environment: &Environment) -> Result<Option<Roots>, PostgresError> {
    let path = match &url.ssl_root {
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
