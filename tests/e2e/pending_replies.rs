//! Replies that the thread gives that writes to the disk, as it does when there are many connections:
//! nobody gets less than he would from the thread of his own connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;

use proto::ErrorCode;
use proto::frame::{self, Message};
use proto::http::BodyLength;
use proto::http::response::{ResponseError, ResponseHead};
use proto::queue::{Delivery, QueueName, Reply, Request};
use proto::{code, history};
use uuid::Uuid;

use crate::harness::{
    Address, Noise, Server, Stream, connect, crowd, eventually, receive_request, send_request,
    signed,
};
use crate::programs::server_line;

/// The services that keep something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queue,
    History,
    Messages,
}

const KINDS: [Kind; 3] = [Kind::Queue, Kind::History, Kind::Messages];

/// A server with many idle connections.
struct Crowded {
    kind: Kind,
    server: Server,
    addr: Address,
    /// Who leaves messages, and the code that goes with it.
    uuid: Uuid,
    unique: String,
    crowd: Vec<Stream>,
    _dir: tempfile::TempDir,
}

impl Crowded {
    fn start(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start(kind, dir.path());
        let addr = *server.addrs.last().unwrap();
        let uuid = Uuid::from_u128(7);
        let unique = match kind {
            Kind::Messages => code_of(server.addr(), uuid),
            _ => String::new(),
        };
        let crowd = crowd(addr);
        eventually("they are all there", || server.connections() >= crowd.len());
        Self {
            kind,
            server,
            addr,
            uuid,
            unique,
            crowd,
            _dir: dir,
        }
    }

    /// A request to keep something, or another one.
    fn request(&self, keeps: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let operation = match keeps {
            true => history::Operation::Hello,
            false => history::Operation::delete_line(u64::MAX),
        };
        match self.kind {
            Kind::Queue if keeps => send_request(b"kept").encode(&mut out),
            Kind::Queue => Request::Receive {
                queues: QueueName::new("empty").unwrap().into(),
                wait_millis: 0,
                delivery: Delivery::AtMostOnce,
            }
            .encode(&mut out),
            Kind::History => history::Request {
                user: "alice",
                operation,
            }
            .encode(&mut out),
            Kind::Messages if keeps => {
                let message = code::MessageRequest {
                    uuid: self.uuid,
                    unique: self.unique.clone(),
                    text: "kept".to_owned(),
                };
                out = post(&message.encode());
            }
            Kind::Messages => {
                out.extend_from_slice(&signed(b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n"))
            }
        }
        out
    }

    /// Reads one whole reply; returns whether something was kept. `None` is the end.
    fn read_reply(&self, input: &mut impl BufRead) -> io::Result<Option<bool>> {
        if input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut payload = Vec::new();
        let mut next = |input: &mut _| {
            let kind = frame::read(input, 1 << 20, &mut payload);
            let kind = kind.map_err(|error| io::Error::other(error.to_string()))?;
            let kind = kind.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok::<_, io::Error>((kind, payload.clone()))
        };
        Ok(Some(match self.kind {
            Kind::Queue => {
                let (kind, payload) = next(input)?;
                match Reply::decode(kind, &payload).unwrap() {
                    Reply::Stored { .. } => true,
                    Reply::Empty => false,
                    Reply::Error(error) if error.code == ErrorCode::ShuttingDown => {
                        return Ok(None);
                    }
                    other => panic!("{other:?}"),
                }
            }
            Kind::History => {
                let (kind, payload) = next(input)?;
                let about = history::Reply::decode(kind, &payload).unwrap();
                assert!(matches!(about, history::Reply::About(_)), "{about:?}");
                let (kind, payload) = next(input)?;
                match history::Reply::decode(kind, &payload).unwrap() {
                    history::Reply::Done("") => true,
                    history::Reply::Error(_) => false,
                    other => panic!("{other:?}"),
                }
            }
            Kind::Messages => match read_http(input)? {
                (200, body) if body == code::Reply::Logged.to_json() => true,
                (404, _) => false,
                other => panic!("{other:?}"),
            },
        }))
    }

    #[track_caller]
    fn check_reply(&self, input: &mut impl BufRead, keeps: bool) {
        assert_eq!(self.read_reply(input).unwrap(), Some(keeps));
    }
}

fn start(kind: Kind, dir: &Path) -> Server {
    match kind {
        Kind::Queue => {
            let data = dir.join("queue.db");
            Server::start(
                "queue-server",
                &["0", "TCP", "--data", data.to_str().unwrap()],
            )
        }
        Kind::History => Server::start("history-server", &server_line("history-server", dir)),
        Kind::Messages => Server::start("code-server", &server_line("code-server", dir)),
    }
}

pub fn post(body: &str) -> Vec<u8> {
    let bytes = body.len();
    let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n{body}");
    signed(request.as_bytes()).into_owned()
}

/// The status and the body of a reply.
pub fn read_http(input: &mut impl BufRead) -> io::Result<(u16, String)> {
    let head = ResponseHead::read(input, "POST").map_err(|error| match error {
        ResponseError::Io(error) => error,
        other => panic!("{other}"),
    })?;
    let BodyLength::Bytes(bytes) = head.body else {
        panic!("{head:?}");
    };
    let mut body = vec![0; bytes as usize];
    input.read_exact(&mut body)?;
    Ok((head.status, String::from_utf8(body).unwrap()))
}

pub fn code_of(addr: Address, uuid: Uuid) -> String {
    let mut stream = connect(addr);
    let request = post(&code::CodeRequest { uuid }.encode());
    stream.write_all(&request).unwrap();
    let (_, body) = read_http(&mut BufReader::new(stream)).unwrap();
    match code::Reply::decode(body.as_bytes()).unwrap() {
        code::Reply::Code(unique) => unique.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn replies_come_in_the_order_of_the_requests_in_whatever_pieces_those_do() {
    const REQUESTS: usize = 500;
    let keeps = |n: usize| !n.is_multiple_of(3);
    for kind in KINDS {
        let server = Crowded::start(kind);
        let stream = connect(server.addr);
        let mut replies = BufReader::new(&stream);
        // One after the other...
        for n in 0..REQUESTS {
            (&stream).write_all(&server.request(keeps(n))).unwrap();
            server.check_reply(&mut replies, keeps(n));
        }
        // ...and without waiting for any.
        let requests: Vec<u8> = (0..REQUESTS)
            .flat_map(|n| server.request(keeps(n)))
            .collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut noise, mut rest) = (Noise::new(1), requests.as_slice());
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(1 + noise.below(200)));
                    (&stream).write_all(piece).unwrap();
                    rest = after;
                }
                stream.shutdown(Shutdown::Write).unwrap();
            });
            for n in 0..REQUESTS {
                server.check_reply(&mut replies, keeps(n));
            }
            assert_eq!(server.read_reply(&mut replies).unwrap(), None);
        });
    }
}

