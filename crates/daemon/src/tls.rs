//! What a server needs for TLS: its certificate, its key, and who signs those of its clients.
//!
//! The files are read at the start, and again at each SIGHUP. A connection keeps the settings it has
//! begun with. New settings have new keys for session tickets, so that a client whose authority is no
//! longer trusted cannot come back with an old ticket.
//!
//! TLS 1.2 and 1.3 by rustls, with its ring provider. There is no renegotiation, no compression, no
//! early data, and nothing older.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cli::tls;
use cli::{FileError, ServerTls};
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::server::WebPkiClientVerifier;

use crate::error::StartError;
use crate::lock;

/// What the encrypted stream carries, for clients that ask (RFC 7301). A client that offers only other
/// protocols is refused. One of frames or text asks for none.
const ALPN: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// The files, and what was read from them last.
#[derive(Debug)]
pub(crate) struct Tls {
    files: ServerTls,
    /// The folder that the key must not be in.
    served: Option<PathBuf>,
    settings: Mutex<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. The key must not be in the folder that is served.
    ///
    /// # Errors
    /// If one cannot be read, or they do not go together, or others can read or download the key.
    pub(crate) fn new(files: ServerTls, served: Option<PathBuf>) -> Result<Self, StartError> {
        let settings = Mutex::new(read(&files, served.as_deref())?);
        Ok(Self {
            files,
            served,
            settings,
        })
    }

    /// The settings of a new connection.
    pub(crate) fn settings(&self) -> Arc<ServerConfig> {
        Arc::clone(&lock(&self.settings))
    }

    /// Reads the files again. If they cannot be read, the settings stay as they are.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub(crate) fn reload(&self) -> Result<(), StartError> {
        let settings = read(&self.files, self.served.as_deref())?;
        *lock(&self.settings) = settings;
        Ok(())
    }
}

fn read(files: &ServerTls, served: Option<&Path>) -> Result<Arc<ServerConfig>, StartError> {
    let ServerTls { pair, client_ca } = files;
    cli::check_not_served(&pair.key, served)?;
    let builder = ServerConfig::builder_with_provider(tls::provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for both versions");
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(tls::roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
            // Only revocation lists, of which there are none, could be wrong, and a file has a root.
            let malformed = |_| FileError::BadCertificate(path.clone());
            builder.with_client_cert_verifier(verifier.build().map_err(malformed)?)
        }
    };
    let chain = tls::certificates(&pair.cert)?;
    let settings = builder.with_single_cert(chain, tls::key(&pair.key)?);
    let mut settings = settings.map_err(|error| pair.refused(&error))?;
    settings.alpn_protocols = ALPN.map(Vec::from).to_vec();
    settings.ticketer = Ticketer::new().map_err(|_| StartError::NoRandomness)?;
    Ok(Arc::new(settings))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
