//! What a client gets for what it sends, over loopback.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use super::*;
use crate::accept::serve;
use crate::access::Access;
use crate::lock;
use crate::protocol::{Protocols, Unserved};
use crate::registry::Registry;
use crate::visitors::Hosts;

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers by the path. `/later` is answered by another thread, `/dropped` by none, and `/stop` stops
/// the server.
#[derive(Default)]
struct Answers {
    server: OnceLock<Arc<Registry>>,
    /// What was logged: the status and the length of each reply.
    replied: Mutex<Vec<(u16, u64)>>,
}

impl HttpHandler for Answers {
    fn handle(
        &self,
        _caller: &Caller,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal> {
        let text = |text: &str| Response::new(Status::Ok, "text/plain", text);
        Ok(match request.path {
            "/echo" => {
                let mut echo = Vec::new();
                body.read_to_end(&mut echo).map_err(|e| body_refusal(&e))?;
                Handled::Now(Response::new(Status::Ok, "text/plain", echo))
            }
            "/none" => Handled::Now(Response::empty(Status::NoContent)),
            "/bare" => Handled::Now(Response {
                body: Content::Bare(b"bare".to_vec()),
                ..text("")
            }),
            "/pieces" => Handled::Now(Response {
                body: Content::Stream(PieceStream::new(Letters("a-b"))),
                ..text("")
            }),
            "/broken" => Handled::Now(Response {
                body: Content::Stream(PieceStream::new(Letters("a!"))),
                ..text("")
            }),
            "/later" => later(Box::new(move |pending| {
                thread::spawn(move || pending.complete(&text("later")));
            })),
            "/dropped" => later(Box::new(drop)),
            "/kept" => Handled::Now(Response {
                body: Content::Kept(Arc::new("kept")),
                ..text("")
            }),
            "/kept-later" => later(Box::new(move |pending| {
                let body = Content::Kept(Arc::new("kept later"));
                thread::spawn(move || pending.complete(&Response { body, ..text("") }));
            })),
            "/on-connection" => Handled::OnConnection(Box::new(move |connection| {
                let peer = connection.peer().to_string();
                Ok(Ok(later(Box::new(move |pending| {
                    let is_peer = peer.starts_with("127.0.0.1");
                    pending.complete(&text(if is_peer { "its peer" } else { "no peer" }));
                }))))
            })),
            "/refused-on-connection" => Handled::OnConnection(Box::new(|_| {
                Ok(Err(Refusal::new(Status::Conflict, "not now")))
            })),
            "/stop" => {
                self.server.get().unwrap().stop();
                Handled::Now(text("stopping"))
            }
            "/panic" => panic!("as it was asked to"),
            _ => Handled::Now(text(request.path)),
        })
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        Response::new(refusal.status, "text/plain", &*refusal.sentence)
    }

    fn replied(&self, _caller: &Caller, _head: &[u8], status: Status, bytes: u64) {
        lock(&self.replied).push((status.code(), bytes));
    }

    fn idle_timeout(&self, _open_connections: usize) -> Duration {
        PATIENCE
    }
}

fn later(hand_over: Box<dyn FnOnce(PendingResponse)>) -> Handled {
    Handled::Later {
        body_bytes: 0,
        hand_over,
    }
}

/// Makes a piece of each letter, twice; of `-` an empty one, and `!` cannot be made.
struct Letters(&'static str);

impl Pieces for Letters {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let (letter, rest) = self.0.split_at(1);
        match letter {
            "!" => return Err(io::Error::other("!")),
            "-" => {}
            letter => out.extend(letter.repeat(2).bytes()),
        }
        self.0 = rest;
        Ok(!rest.is_empty())
    }
}

/// A server that answers for the host `h`.
fn registry() -> Arc<Registry> {
    let access = Access {
        hosts: Hosts::new(vec!["h".to_owned()]),
        ..Access::default()
    };
    Registry::with(10, access, None)
}

fn http() -> Arc<Answers> {
    Arc::default()
}

fn port(handler: Arc<Answers>) -> Protocols {
    let probes = Probes::new("", Arc::new(()));
    Http { handler, probes }.into()
}

/// A connection that is served until it ends; what the client sends, and all that it gets.
fn talk(registry: &Arc<Registry>, http: Arc<Answers>, sent: &str) -> String {
    talk_to(registry, port(http), sent)
}

fn talk_to(registry: &Arc<Registry>, protocols: Protocols, sent: &str) -> String {
    try_to_talk(registry, protocols, sent).unwrap()
}

fn try_to_talk(registry: &Arc<Registry>, protocols: Protocols, sent: &str) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, peer) = listener.accept().unwrap();
    let registration = registry.register(stream.into(), peer.into()).unwrap();
    let protocols = Arc::new(protocols);
    let served = thread::spawn(move || serve(registration, protocols));
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(sent.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    let read = client.read_to_string(&mut got);
    drop(client);
    // An error is a panic that a test asked for.
    let _ = served.join();
    read.map(|_| got)
}

