//! TLS by rustls, for servers and clients: certificates and keys from PEM files, and what a client
//! trusts.
//!
//! The provider of the cryptography is chosen here, once and explicitly: ring, with TLS 1.2 and 1.3.
//! Nothing turns the check of a certificate off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::error::{ClientError, FileError};
use crate::secret_file::SecretFile;
use crate::tls_error::TlsError;

/// The longest file of certificates or with a key, in bytes. A system's whole store has a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What stands in a PEM file whose key has a passphrase.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// The cryptography, for [`rustls`]' builders.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates in a PEM file, in their order, at least one.
///
/// # Errors
/// [`FileError`], if the file cannot be read or holds no certificate.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let file = SecretFile::read(path, FILE_BYTES_MAX)?;
    let certificates = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(not_pem(path))?;
    match certificates.is_empty() {
        true => Err(FileError::NoCertificate(path.to_owned())),
        false => Ok(certificates),
    }
}

/// The private key in a PEM file, the first if there are several. No other user may read it.
///
/// # Errors
/// [`FileError`], if the file cannot be read, others may read it, or it holds no key.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let file = SecretFile::read(path, FILE_BYTES_MAX)?;
    if !file.is_private() {
        return Err(FileError::Exposed {
            path: path.to_owned(),
            secret: "a private key",
        });
    }
    if file
        .bytes
        .windows(ENCRYPTED.len())
        .any(|bytes| bytes == ENCRYPTED)
    {
        return Err(FileError::EncryptedKey(path.to_owned()));
    }
    match PrivateKeyDer::from_pem_slice(&file.bytes) {
        Err(pem::Error::NoItemsFound) => Err(FileError::NoKey(path.to_owned())),
        key => key.map_err(not_pem(path)),
    }
}

/// The roots of trust in a PEM file.
///
/// # Errors
/// [`FileError`], as [`certificates`], or if one of them is malformed.
pub fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let malformed = |_| FileError::BadCertificate(path.to_owned());
        roots.add(certificate).map_err(malformed)?;
    }
    Ok(roots)
}

fn not_pem(path: &Path) -> impl Fn(pem::Error) -> FileError {
    |_| FileError::NotPem(path.to_owned())
}

/// A certificate and the file of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The file of the certificate, and of those between it and its authority.
    pub cert: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

impl KeyPair {
    /// What is wrong with a certificate and a key, which rustls refuses together.
    pub fn refused(&self, error: &rustls::Error) -> FileError {
        let Self { cert, key } = self.clone();
        match error {
            rustls::Error::InconsistentKeys(_) => FileError::OtherKey { cert, key },
            rustls::Error::InvalidCertificate(_) => FileError::BadCertificate(cert),
            // The key is of a kind that is not known.
            _ => FileError::UnknownKey(key),
        }
    }
}

/// How a client speaks TLS (`--tls` and the options with it).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Whom it trusts (`--tls-ca`); `None` is the system's store.
    pub ca: Option<PathBuf>,
    /// The client certificate (`--tls-cert`, `--tls-key`).
    pub client: Option<KeyPair>,
}

impl TlsFiles {
    /// Reads the files.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, ClientError> {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for both versions");
        let builder = match &self.ca {
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().expect("a file has at least one");
                builder.with_webpki_verifier(verifier)
            }
            None => {
                let verifier = Verifier::new(provider()).map_err(|_| TlsError::NoStore)?;
                // "Dangerous" is any verifier that is not rustls' own.
                let builder = builder.dangerous();
                builder.with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = certificates(&pair.cert)?;
                let config = builder.with_client_auth_cert(chain, key(&pair.key)?);
                config.map_err(|error| pair.refused(&error))?
            }
        };
        Ok(Arc::new(config))
    }
}
