//! The queue service: both dialects, both transports, and what happens to a message when its
//! taker dies.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::sync::Barrier;
use std::thread;

use proto::ErrorCode;
use proto::frame::{self, Message};
use proto::queue::{Claim, Delivery, Properties, QueueName, Reason, Reply, Request, Retry};
use proto::text::QUEUE_EMPTY;
use queue_client::{Client, Error, Transport};

use crate::harness::{
    Address, Needs, Server, connect, data, eventually, exchange, has_door, has_program, python,
    read_to_end, receive_request, run, run_command, send_request, udp_too,
};

fn start(transport: &str) -> Server {
    Server::start("queue-server", &["0", transport])
}

fn client(server: &Server) -> Client {
    Client::connect(&server.endpoint(), Transport::Tcp).unwrap()
}

#[track_caller]
fn receive(client: &mut Client) -> Option<String> {
    let message = client.receive().unwrap()?;
    client.ack(&message).unwrap();
    Some(String::from_utf8(message.body).unwrap())
}

/// `queue-client HOST PORT TRANSPORT ...`
#[track_caller]
fn program(server: &Server, transport: &str, args: &[&str]) -> crate::harness::Ran {
    let mut line = server.host_and_ports();
    // A Unix socket has but one.
    if let Address::Tcp(_) = server.addr() {
        line.push(transport.to_owned());
    }
    line.extend(args.iter().map(|arg| arg.to_string()));
    run("queue-client", &line, b"")
}

#[track_caller]
fn check_files_come_back_in_order(transport: &str) {
    let server = start(udp_too());
    for name in ["message0.txt", "message1.txt", "message2.txt"] {
        let file = data(name);
        let length = std::fs::metadata(&file).unwrap().len();
        let sent = program(&server, transport, &["send", file.to_str().unwrap()]).expect(0);
        assert!(
            sent.stderr.contains(&format!("Sent: {length} bytes")),
            "{}",
            sent.stderr
        );
        assert_eq!(sent.out(), "");
    }
    let long = data("message3.txt");
    let long = long.to_str().unwrap();
    let refused = program(&server, transport, &["send", long]).expect(2);
    assert!(refused.stderr.contains("message3.txt exceeds 3000 bytes"));
    let cut = program(&server, transport, &["send", long, "--truncate"]).expect(0);
    assert!(
        cut.stderr.contains("Sending the first 3000 bytes"),
        "{}",
        cut.stderr
    );
    for name in [
        "message0.txt",
        "message1.txt",
        "message2.txt",
        "message3.txt",
    ] {
        let mut want = std::fs::read(data(name)).unwrap();
        want.truncate(3000);
        let got = program(&server, transport, &["receive"]).expect(0);
        assert!(got.stdout == want, "{name}");
        assert!(
            got.stderr
                .contains(&format!("Received: {} bytes", want.len()))
        );
    }
    let empty = program(&server, transport, &["receive"]).expect(1);
    assert_eq!(
        (empty.out().as_str(), empty.stderr.as_str()),
        ("", format!("queue-client: {QUEUE_EMPTY}\n").as_str())
    );
}

#[test]
fn files_sent_over_tcp_come_back_in_order() {
    check_files_come_back_in_order("TCP");
}

#[test]
fn files_sent_over_udp_come_back_in_order() {
    if !has_door(Needs::Plain, "UDP has no door") {
        return;
    }
    check_files_come_back_in_order("udp");
}

