//! The log of a server: nobody who reads it, or does not, can stop the server, and nobody who sends
//! something can fill it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::{Address, Opened, PATIENCE, Server, addresses, door, exchange, program};
use crate::limits::GOOD;
use crate::programs::server_line;

/// A server whose log is a pipe, and where it listens.
struct Piped {
    child: Child,
    addr: Address,
    _opened: Opened,
    /// Nobody reads it on.
    _log: BufReader<std::process::ChildStderr>,
}

impl Piped {
    fn start(name: &str, options: &[&str]) -> (Self, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hello.txt"), "hello\n").unwrap();
        let mut command = Command::new(program(name));
        command.args(server_line(name, dir.path())).args(options);
        let opened = door().open(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it has ended");
            if let [addr, ..] = addresses(&line)[..] {
                break addr;
            }
        };
        let piped = Self {
            child,
            addr,
            _opened: opened,
            _log: log,
        };
        (piped, dir)
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits until it ends; returns its exit code.
    fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(status.unwrap().success());
}

fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A pipe takes 64 KiB. With `-v`, a request makes several lines of 70 bytes and more; in an access
/// log, one.
const REQUESTS: usize = 400;
const ACCESSES: usize = 1000;

#[test]
fn a_log_that_nobody_reads_stops_no_server() {
    for (name, request, answer) in GOOD {
        // Of the file server, neither the log nor the access log is read.
        let (options, requests): (&[&str], _) = match name {
            "file-server" => (&["-v", "--access-log"], ACCESSES),
            _ => (&["-v"], REQUESTS),
        };
        let (mut server, _dir) = Piped::start(name, options);
        for n in 0..requests {
            let reply = exchange(server.addr, request);
            assert!(reply.starts_with(answer), "{name}, request {n}");
        }
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0), "{name}");
    }
}

/// How many events a log tells of that contain `what`, and in how many lines.
fn told(log: &str, what: &str) -> (usize, usize) {
    let lines = log.lines().filter(|line| line.contains(what));
    let events = lines.clone().map(|line| match line.split_once(" (and ") {
        None => 1,
        Some((_, more)) => 1 + more.split(' ').next().unwrap().parse::<usize>().unwrap(),
    });
    (events.sum(), lines.count())
}

#[test]
fn a_flood_of_warnings_is_a_line_a_second_and_all_are_counted() {
    const FLOOD: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("history-server", &server_line("history-server", dir.path()));
    let started = Instant::now();
    for _ in 0..FLOOD {
        exchange(server.addr(), b"no\x1b[31m user\n");
    }
    let what = "Not a request";
    // The rest is told although nothing else happens.
    server.wait_for_log(|log| told(log, what).0 == FLOOD);
    let (_, lines) = told(&server.log(), what);
    let seconds = started.elapsed().as_secs() as usize;
    assert!(lines <= seconds + 2, "{lines} lines in {seconds} s");
    // At the end, nothing is held back.
    exchange(server.addr(), b"not again\n");
    exchange(server.addr(), b"not again\n");
    server.signal("TERM");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert_eq!(told(&log, what).0, FLOOD + 2, "{log}");
    assert!(log.lines().all(|line| !line.contains('\x1b')), "{log}");
}

#[test]
fn rubbish_datagrams_are_a_line_a_second() {
    const FLOOD: usize = 1000;
    let server = Server::start("queue-server", &["0", "UDP"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    for _ in 0..FLOOD {
        socket
            .send_to(b"\0\0\0\x01\xff", server.addr().tcp())
            .unwrap();
    }
    server.wait_for_log(|log| told(log, "[WARN]").0 >= 10);
    let (_, lines) = told(&server.log(), "[WARN]");
    let seconds = started.elapsed().as_secs() as usize;
    // There may be more than one kind.
    assert!(lines <= 2 * (seconds + 2), "{lines} lines in {seconds} s");
}

#[test]
fn errors_are_a_line_a_second_too() {
    const FLOOD: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // A file may have 1024 bytes (512 in some shells).
    command.args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""]);
    command.arg(program("code-server"));
    command.args(server_line("code-server", dir.path()));
    let server = Server::spawn(command);
    let started = Instant::now();
    let is_refused = |n: &usize| {
        let body = format!("{{\"uuid\":\"67e55044-10b1-426f-9247-{n:012}\"}}");
        let length = body.len();
        let request = format!("POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        exchange(server.addr(), request.as_bytes()).starts_with(b"HTTP/1.1 507")
    };
    let refused = (0..FLOOD).filter(is_refused).count();
    assert!(refused > FLOOD / 2, "{refused}");
    server.wait_for_log(|log| told(log, "[ERROR]").0 == refused);
    let (_, lines) = told(&server.log(), "[ERROR]");
    let seconds = started.elapsed().as_secs() as usize;
    assert!(lines <= seconds + 2, "{lines} lines in {seconds} s");
}

/// A history server that is about to start: it reads the file of its users, which is a pipe. Also the
/// end to write that.
fn starting() -> (Child, File, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &users, FileType::Fifo, mode, 0).unwrap();
    let mut command = Command::new(program("history-server"));
    command.args(server_line("history-server", dir.path()));
    command.arg("--users").arg(&users);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped()).env_remove("RUST_LOG");
    let child = command.spawn().unwrap();
    // This waits until the server has opened it.
    let users = File::options().write(true).open(users).unwrap();
    (child, users, dir)
}

#[test]
fn a_server_that_starts_is_not_ended_by_a_hang_up() {
    let (mut child, mut users, _dir) = starting();
    signal(&child, "HUP");
    users.write_all(b"alice\n").unwrap();
    drop(users);
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut log = log.lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("Server started on ")));
    signal(&child, "HUP");
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn a_server_that_starts_can_be_ended() {
    let (mut child, _users, _dir) = starting();
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), None, "a signal has ended it");
    let mut log = String::new();
    child.stderr.unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log, "");
}
