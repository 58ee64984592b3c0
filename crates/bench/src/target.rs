//! Where a load goes: a port, and whether it is encrypted.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::error::Error;
use crate::frames;

/// The server's certificate, and its key, in its folder.
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// A port.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub addr: SocketAddrV4,
    /// How to speak TLS; `None` where it is not spoken.
    pub tls: Option<Arc<ClientConfig>>,
}

impl From<SocketAddrV4> for Target {
    fn from(addr: SocketAddrV4) -> Self {
        Self { addr, tls: None }
    }
}

impl Target {
    /// A connection whose reads and writes give up in time.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn connect(&self) -> Result<Stream, Error> {
        self.over(frames::connect(self.addr)?)
    }

    /// Speaks over this connection.
    ///
    /// # Errors
    /// None that a right configuration has.
    pub fn over(&self, tcp: TcpStream) -> Result<Stream, Error> {
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = IpAddr::V4(*self.addr.ip()).into();
        let session = ClientConnection::new(Arc::clone(config), name);
        let session = session.map_err(|error| Error::io("begin TLS")(io::Error::other(error)))?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, tcp))))
    }
}

/// Makes a certificate for loopback in `dir`; returns how to speak TLS with a server that has it. All
/// speak the same version and cipher.
///
/// # Errors
/// If a file cannot be written.
pub fn certify(dir: &Path) -> Result<Arc<ClientConfig>, Error> {
    let failed = |error| Error::io("make a certificate")(io::Error::other(error));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let certificate = params.self_signed(&key).map_err(failed)?;
    let write = |name: &str, text: String| {
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = file.open(dir.join(name))?;
        file.write_all(text.as_bytes())
    };
    write(CERTIFICATE, certificate.pem()).map_err(Error::io("write a certificate"))?;
    write(KEY, key.serialize_pem()).map_err(Error::io("write a key"))?;
    let mut roots = RootCertStore::empty();
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let config = || {
        roots.add(certificate.der().clone())?;
        let config = ClientConfig::builder_with_provider(provider.into());
        let config = config.with_protocol_versions(&[&rustls::version::TLS13])?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    };
    let config: Result<_, rustls::Error> = config();
    config
        .map(Arc::new)
        .map_err(|error| Error::io("set up TLS")(io::Error::other(error)))
}

/// A connection.
pub enum Stream {
    /// Without encryption.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Whether a read that does not fill its buffer has emptied the socket. One over TLS ends with a
    /// record.
    pub fn is_emptied_by_short_read(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(out),
            Self::Tls(stream) => stream.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}
