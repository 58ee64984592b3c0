//! One address that opens everything, in every way there is, while a client from another address is served
//! at once: no peer holds the door shut.

use std::fs::Permissions;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proto::frame::{self, Message};
use proto::queue::{Delivery, Properties, QueueName, Reply, Request};
use proto::{ErrorCode, Login};
use rustix::net::sockopt;

use crate::harness::{
    Certificates, Needs, Server, connect_from, connect_narrow, eventually, has_door, read_to_end,
    receive_request, send_request,
};
use crate::limits::{BUSY, GOOD, start};
use crate::logins::HASH;

/// The places of a server here.
const PLACES: usize = 16;

/// From where everything is opened, and from where one client comes beside.
const HOG: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

const WHY: &str = "its clients have addresses of their own";

/// A server with few places.
fn start_small(name: &str) -> (Server, tempfile::TempDir) {
    let max = PLACES.to_string();
    let (server, dir) = start(name, &["--max-connections", &max]);
    let large = std::fs::File::create(dir.path().join("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    (server, dir)
}

/// Takes all places of a server, each connection with this beginning.
fn hog(server: &Server, beginning: &[u8]) -> Vec<TcpStream> {
    let addr = server.addr().tcp();
    let hogs: Vec<_> = (0..PLACES).map(|_| connect_narrow(HOG, addr)).collect();
    eventually("all are admitted", || server.connections() >= PLACES);
    for mut hog in &hogs {
        hog.write_all(beginning).unwrap();
    }
    hogs
}

/// What a client from another address gets.
fn answer(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect_from(OTHER, addr);
    stream.write_all(request).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    read_to_end(stream)
}

/// Asks again and again, for longer than a new connection is spared, and is never refused.
#[track_caller]
fn check_served(server: &Server, request: &[u8], answer_start: &[u8], what: &str) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let answer = answer(server.addr().tcp(), request);
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
        assert!(answer.starts_with(answer_start), "{what}: {shown}");
    }
}

#[test]
fn one_address_with_all_places_keeps_no_other_out() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    for (name, request, answer) in GOOD {
        let mut ways: Vec<(&str, &[u8])> = vec![
            ("silent", b""),
            ("half a request", &request[..5]),
            ("half a head", b"GET /healthz HTTP/1.1\r\nHo"),
            ("refused, and still there", b"GET /healthz HTTP/2.0\r\n\r\n"),
        ];
        if name == "file-server" {
            ways.push(("a reply that is not read", b"GET /large HTTP/1.0\r\n\r\n"));
        }
        for (way, beginning) in ways {
            let (server, _dir) = start_small(name);
            let hogs = hog(&server, beginning);
            check_served(&server, request, answer, &format!("{name}, {way}"));
            drop(hogs);
        }
    }
}

#[test]
fn handshakes_that_do_not_end_keep_no_other_out() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let certificates = Certificates::get();
    let (cert, key) = (&certificates.server.cert, &certificates.server.key);
    let max = PLACES.to_string();
    let options = [
        "--max-connections",
        &max,
        "--tls-cert",
        cert.to_str().unwrap(),
    ];
    let options = [&options[..], &["--tls-key", key.to_str().unwrap()]].concat();
    let (server, _dir) = start("history-server", &options);
    // The start of a record of 512 bytes.
    let _hogs = hog(&server, b"\x16\x03\x01\x02\x00\x01");
    // A plain client is told so, and not that there is no room.
    check_served(&server, b"alice\n", b"this port speaks TLS", "a handshake");
}

#[test]
fn the_only_address_has_all_places_to_itself() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let (name, request, answer) = GOOD[1];
    let (server, _dir) = start_small(name);
    let clients = hog(&server, request);
    for mut client in &clients {
        let mut reply = vec![0; answer.len()];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(reply, answer);
    }
    // One more of its own does not take the place of one that is new.
    let (server, _dir) = start_small(name);
    let new: Vec<_> = (0..PLACES)
        .map(|_| connect_from(HOG, server.addr().tcp()))
        .collect();
    let mut more = connect_from(HOG, server.addr().tcp());
    more.write_all(request).unwrap();
    let refused = read_reply(&mut more).unwrap();
    let is_busy = String::from_utf8_lossy(&refused).contains(BUSY);
    let is_spared = new.iter().all(|stream| !has_ended(stream));
    // Unless this machine took a second for it.
    assert!(is_busy == is_spared, "{refused:?}");
}

/// Whether the server has ended a connection on which it has said nothing.
fn has_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.peek(&mut [0]);
    !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Reads a reply in frames: its kind and its payload.
fn read_reply(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    let kind = frame::read(&mut BufReader::new(stream), 4 << 20, &mut payload).ok()??;
    Some([&[kind][..], &payload].concat())
}

fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

/// How many messages there are, enough for each connection...
const MESSAGES: usize = PLACES + PLACES / 4;

/// ...and how long each is. The system keeps 2.4 MB for a peer of this machine that does not read.
const MESSAGE_BYTES: usize = 3 << 20;

/// The reply to a message that is sent.
const STORED_BYTES: usize = 13;

/// A queue with few places and long messages.
fn start_with_messages(options: &[&str]) -> Server {
    let max = PLACES.to_string();
    let mut line = vec!["0", "TCP", "--max-message", "3M", "--max-connections", &max];
    line.extend(options);
    let server = Server::start("queue-server", &line);
    let mut sender = server.connect();
    for _ in 0..MESSAGES {
        let request = encoded(&send_request(&[b'x'; MESSAGE_BYTES]));
        sender.write_all(&request).unwrap();
        sender.read_exact(&mut [0; STORED_BYTES]).unwrap();
    }
    drop(sender);
    eventually("the sender has gone", || server.connections() == 0);
    server
}

/// Those that have their share of this take messages, and get no further.
fn wait_until_taken(addr: SocketAddr) {
    eventually("messages are taken", || {
        ready(addr) <= MESSAGES - PLACES / 4
    });
}

#[test]
fn messages_that_are_not_read_keep_no_other_out_and_are_not_lost() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let lease = Delivery::Lease {
        lease_millis: 600_000,
    };
    let cases = [
        (false, Delivery::AtMostOnce),
        (false, lease),
        (true, Delivery::AtMostOnce),
        (true, lease),
    ];
    for (has_database, delivery) in cases {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("queue.db");
        let options = ["--data", database.to_str().unwrap()];
        let server = start_with_messages(if has_database { &options } else { &[] });
        let addr = server.addr().tcp();
        let receives = encoded(&receive_request(delivery)).repeat(2);
        let hogs = hog(&server, &receives);
        wait_until_taken(addr);
        let stats = encoded(&Request::Stats);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            let reply = answer(addr, &stats);
            assert_eq!(reply.get(4), Some(&0x47), "{delivery:?}");
        }
        // They read after all. A message is either with them, or in the queue.
        let received: usize = at_once(&hogs, count_messages).iter().sum();
        assert!(received >= PLACES / 4, "{received}");
        assert_eq!(received + ready(addr), MESSAGES, "{delivery:?}");
    }
}

/// How many messages are ready.
fn ready(addr: SocketAddr) -> usize {
    let reply = answer(addr, &encoded(&Request::Stats));
    let (kind, payload) = frame::split(&reply).unwrap();
    match Reply::decode(kind, payload).unwrap() {
        Reply::Stats { queues, .. } => queues.iter().map(|queue| queue.ready as usize).sum(),
        other => panic!("{other:?}"),
    }
}

/// Reads from all connections at once, as fast as it can.
fn at_once<T: Send>(streams: &[TcpStream], read: impl Fn(&TcpStream) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let readers = streams.iter().map(|stream| {
            sockopt::set_socket_recv_buffer_size(stream, 1 << 20).unwrap();
            scope.spawn(|| read(stream))
        });
        let readers: Vec<_> = readers.collect();
        let read = readers.into_iter().map(|reader| reader.join().unwrap());
        read.collect()
    })
}

/// Reads all replies, and counts the messages among them.
fn count_messages(stream: &TcpStream) -> usize {
    let _ = stream.shutdown(Shutdown::Write);
    let mut input = BufReader::new(stream);
    let mut payload = Vec::new();
    let mut messages = 0;
    while let Ok(Some(kind)) = frame::read(&mut input, 4 << 20, &mut payload) {
        let reply = Reply::decode(kind, &payload).unwrap();
        messages += usize::from(matches!(
            reply,
            Reply::Message { .. } | Reply::Leased { .. }
        ));
    }
    messages
}

/// Others need its place, and still a text client that takes its time gets its message whole. One that
/// would be one too many is told so, in words.
#[test]
fn a_text_client_that_reads_slowly_gets_its_message_whole() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let server = start_with_messages(&[]);
    let addr = server.addr().tcp();
    let hogs = hog(&server, b"<<GET>>");
    wait_until_taken(addr);
    check_served(&server, &encoded(&Request::Stats), b"\0\0\0", "slow texts");
    let replies = at_once(&hogs, |mut stream| {
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        reply
    });
    let messages = replies.iter().filter(|reply| reply.len() == MESSAGE_BYTES);
    let messages = messages.count();
    assert!(messages >= PLACES / 4, "{messages}");
    for reply in replies {
        let shown = String::from_utf8_lossy(&reply[..reply.len().min(200)]);
        let is_refused = shown.starts_with("Error - ") && shown.ends_with(A_SHARE);
        let is_known = reply.is_empty() || reply.len() == MESSAGE_BYTES || is_refused;
        assert!(is_known, "{} bytes: {shown}", reply.len());
    }
    assert_eq!(messages + ready(addr), MESSAGES);
}

