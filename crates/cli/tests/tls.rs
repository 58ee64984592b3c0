//! A client's side of TLS, with servers made of rustls and of nothing.

#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cli::exit::with_causes;
use cli::tls::{self, KeyPair, TlsFiles};
use cli::{ClientError, Endpoint, Exit, Failure, Security, TlsError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, date_time_ymd};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A folder with certificates.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a certificate that signs itself, and its key.
    fn make(
        &self,
        name: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> KeyPair {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pair = KeyPair {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        fs::write(&pair.cert, certificate.pem()).unwrap();
        write_secret(&pair.key, &key.serialize_pem());
        pair
    }

    /// A certificate for this machine.
    fn local(&self) -> KeyPair {
        self.make("local", &["localhost", "127.0.0.1"], |_| {})
    }
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// How a server speaks TLS. With `client_ca` it asks for a certificate.
fn config(pair: &KeyPair, client_ca: Option<&Path>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(tls::provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(tls::roots(ca).unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = tls::certificates(&pair.cert).unwrap();
    let config = builder.with_single_cert(chain, tls::key(&pair.key).unwrap());
    Arc::new(config.unwrap())
}

/// A server for one connection. Returns its port.
fn serve<T: Send + 'static>(
    pair: &KeyPair,
    client_ca: Option<&Path>,
    handle: impl FnOnce(Stream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let config = config(pair, client_ca);
    serve_plain(move |stream| {
        let state = ServerConnection::new(config).unwrap();
        handle(StreamOwned::new(state, stream))
    })
}

/// A server that does not speak TLS by itself.
fn serve_plain<T: Send + 'static>(
    handle: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || handle(listener.accept().unwrap().0));
    (port, thread)
}

/// The server at this port, as a client reaches it that trusts those in `ca`.
fn endpoint(port: u16, ca: &Path, client: Option<KeyPair>) -> Endpoint {
    let ca = Some(ca.to_owned());
    Endpoint {
        security: Security::new(Some(TlsFiles { ca, client }), None),
        ..Endpoint::new("127.0.0.1", port)
    }
}

/// Sends back what arrives; returns whether the client has said that the stream ends.
fn echo(mut stream: Stream) -> bool {
    let mut piece = [0; 8192];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(bytes) => stream.write_all(&piece[..bytes]).unwrap(),
            Err(_) => return false,
        }
    }
}

#[test]
fn bytes_go_both_ways() {
    let folder = Folder::new();
    let pair = folder.local();
    let (port, server) = serve(&pair, None, echo);
    let mut stream = endpoint(port, &pair.cert, None).connect().unwrap();
    // More than one record, and more than a socket holds while the server does not read.
    let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    for _ in 0..3 {
        let mut received = vec![0; sent.len()];
        for (piece, back) in sent.chunks(30_000).zip(received.chunks_mut(30_000)) {
            stream.write_all(piece).unwrap();
            stream.read_exact(back).unwrap();
        }
        assert!(received == sent);
    }
    drop(stream);
    assert!(server.join().unwrap());
}