/// The replies in short: each has its status, `close` or `keep-alive` if it says so, and its body.
/// `HEAD` requests have none.
fn in_short(mut got: &str, is_head: bool) -> Vec<String> {
    let mut replies = Vec::new();
    while !got.is_empty() {
        let Some((head, rest)) = got.split_once("\r\n\r\n") else {
            replies.push(got.to_owned());
            break;
        };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let status = head["HTTP/1.1 ".len()..].split(' ').next().unwrap();
        let length = field("Content-Length: ").map_or(0, |length| length.parse().unwrap());
        let (body, rest) = rest.split_at(if is_head { 0 } else { length });
        let connection = field("Connection: ").unwrap_or_default();
        let parts = [status, connection, body];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        replies.push(parts.join(" "));
        got = rest;
    }
    replies
}

#[track_caller]
fn check(sent: &str, want: &[&str]) {
    let http = http();
    let got = talk(&registry(), Arc::clone(&http), sent);
    assert_eq!(in_short(&got, sent.starts_with("HEAD")), want, "{sent}");
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn post(framing: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}")
}

#[test]
fn replies_come_in_the_order_of_the_requests() {
    let [a, later, none] = ["/a", "/later", "/none"].map(get);
    check(&a, &["200 /a"]);
    let all = [a.as_str(), &later, &none, &later, &a].concat();
    check(&all, &["200 /a", "200 later", "204", "200 later", "200 /a"]);
    let bodies = [
        post("Content-Length: 3", "one"),
        post("Transfer-Encoding: chunked", "3\r\ntwo\r\n0\r\n\r\n"),
        a,
    ];
    check(&bodies.concat(), &["200 one", "200 two", "200 /a"]);
}

#[test]
fn a_reply_may_need_the_connection_and_its_body_may_stay_where_it_is() {
    let paths = [
        "/later",
        "/kept-later",
        "/kept",
        "/on-connection",
        "/refused-on-connection",
        "/a",
    ];
    let want = [
        "200 later",
        "200 kept later",
        "200 kept",
        "200 its peer",
        "409 not now",
        "200 /a",
    ];
    check(&paths.map(get).concat(), &want);
    for path in ["/kept", "/kept-later"] {
        let got = talk(&registry(), http(), &get(path).replace("GET", "HEAD"));
        assert!(
            got.contains("Content-Length: ") && got.ends_with("\r\n\r\n"),
            "{got}"
        );
    }
}