/// The test of the course original: its four files, by its clients, in order.
#[track_caller]
fn check_the_original_files(transport: &str) {
    if !has_door(Needs::Plain, "the original client knows plain TCP alone") {
        return;
    }
    let server = start(udp_too());
    let port = server.addr().port().to_string();
    let address = ["127.0.0.1", &port, transport];
    let files = [
        "message0.txt",
        "message1.txt",
        "message2.txt",
        "message3.txt",
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut want: Vec<_> = files.map(|name| std::fs::read(data(name)).unwrap()).into();
    // An empty message over TCP is a connection that says nothing.
    if transport == "TCP" {
        want.remove(0);
    }
    for (number, body) in (1..).zip(&mut want) {
        // The original sends a line break behind the file: 3001 bytes for one of 3000.
        let file = folder.path().join("message");
        if !body.is_empty() {
            body.push(b'\n');
        }
        std::fs::write(&file, &*body).unwrap();
        let args = [&address[..], &["--file", file.to_str().unwrap()]].concat();
        python("queue_send.py", &args).expect(0);
        // Over TCP it is not told when its message has arrived.
        body.truncate(3000);
        let sent = || client(&server).stats().unwrap().totals.sent;
        eventually("it has arrived", || sent() == number);
    }
    for body in want {
        let got = python("queue_receive.py", &address).expect(0);
        assert!(got.stdout == body, "{}", got.out());
    }
    let empty = python("queue_receive.py", &address).expect(0);
    assert_eq!(empty.out(), QUEUE_EMPTY);
}

#[test]
fn the_originals_four_files_come_back_in_order_over_tcp() {
    check_the_original_files("TCP");
}

#[test]
fn the_originals_four_files_come_back_in_order_over_udp() {
    check_the_original_files("UDP");
}

#[test]
fn tcp_and_udp_share_one_queue() {
    if !has_door(Needs::Plain, "UDP has no door") {
        return;
    }
    let server = start(udp_too());
    let mut udp = Client::connect(&server.endpoint(), Transport::Udp).unwrap();
    client(&server).send(b"over tcp").unwrap();
    udp.send(b"over udp").unwrap();
    assert_eq!(receive(&mut udp).as_deref(), Some("over tcp"));
    assert_eq!(receive(&mut client(&server)).as_deref(), Some("over udp"));
    assert_eq!(receive(&mut udp), None);
}

#[test]
fn a_message_whose_taker_vanishes_goes_back_to_the_front() {
    let server = start("tcp");
    let mut sender = client(&server);
    for body in [b"a", b"b", b"c"] {
        sender.send(body).unwrap();
    }
    let mut vanishing = client(&server);
    assert_eq!(vanishing.receive().unwrap().unwrap().body, b"a");
    assert_eq!(vanishing.receive().unwrap().unwrap().body, b"b");
    drop(vanishing);
    eventually("the messages are back", || server.connections() <= 1);
    let all: Vec<_> = std::iter::from_fn(|| receive(&mut sender)).collect();
    assert_eq!(all, ["a", "b", "c"]);
}

#[test]
fn a_killed_client_loses_no_message() {
    let server = start("tcp");
    client(&server).send(b"precious").unwrap();
    let mut taker = server.connect();
    let mut request = Vec::new();
    receive_request(Delivery::AtLeastOnce).encode(&mut request);
    taker.write_all(&request).unwrap();
    taker.read_exact(&mut [0; 17]).unwrap();
    assert_eq!(receive(&mut client(&server)), None);
    drop(taker);
    eventually("the message is back", || {
        receive(&mut client(&server)).as_deref() == Some("precious")
    });
}

#[test]
fn a_message_forgotten_as_it_is_sent_does_not_come_back() {
    let server = start("tcp");
    client(&server).send(b"once").unwrap();
    let mut taker = client(&server);
    assert_eq!(taker.receive_at_most_once().unwrap().unwrap().body, b"once");
    drop(taker);
    eventually("the connection is gone", || server.connections() == 0);
    assert_eq!(receive(&mut client(&server)), None);
}

#[test]
fn a_receive_whose_output_is_full_keeps_the_message() {
    let server = start("tcp");
    client(&server).send(b"precious").unwrap();
    let mut command = std::process::Command::new("sh");
    let ports = server.host_and_ports();
    command.args(["-c", "exec \"$0\" \"$@\" > /dev/full"]);
    command.arg(crate::harness::program("queue-client"));
    command.args(&ports).arg("receive");
    let ran = run_command(command, b"").expect(2);
    assert!(
        ran.stderr.contains("cannot write to standard output"),
        "{}",
        ran.stderr
    );
    eventually("the message is back", || {
        receive(&mut client(&server)).as_deref() == Some("precious")
    });
}

#[test]
fn many_clients_at_once_lose_nothing_and_keep_each_senders_order() {
    const CLIENTS: usize = 256;
    const MESSAGES: usize = 100;
    let server = start("tcp");
    let barrier = Barrier::new(CLIENTS);
    let received: Vec<Vec<(usize, usize)>> = thread::scope(|scope| {
        let one = |me: usize| {
            let (server, barrier) = (&server, &barrier);
            let work = move || {
                let mut client = client(server);
                barrier.wait();
                let mut received = Vec::new();
                for n in 0..MESSAGES {
                    client.send(format!("{me} {n}").as_bytes()).unwrap();
                    // Every receive follows a send, so there is a message for each.
                    let body = receive(&mut client).expect("a message");
                    let (sender, n) = body.split_once(' ').unwrap();
                    received.push((sender.parse().unwrap(), n.parse().unwrap()));
                }
                received
            };
            let small = thread::Builder::new().stack_size(256 * 1024);
            small.spawn_scoped(scope, work).unwrap()
        };
        let threads: Vec<_> = (0..CLIENTS).map(one).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut seen = vec![[false; MESSAGES]; CLIENTS];
    for one in &received {
        let mut newest = vec![None; CLIENTS];
        for &(sender, n) in one {
            assert!(!seen[sender][n], "message {n} of {sender} came twice");
            seen[sender][n] = true;
            assert!(newest[sender] < Some(n), "sender {sender}: {n} came late");
            newest[sender] = Some(n);
        }
    }
    assert!(
        seen.iter().flatten().all(|seen| *seen),
        "a message was lost"
    );
    assert_eq!(receive(&mut client(&server)), None);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start("tcp");
    let mut requests = Vec::new();
    for n in 0..1000 {
        let body = format!("{n}");
        let body = body.as_bytes();
        send_request(body).encode(&mut requests);
    }
    for _ in 0..1001 {
        receive_request(Delivery::AtMostOnce).encode(&mut requests);
    }
    let replies = exchange(server.addr(), &requests);
    let mut input = replies.as_slice();
    let mut payload = Vec::new();
    let mut bodies = Vec::new();
    let mut others = Vec::new();
    while let Some(kind) = frame::read(&mut input, 5000, &mut payload).unwrap() {
        match Reply::decode(kind, &payload).unwrap() {
            Reply::Message { body, .. } => bodies.push(String::from_utf8(body.to_vec()).unwrap()),
            other => others.push(format!("{other:?}")),
        }
    }
    assert!(
        bodies.iter().map(String::as_str).eq((0..1000)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str))
    );
    assert_eq!(others.len(), 1001);
    assert_eq!(others[1000], "Empty");
}

/// The replies to pipelined requests, for people.
fn replies(server: &Server, requests: &[Request]) -> Vec<String> {
    let mut bytes = Vec::new();
    for request in requests {
        request.encode(&mut bytes);
    }
    let replies = exchange(server.addr(), &bytes);
    let mut input = replies.as_slice();
    let mut payload = Vec::new();
    let mut shown = Vec::new();
    while let Some(kind) = frame::read(&mut input, 5000, &mut payload).unwrap() {
        shown.push(match Reply::decode(kind, &payload).unwrap() {
            Reply::Message { body, .. } => String::from_utf8(body.to_vec()).unwrap(),
            other => format!("{other:?}"),
        });
    }
    shown
}

#[test]
fn what_a_connection_did_before_it_can_receive() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    for options in [&[][..], &["--data", data.to_str().unwrap()]] {
        let server = Server::start("queue-server", &[&["0"], options].concat());
        let release = Request::Release {
            claim: Claim::Reserved(1),
            retry: Retry::Counted { delay_millis: 0 },
            reason: Reason::default(),
        };
        let requests = [
            send_request(b"a"),
            receive_request(Delivery::AtLeastOnce),
            release,
            receive_request(Delivery::AtMostOnce),
            send_request(b"b"),
            receive_request(Delivery::AtMostOnce),
            receive_request(Delivery::AtMostOnce),
        ];
        assert_eq!(
            replies(&server, &requests),
            [
                "Stored { id: 1 }",
                "a",
                "Done { messages: 1 }",
                "a",
                "Stored { id: 2 }",
                "b",
                "Empty",
            ],
            "{options:?}"
        );
    }
}

#[test]
fn requests_of_all_kinds_that_arrive_together_are_answered_in_order() {
    for options in [&[][..], &["--verbose"]] {
        let server = Server::start("queue-server", &[&["0"], options].concat());
        // Where the reads of the server end is up to the network, so he who waits has his own queue.
        let queue = QueueName::new("other").unwrap();
        let mut waiting = server.connect();
        let mut wait = Vec::new();
        let receive = Request::Receive {
            queues: queue.into(),
            wait_millis: 20_000,
            delivery: Delivery::AtMostOnce,
        };
        receive.encode(&mut wait);
        waiting.write_all(&wait).unwrap();
        eventually("somebody waits", || {
            let stats = client(&server).stats().unwrap();
            stats.queues.first().is_some_and(|queue| queue.waiters == 1)
        });
        let too_long = [b'x'; 3001];
        let mut requests = Vec::new();
        let mut want = Vec::new();
        for id in 1..=100 {
            let (send, receive) = (send_request(b"a"), receive_request(Delivery::AtMostOnce));
            requests.extend([send, receive, send_request(&too_long), Request::Stats]);
            want.extend(
                [&format!("Stored {{ id: {id} }}"), "a", "Error(", "Stats {"].map(str::to_owned),
            );
        }
        requests.push(Request::Send {
            queue,
            properties: Properties::default(),
            body: b"for him who waits",
        });
        want.push("Stored { id: 101 }".to_owned());
        let got = replies(&server, &requests);
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert!(got.starts_with(want), "{got}, not {want}");
        }
        let mut payload = Vec::new();
        let kind = frame::read(&mut BufReader::new(waiting), 5000, &mut payload);
        match Reply::decode(kind.unwrap().unwrap(), &payload).unwrap() {
            Reply::Message { body, .. } => assert_eq!(body, b"for him who waits"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_receiver_that_does_not_read_empties_no_queue() {
    const MESSAGES: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let line = ["0", "--max-message", "1000000", "--data"];
    let line = [&line[..], &[data.to_str().unwrap()]].concat();
    let server = Server::start("queue-server", &line);
    let mut other = client(&server);
    for _ in 0..MESSAGES {
        other.send(&vec![b'x'; 1_000_000]).unwrap();
    }
    let mut requests = Vec::new();
    for _ in 0..MESSAGES {
        receive_request(Delivery::AtMostOnce).encode(&mut requests);
    }
    let mut receiver = server.connect();
    receiver.write_all(&requests).unwrap();
    receiver.read_exact(&mut [0]).unwrap();
    let stats = other.stats().unwrap();
    let ready = stats.queues.first().map_or(0, |queue| queue.ready);
    assert!(ready > 32, "{ready} messages are left");
}

#[track_caller]
fn check_refused(request: &Request, code: ErrorCode, sentence: &str) {
    let server = start(udp_too());
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    let reply = exchange(server.addr(), &bytes);
    let (kind, payload) = frame::split(&reply).unwrap();
    match Reply::decode(kind, payload).unwrap() {
        Reply::Error(error) => assert_eq!((error.code, error.sentence), (code, sentence)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn refusals_say_why() {
    let sentence = "a message of 3001 bytes exceeds the limit of 3000 bytes";
    let body = &[b'x'; 3001];
    check_refused(&send_request(body), ErrorCode::TooLarge, sentence);
    let sentence = "a frame of 10022 bytes exceeds the limit of 7096 bytes";
    let body = &[b'x'; 10_000];
    check_refused(&send_request(body), ErrorCode::TooLarge, sentence);
    let sentence = "this connection has not reserved message 7";
    let claim = Claim::Reserved(7);
    check_refused(&Request::Ack { claim }, ErrorCode::NotFound, sentence);
}

#[test]
fn a_datagram_over_the_limit_is_refused_or_cut_with_a_warning() {
    if !has_door(Needs::Plain, "UDP has no door") {
        return;
    }
    let server = start("udp");
    let mut udp = Client::connect(&server.endpoint(), Transport::Udp).unwrap();
    match udp.send(&[b'x'; 3001]) {
        Err(Error::Refused {
            code: ErrorCode::TooLarge,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    plain.send_to(&[b'x'; 3001], server.addr().tcp()).unwrap();
    server.wait_for_log(|log| log.contains("was cut to 3000 bytes, 1 more were dropped"));
    let cut = receive(&mut udp).unwrap();
    assert!(cut.len() == 3000 && cut.bytes().all(|byte| byte == b'x'));
}

#[test]
fn a_udp_client_whose_server_is_silent_gives_up() {
    if !has_door(Needs::Plain, "UDP has no door") {
        return;
    }
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port().to_string();
    let line = ["127.0.0.1", &port, "UDP", "receive", "--timeout", "0.7"];
    let ran = run("queue-client", &line, b"").expect(3);
    assert!(
        ran.stderr.contains("the server did not answer in time"),
        "{}",
        ran.stderr
    );
    let mut asked = 0;
    mute.set_nonblocking(true).unwrap();
    while mute.recv(&mut [0; 100]).is_ok() {
        asked += 1;
    }
    assert!((2..=10).contains(&asked), "asked {asked} times");
}

#[test]
fn plain_tcp_in_any_number_of_pieces() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let server = start("tcp");
    let get = |addr| String::from_utf8(exchange(addr, b"<<GET>>")).unwrap();
    assert_eq!(get(server.addr()), QUEUE_EMPTY);
    assert_eq!(exchange(server.addr(), b""), b"");
    let mut sender = server.connect();
    for byte in b"byte by byte\n" {
        sender.write_all(&[*byte]).unwrap();
    }
    sender.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut sender), b"");
    // The server acts on the header at once, without waiting for the end of the stream.
    let mut getter = server.connect();
    for byte in b"<<GET>>" {
        getter.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_to_end(&mut getter), b"byte by byte\n");
    assert_eq!(get(server.addr()), QUEUE_EMPTY);
}

#[test]
fn a_plain_message_over_the_limit_is_cut_with_a_warning() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let server = start("tcp");
    exchange(server.addr(), &[b'x'; 5000]);
    server.wait_for_log(|log| log.contains("cut to 3000 bytes, 2000 more were dropped"));
    assert_eq!(exchange(server.addr(), b"<<GET>>"), [b'x'; 3000]);
}

#[test]
fn plain_udp() {
    if !has_door(Needs::Plain, "UDP has no door") {
        return;
    }
    let server = start("udp");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.addr().tcp()).unwrap();
    socket
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    let ask = |datagram: &[u8]| {
        socket.send(datagram).unwrap();
        let mut reply = [0; 4000];
        let bytes = socket.recv(&mut reply).unwrap();
        String::from_utf8(reply[..bytes].to_vec()).unwrap()
    };
    socket.send(b"").unwrap();
    socket.send(b"hello\n").unwrap();
    assert_eq!(ask(b"<<GET>>"), "");
    assert_eq!(ask(b"<<GET>> please"), "hello\n");
    assert_eq!(ask(b"<<GET>>"), QUEUE_EMPTY);
}

#[track_caller]
fn check_original_client(transport: &str) {
    if !has_door(Needs::Plain, "the original client knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let server = start(transport);
    let mut ports = server.host_and_ports();
    ports.push(transport.to_uppercase());
    let send = |extra: &[&str]| {
        let mut line = ports.clone();
        line.extend(extra.iter().map(|arg| arg.to_string()));
        python("queue_send.py", &line).expect(0);
    };
    send(&["hello queue"]);
    if transport == "tcp" {
        eventually("the message is in", || server.connections() == 0);
    }
    send(&["--file", data("message2.txt").to_str().unwrap()]);
    let receive = || python("queue_receive.py", &ports).expect(0).stdout;
    assert_eq!(receive(), b"hello queue\n");
    assert_eq!(receive(), std::fs::read(data("message2.txt")).unwrap());
    assert_eq!(receive(), QUEUE_EMPTY.as_bytes());
}

#[test]
fn the_original_client_over_tcp() {
    check_original_client("tcp");
}

#[test]
fn the_original_client_over_udp() {
    check_original_client("udp");
}

#[test]
fn two_receivers_never_get_the_same_message() {
    let server = start("tcp");
    let mut sender = client(&server);
    sender.send(b"first").unwrap();
    sender.send(b"second").unwrap();
    let (mut one, mut two) = (client(&server), client(&server));
    assert_eq!(one.receive().unwrap().unwrap().body, b"first");
    assert_eq!(two.receive().unwrap().unwrap().body, b"second");
    assert_eq!(sender.receive().unwrap(), None);
}

#[test]
fn the_limit_can_be_set() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let server = Server::start("queue-server", &["--max-message", "5", "0"]);
    let mut client = client(&server);
    client.send(b"12345").unwrap();
    client.send(b"123456").unwrap_err();
    assert_eq!(receive(&mut client).as_deref(), Some("12345"));
    let mut stream = connect(server.addr());
    stream.write_all(b"1234567").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut stream);
    assert_eq!(receive(&mut client).as_deref(), Some("12345"));
    assert_eq!(exchange(server.addr(), b"<<GET>>"), QUEUE_EMPTY.as_bytes());
}
