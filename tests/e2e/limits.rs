//! What one peer, or ten thousand, must not do to the others: limits on connections, and nothing
//! that leaks.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use proto::ErrorCode;
use proto::frame;
use proto::frame::Message;
use proto::queue::Reply;
use proto::text::QUEUE_EMPTY;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::harness::{
    Server, Stream, connect, eventually, exchange, program, read_to_end, run_command, send_request,
    skipped,
};
use crate::programs::server_line;

/// A request that each server answers, and how a good answer starts.
pub const GOOD: [(&str, &[u8], &[u8]); 4] = [
    (
        "code-server",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\n\r\n{\"uuid\": \"67e55044-10b1-426f-9247-bb680e5fe0c8\"}",
        b"HTTP/1.1 200 OK\r\n",
    ),
    // A framed receive; the answer is that the queue is empty.
    (
        "queue-server",
        b"\0\0\0\x0f\x02\x01\x07default\0\0\0\0\0",
        b"\0\0\0\x01\x44",
    ),
    ("history-server", b"alice\n", b"Source: "),
    ("file-server", b"GET /hello.txt HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
];

pub fn start(name: &str, options: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hello.txt"), "hello\n").unwrap();
    let mut line = server_line(name, dir.path());
    line.extend(options);
    (Server::start(name, &line), dir)
}

#[track_caller]
pub fn check_answers(server: &Server, request: &[u8], answer: &[u8]) {
    let reply = exchange(server.addr(), request);
    assert!(
        reply.starts_with(answer),
        "{:?}",
        String::from_utf8_lossy(&reply)
    );
}

/// The most threads that a server has without connections; not all of them are there when
/// it first answers.
const THREADS_AT_REST: usize = 9;

#[test]
fn ten_thousand_connections_leak_nothing() {
    for (name, request, answer) in GOOD {
        let (server, _dir) = start(name, &[]);
        check_answers(&server, request, answer);
        eventually("it is at rest", || server.threads() <= THREADS_AT_REST);
        let descriptors = server.descriptors();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..2500 {
                        match n % 3 {
                            0 => check_answers(&server, request, answer),
                            1 => drop(connect(server.addr())),
                            // Leaves in the middle of a request, without reading.
                            _ => drop(connect(server.addr()).write_all(&request[..5])),
                        }
                    }
                });
            }
        });
        eventually("every thread and descriptor is given back", || {
            server.threads() <= THREADS_AT_REST && server.descriptors() <= descriptors
        });
        check_answers(&server, request, answer);
    }
}

/// What a plain connection over the limit is told.
pub const BUSY: &str = "server has as many connections as it accepts";

#[test]
fn over_the_limit_a_connection_is_told_so() {
    for (name, request, answer) in GOOD {
        let (server, _dir) = start(name, &["--max-connections", "3"]);
        // Silent connections make room, but not in their first moment.
        let told = |request: &[u8]| {
            let _held: Vec<Stream> = (0..3).map(|_| server.connect()).collect();
            exchange(server.addr(), request)
        };
        let is_told_so = |request: &[u8], is_so: &dyn Fn(&[u8]) -> bool| {
            eventually(name, || is_so(&told(request)));
        };
        let says = |reply: &[u8], what: &str| String::from_utf8_lossy(reply).contains(what);
        match name {
            "queue-server" => is_told_so(b"<<GET>>", &|reply| says(reply, BUSY)),
            "history-server" => is_told_so(b"alice\n", &|reply| says(reply, BUSY)),
            _ => is_told_so(request, &|reply| reply.starts_with(b"HTTP/1.1 503 ")),
        }
        if let "queue-server" | "history-server" = name {
            let mut framed = Vec::new();
            send_request(b"x").encode(&mut framed);
            is_told_so(&framed, &|reply| error_code(reply) == Some(ErrorCode::Busy));
        }
        eventually("there is room again", || {
            exchange(server.addr(), request).starts_with(answer)
        });
    }
}

/// The code of a framed error.
pub fn error_code(reply: &[u8]) -> Option<ErrorCode> {
    let (kind, payload) = frame::split(reply).ok()?;
    match Reply::decode(kind, payload).ok()? {
        Reply::Error(error) => Some(error.code),
        _ => None,
    }
}

