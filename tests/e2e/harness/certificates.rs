//! The certificates of a test run: an authority, and a server and a client that it vouches for. They are
//! made anew by each run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The names of a server under test.
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate and its key, as PEM, in files and at hand.
pub struct Identity {
    /// The file with the certificate.
    pub cert: PathBuf,
    /// The file with the key, which its owner alone can read.
    pub key: PathBuf,
    cert_pem: String,
    key_pem: String,
}

impl Identity {
    fn write(folder: &Path, name: &str, cert_pem: String, key: &KeyPair) -> Self {
        let [cert, key_file] = ["pem", "key"].map(|end| folder.join(format!("{name}.{end}")));
        let key_pem = key.serialize_pem();
        fs::write(&cert, &cert_pem).unwrap();
        fs::write(&key_file, &key_pem).unwrap();
        fs::set_permissions(&key_file, Permissions::from_mode(0o600)).unwrap();
        Self {
            cert,
            key: key_file,
            cert_pem,
            key_pem,
        }
    }
}

/// An authority, and the key it signs with.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The file with its certificate.
    pub cert: PathBuf,
    cert_pem: String,
}

impl Authority {
    /// Makes one whose files begin with this name.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let cert_pem = params.self_signed(&key).unwrap().pem();
        let cert = folder.join(format!("{name}.pem"));
        fs::write(&cert, &cert_pem).unwrap();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            cert,
            cert_pem,
        }
    }

    /// A certificate for a server on this machine.
    pub fn server(&self, folder: &Path, name: &str) -> Identity {
        let params = for_usage(
            named(name, &SERVER_NAMES),
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        self.sign(folder, name, params)
    }

    /// A certificate for a client.
    pub fn client(&self, folder: &Path, name: &str) -> Identity {
        let params = for_usage(named(name, &[]), ExtendedKeyUsagePurpose::ClientAuth);
        self.sign(folder, name, params)
    }

    /// A certificate for a client that is valid no longer.
    pub fn expired_client(&self, folder: &Path, name: &str) -> Identity {
        let mut params = for_usage(named(name, &[]), ExtendedKeyUsagePurpose::ClientAuth);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(folder, name, params)
    }

    fn sign(&self, folder: &Path, name: &str, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity::write(folder, name, cert.pem(), &key)
    }
}

fn for_usage(mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn named(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// What this run has made.
pub struct Certificates {
    /// Who vouches for the server and the client.
    pub authority: Authority,
    /// The server's.
    pub server: Identity,
    /// The client's.
    pub client: Identity,
}

impl Certificates {
    /// Those of this run.
    pub fn get() -> &'static Self {
        static MADE: OnceLock<Certificates> = OnceLock::new();
        MADE.get_or_init(|| {
            let folder = super::run_folder();
            let authority = Authority::new(folder, "authority");
            Self {
                server: authority.server(folder, "server"),
                client: authority.client(folder, "client"),
                authority,
            }
        })
    }

    /// How a client of the harness checks the server, and what it shows of itself if it is asked.
    pub fn client_config(&self, shows: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.authority.cert_pem)).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shows {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = vec![certificate(&identity.cert_pem)];
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