#[test]
fn a_stop_waits_for_the_disk_and_for_nothing_else() {
    for kind in KINDS {
        let server = Crowded::start(kind);
        let request = server.request(true);
        let busy = AtomicUsize::new(0);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let stream = connect(server.addr);
                        let mut replies = BufReader::new(&stream);
                        let mut answered = 0;
                        // What was asked when the server had closed is not answered; but no reply
                        // comes by halves.
                        while (&stream).write_all(&request).is_ok() {
                            match server.read_reply(&mut replies) {
                                Ok(Some(keeps)) => {
                                    busy.fetch_add(usize::from(answered == 0), Ordering::SeqCst);
                                    answered += usize::from(keeps);
                                }
                                Ok(None) => break,
                                Err(error) => {
                                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                                    break;
                                }
                            }
                        }
                        answered
                    })
                })
                .collect();
            eventually("they are busy", || busy.load(Ordering::SeqCst) == 8);
            server.server.signal("TERM");
            let answered: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
            assert!(
                answered.iter().all(|answered| *answered > 0),
                "{answered:?}"
            );
        });
        let (code, log) = server.server.wait();
        assert_eq!(code, Some(0), "{log}");
        // That it waited in vain.
        assert!(!log.contains("were not finished"), "{log}");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_asks_without_pause() {
    const WINDOW: usize = 300;
    /// How many requests are written at once.
    const PIECE: usize = 20;
    for kind in [Kind::Queue, Kind::History] {
        let server = Crowded::start(kind);
        let (request, stream) = (server.request(true), connect(server.addr));
        // How many requests were answered; the writer is never more than a window ahead.
        let answered = Mutex::new(0);
        let changed = Condvar::new();
        let is_over = AtomicBool::new(false);
        // Each write ends in the middle of a request, so that another one has always begun.
        let (start, rest) = request.split_at(request.len() / 2);
        let piece = [rest, start].concat().repeat(PIECE);
        // Before anybody reads: it may log in first.
        (&stream).write_all(start).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for asked in (0..).step_by(PIECE) {
                    let seen = answered.lock().unwrap();
                    let is_ahead = |seen: &mut usize| {
                        asked >= *seen + WINDOW && !is_over.load(Ordering::SeqCst)
                    };
                    drop(changed.wait_while(seen, is_ahead).unwrap());
                    if (&stream).write_all(&piece).is_err() {
                        break;
                    }
                }
            });
            scope.spawn(|| {
                let mut replies = BufReader::new(&stream);
                let ended = loop {
                    match server.read_reply(&mut replies) {
                        Ok(Some(keeps)) => assert!(keeps),
                        other => break other,
                    }
                    *answered.lock().unwrap() += 1;
                    changed.notify_one();
                };
                is_over.store(true, Ordering::SeqCst);
                drop(answered.lock().unwrap());
                changed.notify_one();
                // Every reply that was sent arrives, and none by halves.
                assert_eq!(ended.unwrap(), None);
                let _ = stream.shutdown(Shutdown::Both);
            });
            eventually("it asks", || *answered.lock().unwrap() > 2 * WINDOW);
            server.server.signal("TERM");
        });
        let (code, log) = server.server.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("were not finished"), "{log}");
    }
}

