//! Accepting, turning away, and that one connection's trouble is not another's.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;

use proto::ErrorCode;
use rustls::version;

use super::*;
use crate::access::Access;
use crate::caller::{Caller, Role};
use crate::eviction::State;
use crate::frames::{self, FrameHandler, FrameSession};
use crate::http::{Http, Probes};
use crate::lock;
use crate::registry::TURNED_AWAY_MAX;
use crate::text::TextHandler;
use crate::tls::testing::{Authority, VERSIONS, connect, read_all as read_decrypted, send_last};

mod exchange;

const BUSY: &str = "the server has as many connections as it accepts; try again later";

const PATIENCE: Duration = Duration::from_secs(30);

/// Text that is served like this.
struct Text<F>(F);

impl<F: Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static> TextHandler for Text<F> {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        self.0(connection)
    }

    fn request_wait(&self) -> Duration {
        PATIENCE
    }

    fn request_bytes_max(&self) -> usize {
        usize::MAX
    }

    fn error_reply(&self, _sentence: &str) -> Vec<u8> {
        b"busy".to_vec()
    }
}

/// Echoes what it gets.
fn echo(connection: &mut Connection) -> io::Result<()> {
    while connection.next_request(None)?.is_some() {
        let bytes = connection.buffered().to_vec();
        io::BufRead::consume(connection, bytes.len());
        connection.write_all(&bytes)?;
    }
    Ok(())
}

/// Frames that nobody sends.
struct NoFrames;

impl FrameHandler for NoFrames {
    fn session(&self, _caller: &Caller) -> Box<dyn FrameSession + '_> {
        unreachable!("no frame is sent")
    }

    fn needs(&self, _kind: u8, _payload: &[u8]) -> Role {
        unreachable!("no frame is sent")
    }

    fn payload_bytes_max(&self) -> usize {
        0
    }

    fn frame_wait(&self) -> Duration {
        PATIENCE
    }
}

/// A port for text alone.
fn text(handler: impl TextHandler) -> Arc<Protocols> {
    Arc::new(Protocols {
        text: Some(Arc::new(handler)),
        ..Protocols::default()
    })
}

/// A port for everything.
fn all_protocols() -> Arc<Protocols> {
    let probes = Probes::new("", Arc::new(()));
    Arc::new(Protocols {
        frames: Some(Arc::new(NoFrames)),
        text: Some(Arc::new(Text(echo))),
        http: Some(Http::probes_only(probes, "a test")),
    })
}

/// What a client of frames reads that is not served.
fn refusing_frame(code: ErrorCode, sentence: &str) -> String {
    let mut frame = Vec::new();
    frames::put_error(code, sentence, &mut frame);
    String::from_utf8(frame).unwrap()
}

/// A server of one port, with room for this many, and a way to get in.
struct Server {
    registry: Arc<Registry>,
    switch: Switch,
    listener: TcpListener,
}

impl Server {
    fn new(connections_max: usize) -> Self {
        Self::serving(connections_max, |_| text(Text(echo)))
    }

    fn serving(
        connections_max: usize,
        protocols: impl FnOnce(&Arc<Registry>) -> Arc<Protocols>,
    ) -> Self {
        let registry = Registry::new(connections_max);
        Self::of(registry, protocols)
    }

    fn encrypted(connections_max: usize, tls: &Arc<Tls>, protocols: Arc<Protocols>) -> Self {
        let registry = Registry::with(connections_max, Access::default(), Some(Arc::clone(tls)));
        Self::of(registry, |_| protocols)
    }

