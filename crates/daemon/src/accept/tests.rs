//! Accepting, turning away, and that one connection's trouble is not another's.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;
use crate::caller::{Caller, Role};
use crate::eviction::State;
use crate::frames::{self, FrameHandler, FrameSession};
use crate::text::TextHandler;

const PATIENCE: Duration = Duration::from_secs(30);

/// Echoes what it gets.
struct Echo;

impl TextHandler for Echo {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        while connection.next_request(None)?.is_some() {
            let bytes = connection.buffered().to_vec();
            io::BufRead::consume(connection, bytes.len());
            connection.write_all(&bytes)?;
        }
        Ok(())
    }

    fn error_reply(&self, _sentence: &str) -> Vec<u8> {
        b"busy".to_vec()
    }
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

/// A server of one port, with room for this many, and a way to get in.
struct Server {
    registry: Arc<Registry>,
    protocols: Arc<Protocols>,
    listener: TcpListener,
}

impl Server {
    fn new(connections_max: usize) -> Self {
        Self::serving(connections_max, |_| text(Echo))
    }

    fn serving(
        connections_max: usize,
        protocols: impl FnOnce(&Arc<Registry>) -> Arc<Protocols>,
    ) -> Self {
        let registry = Registry::new(connections_max);
        Self {
            protocols: protocols(&registry),
            registry,
            listener: crate::listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap(),
        }
    }

    /// A client that has sent this when it is admitted or turned away.
    fn admit(&self, sent: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(sent).unwrap();
        let (stream, peer) = self.listener.accept().unwrap();
        if !sent.is_empty() {
            stream.peek(&mut [0]).unwrap();
        }
        self.registry
            .admit(stream.into(), peer.into(), &self.protocols);
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
    let server = Server::serving(1, |_| {
        Arc::new(Protocols {
            frames: Some(Arc::new(NoFrames)),
            text: Some(Arc::new(Echo)),
            http: None,
        })
    });
    let _place = server.fill();
    let mut frame = Vec::new();
    let sentence = "the server has as many connections as it accepts; try again later";
    frames::put_error(proto::ErrorCode::Busy, sentence, &mut frame);
    let frame = String::from_utf8(frame).unwrap();
    for (sent, want) in [("x", "busy"), ("", "busy"), ("\0", &*frame)] {
        let client = server.admit(sent.as_bytes());
        assert_eq!(read_all(client), want, "{sent:?}");
    }
}

#[test]
fn a_flood_is_turned_away_without_a_thread_for_each() {
    let server = Server::new(1);
    let place = server.fill();
    let patient: Vec<_> = (0..TURNED_AWAY_MAX).map(|_| server.admit(b"")).collect();
    // None of those has gone, so nobody waits for what this one sends.
    let mut at_once = server.admit(b"");
    at_once.set_nonblocking(true).unwrap();
    at_once.read_exact(&mut [0; 4]).unwrap();
    for client in patient {
        assert_eq!(read_all(client), "busy");
    }
    // Then there is room again.
    drop(place);
    let mut client = server.admit(b"hello");
    client.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn who_waits_for_the_connections_to_end_has_the_service_alone() {
    /// Tells, when the last that serves with it has gone, how many connections still count.
    struct Watched(Arc<Registry>, std::sync::mpsc::Sender<usize>);
    impl TextHandler for Watched {
        fn serve(&self, connection: &mut Connection) -> io::Result<()> {
            Echo.serve(connection)
        }

        fn error_reply(&self, _sentence: &str) -> Vec<u8> {
            Vec::new()
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.open());
        }
    }
    let (gone, open) = std::sync::mpsc::channel();
    let start = || {
        let gone = gone.clone();
        Server::serving(1, |registry| text(Watched(Arc::clone(registry), gone)))
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
    let (accepted, admitted) = sync_channel(1);
    thread::scope(|scope| {
        scope.spawn(|| server.registry.accept_all(&server.listener, &accepted));
        let client = TcpStream::connect(address).unwrap();
        let (_, peer) = admitted.recv_timeout(PATIENCE).unwrap();
        assert_eq!(peer, Peer::Ip(client.local_addr().unwrap()));
        server.registry.stop();
        let how = rustix::net::Shutdown::Both;
        rustix::net::shutdown(&server.listener, how).unwrap();
    });
    // Nothing was handed on that came with the end.
    assert!(admitted.try_recv().is_err());
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
    struct Refuse;
    impl TextHandler for Refuse {
        fn serve(&self, connection: &mut Connection) -> io::Result<()> {
            connection.next_request(None)?;
            connection.write_all(b"no")
        }
        fn error_reply(&self, _sentence: &str) -> Vec<u8> {
            Vec::new()
        }
    }
    let server = Server::new(1);
    let mut client = TcpStream::connect(server.listener.local_addr().unwrap()).unwrap();
    let (stream, peer) = server.listener.accept().unwrap();
    let registration = server
        .registry
        .register(stream.into(), peer.into())
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| super::serve(registration, text(Refuse)));
        // Far more than a socket takes: were it not read, the reply would be lost to a reset.
        for _ in 0..100 {
            client.write_all(&[0; 1 << 16]).unwrap();
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_all(client), "no");
    });
    assert_eq!(server.registry.open(), 0);
}
