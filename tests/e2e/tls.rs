//! Servers that speak TLS, seen from outside: by openssl, curl and Python, with old versions and weak
//! ciphers, by those that know nothing of TLS, and by those that never finish their handshake.
//!
//! What the services do over TLS is shown by their own suites, which run through it (`doors`).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tempfile::TempDir;

use crate::file::large_file;
use crate::harness::{
    Carrier, Certificates, Door, Ran, Server, connect_tcp, eventually, has_program, run,
    run_command, skipped,
};

const TLS: Door = Door {
    carrier: Carrier::Tls,
    has_accounts: false,
};

const PLAIN: Door = Door {
    carrier: Carrier::Tcp,
    has_accounts: false,
};

/// Each service, its request in the text protocol or in HTTP that closes the connection, and how the
/// answer begins.
pub const SERVICES: [(&str, &str, &str); 4] = [
    (
        "code-server",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
    ),
    ("queue-server", "<<GET>>", "Error - no messages in queue."),
    ("history-server", "alice\n", "Source: "),
    (
        "file-server",
        "GET /hello.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
    ),
];

fn line<'a>(name: &str, dir: &'a Path) -> Vec<&'a str> {
    let dir = dir.to_str().unwrap();
    match name {
        "code-server" => vec!["0", "0", "--data-dir", dir],
        "queue-server" => vec!["0", "TCP"],
        "history-server" => vec!["0", "--data-dir", dir],
        "file-server" => vec!["0", "--root", dir],
        other => panic!("{other}"),
    }
}

pub fn start(door: Door, name: &str) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hello.txt"), "hello\n").unwrap();
    let server = Server::start_behind(door, name, &line(name, dir.path()));
    (server, dir)
}

/// openssl 3.0 knows no `--version`.
pub fn has_openssl() -> bool {
    let is_there = Command::new("openssl").arg("version").output().is_ok();
    if !is_there {
        skipped("there is no openssl");
    }
    is_there
}

/// `openssl s_client` at a server, with something to say; it checks the server's certificate.
pub fn openssl(server: &Server, options: &[&str], input: &str) -> Ran {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-CAfile"]);
    command.arg(&Certificates::get().authority.cert);
    command.args(["-connect", &server.addr().to_string()]);
    command.args(options);
    run_command(command, input.as_bytes())
}

#[test]
fn openssl_reaches_every_server_in_both_versions() {
    if !has_openssl() {
        return;
    }
    for (name, request, answer) in SERVICES {
        let (server, _dir) = start(TLS, name);
        for version in ["-tls1_2", "-tls1_3"] {
            let ran = openssl(&server, &[version], request);
            assert!(
                ran.out().starts_with(answer),
                "{name}: {}{}",
                ran.out(),
                ran.stderr
            );
        }
    }
}

/// Says a request over TLS, and prints what comes up to the close_notify; without one it fails.
const PYTHON: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with socket.create_connection((sys.argv[2], int(sys.argv[3])), 30) as plain:
    with context.wrap_socket(plain, server_hostname=sys.argv[2], suppress_ragged_eofs=False) as tls:
        tls.sendall(sys.stdin.buffer.read())
        while piece := tls.recv(65536):
            sys.stdout.buffer.write(piece)
";

#[test]
fn python_reaches_every_server_and_sees_where_the_reply_ends() {
    if !has_program("python3") {
        return;
    }
    for (name, request, answer) in SERVICES {
        let (server, _dir) = start(TLS, name);
        let mut python = Command::new("python3");
        python
            .args(["-c", PYTHON])
            .arg(&Certificates::get().authority.cert);
        python.args(["127.0.0.1", &server.addr().port().to_string()]);
        let ran = run_command(python, request.as_bytes()).expect(0);
        assert!(ran.out().starts_with(answer), "{name}: {}", ran.out());
    }
}

#[test]
fn curl_reaches_every_server_and_a_large_file_arrives_whole() {
    if !has_program("curl") {
        return;
    }
    for (name, ..) in SERVICES {
        let (server, dir) = start(TLS, name);
        let path = match name {
            "file-server" => "/.quartet/healthz",
            _ => "/healthz",
        };
        let mut curl = server.curl(path);
        curl.args(["-sS", "--fail"]);
        run_command(curl, b"").expect(0);
        if name == "file-server" {
            let bytes = large_file(&dir.path().join("large"));
            let mut curl = server.curl("/large");
            curl.args(["-sS", "--fail", "-o", "/dev/null", "-w", "%{size_download}"]);
            assert_eq!(run_command(curl, b"").expect(0).out(), bytes.to_string());
        }
    }
}

