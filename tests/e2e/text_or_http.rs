//! Text and HTTP on one port: no web page's request is ever a message or a line, and no text is kept
//! waiting for more, or taken for HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};

use tempfile::TempDir;

use crate::file::Tree;
use crate::harness::{
    Needs, Server, eventually, has_door, is_installed, python, read_to_end, skipped,
};

const WHY: &str = "the text protocols are spoken in the open";

/// A queue and a history.
struct Servers {
    queue: Server,
    history: Server,
    data: TempDir,
}

impl Servers {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().to_str().unwrap();
        Self {
            queue: Server::start("queue-server", &["0", "BOTH", "-v"]),
            history: Server::start("history-server", &["0", "--data-dir", dir, "-v"]),
            data,
        }
    }

    /// What a text client gets that sends these pieces and ends its half.
    fn exchange(server: &Server, pieces: &[&[u8]]) -> String {
        let mut stream = server.connect();
        for piece in pieces {
            stream.write_all(piece).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        String::from_utf8(read_to_end(stream)).unwrap()
    }

    fn oldest(&self) -> String {
        Self::exchange(&self.queue, &[b"<<GET>>"])
    }

    #[track_caller]
    fn check_untouched(&self) {
        assert_eq!(self.oldest(), "Error - no messages in queue.");
        let history = fs::read_to_string(self.data.path().join("history.txt")).unwrap();
        assert_eq!(history, "");
    }
}

#[test]
fn http_is_neither_a_message_nor_a_line() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let servers = Servers::start();
    let host = "Host: 127.0.0.1\r\n";
    let long = "x".repeat(20_000);
    for (request, status) in [
        (format!("GET /x HTTP/1.1\r\n{host}\r\n"), 404),
        (
            format!("POST /x HTTP/1.1\r\n{host}Content-Length: 7\r\n\r\nalice 3"),
            404,
        ),
        (
            format!(
                "POST / HTTP/1.1\r\n{host}Origin: http://evil.example\r\nContent-Length: 1\r\n\r\nx"
            ),
            403,
        ),
        (
            "POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
            421,
        ),
        ("GET / HTTP/1.1\nHost: x\n\n".to_owned(), 400),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/0.9\r\n\r\n".to_owned(), 505),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 414),
        (format!("GET /{long}{long}{long}"), 414),
        (format!("GET http://{long}"), 414),
    ] {
        let bytes = request.as_bytes();
        let in_pieces: Vec<_> = bytes.chunks(3).take(100).collect();
        for server in [&servers.queue, &servers.history] {
            let mut ways = vec![vec![bytes]];
            if in_pieces.concat() == bytes {
                ways.push(in_pieces.clone());
            }
            for pieces in ways {
                let reply = Servers::exchange(server, &pieces);
                let start = format!("HTTP/1.1 {status} ");
                assert!(reply.starts_with(&start), "{request:.60}: {reply:.200}");
            }
        }
    }
    servers.check_untouched();
}

/// A limit that is shorter than a method cuts nothing, and neither does the end of the stream.
#[test]
fn the_start_of_a_request_is_neither_a_message_nor_a_line() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let mut servers = Servers::start();
    let line = ["0", "TCP", "-v", "--max-message", "7"];
    servers.queue = Server::start("queue-server", &line);
    for start in [
        "POST /x",
        "GET / HTTP/1.1",
        "GET http://x",
        "OPTIONS / HT",
        "POST ",
        "DELETE http",
    ] {
        for server in [&servers.queue, &servers.history] {
            let reply = Servers::exchange(server, &[start.as_bytes()]);
            assert!(reply.starts_with("HTTP/1.1 400 "), "{start}: {reply}");
            let why = "a text that begins so must end with a line break";
            assert!(reply.contains(why), "{start}: {reply}");
        }
    }
    let request = ["OPTIONS", " / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"].map(str::as_bytes);
    let reply = Servers::exchange(&servers.queue, &request);
    assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
    servers.check_untouched();
    Servers::exchange(&servers.queue, &[b"POST /x\n"]);
    assert_eq!(servers.oldest(), "POST /x");
}

