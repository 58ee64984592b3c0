//! Nothing acts twice: a client behind a network that cuts its connections, or loses its datagrams, in front of
//! a server that is killed again and again. What it has sent is in the queue exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cli::Endpoint;
use proto::frame::{self, Message};
use proto::queue::{Delivery, Properties, Reply, Request, Token};
use queue_client::{Client, Transport};

use crate::harness::{
    Needs, Noise, Running, Server, eventually, has_door, has_program, has_sqlite, receive_request,
    root, send_request,
};
use crate::udp::BadNetwork;
use crate::work::{check, say};

const MESSAGES: usize = 10_000;
const KILLS: usize = 5;

/// A connection that is cut within this may be one of the text protocol: `POS` is a message.
const METHOD: &str = "POST ";

/// Where the server is at the moment.
pub type Upstream = Arc<Mutex<SocketAddr>>;

/// A server with a database that is killed, and started again elsewhere.
struct Killed {
    server: Option<Server>,
    data: String,
    transport: &'static str,
    upstream: Upstream,
}

impl Killed {
    fn start(transport: &'static str, dir: &Path) -> Self {
        let data = dir.join("queue.db").to_str().unwrap().to_owned();
        let server = Server::start("queue-server", &["0", transport, "--data", &data]);
        let upstream = Arc::new(Mutex::new(server.addr().tcp()));
        Self {
            server: Some(server),
            data,
            transport,
            upstream,
        }
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
        let server = Server::start("queue-server", &["0", self.transport, "--data", &self.data]);
        *self.upstream.lock().unwrap() = server.addr().tcp();
        self.server = Some(server);
    }

    /// Kills it five times, spread over what is done.
    fn kill_while(&mut self, done: impl Fn() -> usize) {
        for kill in 1..=KILLS {
            let enough = kill * MESSAGES / (KILLS + 1);
            eventually("more was sent", || done() >= enough);
            self.kill();
        }
    }

    /// Receives everything, and sees that each of these came once.
    #[track_caller]
    fn check_once(self, sent: impl Iterator<Item = String>) {
        let server = self.server.unwrap();
        drop(server);
        let server = Server::start("queue-server", &["0", "tcp", "--data", &self.data]);
        let mut client = Client::connect(&server.endpoint(), Transport::Tcp).unwrap();
        let mut times = BTreeMap::<String, usize>::new();
        while let Some(message) = client.receive_at_most_once().unwrap() {
            let body = String::from_utf8(message.body).unwrap();
            *times.entry(body).or_default() += 1;
        }
        let sent: BTreeMap<_, _> = sent.map(|body| (body, 1)).collect();
        let lost = sent
            .keys()
            .filter(|body| !times.contains_key(*body))
            .count();
        let doubled = times.values().filter(|times| **times > 1).count();
        assert_eq!((lost, doubled), (0, 0), "lost and doubled");
        let others: Vec<_> = times
            .keys()
            .filter(|body| !sent.contains_key(*body))
            .collect();
        assert!(others.is_empty(), "nobody has sent {others:?}");
    }
}

/// A network in front of a server that cuts connections, each after a random number of bytes in either
/// direction. Dropping it ends it.
struct Cutting {
    addr: SocketAddr,
    is_stopped: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Cutting {
    fn start(upstream: Upstream, seed: u64, bytes_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let cuts = Arc::new(AtomicUsize::new(0));
        let (stop, count) = (Arc::clone(&is_stopped), Arc::clone(&cuts));
        let accepting = thread::spawn(move || {
            let mut noise = Noise::new(seed);
            let mut carrying = Vec::new();
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // A server that is away ends the connection.
                let upstream: SocketAddr = *upstream.lock().unwrap();
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(upstream)) else {
                    continue;
                };
                let (client, server) = (Arc::new(client), Arc::new(server));
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let bytes = METHOD.len() + noise.below(bytes_max);
                    let (from, to) = (Arc::clone(from), Arc::clone(to));
                    let count = Arc::clone(&count);
                    carrying.push(thread::spawn(move || {
                        if carry(&from, &to, bytes).is_ok_and(|carried| carried == bytes as u64) {
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                        for end in [&from, &to] {
                            let _ = end.shutdown(Shutdown::Both);
                        }
                    }));
                }
            }
            carrying.into_iter().for_each(|one| one.join().unwrap());
        });
        Self {
            addr,
            is_stopped,
            cuts,
            accepting: Some(accepting),
        }
    }

    /// Ends it, when it has cut enough to be a test.
    fn end(self) {
        let cuts = self.cuts.load(Ordering::SeqCst);
        println!("{cuts} connections were cut");
        assert!(cuts > 10);
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            wait_for_server: Duration::from_secs(60),
            ..Endpoint::new("127.0.0.1", self.addr.port())
        }
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) -> io::Result<u64> {
    let mut left = bytes;
    let mut buffer = [0; 4096];
    while left > 0 {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let part = read.min(left);
        to.write_all(&buffer[..part])?;
        left -= part;
    }
    Ok((bytes - left) as u64)
}

