//! Rubbish of every kind, to every port of every server: afterwards the next good request is
//! answered.

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};

use proto::frame::Message;
use proto::history;
use proto::queue::{Delivery, Reply, RequestId, Token, put_datagram};

use crate::harness::{
    Address, Noise, PATIENCE, Server, connect, exchange, read_to_end, receive_request, send_request,
};
use crate::programs::server_line;

const BYTES: usize = 1_000_000;

/// A whole good request, and how a good answer starts.
type Good = (Vec<u8>, &'static [u8]);

struct Target {
    server: Server,
    _dir: tempfile::TempDir,
    /// For cutting, gluing and flipping.
    good: Vec<Good>,
}

fn framed<'a>(message: impl Message<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn targets() -> Vec<Target> {
    let code = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\n\r\n\
                 {\"uuid\": \"67e55044-10b1-426f-9247-bb680e5fe0c8\"}";
    let chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                    30\r\n{'uuid': '67e55044-10b1-426f-9247-bb680e5fe0c8'}\r\n0\r\n\r\n";
    let hello = |user| history::Request {
        user,
        operation: history::Operation::Hello,
    };
    let receive = receive_request(Delivery::AtMostOnce);
    let ok = &b"HTTP/1.1 200 OK\r\n"[..];
    let good: [(&str, Vec<Good>); 4] = [
        (
            "code-server",
            vec![(code.to_vec(), ok), (chunked.to_vec(), ok)],
        ),
        (
            "queue-server",
            vec![
                (framed(send_request(b"hello")), b"\0\0\0\x09\x41"),
                (framed(receive), b"\0"),
                (b"<<GET>>".to_vec(), b""),
            ],
        ),
        (
            "history-server",
            vec![
                (framed(hello("alice")), b"\0\0"),
                (b"alice\n".to_vec(), b"Source: "),
            ],
        ),
        (
            "file-server",
            vec![
                (b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), ok),
                (
                    b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
                    ok,
                ),
            ],
        ),
    ];
    let start = |(name, good): (&str, _)| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hello.txt"), "hello\n").unwrap();
        Target {
            server: Server::start(name, &server_line(name, dir.path())),
            _dir: dir,
            good,
        }
    };
    good.into_iter().map(start).collect()
}

impl Target {
    /// Every good request is answered on every port that takes it.
    #[track_caller]
    fn check_alive(&self) {
        for (request, answer) in &self.good {
            let reply = exchange(self.server.addr(), request);
            assert!(
                reply.starts_with(answer),
                "{:?} got {}",
                String::from_utf8_lossy(request),
                reply[..reply.len().min(100)].escape_ascii()
            );
        }
    }

    fn addrs(&self) -> &[Address] {
        &self.server.addrs
    }
}

#[test]
fn a_million_random_bytes() {
    for target in targets() {
        for (port, addr) in target.addrs().iter().enumerate() {
            let mut noise = Noise::new(port as u64 + 7);
            let mut sent = 0;
            while sent < BYTES {
                let length = noise.below(60_000) + 1;
                let mut rubbish = noise.bytes(length);
                // Half of it takes the framed way where there is one.
                if noise.below(2) == 0 {
                    rubbish[0] = 0;
                }
                exchange(*addr, &rubbish);
                sent += length;
            }
            exchange(*addr, &noise.bytes(BYTES));
        }
        target.check_alive();
    }
}