    fn of(
        registry: Arc<Registry>,
        protocols: impl FnOnce(&Arc<Registry>) -> Arc<Protocols>,
    ) -> Self {
        Self {
            switch: Switch::new(protocols(&registry)),
            registry,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    /// A client that has sent this when it is admitted or turned away.
    fn admit(&self, sent: &[u8]) -> TcpStream {
        self.admit_from(None, sent)
    }

    /// The same, as if it came from elsewhere.
    fn admit_from(&self, elsewhere: Option<Peer>, sent: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(sent).unwrap();
        let (stream, peer) = self.listener.accept().unwrap();
        if !sent.is_empty() {
            stream.peek(&mut [0]).unwrap();
        }
        let peer = elsewhere.unwrap_or(peer.into());
        self.registry.admit(stream.into(), peer, &self.switch);
        client
    }

    /// Takes a place that nobody is evicted from.
    fn fill(&self) -> (Registration, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = self.listener.accept().unwrap();
        let registration = self.registry.register(stream.into(), peer.into()).unwrap();
        registration.entry.eviction.set(State::Kept);
        (registration, client)
    }
}

fn read_all(mut client: TcpStream) -> String {
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    got
}

#[test]
fn a_client_that_is_turned_away_is_answered_in_its_protocol() {
    let server = Server::serving(1, |_| all_protocols());
    let _place = server.fill();
    let frame = refusing_frame(ErrorCode::Busy, BUSY);
    for (sent, want) in [("x", "busy"), ("", "busy"), ("\0", &*frame)] {
        let client = server.admit(sent.as_bytes());
        assert_eq!(read_all(client), want, "{sent:?}");
    }
}

#[test]
fn a_flood_is_turned_away_without_a_thread_for_each() {
    let server = Server::new(1);
    let place = server.fill();
    // A quarter of the threads are for one source.
    let patient: Vec<_> = (0..TURNED_AWAY_MAX / 4)
        .map(|_| server.admit(b""))
        .collect();
    // None of those has gone, so nobody waits for what this one sends.
    let mut at_once = server.admit(b"");
    at_once.set_nonblocking(true).unwrap();
    at_once.read_exact(&mut [0; 4]).unwrap();
    // They keep nobody waiting from elsewhere, who has not its share.
    let elsewhere = Peer::Ip(([10, 0, 0, 1], 1).into());
    let mut waits = server.admit_from(Some(elsewhere), b"hello");
    drop(place);
    waits.read_exact(&mut [0; 5]).unwrap();
    drop(waits);
    for client in patient {
        assert_eq!(read_all(client), "busy");
    }
    // Then there is room again.
    let mut client = server.admit(b"hello");
    client.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn who_always_has_a_next_request_keeps_no_other_out() {
    let (begins, begun) = sync_channel(100);
    let (go_on, gate) = sync_channel(100);
    let gate = Mutex::new(gate);
    // Works on each `x` until it may go on, and says that it does.
    let gated = Text(move |connection: &mut Connection| {
        while let Some(request) = connection.next_request(None)? {
            if request == b'x' {
                let _ = begins.send(());
                let _ = lock(&gate).recv();
            }
            io::BufRead::consume(connection, 1);
            connection.write_all(&[request])?;
        }
        Ok(())
    });
    // A share is one place.
    let server = Server::serving(4, |_| text(gated));
    let busy: Vec<_> = (0..4).map(|_| server.admit(&[b'x'; 32])).collect();
    for _ in 0..4 {
        begun.recv().unwrap();
    }
    let elsewhere = Peer::Ip(([10, 0, 0, 1], 1).into());
    let mut client = server.admit_from(Some(elsewhere), b"hello");
    // One request after the other is done, and each of them has more that have arrived.
    client
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut got = [0; 5];
    let is_served = (0..31).any(|_| {
        go_on.send(()).unwrap();
        client.read_exact(&mut got).is_ok()
    });
    assert!(is_served && &got == b"hello", "{got:?}");
    drop(client);
    drop(go_on);
    for client in busy {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let answered = read_all(client).len();
        assert!((1..=32).contains(&answered), "{answered}");
    }
}

#[test]
fn who_waits_for_the_connections_to_end_has_the_service_alone() {
    /// Tells, when the last that serves with it has gone, how many connections still count.
    struct Watched(Arc<Registry>, std::sync::mpsc::Sender<usize>);
    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.open());
        }
    }
    let (gone, open) = std::sync::mpsc::channel();
    let start = || {
        let gone = gone.clone();
        Server::serving(1, |registry| {
            let watched = Watched(Arc::clone(registry), gone);
            text(Text(move |connection: &mut Connection| {
                let _watched = &watched;
                echo(connection)
            }))
        })
    };
    let server = start();
    let client = server.admit(b"hello");
    drop(server);
    drop(client);
    assert_eq!(open.recv_timeout(PATIENCE), Ok(1));
    // One that is turned away is not waited for, and does not keep it.
    let server = start();
    let _place = server.fill();
    let _silent = server.admit(b"");
    drop(server);
    assert_eq!(open.try_recv(), Ok(1));
}

#[test]
fn accepting_ends_with_the_server() {
    let server = Server::new(10);
    let address = server.listener.local_addr().unwrap();
    let parents = server.listener.try_clone().unwrap();
    let listener = Listener::inherited(parents.into()).unwrap();
    let (accepted, admitted) = sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(|| server.registry.accept_all(&listener, &accepted));
        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = admitted.recv_timeout(PATIENCE).unwrap();
        assert_eq!(peer, Peer::Ip(client.local_addr().unwrap()));
        server.registry.stop();
        listener.wake();
    });
    drop(listener);
    // Who comes now is left for the next server.
    let client = TcpStream::connect(address).unwrap();
    let (_, peer) = server.listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[test]