#[test]
fn what_is_sent_over_connections_that_are_cut_to_a_server_that_is_killed_is_there_once() {
    if !has_door(Needs::Tcp, "the network in front of the server carries TCP") {
        return;
    }
    const BATCH: usize = 200;
    const SENDERS: usize = 4;
    const EACH: usize = MESSAGES / SENDERS;
    let dir = tempfile::tempdir().unwrap();
    let mut killed = Killed::start("tcp", dir.path());
    let network = Cutting::start(Arc::clone(&killed.upstream), 7, 16_000);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (network, done) = (&network, &done);
            scope.spawn(move || {
                let mut client = Client::connect(&network.endpoint(), Transport::Tcp).unwrap();
                let bodies: Vec<_> = (0..EACH).map(|n| format!("{sender}.{n}")).collect();
                // Half of them one by one, and half of them pipelined.
                for bodies in bodies.chunks(BATCH) {
                    if sender % 2 == 0 {
                        for body in bodies {
                            client.send(body.as_bytes()).unwrap();
                        }
                    } else {
                        let sent = client.send_all(bodies, Properties::default()).unwrap();
                        assert_eq!(sent, bodies.len() as u64);
                    }
                    done.fetch_add(bodies.len(), Ordering::SeqCst);
                }
            });
        }
        killed.kill_while(|| done.load(Ordering::SeqCst));
    });
    network.end();
    let bodies = (0..SENDERS).flat_map(|sender| (0..EACH).map(move |n| format!("{sender}.{n}")));
    killed.check_once(bodies);
}

