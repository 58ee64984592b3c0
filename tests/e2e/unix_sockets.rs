//! Servers at sockets in the file system (`--bind unix:PATH`), and at more than one place.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Nginx, Running, eventually, has_program, listening, program, run, run_command,
};
use crate::limits::GOOD;

/// A server, and its folder.
struct Server {
    running: Running,
    dir: TempDir,
}

impl Server {
    /// Starts it at the path `socket` in a folder of its own, and waits until it listens on this many.
    #[track_caller]
    fn start(name: &str, options: &[&str], listeners: usize) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), name, options, listeners)
    }

    #[track_caller]
    fn start_in(dir: TempDir, name: &str, options: &[&str], listeners: usize) -> Self {
        let running = Running::start(command(dir.path(), name, options));
        running.wait_for_stderr(|log| listening(log) == listeners);
        Self { running, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// As a client's command line has it.
    fn place(&self) -> String {
        place(self.dir.path())
    }

    fn log(&self) -> String {
        self.running.stderr.text()
    }

    #[track_caller]
    fn stop(&self) {
        self.running.signal("TERM");
        assert_eq!(self.running.wait(), Some(0), "{}", self.log());
    }

    /// What curl gets there.
    #[track_caller]
    fn curl(&self, words: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args(["-q", "--silent", "--show-error", "--max-time", "30"]);
        command.arg("--unix-socket").arg(self.socket()).args(words);
        run_command(command, b"").expect(0).out()
    }
}

fn place(dir: &Path) -> String {
    format!("unix:{}", dir.join("socket").display())
}

fn command(dir: &Path, name: &str, options: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(["--bind", &place(dir)]).args(options);
    let data = dir.join("data");
    match name {
        "queue-server" => {}
        "file-server" => {
            fs::create_dir_all(&data).unwrap();
            fs::write(data.join("hello.txt"), "hello\n").unwrap();
            command.arg("--root").arg(data);
        }
        _ => {
            command.arg("--data-dir").arg(data);
        }
    }
    command
}

/// How many sockets a server has at its path.
fn sockets_of(name: &str) -> usize {
    1 + usize::from(name == "code-server")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[test]
fn each_server_has_its_socket_while_it_runs() {
    for (name, ..) in GOOD {
        let server = Server::start(name, &[], sockets_of(name));
        assert!(
            fs::metadata(server.socket())
                .unwrap()
                .file_type()
                .is_socket()
        );
        assert_eq!(mode(&server.socket()), 0o600, "{name}");
        let started = format!("Server started on {}", server.place());
        assert!(server.log().contains(&started), "{}", server.log());
        // Nobody else can come in, so there is nothing to warn of.
        assert!(!server.log().contains("[WARN]"), "{}", server.log());
        server.stop();
        let left = fs::read_dir(server.dir.path()).unwrap();
        let left = left.map(|file| file.unwrap().file_name());
        let left: Vec<_> = left.filter(|file| file != "data").collect();
        assert!(left.is_empty(), "{name}: {left:?}");
        let options = ["--socket-mode", "0666"];
        let server = Server::start(name, &options, sockets_of(name));
        assert_eq!(mode(&server.socket()), 0o666, "{name}");
    }
}

#[test]
fn clients_and_curl_reach_each_server() {
    if !has_program("curl") {
        return;
    }
    let files = Server::start("file-server", &["--access-log"], 1);
    assert_eq!(files.curl(&["http://localhost/hello.txt"]), "hello\n");
    files.stop();
    let line = files.running.stdout_text();
    // One word, as everywhere in the common log format.
    assert!(line.starts_with(&format!("unix:{} - - [", uid())), "{line}");
    let codes = Server::start("code-server", &[], 2);
    let body = r#"{"uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8"}"#;
    let code = codes.curl(&["http://localhost/", "--data", body]);
    assert!(code.contains("unique"), "{code}");
    assert!(codes.dir.path().join("socket-messages").exists());
    let queue = Server::start("queue-server", &[], 1);
    run("queue-client", &[&queue.place(), "send", "-"], b"hi").expect(0);
    let got = run("queue-client", &[&queue.place(), "receive"], b"").expect(0);
    assert_eq!(got.out(), "hi");
    let history = Server::start("history-server", &[], 1);
    run("history-client", &[&history.place(), "alice", "hello"], b"");
    let mut text = UnixStream::connect(history.socket()).unwrap();
    std::io::Write::write_all(&mut text, b"bob\n").unwrap();
    let record = format!(" unix:{} bob ", uid());
    eventually("it is recorded", || {
        let kept = fs::read_to_string(history.dir.path().join("data/history.txt"));
        kept.is_ok_and(|kept| kept.contains(&record))
    });
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_refused() {
    for (name, ..) in GOOD {
        let Server { running, dir } = Server::start(name, &[], sockets_of(name));
        let refused = run_command(command(dir.path(), "queue-server", &[]), b"").expect(3);
        let says = format!(
            "cannot listen on {}: another server listens there",
            place(dir.path())
        );
        assert!(refused.stderr.contains(&says), "{}", refused.stderr);
        running.kill();
        assert!(dir.path().join("socket").exists(), "nobody could remove it");
        let server = Server::start_in(dir, name, &[], sockets_of(name));
        UnixStream::connect(server.socket()).unwrap();
        server.stop();
        assert!(!server.socket().exists());
        // What is no socket stays what it is.
        fs::write(server.socket(), "precious").unwrap();
        let refused = run_command(command(server.dir.path(), name, &[]), b"").expect(3);
        let says = "a file is there that is no socket";
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        assert_eq!(fs::read_to_string(server.socket()).unwrap(), "precious");
    }
}

#[test]
fn of_servers_that_start_at_the_same_time_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    let servers = [(); 6].map(|()| Running::start(command(dir.path(), "queue-server", &[])));
    let ended = || {
        servers
            .iter()
            .filter(|server| server.ended().is_some())
            .count()
    };
    eventually("all others are refused", || ended() == servers.len() - 1);
    run("queue-client", &[&place(dir.path()), "list"], b"").expect(0);
    for server in &servers {
        match server.ended() {
            Some(status) => assert_eq!(status.code(), Some(3)),
            None => server.signal("TERM"),
        }
    }
    eventually("the last ends", || ended() == servers.len());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_proxy_in_front_comes_over_the_socket() {
    let server = Server::start("file-server", &[], 1);
    let upstream = format!(
        "location / {{ proxy_pass http://unix:{}:/; }}",
        server.socket().display()
    );
    let Some(proxy) = Nginx::start("", &upstream) else {
        return;
    };
    let mut stream = proxy.connect();
    let request =
        b"GET /hello.txt HTTP/1.1\r\nHost: files.example.com\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).unwrap();
    let reply = crate::harness::read_to_end(&mut stream);
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nhello\n"), "{reply}");
}

#[test]
fn one_server_has_many_places() {
    let dir = tempfile::tempdir().unwrap();
    let has_v6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let mut binds = vec!["0", "--bind", "localhost", "--bind", "127.0.0.2"];
    let mut tcp = 2;
    if has_v6 {
        binds.extend(["--bind", "[::1]"]);
        tcp += 1;
    }
    let server = Server::start_in(dir, "queue-server", &binds, tcp + 1);
    let log = server.log();
    let places = log
        .lines()
        .filter_map(|line| line.split_once("Server started on "));
    let places: Vec<_> = places.map(|(_, place)| place.to_owned()).collect();
    let addrs: Vec<std::net::SocketAddr> = places
        .iter()
        .filter_map(|place| place.parse().ok())
        .collect();
    assert_eq!(addrs.len(), tcp, "{log}");
    assert!(
        addrs.iter().all(|addr| addr.port() == addrs[0].port()),
        "{log}"
    );
    run("queue-client", &[&server.place(), "send", "-"], b"here").expect(0);
    for addr in &addrs {
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        let peek = run("queue-client", &[&host, &port, "peek"], b"").expect(0);
        assert_eq!(peek.out(), "here", "{addr}");
    }
}

#[test]
fn a_port_without_an_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run_command(command(dir.path(), "queue-server", &["5555"]), b"").expect(2);
    let says = "unix:PATH has no port; a port goes with --bind and an address";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    let long = format!("unix:{}", dir.path().join("l".repeat(100)).display());
    let refused = run("queue-server", &["--bind", &long], b"").expect(3);
    assert!(
        refused.stderr.contains("a socket's may have 102"),
        "{}",
        refused.stderr
    );
}
