//! What all eight programs have in common: help, version, exit codes, signals.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::harness::{Server, program, run, udp_too};

const CLIENTS: [&str; 4] = [
    "code-client",
    "queue-client",
    "history-client",
    "file-client",
];
const SERVERS: [&str; 4] = [
    "code-server",
    "queue-server",
    "history-server",
    "file-server",
];

/// The line that starts a server on free ports with its files in `dir`.
pub fn server_line<'a>(name: &str, dir: &'a Path) -> Vec<&'a str> {
    let dir = dir.to_str().unwrap();
    match name {
        "code-server" => vec!["0", "0", "--data-dir", dir],
        "queue-server" => vec!["0", udp_too()],
        "history-server" => vec!["0", "--data-dir", dir],
        _ => vec!["0", "--root", dir],
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for name in SERVERS.into_iter().chain(CLIENTS) {
        for flag in ["-h", "--help"] {
            let ran = run(name, &["--verbose", flag], b"").expect(0);
            let help = ran.out();
            assert_eq!(ran.stderr, "");
            for part in [
                "Usage: ",
                "Options:",
                "Exit codes:",
                "Examples:",
                "[default: ",
            ] {
                assert!(help.contains(part), "{name}: no {part}");
            }
            assert!(
                help.lines().all(|line| line.len() <= 92),
                "{name}: a long line"
            );
        }
        for flag in ["-V", "--version"] {
            let ran = run(name, &[flag], b"").expect(0);
            assert_eq!(ran.out(), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        }
    }
}

#[test]
fn a_wrong_command_line_is_one_sentence_and_exit_code_2() {
    for name in SERVERS.into_iter().chain(CLIENTS) {
        let ran = run(name, &["--frobnicate"], b"").expect(2);
        let want = format!("{name}: unknown option '--frobnicate' (see {name} --help)\n");
        assert_eq!(
            (ran.stderr.as_str(), ran.out().as_str()),
            (want.as_str(), "")
        );
    }
}

#[test]
fn a_client_without_a_server_exits_3() {
    // A port that was free a moment ago, and that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = port.to_string();
    let host = "127.0.0.1";
    let lines: [&[&str]; 4] = [
        &["code-client", host, &port, &port, "request"],
        &["queue-client", host, &port, "TCP", "receive"],
        &["history-client", host, &port, "get", "alice"],
        &["file-client", host, &port, "get", "x"],
    ];
    for line in lines {
        let ran = run(line[0], &line[1..], b"").expect(3);
        assert!(
            ran.stderr.contains("cannot connect to 127.0.0.1"),
            "{}",
            ran.stderr
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn a_client_can_wait_for_its_server() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = port.to_string();
    let mut client = std::process::Command::new(program("queue-client"));
    client.args(["127.0.0.1", &port, "receive", "--wait-for-server", "20"]);
    let client = std::thread::spawn(move || crate::harness::run_command(client, b""));
    let _server = Server::start("queue-server", &[port.as_str()]);
    client.join().unwrap().expect(1);
}

#[test]
fn a_server_whose_port_is_taken_exits_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    for name in SERVERS {
        let mut line = server_line(name, dir.path());
        line[0] = &port;
        let ran = run(name, &line, b"").expect(3);
        assert!(
            ran.stderr.contains("cannot listen on 127.0.0.1:"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_signal_ends_a_server_gracefully_with_connections_open() {
    for name in SERVERS {
        for signal in ["INT", "TERM"] {
            let dir = tempfile::tempdir().unwrap();
            let server = Server::start(name, &server_line(name, dir.path()));
            let idle = server.connect();
            crate::harness::eventually("it is connected", || server.connections() > 0);
            server.signal(signal);
            let (code, log) = server.wait();
            assert_eq!(code, Some(0), "{name}: {log}");
            assert!(
                log.contains("[INFO] [main] Shutting down server"),
                "{name}: {log}"
            );
            drop(idle);
        }
    }
}

#[test]
fn log_lines_have_a_time_a_level_and_a_thread() {
    let server = Server::start("queue-server", &["0"]);
    let log = server.log();
    let line = log.lines().next().unwrap();
    let (time, rest) = line.split_at("2026-11-20 17:37:53.230".len());
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00 00:00:00.000");
    assert_eq!(
        rest,
        format!(" [INFO] [main] Server started on {}", server.addr())
    );
}

#[test]
fn a_server_bound_to_every_address_says_what_is_open_to_whom() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let (users, root) = (folder.join("users"), folder.to_str().unwrap());
    fs::write(&users, "ann\n").unwrap();
    let users = users.to_str().unwrap();
    let servers: [(&str, &[&str], String); 5] = [
        (
            "code-server",
            &["0", "0", "--data-dir", root],
            "can ask for codes".to_owned(),
        ),
        (
            "queue-server",
            &["0"],
            "everyone can send and receive".to_owned(),
        ),
        (
            "history-server",
            &["0", "--data-dir", root, "--users", users],
            "who knows a user's name can read".to_owned(),
        ),
        (
            "file-server",
            &["0", "--root", root],
            format!("everyone can read and write the files in {root}"),
        ),
        (
            "file-server",
            &["0", "--root", root, "--read-only"],
            format!("everyone can read the files in {root}"),
        ),
    ];
    for (name, options, want) in servers {
        let line = [options, &["--bind", "0.0.0.0"]].concat();
        let server = Server::start(name, &line);
        server.wait_for_log(|log| {
            let mut lines = log.lines();
            let reached = " can be reached from other machines: ";
            lines.any(|line| {
                line.contains("[WARN] [main] 0.0.0.0:")
                    && line.contains(reached)
                    && line.contains(&want)
            })
        });
        drop(server);
        let local = Server::start(name, options);
        assert!(!local.log().contains("WARN"), "{}", local.log());
    }
}

#[test]
fn a_server_that_ends_by_itself_says_so_when_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    for (idle, want) in [
        ("60", " (ends after 60s without a request)"),
        ("1.5", " (ends after 1.5s without a request)"),
        ("0", ""),
    ] {
        let server = Server::start("file-server", &["0", "--root", root, "--idle-exit", idle]);
        let line = format!("Server started on {}{want}\n", server.addr());
        server.wait_for_log(|log| log.contains(&line));
    }
}

#[test]
fn a_server_that_does_not_sync_says_what_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["code-server", "history-server", "queue-server"] {
        let database = dir.path().join("queue.db");
        let mut line = match name {
            "queue-server" => vec!["0", "tcp", "--data", database.to_str().unwrap()],
            _ => server_line(name, dir.path()),
        };
        let warning = "With --fsync never, a power cut loses what was acknowledged last";
        let server = Server::start(name, &line);
        assert!(!server.log().contains(warning), "{name}: {}", server.log());
        server.kill();
        line.extend(["--fsync", "never"]);
        let server = Server::start(name, &line);
        assert!(server.log().contains(warning), "{name}: {}", server.log());
    }
}
