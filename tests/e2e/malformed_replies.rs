//! A server that lies: it sends what drives a terminal, or answers so slowly that its client would wait
//! for ever. Its client ends in time, with a message in plain letters.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::Message;
use proto::{history, queue};

use crate::harness::{PATIENCE, Ran, Then, fake_server, on_a_terminal, program, run, run_command};
use crate::work::{check, say, start};

/// What would turn the terminal red, rename its window, and write from right to left.
const EVIL: &str = "\x1b[31mred\x1b]0;x\x07\u{9b}1m\u{61c}\u{202e}\nnext";
const SHOWN: &str = r"\u{1b}[31mred\u{1b}]0;x\u{7}\u{9b}1m\u{61c}\u{202e}\nnext";

fn encode<'a>(replies: &[impl Message<'a>]) -> Vec<u8> {
    let mut out = Vec::new();
    for reply in replies {
        reply.encode(&mut out);
    }
    out
}

fn http(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let bytes = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {bytes}");
    format!("{head}\r\n\r\n{body}").into_bytes()
}

/// A client's run at a server that answers with these bytes.
#[track_caller]
fn answered(name: &str, verb: &str, reply: Vec<u8>) -> Ran {
    let port = fake_server(reply, Then::Close).to_string();
    at(name, verb, &port)
}

#[track_caller]
fn at(name: &str, verb: &str, port: &str) -> Ran {
    let mut args = vec!["127.0.0.1", port];
    if name == "code-client" {
        args.push(port);
    }
    args.extend(verb.split_whitespace());
    run(name, &args, b"")
}

#[test]
fn a_refusal_is_one_line_of_plain_letters() {
    let error = || ErrorReply {
        code: ErrorCode::Full,
        sentence: EVIL,
    };
    let json = serde_json::json!({ "success": false, "error": EVIL }).to_string();
    let refused = http("403 No", "application/json", &json);
    let file = http("403 \u{9b}1m", "text/plain", EVIL);
    for (name, verb, reply) in [
        (
            "queue-client",
            "list",
            encode(&[queue::Reply::Error(error())]),
        ),
        (
            "history-client",
            "get al",
            encode(&[history::Reply::Error(error())]),
        ),
        ("code-client", "request", refused),
        ("file-client", "get a -o -", file),
    ] {
        let ran = answered(name, verb, reply).expect(1);
        // The file client takes the first line.
        let shown = SHOWN.strip_suffix(r"\nnext").unwrap();
        assert!(ran.stderr.contains(shown), "{name}: {:?}", ran.stderr);
        let line = ran.stderr.trim_end_matches('\n');
        assert!(!line.contains(|c: char| c.is_control()), "{name}: {line:?}");
    }
}

#[test]
fn a_refusal_without_end_is_cut() {
    let sentence = "x".repeat(1 << 20);
    let error = ErrorReply {
        code: ErrorCode::Full,
        sentence: &sentence,
    };
    let ran = answered(
        "queue-client",
        "list",
        encode(&[queue::Reply::Error(error)]),
    )
    .expect(1);
    assert!(ran.stderr.ends_with("…\n"));
    assert!(ran.stderr.len() < 10_000, "{}", ran.stderr.len());
}

#[test]
fn who_says_too_early_that_there_is_nothing_is_not_asked_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut requests = 0;
        while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
            requests += 1;
            let _ = stream.write_all(&encode(&[queue::Reply::Empty]));
        }
        requests
    });
    at("queue-client", "receive --wait 0.5", &port).expect(1);
    let requests = server.join().unwrap();
    assert!((2..=12).contains(&requests), "{requests} requests");
}

#[test]
fn what_was_shown_is_not_asked_for_again() {
    let refused = history::Reply::Error(ErrorReply {
        code: ErrorCode::ShuttingDown,
        sentence: "shutting down",
    });
    let reply = encode(&[
        history::Reply::About("hello\n"),
        history::Reply::Text(b"1 x\n"),
        refused,
    ]);
    let ran = answered("history-client", "get al --wait-for-server 1", reply).expect(3);
    assert_eq!(ran.out(), "1 x\n");
    assert_eq!(ran.stderr, "history-client: shutting down\n");
}

#[test]
fn a_greeting_is_plain_letters() {
    let done = history::Reply::Done("");
    let greeting = encode(&[history::Reply::About(EVIL), done]);
    let ran = answered("history-client", "hello al -v", greeting).expect(0);
    let shown = SHOWN.replace(r"\n", "\n");
    assert!(ran.stderr.contains(&shown), "{}", ran.stderr);
}

#[test]
fn what_was_not_asked_for_is_no_answer() {
    use history::Reply::{About, Done, Text};
    for reply in [
        encode(&[About("a"), About("b"), Done("")]),
        encode(&[About("a"), Text(b"1 x\n"), Done("")]),
    ] {
        let ran = answered("history-client", "clear al", reply).expect(3);
        assert!(
            ran.stderr.contains("does not match the request"),
            "{}",
            ran.stderr
        );
    }
    let queue = queue::QueueStats {
        name: EVIL.into(),
        ready: 1,
        reserved: 0,
        delayed: 0,
        dead: 0,
        waiters: 0,
        oldest_millis: 0,
        oldest_reserved_millis: 0,
        is_paused: false,
    };
    let reply = queue::Reply::Stats {
        totals: queue::Totals::default(),
        queues: vec![queue],
    };
    for verb in ["list", "stats", "stats --json"] {
        let ran = answered("queue-client", verb, encode(std::slice::from_ref(&reply))).expect(3);
        assert_eq!(ran.out(), "");
        assert!(ran.stderr.contains("is malformed"), "{}", ran.stderr);
    }
}