fn who_was_accepted_just_before_the_stop_has_one_request() {
    let server = Server::new(10);
    let accept = || {
        let client = TcpStream::connect(server.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (stream, peer) = server.listener.accept().unwrap();
        (client, (stream.into(), peer.into()))
    };
    let (accepted, admitted) = sync_channel(3);
    let (mut before, mut after, silent) = (accept(), accept(), accept());
    before.0.write_all(b"before").unwrap();
    for connection in [before.1, after.1, silent.1] {
        accepted.send(connection).unwrap();
    }
    drop(accepted);
    server.registry.stop();
    server.registry.admit_all(&admitted, &server.switch);
    assert_eq!(server.registry.open(), 3);
    thread::scope(|scope| {
        scope.spawn(|| server.registry.close_all(PATIENCE));
        after.0.write_all(b"after").unwrap();
        assert_eq!(read_all(before.0), "before");
        assert_eq!(read_all(after.0), "after");
        // It does not keep the server for long.
        assert_eq!(read_all(silent.0), "");
    });
    assert_eq!(server.registry.open(), 0);
}

#[test]
fn what_is_wrong_with_one_connection_does_not_stop_the_listener() {
    use io::ErrorKind::*;
    for (kind, is_of_it) in [
        (ConnectionAborted, true),
        (Interrupted, true),
        (PermissionDenied, true),
        (TimedOut, true),
        (InvalidInput, false),
        (OutOfMemory, false),
    ] {
        assert_eq!(is_of_the_connection(&kind.into()), is_of_it, "{kind}");
    }
    // No more descriptors.
    let error = io::Error::from(rustix::io::Errno::MFILE);
    assert!(!is_of_the_connection(&error));
}

#[test]
fn a_connection_that_ends_first_is_read_to_its_end() {
    let refuse = Text(|connection: &mut Connection| {
        connection.next_request(None)?;
        connection.write_all(b"no")
    });
    let server = Server::new(1);
    let mut client = TcpStream::connect(server.listener.local_addr().unwrap()).unwrap();
    let (stream, peer) = server.listener.accept().unwrap();
    let registration = server
        .registry
        .register(stream.into(), peer.into())
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| super::serve(registration, text(refuse)));
        // Far more than a socket takes: were it not read, the reply would be lost to a reset.
        for _ in 0..100 {
            client.write_all(&[0; 1 << 16]).unwrap();
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_all(client), "no");
    });
    assert_eq!(server.registry.open(), 0);
}

#[test]
fn a_client_that_speaks_no_tls_is_told_to_in_its_protocol() {
    const SENTENCE: &str = "this port speaks TLS: use https:// or --tls";
    let authority = Authority::new();
    let server = Server::encrypted(1, &authority.tls(), all_protocols());
    let frame = refusing_frame(ErrorCode::BadRequest, SENTENCE);
    for (sent, want) in [("x", "busy"), ("\0", &*frame)] {
        let client = server.admit(sent.as_bytes());
        assert_eq!(read_all(client), want, "{sent:?}");
    }
    let reply = read_all(server.admit(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    assert!(reply.contains("Connection: close\r\n"), "{reply}");
    assert!(reply.ends_with(&format!("\r\n\r\n{SENTENCE}\n")), "{reply}");
    // The threads of those end a moment after their replies.
    while server.registry.open() > 0 {
        thread::yield_now();
    }
    let _place = server.fill();
    assert_eq!(read_all(server.admit(b"\0")), frame);
}

#[test]
fn a_client_is_turned_away_over_tls_and_in_its_protocol() {
    let authority = Authority::new();
    let server = Server::encrypted(1, &authority.tls(), all_protocols());
    let _place = server.fill();
    let frame = refusing_frame(ErrorCode::Busy, BUSY);
    for version in VERSIONS {
        let config = authority.client(version, None);
        for (sent, want) in [("x", "busy"), ("", "busy"), ("\0", &*frame)] {
            let mut client = connect(&config, server.admit(b""));
            client.write_all(sent.as_bytes()).unwrap();
            client.flush().unwrap();
            assert_eq!(read_decrypted(&mut client), want, "{sent:?}");
        }
        // One that says nothing at all.
        assert_eq!(read_all(server.admit(b"")), "");
    }
}

#[test]
fn a_client_is_served_over_tls_and_knows_that_the_end_is_the_end() {
    let authority = Authority::new();
    let server = Server::encrypted(1, &authority.tls(), text(Text(echo)));
    for version in VERSIONS {
        let mut client = connect(&authority.client(version, None), server.admit(b""));
        send_last(&mut client, b"hello");
        assert_eq!(read_decrypted(&mut client), "hello");
        while server.registry.open() > 0 {
            thread::yield_now();
        }
    }
}

#[test]
fn a_client_reads_why_its_handshake_fails_whatever_it_has_sent() {
    let [authority, clients] = [(); 2].map(|()| Authority::new());
    let tls = Arc::new(Tls::new(authority.files(Some(&clients)), None).unwrap());
    let server = Server::encrypted(1, &tls, text(Text(echo)));
    // With TLS 1.3, a client takes its handshake for done before the server has seen the certificate.
    let config = authority.client(&version::TLS13, None);
    let mut client = connect(&config, server.admit(b""));
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).unwrap();
    }
    // More than fits, so it is read.
    for _ in 0..1000 {
        client.write_all(&[0; 10_000]).unwrap();
    }
    let error = client.read(&mut [0]).unwrap_err();
    let alert = rustls::AlertDescription::CertificateRequired;
    let want = rustls::Error::AlertReceived(alert).to_string();
    assert_eq!(error.to_string(), want);
}