#[test]
fn a_body_that_is_made_while_it_is_sent_ends_visibly() {
    let answer = |sent: &str| talk(&registry(), http(), sent);
    let head = "Transfer-Encoding: chunked\r\n\r\n";
    let got = answer(&[get("/pieces"), get("/a")].concat());
    let (_, chunks) = got.split_once(head).unwrap();
    let rest = chunks
        .strip_prefix("2\r\naa\r\n2\r\nbb\r\n0\r\n\r\n")
        .unwrap();
    assert_eq!(in_short(rest, false), ["200 /a"]);
    // Half of it does not look like all of it, and nothing comes behind it.
    let got = answer(&[get("/broken"), get("/a")].concat());
    assert!(got.ends_with(&format!("{head}2\r\naa")), "{got}");
    let got = answer(&get("/pieces").replace("GET", "HEAD"));
    assert!(got.ends_with(head), "{got}");
    // HTTP/1.0 has no chunks.
    let got = answer("GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(!got.contains("Transfer-Encoding"), "{got}");
    assert!(got.ends_with("Connection: close\r\n\r\naabb"), "{got}");
}

#[test]
fn a_client_without_chunks_does_not_take_a_part_for_all() {
    let broken = "GET /broken HTTP/1.0\r\n\r\n";
    let got = try_to_talk(&registry(), port(http()), broken);
    let kind = got.map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn a_connection_goes_on_as_the_client_wants_it() {
    let next = get("/next");
    let closes = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    check(&format!("{closes}{next}"), &["200 close /a"]);
    check(&format!("GET /a HTTP/1.0\r\n\r\n{next}"), &["200 close /a"]);
    let keeps = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    check(
        &format!("{keeps}{next}"),
        &["200 keep-alive /a", "200 /next"],
    );
    // Also where another thread replies.
    let closes = closes.replace("/a", "/later");
    check(&format!("{closes}{next}"), &["200 close later"]);
    check(&format!("{}{next}", get("/bare")), &["bare"]);
}

#[test]
fn a_body_that_is_waited_for_is_asked_for() {
    let next = get("/next");
    let expects = "Content-Length: 3\r\nExpect: 100-continue";
    let sent = post(expects, "one");
    check(&format!("{sent}{next}"), &["100", "200 one", "200 /next"]);
    // Nobody wants this one, so nobody asks for it, and what follows cannot be told from it.
    let unread = sent.replace("/echo", "/unread");
    check(&format!("{unread}{next}"), &["200 close /unread"]);
    check(
        &post("Content-Length: 3", "o"),
        &["400 close the connection ended inside the body"],
    );
}

#[test]
fn what_is_refused_ends_the_connection() {
    let next = get("/next");
    for (refused, status) in [
        ("nonsense\r\n\r\n", "400 close"),
        ("GET / HTTP/1.1\r\n\r\n", "400 close"),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", "505 close"),
        (
            "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400 close",
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
            "400 close",
        ),
        ("GET /a HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421 close"),
        (
            "POST /echo HTTP/1.1\r\nHost: h\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\n\r\n",
            "403 close",
        ),
    ] {
        let http = http();
        let got = talk(&registry(), http, &format!("{refused}{next}"));
        let replies = in_short(&got, false);
        assert_eq!(replies.len(), 1, "{refused}: {got}");
        assert!(replies[0].starts_with(status), "{refused}: {got}");
    }
}

#[test]
fn a_head_has_no_body_but_its_length() {
    let head = get("/a").replace("GET", "HEAD");
    check(&head, &["200"]);
    check(&head.replace("/a", "/later"), &["200"]);
    let http = http();
    let got = talk(&registry(), Arc::clone(&http), &head);
    assert!(got.contains("Content-Length: 2\r\n"), "{got}");
    assert_eq!(*lock(&http.replied), [(200, 0)]);
}

#[test]
fn a_stopping_server_ends_each_connection_after_its_reply() {
    let registry = registry();
    let http = http();
    assert!(http.server.set(Arc::clone(&registry)).is_ok());
    let sent = get("/a") + &get("/stop") + &get("/a");
    let got = talk(&registry, Arc::clone(&http), &sent);
    assert_eq!(in_short(&got, false), ["200 /a", "200 close stopping"]);
    assert_eq!(talk(&registry, http, ""), "");
}

#[test]
fn a_server_that_does_not_serve_says_why_to_those_that_watch_it_and_is_still_counted() {
    let probes = Probes::new("", Arc::new(())).unavailable("stands by");
    let handler = http();
    let port = Http { handler, probes };
    let got = talk_to(&registry(), port.into(), &(get("/healthz") + &get("/a")));
    assert_eq!(in_short(&got, false), ["503 stands by\n", "200 /a"]);
    let probes = Probes::new("", Arc::new(())).unavailable("stands by");
    let port = Http::probes_only(probes, "a test");
    let page = talk_to(&registry(), port.into(), &get("/metrics"));
    assert!(page.contains("quartet_connections"), "{page}");
}

#[test]
fn what_happens_to_one_connection_happens_to_it_alone() {
    let registry = registry();
    let http = http();
    for path in ["/panic", "/dropped"] {
        let sent = get("/before") + &get(path) + &get("/after");
        let got = talk(&registry, Arc::clone(&http), &sent);
        // What was not sent yet is lost with it.
        assert!(!got.contains("after"), "{path}: {got}");
        assert_eq!(registry.open(), 0, "{path}");
    }
    let got = talk(&registry, Arc::clone(&http), &get("/a"));
    assert_eq!(in_short(&got, false), ["200 /a"]);
}

#[test]
fn a_client_that_is_turned_away_is_told_in_http() {
    let busy = port(http()).refusal(b"", Unserved::Busy);
    let busy = in_short(str::from_utf8(&busy).unwrap(), false);
    assert_eq!(busy.len(), 1);
    assert!(
        busy[0].starts_with("503 close the server has as many"),
        "{busy:?}"
    );
}

#[test]
fn every_reply_is_logged_as_it_was_sent() {
    let http = http();
    let sent = get("/four") + &get("/none") + "nonsense\r\n\r\n";
    talk(&registry(), Arc::clone(&http), &sent);
    let replied = lock(&http.replied);
    assert_eq!(replied[..2], [(200, 5), (204, 0)]);
    assert_eq!((replied.len(), replied[2].0), (3, 400));
}