#[test]
fn random_datagrams() {
    let server = Server::start("queue-server", &["0", "UDP"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.addr().tcp()).unwrap();
    let mut noise = Noise::new(3);
    let mut sent = 0;
    while sent < BYTES {
        let length = noise.below(5000) + 8;
        let mut rubbish = noise.bytes(length);
        rubbish[0] = 0;
        socket.send(&rubbish).unwrap();
        sent += length;
    }
    let mut good = Vec::new();
    let id = RequestId {
        session: Token::from_u128(1),
        number: 1,
    };
    put_datagram(&mut good, id, &send_request(b"x"));
    for at in 0..good.len() {
        socket.send(&good[..at]).unwrap();
        let mut flipped = good.clone();
        flipped[at] ^= 0x55;
        socket.send(&flipped).unwrap();
    }
    // Datagrams may be dropped when the server cannot keep up; a patient client asks again.
    let mut client =
        queue_client::Client::connect(&server.endpoint(), queue_client::Transport::Udp).unwrap();
    client.send(b"still there").unwrap();
}

#[test]
fn requests_cut_short_anywhere() {
    for target in targets() {
        for (request, _) in &target.good {
            for length in 0..request.len() {
                exchange(target.server.addr(), &request[..length]);
            }
        }
        target.check_alive();
    }
}

#[test]
fn requests_with_any_byte_flipped() {
    for target in targets() {
        for (request, _) in &target.good {
            for at in 0..request.len() {
                let mut flipped = request.clone();
                flipped[at] ^= 1 << (at % 8);
                for addr in target.addrs() {
                    exchange(*addr, &flipped);
                }
            }
        }
        target.check_alive();
    }
}

#[test]
fn requests_a_byte_at_a_time() {
    for target in targets() {
        for (request, answer) in &target.good {
            let mut stream = connect(target.server.addr());
            for byte in request {
                stream.write_all(&[*byte]).unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
            let reply = read_to_end(&mut stream);
            assert!(
                reply.starts_with(answer),
                "{}",
                String::from_utf8_lossy(&reply)
            );
        }
    }
}

#[test]
fn pipelined_requests_are_all_answered() {
    for target in targets() {
        for (request, answer) in &target.good {
            let is_plain_text =
                request[0] != 0 && !request.ends_with(b"\r\n\r\n") && !request.starts_with(b"POST");
            if is_plain_text {
                continue;
            }
            let reply = exchange(target.server.addr(), &request.repeat(100));
            let answers = reply
                .windows(answer.len())
                .filter(|at| at == answer)
                .count();
            assert!(
                answers >= 100,
                "{answers} answers to {:?}",
                String::from_utf8_lossy(request)
            );
        }
    }
}

#[test]
fn oversized_requests_are_refused_and_not_waited_for() {
    let long = "x".repeat(100_000);
    for target in targets() {
        for addr in target.addrs() {
            for rubbish in [
                format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes(),
                format!("GET / HTTP/1.1\r\nHost: h\r\n{long}: x\r\n\r\n").into_bytes(),
                format!("GET / HTTP/1.1\r\nHost: h\r\nx: {long}\r\n\r\n").into_bytes(),
                format!(
                    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                    u64::MAX
                )
                .into_bytes(),
                b"\0\xff\xff\xff\x01".to_vec(),
                b"\0\0\0\0\0\0\0\0".to_vec(),
                long.clone().into_bytes(),
            ] {
                exchange(*addr, &rubbish);
            }
        }
        target.check_alive();
    }
}

/// How much memory a server uses.
fn resident_kib(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse().unwrap()
}

#[test]
fn a_frame_that_is_announced_but_never_comes_costs_no_memory() {
    let server = Server::start("queue-server", &["0", "--max-message", "16000000"]);
    let before = resident_kib(&server);
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(server.addr());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"\0\xf0\0\0\x01\0").unwrap();
        held.push(stream);
    }
    let reply = exchange(server.addr(), &framed(send_request(b"x")));
    let (kind, payload) = proto::frame::split(&reply).unwrap();
    assert!(matches!(
        Reply::decode(kind, payload),
        Ok(Reply::Stored { .. })
    ));
    let grown = resident_kib(&server) - before;
    assert!(grown < 20_000, "100 promises of 15 MB cost {grown} KiB");
}

#[test]
fn a_connection_keeps_no_room_for_the_long_message_it_sent() {
    let server = Server::start("queue-server", &["0", "--max-message", "8000000"]);
    let before = resident_kib(&server);
    let body = vec![b'x'; 8_000_000];
    // No request of this kind is known, so the server keeps nothing of it.
    let mut unknown = framed(send_request(&body));
    unknown[4] = 0x3f;
    let idle: Vec<_> = (0..30)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&unknown).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    let grown = resident_kib(&server) - before;
    assert!(
        grown < 60_000,
        "{} idle connections cost {grown} KiB",
        idle.len()
    );
}