#[test]
fn what_was_asked_for_is_done_also_when_nobody_is_there_for_the_reply() {
    const CLIENTS: usize = 200;
    let server = Crowded::start(Kind::Queue);
    let request = server.request(true);
    for _ in 0..CLIENTS {
        connect(server.addr).write_all(&request).unwrap();
    }
    // The last of them may not be accepted yet when they are gone: only the queue knows who was heard.
    eventually("what they asked for is done", || {
        let stats = crate::work::client(&server.server).stats().unwrap();
        let kept: u64 = stats.queues.iter().map(|queue| queue.ready).sum();
        kept == CLIENTS as u64
    });
    eventually("they are gone", || {
        server.server.connections() == server.crowd.len()
    });
    let mut stream = connect(server.addr);
    let receive = receive_request(Delivery::AtMostOnce);
    let mut requests = Vec::new();
    (0..=CLIENTS).for_each(|_| receive.encode(&mut requests));
    stream.write_all(&requests).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    let (mut input, mut payload) = (replies.as_slice(), Vec::new());
    let mut received = 0;
    while let Some(kind) = frame::read(&mut input, 5000, &mut payload).unwrap() {
        match Reply::decode(kind, &payload).unwrap() {
            Reply::Message { body: b"kept", .. } => received += 1,
            other => assert_eq!((other, received), (Reply::Empty, CLIENTS)),
        }
    }
    assert_eq!(received, CLIENTS);
}

/// A client pipelines more than may wait for replies, and resets the connection: the change whose
/// reply has no place is committed all the same, and done in memory too.
#[test]
fn what_a_client_has_leased_that_resets_its_connection_comes_back() {
    const BODY_BYTES: usize = 600 << 10;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let data = data.to_str().unwrap();
    let server = crate::work::start(&["tcp", "--max-message", "700K", "--data", data]);
    let mut client = crate::work::client(&server);
    for _ in 0..2 {
        client.send(&[b'x'; BODY_BYTES]).unwrap();
    }
    let mut lost = server.connect();
    let mut requests = Vec::new();
    Request::Stats.encode(&mut requests);
    // Over TLS, what arrives first are tickets, before the server has read a request.
    lost.write_all(&requests).unwrap();
    let mut input = BufReader::new(&lost);
    frame::read(&mut input, 5000, &mut Vec::new()).unwrap();
    lost.write_all(&requests).unwrap();
    // What is not read when a socket is closed makes a reset of it.
    lost.peek().unwrap();
    requests.clear();
    let delivery = Delivery::Lease { lease_millis: 1000 };
    for _ in 0..2 {
        receive_request(delivery).encode(&mut requests);
    }
    lost.write_all(&requests).unwrap();
    drop(lost);
    let attempts = std::cell::Cell::new(0);
    eventually("both are leased, and ready again", || {
        let stats = crate::work::client(&server).stats().unwrap();
        let queue = &stats.queues[0];
        attempts.set(attempts.get().max(queue.reserved));
        (queue.ready, queue.reserved) == (2, 0) && attempts.get() > 0
    });
}