#[test]
fn data_is_plain_letters_on_a_terminal_and_as_it_is_in_a_pipe() {
    let server = start(&["tcp"]);
    let [host, port] = server.host_and_ports().try_into().unwrap();
    say(&server, "send -", EVIL.as_bytes()).expect(0);
    check(&server, "peek", "", 0, EVIL);
    let text = format!("1 {EVIL}\n");
    let done = history::Reply::Done("");
    let get = encode(&[history::Reply::Text(text.as_bytes()), done]);
    let history = fake_server(get.clone(), Then::Close).to_string();
    assert_eq!(
        at("history-client", "get al", &history).expect(0).out(),
        text
    );
    let shown = SHOWN.replace(r"\n", "\r\n");
    for (client, port, verb, want) in [
        ("queue-client", &port, "peek", shown.clone()),
        ("queue-client", &port, "receive", shown.clone()),
        (
            "history-client",
            &history,
            "get al",
            format!("1 {shown}\r\n"),
        ),
    ] {
        let mut command = Command::new(program(client));
        command.args([&host, port]).args(verb.split_whitespace());
        let ran = run_command(on_a_terminal("stdout", &command), b"").expect(0);
        assert_eq!(ran.out(), want, "{client} {verb}");
    }
}

#[test]
fn a_file_that_is_the_terminal_is_plain_letters_there() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("terminal");
    symlink("/proc/self/fd/1", &link).unwrap();
    let port = fake_server(http("200 OK", "text/plain", EVIL), Then::Close).to_string();
    let mut client = Command::new(program("file-client"));
    client
        .args(["127.0.0.1", &port, "get", "a", "-o"])
        .arg(&link);
    let ran = run_command(on_a_terminal("stdout", &client), b"").expect(0);
    assert_eq!(ran.out(), SHOWN.replace(r"\n", "\r\n"));
    assert!(link.is_symlink());
}

/// A server that answers each connection with this, and then sends that again and again, with a
/// pause before each. Returns its port.
fn endless(start: Vec<u8>, again: &'static [u8], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), &start, again, pause);
        }
    });
    port.to_string()
}

fn serve(mut stream: TcpStream, start: &[u8], again: &[u8], pause: Duration) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let end = Instant::now() + PATIENCE;
    // The client may leave at any time.
    let _ = stream.read(&mut [0; 4096]);
    let mut written = stream.write_all(start);
    while written.is_ok() && Instant::now() < end {
        thread::park_timeout(pause);
        written = stream.write_all(again);
    }
}

const VERBS: [(&str, &str); 6] = [
    ("code-client", "request"),
    ("history-client", "get al"),
    ("queue-client", "stats"),
    ("queue-client", "receive"),
    ("file-client", "get a -o -"),
    ("file-client", "head a"),
];

/// Checks that a client gives up a reply that trickles: it starts so, and then a byte comes now and then.
#[track_caller]
fn check_given_up(name: &str, verb: &str, start: &[u8]) {
    let port = endless(start.to_vec(), b"x", Duration::from_millis(100));
    let ran = at(name, &format!("{verb} --timeout 0.4"), &port).expect(3);
    assert!(
        ran.stderr.contains("did not answer in time"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_reply_that_trickles_is_given_up() {
    for (name, verb) in VERBS {
        let start: &[u8] = match name {
            "code-client" | "file-client" => b"HTTP/1.1 200 OK\r\nX: ",
            // A frame of 15 MB.
            _ => b"\0\xef\xff\xff\x62",
        };
        check_given_up(name, verb, start);
    }
    let body = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
    for (name, verb) in [
        ("code-client", "request"),
        ("file-client", "get a -o -"),
        ("file-client", "list"),
    ] {
        let start = match verb {
            // Inside of a text, whatever comes may be right.
            "list" => {
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"path\":\"".as_slice()
            }
            _ => body,
        };
        check_given_up(name, verb, start);
    }
}

#[test]
fn interim_replies_without_end_are_no_answer() {
    let again = b"HTTP/1.1 103 Wait\r\n\r\n";
    for (name, verb) in VERBS {
        if !matches!(name, "code-client" | "file-client") {
            continue;
        }
        let port = endless(Vec::new(), again, Duration::ZERO);
        let ran = at(name, verb, &port).expect(3);
        assert!(ran.stderr.contains("interim responses"), "{}", ran.stderr);
        let port = endless(Vec::new(), again, Duration::from_millis(100));
        let ran = at(name, &format!("{verb} --timeout 0.4"), &port).expect(3);
        assert!(
            ran.stderr.contains("did not answer in time"),
            "{}",
            ran.stderr
        );
    }
}