#[test]
fn what_is_sent_over_udp_with_losses_to_a_server_that_is_killed_is_there_once() {
    if !has_door(Needs::Tcp, "UDP has no other door") {
        return;
    }
    const CLIENTS: usize = 100;
    const EACH: usize = MESSAGES / CLIENTS;
    let dir = tempfile::tempdir().unwrap();
    let mut killed = Killed::start("udp", dir.path());
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for me in 0..CLIENTS {
            let (upstream, done) = (Arc::clone(&killed.upstream), &done);
            scope.spawn(move || {
                let network = BadNetwork::start(upstream, 2 * me as u64 + 1);
                let mut client = network.client();
                for n in 0..EACH {
                    client.send(format!("{me}.{n}").as_bytes()).unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        killed.kill_while(|| done.load(Ordering::SeqCst));
    });
    let bodies = (0..CLIENTS).flat_map(|me| (0..EACH).map(move |n| format!("{me}.{n}")));
    killed.check_once(bodies);
}

#[test]
fn what_is_sent_over_http_with_keys_to_a_server_that_is_killed_is_there_once() {
    if !(has_door(Needs::Tcp, "the network in front of the server carries TCP")
        && has_program("python3"))
    {
        return;
    }
    const SENDERS: usize = 4;
    const EACH: usize = MESSAGES / SENDERS;
    let dir = tempfile::tempdir().unwrap();
    let mut killed = Killed::start("tcp", dir.path());
    let network = Cutting::start(Arc::clone(&killed.upstream), 13, 16_000);
    let mut command = std::process::Command::new("python3");
    command.arg(root().join("tests/python/queue_keys.py"));
    command.args(["127.0.0.1", &network.addr.port().to_string()]);
    command.args([SENDERS, EACH].map(|number| number.to_string()));
    let sending = Running::start(command);
    killed.kill_while(|| sending.stdout_text().lines().count());
    eventually("all is answered", || {
        sending.stdout_text().lines().count() == MESSAGES
    });
    let told = sending.stdout_text();
    assert_eq!(sending.wait(), Some(0));
    let ids: BTreeSet<_> = told.lines().map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(ids.len(), MESSAGES, "each has an id of its own");
    network.end();
    let bodies = (0..SENDERS).flat_map(|sender| (0..EACH).map(move |n| format!("{sender}.{n}")));
    killed.check_once(bodies);
}

#[test]
fn who_follows_is_given_each_message_once_though_the_server_is_killed_and_connections_are_cut() {
    if !has_door(Needs::Tcp, "the network in front of the server carries TCP") {
        return;
    }
    const COUNT: usize = 300;
    const SERVER_KILLS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut killed = Killed::start("tcp", dir.path());
    let bodies: Vec<_> = (0..COUNT).map(|n| format!("message {n}")).collect();
    let server = killed.server.as_ref().unwrap();
    let mut client = Client::connect(&server.endpoint(), Transport::Tcp).unwrap();
    client.send_all(&bodies, Properties::default()).unwrap();
    let network = Cutting::start(Arc::clone(&killed.upstream), 11, 3000);
    let mut command = std::process::Command::new(crate::harness::program("queue-client"));
    command.args(["127.0.0.1", &network.addr.port().to_string()]);
    command.args(["--wait-for-server", "60", "receive", "--follow"]);
    let follower = Running::start(command);
    let received = || follower.stdout_text().lines().count();
    for kill in 1..=SERVER_KILLS {
        let enough = kill * COUNT / (SERVER_KILLS + 1);
        eventually("more was received", || received() >= enough);
        killed.kill();
    }
    eventually("all has come", || received() >= COUNT);
    let server = killed.server.as_ref().unwrap();
    eventually("all is acknowledged", || {
        let queues = crate::work::client(server).stats().unwrap().queues;
        queues.iter().all(|queue| queue.ready + queue.reserved == 0)
    });
    let mut text: Vec<_> = follower.stdout_text().lines().map(str::to_owned).collect();
    text.sort();
    let mut want = bodies;
    want.sort();
    assert_eq!(text, want);
    follower.signal("TERM");
    follower.wait();
}

/// Sends frames, and returns the replies to them.
pub fn ask(server: &Server, requests: &[Request]) -> Vec<String> {
    let mut frames = Vec::new();
    requests.iter().for_each(|one| one.encode(&mut frames));
    let mut stream = server.connect();
    stream.write_all(&frames).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut input = io::BufReader::new(stream);
    let mut payload = Vec::new();
    let mut replies = Vec::new();
    while let Ok(Some(kind)) = frame::read(&mut input, frame::PAYLOAD_BYTES_MAX, &mut payload) {
        let reply = Reply::decode(kind, &payload).unwrap();
        replies.push(format!("{reply:?}"));
    }
    replies
}

#[track_caller]
fn check_session(options: &[&str]) {
    let server = Server::start("queue-server", options);
    let id = Token::from_u128(7);
    let session = |next| Request::Session { id, next };
    let lease = receive_request(Delivery::Lease {
        lease_millis: 60_000,
    });
    let first = [
        session(1),
        send_request(b"a"),
        // What only reads has a number, too.
        Request::Stats,
        send_request(b"b"),
        lease.clone(),
    ];
    let told = ask(&server, &first);
    let is_in_0 = told[0] == "Session { epoch: 0 }";
    assert_eq!(is_in_0, options.contains(&"--data"), "{}", told[0]);
    assert_eq!(
        [&told[1], &told[3]],
        ["Stored { id: 1 }", "Stored { id: 2 }"]
    );
    assert!(told[4].starts_with("Leased"), "{}", told[4]);
    // The last three of them again, and something new.
    let again = [session(3), send_request(b"b"), lease, send_request(b"c")];
    let told_again = ask(&server, &again);
    assert_eq!(told_again[1..3], told[3..5]);
    assert_eq!(told_again[3], "Stored { id: 3 }");
    let list = say(&server, "list", b"").expect(0).out();
    assert!(list.starts_with("default\t2\t1\t"), "{list}");
}

#[test]
fn a_connection_continues_the_session_of_another() {
    if has_sqlite("the other server keeps its messages in memory") {
        check_session(&["0", "tcp"]);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    check_session(&["0", "tcp", "--data", path.to_str().unwrap()]);
}

#[test]
fn a_doubled_send_with_a_key_is_one_message() {
    let server = Server::start("queue-server", &["0", "tcp"]);
    check(&server, "send --key invoice-7 -", "pay", 0, "");
    let again = say(&server, "send --key invoice-7 -", b"pay").expect(0);
    assert!(
        again.stderr.contains("Message 1 was stored before"),
        "{}",
        again.stderr
    );
    let other = say(&server, "send --key invoice-7 -", b"pay more").expect(1);
    let want = "message 1 has the key 'invoice-7' and another body";
    assert!(other.stderr.contains(want), "{}", other.stderr);
    check(&server, "receive", "", 0, "pay");
    check(&server, "send --key invoice-7 -", "pay", 0, "");
    say(&server, "receive", b"").expect(1);
}