#[test]
fn a_datagram_with_http_is_no_message() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let servers = Servers::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |datagram: &[u8]| {
        socket
            .send_to(datagram, servers.queue.addr().tcp())
            .unwrap()
    };
    send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    send(b"GET / HTTP/1.1");
    let dropped = "it is HTTP";
    let count = |log: &str| log.matches(dropped).count();
    servers.queue.wait_for_log(|log| count(log) == 2);
    servers.check_untouched();
    send(b"GET /");
    eventually("it is there", || servers.oldest() == "GET /");
}

#[test]
fn what_only_looks_like_http_is_text() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let servers = Servers::start();
    let long = format!("WORDS {}", "x".repeat(2000));
    for message in [
        "HELLO",
        "HELLO ",
        "HELLO world",
        "POST",
        "POST hello",
        "GET me a coffee",
        "GET / HTTP/x",
        "ERROR /var/log is full",
        "HELLO\r\nGET / HTTP/1.1\r\n",
        &long,
    ] {
        let (start, end) = message.split_at(3);
        for pieces in [
            vec![message.as_bytes()],
            vec![start.as_bytes(), end.as_bytes()],
        ] {
            assert_eq!(Servers::exchange(&servers.queue, &pieces), "");
            assert_eq!(servers.oldest(), message);
        }
    }
    for line in ["ALICE", "ALICE 2", "A-B 2\n", "BOB 1 7\r\n"] {
        let reply = Servers::exchange(&servers.history, &[line.as_bytes()]);
        assert!(reply.starts_with("Source: "), "{line}: {reply}");
    }
}

/// Nobody ends its half, so each reply comes because it is known that the line is no HTTP.
#[test]
fn a_text_that_is_not_ambiguous_is_answered_at_once() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let servers = Servers::start();
    for line in ["ALICE 2\r\n", "ALICE\n", "alice\n", "HTTP /1.1\n"] {
        let mut stream = servers.history.connect();
        stream.write_all(line.as_bytes()).unwrap();
        let mut start = [0; 8];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"Source: ", "{line}");
    }
    let long = format!("ALICE {}", "x".repeat(300));
    let mut stream = servers.history.connect();
    stream.write_all(long.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(
        reply.ends_with("at most 256 bytes of UTF-8 text.\n"),
        "{reply}"
    );
    let mut stream = servers.queue.connect();
    stream.write_all(b"<<GET>>").unwrap();
    assert_eq!(read_to_end(stream), b"Error - no messages in queue.");
}

#[test]
fn a_browser_that_shows_a_page_of_another_site_changes_nothing_here() {
    if !has_door(Needs::Plain, "the page knows no other") {
        return;
    }
    if !is_installed("chromium") {
        return skipped("there is no chromium");
    }
    let servers = Servers::start();
    let tree = Tree::new();
    let file = tree.start(&["-v"]);
    let data = tempfile::tempdir().unwrap();
    let line = ["0", "0", "-v", "--data-dir", data.path().to_str().unwrap()];
    let code = Server::start("code-server", &line);
    let before = tree.inside();
    let all = [&servers.queue, &servers.history, &file, &code];
    let addrs = all.iter().flat_map(|server| server.addrs.iter());
    let ports: Vec<_> = addrs.map(|addr| addr.port().to_string()).collect();
    let mut args = vec!["chromium".to_owned()];
    args.extend(ports.iter().cloned());
    let shown = python("cross_site.py", &args).expect(0).out();
    let refused = "does not answer for the host &#39;rebound.example&#39;";
    let plain = refused.replace("&#39;", "'");
    for line in shown.lines() {
        assert!(line.contains(refused) || line.contains(&plain), "{shown}");
    }
    assert_eq!(shown.lines().count(), ports.len());
    for server in all {
        let log = server.log();
        // It has tried.
        assert!(log.contains("POST /"), "{log}");
        assert!(
            log.contains("a page of another site may not change"),
            "{log}"
        );
    }
    servers.check_untouched();
    assert_eq!(tree.inside(), before);
    assert_eq!(fs::read(data.path().join("codes.txt")).unwrap(), b"");
}