/// How a refusal ends.
const A_SHARE: &str = "(five sixteenths of --max-connections), and there are as many: close some, or try \
                       again later\n";

#[test]
fn what_is_sent_does_not_wait_with_a_receive_behind_it_and_a_stop_ends_that() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let server = start_with_messages(&[]);
    let addr = server.addr().tcp();
    let receive = encoded(&receive_request(Delivery::AtMostOnce));
    let holders: Vec<_> = (0..PLACES / 4 + PLACES / 16)
        .map(|_| {
            let mut holder = connect_narrow(HOG, addr);
            holder.write_all(&receive).unwrap();
            holder
        })
        .collect();
    wait_until_taken(addr);
    let mut client = connect_from(HOG, addr);
    let requests = [encoded(&send_request(b"x")), receive].concat();
    let begun = Instant::now();
    client.write_all(&requests).unwrap();
    let stored = read_reply(&mut client).unwrap();
    assert!(matches!(
        Reply::decode(stored[0], &stored[1..]),
        Ok(Reply::Stored { .. })
    ));
    // Not the ten seconds that the receive may wait.
    assert!(begun.elapsed() < Duration::from_secs(8));
    server.signal("TERM");
    let refused = read_reply(&mut client).unwrap();
    let Ok(Reply::Error(refused)) = Reply::decode(refused[0], &refused[1..]) else {
        panic!("{refused:?}");
    };
    assert_eq!(refused.code, ErrorCode::ShuttingDown, "{refused:?}");
    assert_eq!(read_reply(&mut client), None);
    drop(holders);
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn pages_of_metrics_that_are_not_read_keep_no_other_from_reading_them() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let server = Server::start("queue-server", &["0", "TCP"]);
    let addr = server.addr().tcp();
    // A long page.
    let mut sender = server.connect();
    for number in 0..1000 {
        let name = format!("{number:060}");
        let request = Request::Send {
            queue: QueueName::new(&name).unwrap(),
            properties: Properties::default(),
            body: b"x",
        };
        sender.write_all(&encoded(&request)).unwrap();
        sender.read_exact(&mut [0; 13]).unwrap();
    }
    let request = b"GET /metrics HTTP/1.0\r\n\r\n";
    let mut hogs: Vec<_> = (0..PLACES).map(|_| connect_narrow(HOG, addr)).collect();
    for hog in &mut hogs {
        hog.write_all(request).unwrap();
        // The page or a refusal has begun to arrive.
        hog.read_exact(&mut [0; 12]).unwrap();
    }
    for _ in 0..4 {
        let page = answer(addr, request);
        let shown = String::from_utf8_lossy(&page[..page.len().min(200)]);
        assert!(page.starts_with(b"HTTP/1.1 200 OK\r\n"), "{shown}");
        assert!(page.ends_with(b"# EOF\n"));
    }
}

/// How many addresses guess, which are more than there are places.
const GUESSERS: u8 = 40;

#[test]
fn who_has_logged_in_is_not_refused_while_others_guess() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts");
    std::fs::write(&file, format!("alice:{HASH}\n")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let max = PLACES.to_string();
    let line = ["0", "TCP", "--max-connections", &max, "--auth-file"];
    let server = Server::start(
        "queue-server",
        &[&line[..], &[file.to_str().unwrap()]].concat(),
    );
    let addr = server.addr().tcp();
    let login = |password| {
        encoded(&Login {
            user: "alice",
            password,
        })
    };
    let asks = || {
        let request = [login("sesame"), encoded(&Request::Stats)].concat();
        let reply = answer(addr, &request);
        // Logged in, and the reply.
        reply.get(4) == Some(&0x70) && reply.get(9) == Some(&0x47)
    };
    assert!(asks());
    let (guesses, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for host in 3..3 + GUESSERS {
            let (guesses, is_over) = (&guesses, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = connect_from([127, 0, 0, host], addr);
                    // It may be evicted, or turned away.
                    let _ = stream.write_all(&login("guess"));
                    read_to_end(stream);
                    guesses.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let is_right: Vec<_> = (0..100)
            .map(|asked| {
                // They guess meanwhile.
                eventually("guesses", || guesses.load(Ordering::Relaxed) > asked);
                asks()
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(is_right.iter().all(|is_right| *is_right), "{is_right:?}");
    });
}