#[test]
fn a_server_that_reads_late_gets_everything() {
    let folder = Folder::new();
    let pair = folder.local();
    let (port, server) = serve(&pair, None, |mut stream| {
        let mut all = vec![0; 20 << 20];
        stream.read_exact(&mut all).unwrap();
        stream.write_all(b"x").unwrap();
        all.iter().all(|byte| *byte == 7)
    });
    let mut stream = endpoint(port, &pair.cert, None).connect().unwrap();
    stream.write_all(&vec![7; 20 << 20]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert!(server.join().unwrap());
}

#[test]
fn the_end_of_a_stream_must_be_said() {
    let folder = Folder::new();
    let pair = folder.local();
    for is_said in [true, false] {
        let (port, server) = serve(&pair, None, move |mut stream| {
            stream.write_all(b"hello").unwrap();
            if is_said {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
            stream.sock.shutdown(Shutdown::Write).unwrap();
            // Until the client has gone: else it might be told of a reset instead.
            let _ = stream.sock.read_to_end(&mut Vec::new());
        });
        let mut stream = endpoint(port, &pair.cert, None).connect().unwrap();
        let mut read = Vec::new();
        let ended = stream.read_to_end(&mut read).map_err(|error| error.kind());
        assert_eq!(read, b"hello");
        match is_said {
            true => assert_eq!(ended, Ok(5)),
            false => assert_eq!(ended, Err(io::ErrorKind::UnexpectedEof)),
        }
        drop(stream);
        server.join().unwrap();
    }
}

/// Checks why a client does not connect to a server with this certificate.
#[track_caller]
fn check_refused(pair: &KeyPair, ca: &Path, want: &str) {
    let (port, server) = serve(pair, None, |mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let endpoint = Endpoint {
        // It does not help to wait.
        wait_for_server: Duration::from_secs(3600),
        ..endpoint(port, ca, None)
    };
    let error = endpoint.connect().unwrap_err();
    assert_eq!(error.to_string(), want);
    assert_eq!(error.exit(), Exit::Network);
    server.join().unwrap();
}

#[test]
fn a_certificate_that_is_not_right_is_refused() {
    let folder = Folder::new();
    let local = folder.local();
    let other = folder.make("other", &["127.0.0.1"], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    check_refused(
        &local,
        &other.cert,
        "nobody who is trusted here has signed the server's certificate; --tls-ca FILE trusts \
         those in FILE",
    );
    let elsewhere = folder.make("elsewhere", &["a.example", "10.0.0.1"], |_| {});
    check_refused(
        &elsewhere,
        &elsewhere.cert,
        "the server's certificate is not for 127.0.0.1 but for a.example, 10.0.0.1; connect to one \
         of those",
    );
    let old = folder.make("old", &["127.0.0.1"], |params| {
        params.not_after = date_time_ymd(2020, 2, 3);
    });
    check_refused(
        &old,
        &old.cert,
        "the server's certificate has expired: it was valid until 2020-02-03; who runs the server \
         must renew it",
    );
    let young = folder.make("young", &["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2999, 1, 2);
    });
    check_refused(
        &young,
        &young.cert,
        "the server's certificate is not valid yet: it is valid from 2999-01-02 on; is the clock of \
         this machine right?",
    );
    let authority = folder.make("authority", &["127.0.0.1"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    check_refused(
        &authority,
        &authority.cert,
        "the server's certificate is that of an authority (CA:TRUE), which signs others and is not \
         for a server; one for a server has CA:FALSE",
    );
}

#[test]
fn a_port_without_tls_is_told_from_one_with_it() {
    let folder = Folder::new();
    let pair = folder.local();
    let check = |handle: fn(TcpStream), want: &str| {
        let (port, server) = serve_plain(handle);
        let endpoint = Endpoint {
            timeout: Duration::from_millis(500),
            ..endpoint(port, &pair.cert, None)
        };
        let error = endpoint.connect().unwrap_err();
        assert_eq!(error.exit(), Exit::Network);
        let told = with_causes(&error).replace(&port.to_string(), "PORT");
        assert_eq!(told, want);
        server.join().unwrap();
    };
    check(
        |mut stream| {
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
        },
        "the server does not speak TLS on this port; without --tls it may answer",
    );
    check(
        |mut stream| {
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        },
        "cannot connect to 127.0.0.1:PORT: the server ended the connection when TLS was to begin; if \
         it speaks none on this port, leave out --tls",
    );
    check(
        |mut stream| {
            stream.read_to_end(&mut Vec::new()).unwrap();
        },
        "cannot connect to 127.0.0.1:PORT: the server did not begin TLS in time; if it speaks none \
         on this port, leave out --tls",
    );
}

#[test]
fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let folder = Folder::new();
    let pair = folder.local();
    let mine = folder.make("mine", &["me"], |_| {});
    let other = folder.make("other", &["me"], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    let ask = |client: Option<&KeyPair>| {
        let (port, server) = serve(&pair, Some(&mine.cert), |mut stream| {
            // The client may be gone.
            let _ = stream.write_all(b"x");
        });
        let read = endpoint(port, &pair.cert, client.cloned())
            .connect()
            .and_then(|mut stream| {
                // A server of TLS 1.3 looks at the certificate after the client's handshake has ended.
                stream.read_exact(&mut [0]).map_err(ClientError::lost)
            });
        server.join().unwrap();
        read.map_err(|error| error.to_string())
    };
    assert_eq!(ask(Some(&mine)), Ok(()));
    let required = TlsError::CertificateRequired.to_string();
    assert_eq!(ask(None), Err(required));
    let refused = "the server refuses the client certificate: nobody whom it trusts has signed it";
    assert_eq!(ask(Some(&other)), Err(refused.to_owned()));
}

#[test]
fn another_thread_writes_and_ends_the_connection_while_one_reads() {
    let folder = Folder::new();
    let pair = folder.local();
    let (port, server) = serve(&pair, None, echo);
    let mut stream = endpoint(port, &pair.cert, None).connect().unwrap();
    let channel = Arc::clone(stream.channel());
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut read = [0; 4];
        stream.read_exact(&mut read).unwrap();
        tell.send(read).unwrap();
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    channel.try_write(b"ping").unwrap();
    assert_eq!(&told.recv().unwrap(), b"ping");
    channel.abort();
    let ended = reader.join().unwrap();
    assert_eq!(ended, Err(io::ErrorKind::UnexpectedEof));
    server.join().unwrap();
}

#[test]
fn what_has_arrived_can_be_looked_at() {
    let folder = Folder::new();
    let pair = folder.local();
    let (port, server) = serve(&pair, None, echo);
    let mut stream = endpoint(port, &pair.cert, None).connect().unwrap();
    let mut seen = [0; 4];
    // The server's session tickets are no answer.
    let is_silent = stream.peek(&mut seen).unwrap_err();
    assert_eq!(is_silent.kind(), io::ErrorKind::WouldBlock);
    stream.write_all(b"hello").unwrap();
    let started = Instant::now();
    while stream.peek(&mut seen).is_err() {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::yield_now();
    }
    assert_eq!(&seen, b"hell");
    // The rest is decrypted already, and the socket is empty.
    let mut read = [0; 2];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(stream.peek(&mut seen).unwrap(), 3);
    assert_eq!(&seen[..3], b"llo");
    drop(stream);
    server.join().unwrap();
}

#[test]
fn a_trickle_is_given_up() {
    let folder = Folder::new();
    let pair = folder.local();
    let (port, server) = serve(&pair, None, |mut stream| {
        while stream.write_all(b"x").is_ok() {
            // A byte is a record of two dozen.
            thread::park_timeout(Duration::from_millis(100));
        }
    });
    let endpoint = Endpoint {
        timeout: Duration::from_millis(400),
        ..endpoint(port, &pair.cert, None)
    };
    let mut stream = endpoint.connect().unwrap();
    stream.reset_timeout(Duration::ZERO);
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(stream);
    server.join().unwrap();
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = Folder::new();
    let pair = folder.local();
    let other = folder.make("other", &["x"], |_| {});
    let read = |ca: Option<&Path>, cert: &Path, key: &Path| {
        let client = Some(KeyPair {
            cert: cert.to_owned(),
            key: key.to_owned(),
        });
        let ca = ca.map(Path::to_owned);
        let error = Security::new(Some(TlsFiles { ca, client }), None)
            .read()
            .unwrap_err();
        assert_eq!(error.exit(), Exit::Local);
        let folder = format!("{}/", folder.0.path().display());
        with_causes(&error).replace(&folder, "")
    };
    let ca = Some(pair.cert.as_path());
    assert_eq!(
        read(ca, &pair.cert, &other.key),
        "the key in other.key is not that of the certificate in local.pem"
    );
    assert_eq!(
        read(Some(&pair.key), &pair.cert, &pair.key),
        "local.key holds no certificate (-----BEGIN CERTIFICATE-----)"
    );
    assert_eq!(
        read(ca, &folder.path("gone"), &pair.key),
        "cannot read gone: No such file or directory (os error 2)"
    );
    let cut = folder.path("cut");
    let whole = fs::read_to_string(&pair.cert).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(
        read(ca, &cut, &pair.key),
        "cut is not in PEM format, or is cut off"
    );
    let no_certificate = folder.path("no-certificate");
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(&no_certificate, text).unwrap();
    assert_eq!(
        read(Some(&no_certificate), &pair.cert, &pair.key),
        "no-certificate holds a malformed certificate"
    );
    let key = folder.path("key");
    write_secret(&key, &whole);
    assert_eq!(
        read(ca, &pair.cert, &key),
        "key holds no private key (-----BEGIN PRIVATE KEY-----)"
    );
    write_secret(&key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n");
    assert!(read(ca, &pair.cert, &key).starts_with("the key in key has a passphrase; openssl"));
    fs::set_permissions(&pair.key, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        read(ca, &pair.cert, &pair.key),
        "local.key holds a private key and others can read it; chmod 600 local.key ends that"
    );
}