#[test]
fn old_versions_and_weak_ciphers_are_refused() {
    if !has_openssl() {
        return;
    }
    let (server, _dir) = start(TLS, "queue-server");
    for weak in [
        &["-tls1", "-cipher", "DEFAULT:@SECLEVEL=0"][..],
        &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"],
        // No forward secrecy, CBC, and no encryption at all.
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"],
        &[
            "-tls1_2",
            "-cipher",
            "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:@SECLEVEL=0",
        ],
        &["-tls1_2", "-cipher", "NULL:@SECLEVEL=0"],
    ] {
        let ran = openssl(&server, weak, "<<GET>>");
        assert_ne!(ran.code, Some(0), "{weak:?}");
        // The server's doing, not that of an openssl that knows no such thing.
        assert!(ran.stderr.contains("alert"), "{weak:?}: {}", ran.stderr);
    }
    openssl(&server, &["-tls1_2"], "<<GET>>").expect(0);
    if !has_program("sslscan") {
        return;
    }
    let mut sslscan = Command::new("sslscan");
    sslscan.args(["--no-colour", &server.addr().to_string()]);
    let ran = run_command(sslscan, b"").expect(0);
    let report = ran.out();
    for (version, is_spoken) in [
        ("SSLv2", false),
        ("SSLv3", false),
        ("TLSv1.0", false),
        ("TLSv1.1", false),
        ("TLSv1.2", true),
        ("TLSv1.3", true),
    ] {
        let state = if is_spoken { "enabled" } else { "disabled" };
        let is_told = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(version) && words.next() == Some(state)
        };
        assert!(
            report.lines().any(is_told),
            "{version} is not {state}: {report}"
        );
    }
    for weak in ["RC4", "3DES", "NULL", "EXP", "ADH", "CBC", "vulnerable to"] {
        let is_weak = |line: &&str| line.contains(weak) && !line.contains("not vulnerable");
        let found: Vec<_> = report.lines().filter(is_weak).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Each client with a request, and its server.
pub const CLIENTS: [(&str, &str, &[&str]); 4] = [
    ("code-client", "code-server", &["request"]),
    ("queue-client", "queue-server", &["receive"]),
    ("history-client", "history-server", &["get", "alice"]),
    (
        "file-client",
        "file-server",
        &["get", "hello.txt", "-o", "-"],
    ),
];

#[test]
fn a_client_at_the_wrong_kind_of_port_is_told_so_at_once() {
    for (client, name, verb) in CLIENTS {
        for (servers, clients) in [(TLS, PLAIN), (PLAIN, TLS)] {
            let (server, _dir) = start(servers, name);
            let mut line = clients.client_words(&server.addrs);
            line.extend(verb.iter().map(|word| (*word).to_owned()));
            let begun = Instant::now();
            let ran = run(client, &line, b"");
            assert!(
                matches!(ran.code, Some(1 | 3)),
                "{}: {:?}",
                ran.command,
                ran.code
            );
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(ran.stderr.contains("TLS"), "{}", ran.stderr);
            assert_eq!(ran.out(), "");
            // Long before any timeout.
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", ran.command);
            if servers == PLAIN {
                server.wait_for_log(|log| log.contains("A TLS handshake"));
            }
        }
    }
}

/// How many connections do nothing useful, of each kind.
const USELESS: usize = 1000;

/// The first message of a handshake, whole: the server answers it, and that costs it a signature.
fn client_hello() -> Vec<u8> {
    let config = Certificates::get().client_config(None);
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    let mut tls = ClientConnection::new(config, name).unwrap();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn handshakes_that_never_end_keep_nobody_waiting() {
    // Of a record of 512 bytes, its header and a little of a ClientHello.
    let half = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let hello = client_hello();
    let kinds: [(&str, &[u8]); 5] = [
        ("silent", b""),
        ("half a message", half),
        ("half a handshake", &hello),
        (
            "rubbish in a record",
            b"\x16\x03\x01\x00\x04\xde\xad\xbe\xef",
        ),
        ("rubbish", b"\xde\xad\xbe\xef"),
    ];
    let limit = getrlimit(Resource::Nofile);
    let wanted = (kinds.len() * USELESS + 500) as u64;
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return skipped("too few descriptors are allowed for 5,000 connections");
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    for options in [&[][..], &["--max-connections", "500"]] {
        let line = [&["0", "TCP"], options].concat();
        let server = Server::start_behind(TLS, "queue-server", &line);
        let mut useless: Vec<TcpStream> = Vec::new();
        for (what, beginning) in kinds {
            for _ in 0..USELESS {
                let mut stream = connect_tcp(server.addr().tcp()).unwrap();
                // It may be turned away.
                let _ = stream.write_all(beginning);
                useless.push(stream);
            }
            let begun = Instant::now();
            eventually("a normal client is served", || {
                let Ok(mut stream) = TLS.connect(server.addr()) else {
                    return false;
                };
                let mut reply = String::new();
                stream.write_all(b"<<GET>>").is_ok()
                    && stream.read_to_string(&mut reply).is_ok()
                    && reply.starts_with("Error - no messages")
            });
            let waited = begun.elapsed();
            println!("{what}: a normal client waited {waited:?}");
            // A second on a machine that does nothing else.
            assert!(waited < Duration::from_secs(10), "{what}: {waited:?}");
        }
    }
}

/// The certificate that a server shows, as openssl prints its fingerprint.
fn fingerprint(server: &Server) -> String {
    let script = "openssl s_client -connect \"$0\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint";
    let mut sh = Command::new("sh");
    sh.args(["-c", script, &server.addr().to_string()]);
    run_command(sh, b"").expect(0).out()
}

#[test]
fn a_hangup_exchanges_the_certificate_and_keeps_the_old_one_if_it_must() {
    if !has_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let made = Certificates::get();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    fs::copy(&made.server.cert, &cert).unwrap();
    fs::copy(&made.server.key, &key).unwrap();
    let line = [
        "0",
        "TCP",
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let server = Server::start_behind(PLAIN, "queue-server", &line);
    let first = fingerprint(&server);
    let mut before = TLS.connect(server.addr()).unwrap();

    fs::write(&cert, "no certificate").unwrap();
    server.signal("HUP");
    server.wait_for_log(|log| log.contains("[ERROR]"));
    assert_eq!(fingerprint(&server), first, "{}", server.log());

    let other = made.authority.server(dir.path(), "other");
    fs::copy(&other.cert, &cert).unwrap();
    fs::copy(&other.key, &key).unwrap();
    server.signal("HUP");
    eventually("new connections see the new one", || {
        fingerprint(&server) != first
    });
    // A connection keeps what it has begun with.
    before.write_all(b"<<GET>>").unwrap();
    let mut reply = String::new();
    before.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("Error - no messages"), "{reply}");
}

#[test]
fn a_key_that_others_may_read_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let made = Certificates::get();
    let key = dir.path().join("key.pem");
    fs::copy(&made.server.key, &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    for (name, ..) in SERVICES {
        let mut line = line(name, dir.path());
        line.extend(["--tls-cert", made.server.cert.to_str().unwrap()]);
        line.extend(["--tls-key", key.to_str().unwrap()]);
        let ran = run(name, &line, b"").expect(2);
        assert!(ran.stderr.contains("key.pem"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("Server started"), "{}", ran.stderr);
    }
}

#[test]
fn a_message_whose_end_is_held_back_is_not_stored() {
    let (server, _dir) = start(TLS, "queue-server");
    let mut cut = TLS.connect(server.addr()).unwrap();
    cut.write_all(b"pay 100").unwrap();
    // The server waits 10 s for the rest.
    assert_eq!(cut.read(&mut [0]).unwrap_or(0), 0);
    let mut asks = TLS.connect(server.addr()).unwrap();
    asks.write_all(b"<<GET>>").unwrap();
    let mut reply = String::new();
    asks.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "Error - no messages in queue.");
}

#[test]
fn a_key_that_would_be_served_stops_the_start() {
    let root = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| root.path().join(name));
    for path in [&cert, &key] {
        fs::write(path, "").unwrap();
    }
    let [dir, cert, key] = [root.path(), &cert, &key].map(|path| path.to_str().unwrap());
    let line = ["0", "--root", dir, "--tls-cert", cert, "--tls-key", key];
    let ran = run("file-server", &line, b"").expect(2);
    let want = format!("{key} is in the folder that is served");
    assert!(ran.stderr.contains(&want), "{}", ran.stderr);
}
