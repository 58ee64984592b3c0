//! A client that is told several servers finds the one that is active, and waits for one if none is. Each has an
//! address of its own on this machine, and all have the same port.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cli::{Address, Endpoint};
use proto::frame::{self, PAYLOAD_BYTES_MAX};
use proto::queue::Properties;
use proto::{ErrorCode, ErrorReply};
use queue_client::{Client, Transport};

use crate::harness::postgres::free_port;
use crate::harness::{
    Needs, PATIENCE, Ran, Running, Server, eventually, has_door, program, run, run_command,
};
use crate::work::{check, say};

const STANDBY: &str = "this server stands by; another one is active";

/// Where the others are than 127.0.0.1.
const SECOND: &str = "127.0.0.2";
const THIRD: &str = "127.0.0.3";

/// Whether this run has the door for fakes that know neither TLS nor accounts.
fn has_plain_door() -> bool {
    has_door(Needs::Plain, "the servers that stand by are fakes")
}

/// A server that answers each request with the same error. Dropping it frees its port.
struct Refusing {
    addr: SocketAddr,
    /// `None` when it is closed.
    listener: Option<Arc<TcpListener>>,
    is_stopped: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Refusing {
    #[track_caller]
    fn start(host: &str, port: u16, code: ErrorCode) -> Self {
        // One of those that the system gives to outgoing connections might be taken when it is free again.
        let port = if port == 0 { free_port() } else { port };
        let listener = Arc::new(TcpListener::bind((host, port)).unwrap());
        let is_stopped = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(AtomicUsize::new(0));
        let here = (Arc::clone(&listener), Arc::clone(&is_stopped));
        let count = Arc::clone(&requests);
        let accepting = thread::spawn(move || {
            let (listener, is_stopped) = here;
            for stream in listener.incoming() {
                if is_stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (stream, count) = (stream.unwrap(), Arc::clone(&count));
                thread::spawn(move || refuse_all(&stream, code, &count));
            }
        });
        Self {
            addr: listener.local_addr().unwrap(),
            listener: Some(listener),
            is_stopped,
            requests,
            accepting: Some(accepting),
        }
    }

    fn standby(host: &str, port: u16) -> Self {
        Self::start(host, port, ErrorCode::Standby)
    }

    fn port(&self) -> u16 {
        self.addr.port()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_until_asked_again(&self) {
        let before = self.requests();
        eventually("it is asked again", || self.requests() > before + 1);
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        self.listener = None;
        // A program that another test starts at this moment has a copy of it, until it begins.
        eventually("the port is free", || TcpListener::bind(self.addr).is_ok());
    }
}

fn refuse_all(mut stream: &TcpStream, code: ErrorCode, count: &AtomicUsize) {
    let sentence = STANDBY;
    let reply = ErrorReply { code, sentence }.to_frame();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut input = BufReader::new(stream);
    while let Ok(Some(_)) = frame::read(&mut input, PAYLOAD_BYTES_MAX, &mut Vec::new()) {
        count.fetch_add(1, Ordering::SeqCst);
        // The client may have left.
        let _ = stream.write_all(&reply);
    }
}

/// `queue-client HOSTS PORT ...`, with this on its standard input.
#[track_caller]
fn ask(hosts: &[&str], port: u16, line: &str, input: &str) -> Ran {
    let mut args = vec![hosts.join(","), port.to_string()];
    args.extend(line.split_whitespace().map(str::to_owned));
    run("queue-client", &args, input.as_bytes())
}

#[test]
fn the_first_server_that_is_active_is_used() {
    if !has_plain_door() {
        return;
    }
    let port = free_port();
    let _server = Server::start("queue-server", &[&port.to_string(), "tcp"]);
    let standby = Refusing::standby(SECOND, port);
    // The system accepts connections for it, and nothing else does.
    let hung = TcpListener::bind((THIRD, port)).unwrap();
    let hosts = ["127.0.0.4", SECOND, THIRD, "127.0.0.1", "127.0.0.5"];
    ask(&hosts, port, "send - --timeout 1h", "one").expect(0);
    assert_eq!(standby.requests(), 1);
    drop(hung);
    let received = ask(&hosts, port, "receive", "").expect(0);
    assert_eq!(received.out(), "one");
    // The active one is the first.
    let peeked = ask(&["127.0.0.1", SECOND], port, "peek", "").expect(1);
    assert_eq!(
        peeked.stderr,
        "queue-client: Error - no messages in queue.\n"
    );
    assert_eq!(standby.requests(), 2);
}

#[test]
fn the_environment_names_several_servers() {
    if !has_plain_door() {
        return;
    }
    let port = free_port();
    let _server = Server::start("queue-server", &[&port.to_string(), "tcp"]);
    let _standby = Refusing::standby(SECOND, port);
    let list = |servers: &str| {
        let mut command = Command::new(program("queue-client"));
        command.env("QUARTET_QUEUE", servers).arg("list");
        run_command(command, b"")
    };
    list(&format!("{SECOND},127.0.0.1 {port}")).expect(0);
    list(&format!("{SECOND},127.0.0.1:{port}")).expect(0);
    list(&format!("{SECOND}:{port},127.0.0.1:{port}")).expect(0);
    let refused = list("a,,b 7").expect(2);
    let want = "$QUARTET_QUEUE must be one host, or 2 to 8 with commas between and the same port, \
                not 'a,,b'";
    refused.check_says(want);
}

#[test]
fn a_list_that_cannot_be_right_is_refused() {
    let nine = ["h"; 9];
    let want = "HOST must be one host, or 2 to 8 with commas between and the same port, not";
    for hosts in [&nine[..], &["", "h"], &["h", "", "h"], &["h", ""]] {
        ask(hosts, 7, "list", "").expect(2).check_says(want);
    }
    let udp = ask(&["h", "h"], 7, "udp list", "").expect(2);
    udp.check_says("several servers need TCP");
}

#[test]
fn if_no_server_is_active_it_is_said_of_each_why_not() {
    if !has_plain_door() {
        return;
    }
    let standby = Refusing::standby(SECOND, 0);
    let port = standby.port();
    let _hung = TcpListener::bind((THIRD, port)).unwrap();
    let hosts = ["127.0.0.4", SECOND, THIRD];
    for verb in ["list", "send -", "send - --lines", "receive --follow"] {
        let none = ask(&hosts, port, &format!("{verb} --timeout 0.3"), "x\n").expect(3);
        let want = format!(
            "queue-client: no server is active: 127.0.0.4:{port} (Connection refused (os error \
             111)), {SECOND}:{port} ({STANDBY}), {THIRD}:{port} (the server did not answer in \
             time)\n"
        );
        assert_eq!((none.stderr.as_str(), &*none.stdout), (&*want, &b""[..]));
    }
    let alone = ask(&[SECOND], port, "list", "").expect(3);
    let want = format!("queue-client: the server refused: {STANDBY}\n");
    assert_eq!(alone.stderr, want);
}

#[test]
fn a_server_that_refuses_for_another_reason_is_the_one() {
    if !has_plain_door() {
        return;
    }
    let refusing = Refusing::start(SECOND, 0, ErrorCode::Forbidden);
    let port = refusing.port();
    let other = Refusing::standby("127.0.0.1", port);
    let ran = ask(&[SECOND, "127.0.0.1"], port, "list", "").expect(1);
    ran.check_says("the server refused: ");
    assert_eq!((refusing.requests(), other.requests()), (2, 0));
}

#[test]
fn who_may_wait_for_a_server_waits_until_one_that_stands_by_is_active() {
    if !has_plain_door() {
        return;
    }
    for hosts in [&["127.0.0.1"][..], &[SECOND, "127.0.0.1"]] {
        for verb in ["send -", "send - --lines", "work --drain -- cat", "list"] {
            let standby = Refusing::standby("127.0.0.1", 0);
            let port = standby.port();
            let mut command = Command::new(program("queue-client"));
            command.args([&hosts.join(","), &port.to_string()]);
            command.args(["--wait-for-server", "60"]);
            command.args(verb.split_whitespace());
            let (client, mut input) = Running::start_fed(command);
            input.write_all(b"x").unwrap();
            drop(input);
            standby.wait_until_asked_again();
            drop(standby);
            let server = Server::start("queue-server", &[&port.to_string(), "tcp"]);
            assert_eq!(client.wait(), Some(0), "{verb}: {}", client.stderr.text());
            if verb.starts_with("send") {
                check(&server, "receive", "", 0, "x").check_says("Received: ");
                check(&server, "receive", "", 1, "");
            }
        }
    }
}

/// Starts a client of two servers that receives what comes, and waits until it has a message of the first.
fn receiving_from(first: &Server, port: u16, line: &str) -> Running {
    let mut command = Command::new(program("queue-client"));
    command.args([format!("127.0.0.1,{SECOND}"), port.to_string()]);
    command.args(line.split_whitespace());
    let client = Running::start(command);
    say(first, "send -", b"one\n").expect(0);
    eventually("it has the first", || client.stdout_text() == "one\n");
    client
}

/// Starts the second server, whose message such a client must have next.
fn check_continues_at(client: &Running, second: &[&str]) {
    let second = Server::start("queue-server", second);
    say(&second, "send -", b"two\n").expect(0);
    eventually("it has the second", || {
        client.stdout_text().ends_with("two\n")
    });
    client.signal("TERM");
    client.wait();
}

#[test]
fn who_goes_on_by_itself_does_so_at_the_server_that_has_become_active() {
    if !has_plain_door() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("queue.db");
    let data = data.to_str().unwrap();
    for verb in ["receive --follow", "work -- cat"] {
        let port = free_port();
        let first = Server::start("queue-server", &[&port.to_string(), "tcp", "--data", data]);
        let second = Refusing::standby(SECOND, port);
        let client = receiving_from(&first, port, verb);
        first.kill();
        // Neither is active for a while.
        let first = Refusing::standby("127.0.0.1", port);
        first.wait_until_asked_again();
        drop(second);
        let args = [&port.to_string(), "tcp", "--data", data, "--bind", SECOND];
        check_continues_at(&client, &args);
    }
}

#[test]
fn who_waits_at_a_server_that_hangs_continues_at_the_next_one() {
    if !has_plain_door() {
        return;
    }
    for verb in ["receive --count 2 --wait 1h", "work -- cat"] {
        let port = free_port();
        let first = Server::start("queue-server", &[&port.to_string(), "tcp"]);
        let standby = Refusing::standby(SECOND, port);
        let line = format!("--timeout 1 --wait-for-server 60 {verb}");
        let client = receiving_from(&first, port, &line);
        first.signal("STOP");
        drop(standby);
        let args = [&port.to_string(), "tcp", "--bind", SECOND];
        check_continues_at(&client, &args);
    }
}

#[test]
fn a_wait_that_is_asked_for_in_pieces_is_as_long_as_it_was_said() {
    if !has_plain_door() {
        return;
    }
    let port = free_port();
    let server = Server::start("queue-server", &[&port.to_string(), "tcp"]);
    let receive = || {
        let begun = Instant::now();
        let line = "receive --wait 2.5 --timeout 1";
        let ran = ask(&["127.0.0.1", SECOND], port, line, "").expect(1);
        assert!(begun.elapsed() >= Duration::from_millis(2500));
        ran
    };
    receive().check_says("no messages in queue");
    // An empty queue cannot be paused.
    say(&server, "send - --delay 1h", b"x").expect(0);
    say(&server, "pause", b"").expect(0);
    receive().check_says("the queue 'default' is paused");
}

#[test]
fn what_is_sent_to_servers_that_take_over_from_each_other_is_there_once() {
    const MESSAGES: usize = 6000;
    const BATCH: usize = 200;
    const TAKEOVERS: usize = 4;
    if !has_plain_door() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("queue.db");
    let data = data.to_str().unwrap();
    let port = free_port();
    let mut active = Server::start("queue-server", &[&port.to_string(), "tcp", "--data", data]);
    let mut standby = Refusing::standby(SECOND, port);
    let endpoint = Endpoint {
        others: vec![Address::new("127.0.0.1", port)],
        wait_for_server: Duration::from_secs(60),
        ..Endpoint::new(SECOND, port)
    };
    let done = AtomicUsize::new(0);
    // They live until all is received.
    let _servers = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(&endpoint, Transport::Tcp).unwrap();
            let bodies: Vec<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
            for (n, bodies) in bodies.chunks(BATCH).enumerate() {
                // Some of them one by one, and the others pipelined.
                if n % 4 == 0 {
                    for body in bodies {
                        client.send(body.as_bytes()).unwrap();
                    }
                } else {
                    client.send_all(bodies, Properties::default()).unwrap();
                }
                done.fetch_add(bodies.len(), Ordering::SeqCst);
            }
        });
        let mut hosts = ["127.0.0.1", SECOND];
        for takeover in 1..=TAKEOVERS {
            let enough = takeover * MESSAGES / (TAKEOVERS + 1);
            eventually("more was sent", || done.load(Ordering::SeqCst) >= enough);
            active.kill();
            let next = Refusing::standby(hosts[0], port);
            hosts.reverse();
            drop(standby);
            standby = next;
            let args = [&port.to_string(), "tcp", "--data", data, "--bind", hosts[0]];
            active = Server::start("queue-server", &args);
        }
        (active, standby)
    });
    let mut client = Client::connect(&endpoint, Transport::Tcp).unwrap();
    let mut times = BTreeMap::<Vec<u8>, usize>::new();
    while let Some(message) = client.receive_at_most_once().unwrap() {
        *times.entry(message.body).or_default() += 1;
    }
    assert_eq!(times.len(), MESSAGES);
    let doubled = times.values().filter(|times| **times > 1).count();
    assert_eq!(doubled, 0);
}