/// A request for a file that is larger than what a socket takes.
const LARGE: &[u8] = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn over_the_limit_a_client_that_gets_nowhere_is_evicted() {
    let beginnings: [(&str, &[u8]); 4] = [
        // Kept alive after a good answer, and idle since.
        ("idle", GOOD[3].1),
        ("a head that does not end", b"GET / HTTP/1.1\r\nHo"),
        (
            "a body that does not end",
            b"PUT /new HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx",
        ),
        ("a reply that is not read", LARGE),
    ];
    for (what, beginning) in beginnings {
        let (server, dir) = start("file-server", &["--max-connections", "3"]);
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(1 << 30).unwrap();
        let beginning =
            String::from_utf8_lossy(beginning).replace("HTTP/1.0", "HTTP/1.1\r\nHost: h");
        let held = [(); 3].map(|()| begin(&server, beginning.as_bytes()));
        let (_, request, answer) = GOOD[3];
        eventually(what, || {
            exchange(server.addr(), request).starts_with(answer)
        });
        // One was evicted for it, and no other. What was sent to it before may still be on its way.
        let closed = || held.iter().filter(|stream| is_closed(stream)).count();
        eventually(what, || closed() > 0);
        assert_eq!(closed(), 1, "{what}");
    }
}

/// A connection that does not block, and has sent the beginning of something.
pub fn begin(server: &Server, beginning: &[u8]) -> Stream {
    let mut stream = server.connect();
    stream.write_all(beginning).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

#[test]
fn over_the_limit_a_client_that_sends_a_byte_now_and_then_is_evicted() {
    for beginning in [
        "GET / HTTP/1.1\r\nHost: ",
        "PUT /new HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n",
    ] {
        let (server, _dir) = start("file-server", &["--max-connections", "3"]);
        let held = [(); 3].map(|()| begin(&server, beginning.as_bytes()));
        let (_, request, answer) = GOOD[3];
        let started = Instant::now();
        eventually(beginning, || {
            for mut stream in &held {
                // An error if this is the one that was evicted.
                let _ = stream.write(b"x");
            }
            exchange(server.addr(), request).starts_with(answer)
        });
        // Long before their own time is over, which is 10 s and more.
        assert!(started.elapsed() < Duration::from_secs(5), "{beginning}");
        let closed = held.iter().filter(|stream| is_closed(stream)).count();
        assert_eq!(closed, 1, "{beginning}");
    }
}

#[test]
fn over_the_limit_a_refused_client_that_sends_on_is_evicted() {
    let (server, _dir) = start("file-server", &["--max-connections", "3"]);
    let refused = || {
        let mut stream = server.connect();
        stream.write_all(b"nonsense\r\n\r\n").unwrap();
        // The server ends its half, and reads on for a while.
        assert!(read_to_end(&mut stream).starts_with(b"HTTP/1.1 400 "));
        stream
    };
    let held = [refused(), refused(), refused()];
    let (_, request, answer) = GOOD[3];
    let started = Instant::now();
    eventually("one is evicted", || {
        for mut stream in &held {
            let _ = stream.write(b"x");
        }
        exchange(server.addr(), request).starts_with(answer)
    });
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Whether the server has closed it; `stream` does not block.
pub fn is_closed(mut stream: &Stream) -> bool {
    let mut scratch = vec![0; 1 << 16];
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Connections of each of the two slow kinds.
const SLOW: usize = 1000;

#[test]
fn two_thousand_slow_connections_keep_nobody_waiting() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 2 * SLOW as u64 + 500;
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return skipped("too few descriptors are allowed for 2,000 connections");
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
    // As many as there is room for, and twice as many as there is room for.
    for options in [&[][..], &["--max-connections", "1000"]] {
        let (server, dir) = start("file-server", options);
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(1 << 30).unwrap();
        let begin = |beginning: &[u8]| {
            let mut stream = server.connect();
            // It may be turned away, as it deserves.
            let _ = stream.write_all(beginning);
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let writers: Vec<_> = (0..SLOW).map(|_| begin(b"GET / HTTP/1.1\r\nX: ")).collect();
        let readers: Vec<_> = (0..SLOW).map(|_| begin(LARGE)).collect();
        let (_, request, answer) = GOOD[3];
        let mut longest = Duration::ZERO;
        let begun = Instant::now();
        let mut drips = 0;
        while begun.elapsed() < Duration::from_secs(3) {
            if begun.elapsed() >= Duration::from_secs(drips) {
                drips += 1;
                for mut stream in &writers {
                    let _ = stream.write(b"x");
                }
                for mut stream in &readers {
                    let _ = stream.read(&mut [0]);
                }
            }
            let asked = Instant::now();
            eventually("a normal client is served", || {
                exchange(server.addr(), request).starts_with(answer)
            });
            longest = longest.max(asked.elapsed());
        }
        // A second on a machine that does nothing else.
        println!("slow: a normal client waited {longest:?} at most");
        assert!(longest < Duration::from_secs(10), "{longest:?}");
    }
}

#[test]
fn a_flood_over_the_limit_is_answered_and_survived() {
    let (name, request, answer) = GOOD[1];
    let (server, _dir) = start(name, &["--max-connections", "10"]);
    let held: Vec<Stream> = (0..10).map(|_| server.connect()).collect();
    eventually("they are admitted", || server.descriptors() >= 10);
    // All silent, so that each is waited for, and there are more than are waited for at once.
    let flood: Vec<Stream> = (0..500).map(|_| server.connect()).collect();
    for mut stream in flood {
        let _ = stream.shutdown(Shutdown::Write);
        let reply = read_to_end(&mut stream);
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.is_empty() || reply.contains(BUSY), "{reply}");
    }
    assert!(server.threads() < 100);
    drop(held);
    eventually("there is room again", || {
        exchange(server.addr(), request).starts_with(answer)
    });
}

/// This many descriptors are too few for the default number of connections.
const FEW_DESCRIPTORS: &str = "ulimit -n 270; exec \"$0\" \"$@\"";

#[test]
fn a_server_that_cannot_have_its_descriptors_does_not_start() {
    for (name, ..) in GOOD {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", FEW_DESCRIPTORS]).arg(program(name));
        command.args(server_line(name, dir.path()));
        let ran = run_command(command, b"").expect(2);
        let (needed, fit) = match name {
            // More than there are for the archives alone.
            "file-server" => (" and deep folders in archives (--archives) need 8344", ""),
            _ => (" need 7936", ", enough for --max-connections 7"),
        };
        let says = format!(
            "4096 connections (--max-connections){needed} descriptors (ulimit -n), and 270 are \
             allowed{fit}\n"
        );
        assert!(ran.stderr.contains(&says), "{}", ran.stderr);
        assert!(!ran.stderr.contains("Server started"), "{}", ran.stderr);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let server = Server::start("queue-server", &["0", "TCP"]);
    let allowed = |descriptors| {
        let pid = Pid::from_raw(server.pid() as i32);
        let limit = Rlimit {
            current: Some(descriptors),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    allowed(20);
    let held: Vec<Stream> = (0..60).map(|_| server.connect()).collect();
    server.wait_for_log(|log| log.contains("Cannot accept connections, trying on"));
    drop(held);
    eventually("it accepts again", || {
        let mut stream = server.connect();
        stream.write_all(b"<<GET>>").unwrap();
        let mut byte = [0];
        matches!(stream.read(&mut byte), Ok(1))
    });
}

#[test]
fn a_burst_takes_no_descriptor_from_what_is_served() {
    const BURST: usize = 500;
    let mut command = Command::new("sh");
    command.args(["-c", FEW_DESCRIPTORS]);
    command.arg(program("queue-server"));
    command.args(["0", "TCP", "--max-connections", "4"]);
    let server = Server::spawn(command);
    let burst: Vec<_> = (0..BURST).map(|_| server.connect()).collect();
    let turned_away = "Too many connections, turning away";
    server.wait_for_log(|log| log.contains(turned_away));
    drop(burst);
    eventually("it serves again", || {
        exchange(server.addr(), b"<<GET>>").starts_with(QUEUE_EMPTY.as_bytes())
    });
    assert!(!server.log().contains("Cannot accept"), "{}", server.log());
}

/// A file server that may have so few descriptors that it has none to waste.
fn start_with_few_descriptors(root: &Path) -> Server {
    let mut command = Command::new("sh");
    command
        .args(["-c", FEW_DESCRIPTORS])
        .arg(program("file-server"));
    command
        .args(["0", "--max-connections", "4", "--archives", "0", "--root"])
        .arg(root);
    Server::spawn(command)
}

#[test]
fn an_upload_needs_few_descriptors_however_many_folders_it_makes() {
    let root = tempfile::tempdir().unwrap();
    let server = start_with_few_descriptors(root.path());
    let path = "/d".repeat(300);
    let request = format!("PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    check_answers(&server, request.as_bytes(), b"HTTP/1.1 201 Created\r\n");
}

#[test]
fn what_is_left_of_uploads_is_found_however_many_folders_there_are() {
    let root = tempfile::tempdir().unwrap();
    let leftover = ".quartet-upload-67e55044-10b1-426f-9247-bb680e5fe0c8";
    let folders: Vec<_> = (0..300).map(|n| root.path().join(n.to_string())).collect();
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join(leftover), "").unwrap();
    }
    let _server = start_with_few_descriptors(root.path());
    let left = |folder: &std::path::PathBuf| folder.join(leftover).exists();
    eventually("they are removed", || !folders.iter().any(left));
}
