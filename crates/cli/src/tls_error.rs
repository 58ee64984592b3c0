//! Why a connection is not encrypted as it must be, in sentences that say what to do.
//!
//! rustls names some of its errors by their Rust names, which mean nothing to a person.

use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// What webpki calls a certificate that `openssl req -x509` makes unless told otherwise.
const AUTHORITY: &str = "CaUsedAsEndEntity";

/// Why TLS with a server failed. Another try would fail in the same way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The other side sends something else.
    #[error("the server does not speak TLS on this port; without --tls it may answer")]
    NotTls,
    /// There is nothing that both sides speak.
    #[error("the server has no version and no cipher of TLS 1.2 or 1.3 that this client has")]
    NothingInCommon,
    /// The server does not say whether that is so, or whether it wants a client certificate.
    #[error(
        "the server refuses TLS with this client: it asks for a client certificate (--tls-cert), or \
         has no cipher of TLS 1.2 or 1.3"
    )]
    Refused,
    /// Nobody known has signed the certificate.
    #[error(
        "nobody who is trusted here has signed the server's certificate; --tls-ca FILE trusts those \
         in FILE"
    )]
    UnknownIssuer,
    /// The certificate is for other names.
    #[error("the server's certificate is not for {host} but for {names}; connect to one of those")]
    WrongName {
        /// What was asked for.
        host: String,
        /// What it is for.
        names: String,
    },
    /// The certificate is no longer valid.
    #[error("the server's certificate has expired{0}; who runs the server must renew it")]
    Expired(String),
    /// The certificate is not valid yet.
    #[error("the server's certificate is not valid yet{0}; is the clock of this machine right?")]
    NotValidYet(String),
    /// The certificate is an authority's, which must not serve.
    #[error(
        "the server's certificate is that of an authority (CA:TRUE), which signs others and is not \
         for a server; one for a server has CA:FALSE"
    )]
    Authority,
    /// The certificate is for something else than servers.
    #[error("the server's certificate is not for a server: its extended key usage says so")]
    WrongPurpose,
    /// The certificate is wrong in another way.
    #[error("the server's certificate cannot be trusted: {0}")]
    BadCertificate(&'static str),
    /// The server wants a client certificate.
    #[error("the server asks for a client certificate: --tls-cert FILE and --tls-key FILE")]
    CertificateRequired,
    /// The server refuses the client certificate.
    #[error("the server refuses the client certificate: {0}")]
    CertificateRefused(&'static str),
    /// No certificate can be for this host.
    #[error("no certificate can be for the host '{0}'; connect to a name or an address")]
    NotAName(String),
    /// There is no TLS over a Unix socket.
    #[error("there is no TLS over a Unix socket; its mode says who may connect")]
    UnixSocket,
    /// The server ended TLS for another reason, of which it sent the number.
    #[error("the server has ended TLS with alert {0} (RFC 8446 section 6)")]
    Alert(u8),
    /// The server violates the protocol.
    #[error("the server violates the TLS protocol")]
    Violation,
    /// There is no store of certificates.
    #[error("this system has no store of certificates; --tls-ca FILE says whom to trust")]
    NoStore,
}

impl TlsError {
    /// What an error of a connection to `host` means.
    pub fn new(error: &rustls::Error, host: &str) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error, host),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::PeerIncompatible(_) => Self::NothingInCommon,
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            rustls::Error::NoCertificatesPresented => Self::BadCertificate("there is none"),
            // All others are bugs, of the server's or of this program's.
            _ => Self::Violation,
        }
    }

    fn of_certificate(error: &CertificateError, host: &str) -> Self {
        match error {
            // The latter two: the system has an authority of the same name, but with another key.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::UnknownIssuer
            }
            CertificateError::NotValidForNameContext { presented, .. } => Self::WrongName {
                host: host.to_owned(),
                names: names(presented),
            },
            CertificateError::NotValidForName => Self::WrongName {
                host: host.to_owned(),
                names: names(&[]),
            },
            CertificateError::Expired => Self::Expired(String::new()),
            CertificateError::ExpiredContext { not_after, .. } => {
                Self::Expired(format!(": it was valid until {}", day(*not_after)))
            }
            CertificateError::NotValidYet => Self::NotValidYet(String::new()),
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotValidYet(format!(": it is valid from {} on", day(*not_before)))
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            CertificateError::Revoked => Self::BadCertificate("it is revoked"),
            CertificateError::BadEncoding => Self::BadCertificate("it is malformed"),
            CertificateError::UnhandledCriticalExtension => {
                Self::BadCertificate("it has a critical extension that is not known here")
            }
            CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
                Self::BadCertificate("its kind of signature is not known here")
            }
            CertificateError::Other(other) if other.to_string().contains(AUTHORITY) => {
                Self::Authority
            }
            // No revocation lists are used, and nothing else acts on these.
            _ => Self::BadCertificate("it breaks the rules of RFC 5280"),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                Self::CertificateRequired
            }
            AlertDescription::UnknownCA => {
                Self::CertificateRefused("nobody whom it trusts has signed it")
            }
            AlertDescription::CertificateExpired => {
                Self::CertificateRefused("it has expired or is not valid yet")
            }
            AlertDescription::CertificateRevoked => Self::CertificateRefused("it is revoked"),
            AlertDescription::UnsupportedCertificate => {
                Self::CertificateRefused("it is not for a client")
            }
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => Self::CertificateRefused("it does not say why"),
            AlertDescription::HandshakeFailure => Self::Refused,
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                Self::NothingInCommon
            }
            other => Self::Alert(other.into()),
        }
    }

    /// The error of this kind that an error of a stream is, if it is one.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::other(error)
    }
}

/// The names of a certificate. webpki shows one as `DnsName("a.example")` or `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        inner.trim_matches(['(', ')', '"']).to_owned()
    };
    match presented {
        [] => "no name at all (it lacks a subjectAltName)".to_owned(),
        some => some.iter().map(plain).collect::<Vec<_>>().join(", "),
    }
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let moment = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    moment.to_zoned(TimeZone::UTC).date().to_string()
}
