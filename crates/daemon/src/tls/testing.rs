//! Certificates for tests, and clients that trust them.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cli::ServerTls;
use cli::tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls::{SupportedProtocolVersion, version};
use tempfile::TempDir;

use super::Tls;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Both versions there are.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// An authority, and the files of a server whose certificate it signed.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// What a client is connected with.
pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self {
            issuer,
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority.renew();
        authority
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another certificate and key.
    pub(crate) fn renew(&self) {
        let (certificate, key) = self.sign();
        fs::write(self.path("server.pem"), certificate.pem()).unwrap();
        fs::write(self.path("server.key"), key.serialize_pem()).unwrap();
        fs::set_permissions(self.path("server.key"), Permissions::from_mode(0o600)).unwrap();
    }

    fn sign(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Its files; clients must have a certificate of the authority in `client_ca`.
    pub(crate) fn files(&self, client_ca: Option<&Authority>) -> ServerTls {
        ServerTls {
            pair: cli::tls::KeyPair {
                cert: self.path("server.pem"),
                key: self.path("server.key"),
            },
            client_ca: client_ca.map(|authority| authority.path("ca.pem")),
        }
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::new(self.files(None), None).unwrap())
    }

    /// How a client connects to its server, with a certificate that `identity` signs.
    pub(crate) fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<&Authority>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(tls::provider());
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (certificate, key) = identity.sign();
                let chain = vec![certificate.der().clone()];
                builder
                    .with_client_auth_cert(chain, key.serialize_der().try_into().unwrap())
                    .unwrap()
            }
        })
    }
}

/// A client over this stream, which has not done its handshake yet.
pub(crate) fn connect(config: &Arc<ClientConfig>, stream: TcpStream) -> Client {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, stream)
}

/// Sends this, and says that it is all.
pub(crate) fn send_last(client: &mut Client, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
}

/// Everything that comes until the server says that it is all.
#[track_caller]
pub(crate) fn read_all(client: &mut Client) -> String {
    let mut read = String::new();
    client.read_to_string(&mut read).unwrap();
    read
}
