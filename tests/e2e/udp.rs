//! The queue over a network that loses, doubles and delays datagrams.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cli::Endpoint;
use proto::queue::{
    Claim, Delivery, QueueName, Reply, Request, RequestId, Token, put_datagram, split_datagram,
};
use proto::{ErrorCode, frame::Message};
use queue_client::{Client, Transport};

use crate::harness::{Noise, PATIENCE, Server, receive_request, send_request};
use crate::sessions::Upstream;

/// How often the proxy looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// A bad network in front of a server: of all datagrams, each way, it drops 20 %, sends 10 % twice,
/// and sends 10 % after the next one. Dropping it ends it.
pub struct BadNetwork {
    addr: SocketAddr,
    is_stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BadNetwork {
    /// A proxy with a socket towards the server for one client.
    pub fn start(server: Upstream, seed: u64) -> Self {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        outside.set_read_timeout(Some(TICK)).unwrap();
        inside.set_read_timeout(Some(TICK)).unwrap();
        let addr = outside.local_addr().unwrap();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let client = Arc::new(Mutex::new(None));
        let (from, to, peer, stop) = (
            Arc::clone(&outside),
            Arc::clone(&inside),
            Arc::clone(&client),
            Arc::clone(&is_stopped),
        );
        let there = thread::spawn(move || {
            let receive = |buffer: &mut [u8]| {
                let (bytes, addr) = from.recv_from(buffer)?;
                *peer.lock().unwrap() = Some(addr);
                Ok(bytes)
            };
            forward(&stop, Noise::new(seed), receive, |datagram| {
                // The server may be gone.
                let _ = to.send_to(datagram, *server.lock().unwrap());
            });
        });
        let stop = Arc::clone(&is_stopped);
        let back = thread::spawn(move || {
            let receive = |buffer: &mut [u8]| inside.recv(buffer);
            forward(&stop, Noise::new(seed + 1), receive, |datagram| {
                let peer: Option<SocketAddr> = *client.lock().unwrap();
                outside.send_to(datagram, peer.unwrap()).unwrap();
            });
        });
        Self {
            addr,
            is_stopped,
            threads: vec![there, back],
        }
    }

    pub fn client(&self) -> Client {
        let server = Endpoint::new(self.addr.ip().to_string(), self.addr.port());
        Client::connect(&server, Transport::Udp).unwrap()
    }
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn forward(
    is_stopped: &AtomicBool,
    mut noise: Noise,
    receive: impl Fn(&mut [u8]) -> io::Result<usize>,
    send: impl Fn(&[u8]),
) {
    let mut buffer = [0; 4096];
    let mut delayed: Option<Vec<u8>> = None;
    while !is_stopped.load(Ordering::SeqCst) {
        let Ok(bytes) = receive(&mut buffer) else {
            // Nothing came, so the one that waits for the next one goes.
            delayed.take().inspect(|datagram| send(datagram));
            continue;
        };
        let datagram = &buffer[..bytes];
        match noise.below(100) {
            ..20 => {}
            20..30 => {
                send(datagram);
                send(datagram);
            }
            30..40 if delayed.is_none() => delayed = Some(datagram.to_vec()),
            _ => {
                send(datagram);
                delayed.take().inspect(|datagram| send(datagram));
            }
        }
    }
}

#[track_caller]
fn check_nothing_lost_and_nothing_twice(options: &[&str]) {
    const CLIENTS: usize = 100;
    const MESSAGES: usize = 100;
    let mut line = vec!["0", "udp"];
    line.extend(options);
    let server = Server::start("queue-server", &line);
    let received: Vec<String> = thread::scope(|scope| {
        let one = |me: usize| {
            let server = &server;
            scope.spawn(move || {
                let network =
                    BadNetwork::start(Arc::new(Mutex::new(server.addr().tcp())), 2 * me as u64 + 1);
                let mut client = network.client();
                let mut received = Vec::new();
                for n in 0..MESSAGES {
                    client.send(format!("{me}.{n}").as_bytes()).unwrap();
                    // Every receive follows a send, so there is a message for each.
                    let message = client.receive().unwrap().expect("a message");
                    client.ack(&message).unwrap();
                    received.push(String::from_utf8(message.body).unwrap());
                }
                received
            })
        };
        let threads: Vec<_> = (0..CLIENTS).map(one).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(received.len(), CLIENTS * MESSAGES);
    let different: BTreeSet<_> = received.iter().collect();
    assert_eq!(different.len(), CLIENTS * MESSAGES, "some came twice");
}

#[test]
fn over_a_bad_network_nothing_is_lost_and_nothing_comes_twice() {
    check_nothing_lost_and_nothing_twice(&[]);
}

#[test]
fn over_a_bad_network_a_database_loses_nothing_either() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    check_nothing_lost_and_nothing_twice(&["--data", path.to_str().unwrap()]);
}

/// Sends a request under a number, in a session of this socket, and returns the datagram that comes back.
fn ask(socket: &UdpSocket, number: u64, request: &Request) -> Vec<u8> {
    let port = socket.local_addr().unwrap().port();
    let session = Token::from_u128(port.into());
    ask_in(session, socket, number, request)
}

fn ask_in(session: Token, socket: &UdpSocket, number: u64, request: &Request) -> Vec<u8> {
    let mut datagram = Vec::new();
    put_datagram(&mut datagram, RequestId { session, number }, request);
    socket.send(&datagram).unwrap();
    let mut reply = vec![0; 65_536];
    let bytes = socket.recv(&mut reply).unwrap();
    reply.truncate(bytes);
    reply
}

fn socket(server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.addr().tcp()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_request_that_comes_again_is_answered_again_but_not_acted_on() {
    let server = Server::start("queue-server", &["0", "udp"]);
    let socket = socket(&server);
    let first = ask(&socket, 7, &send_request(b"once"));
    assert_eq!(ask(&socket, 7, &send_request(b"once")), first);
    // The same number of another session is another request.
    let other = self::socket(&server);
    assert_ne!(ask(&other, 7, &send_request(b"twice")), first);
    // The session counts, and not the port.
    let session = Token::from_u128(socket.local_addr().unwrap().port().into());
    assert_eq!(ask_in(session, &other, 7, &send_request(b"once")), first);
    let receive = receive_request(Delivery::AtMostOnce);
    let message = ask(&socket, 8, &receive);
    assert!(message.ends_with(b"once"));
    assert_eq!(ask(&socket, 8, &receive), message);
    assert!(ask(&socket, 9, &receive).ends_with(b"twice"));
    let empty = ask(&socket, 10, &receive);
    let (id, kind, payload) = split_datagram(&empty).unwrap();
    assert_eq!(id.number, 10);
    assert_eq!(Reply::decode(kind, payload).unwrap(), Reply::Empty);
}

#[test]
fn peeking_does_not_make_the_server_forget_the_answers_to_others() {
    let line = ["0", "udp", "--max-message", "64000"];
    let server = Server::start("queue-server", &line);
    let sender = socket(&server);
    let first = ask(&sender, 7, &send_request(b"once"));
    let looking = socket(&server);
    ask(&looking, 0, &send_request(&[b'x'; 64_000]));
    let peek = |after| Request::Peek {
        queue: QueueName::DEFAULT,
        state: proto::queue::MessageState::Ready,
        after,
    };
    let look = ask(&looking, 1, &peek(0));
    let (_, kind, payload) = split_datagram(&look).unwrap();
    let Reply::Peeked { position, .. } = Reply::decode(kind, payload).unwrap() else {
        panic!("{kind}");
    };
    // More than the server has room for.
    for id in 2..1100 {
        assert!(ask(&looking, id, &peek(position)).len() > 64_000);
    }
    assert_eq!(ask(&sender, 7, &send_request(b"once")), first);
}

#[test]
fn what_needs_a_connection_is_refused_over_udp() {
    let server = Server::start("queue-server", &["0", "udp"]);
    let socket = socket(&server);
    let hold = receive_request(Delivery::AtLeastOnce);
    let ack = Request::Ack {
        claim: Claim::Reserved(1),
    };
    let wait = match receive_request(Delivery::AtMostOnce) {
        Request::Receive {
            queues, delivery, ..
        } => Request::Receive {
            queues,
            wait_millis: 1,
            delivery,
        },
        _ => unreachable!(),
    };
    for (id, request) in (0..).zip([hold, ack, wait]) {
        let reply = ask(&socket, id, &request);
        let (_, kind, payload) = split_datagram(&reply).unwrap();
        match Reply::decode(kind, payload).unwrap() {
            Reply::Error(error) => assert_eq!(error.code, ErrorCode::Unsupported),
            other => panic!("{request:?}: {other:?}"),
        }
    }
}

#[test]
fn a_message_too_long_for_a_datagram_stays_and_counts_no_attempt() {
    let line = ["0", "both", "--max-message", "70000"];
    let server = Server::start("queue-server", &line);
    let mut tcp = Client::connect(&server.endpoint(), Transport::Tcp).unwrap();
    tcp.send(&[b'x'; 70_000]).unwrap();
    let mut udp = Client::connect(&server.endpoint(), Transport::Udp).unwrap();
    for _ in 0..10 {
        let error = udp.receive().unwrap_err().to_string();
        assert!(error.contains("too long for a datagram"), "{error}");
    }
    let message = tcp.receive().unwrap().unwrap();
    assert_eq!((message.attempt, message.body.len()), (1, 70_000));
}
