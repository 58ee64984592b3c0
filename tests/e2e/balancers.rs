//! Several servers behind a load balancer, whose configuration is the one that the pages show.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::file::Tree;
use crate::harness::{
    Haproxy, Needs, Nginx, Running, Server, eventually, free_addr, has_door, listening, program,
    root, run,
};

const WHY: &str = "the pages balance plain TCP";

/// The box in this language of a crate's page.
#[track_caller]
fn shown(crate_name: &str, language: &str) -> String {
    let page = root().join("crates").join(crate_name).join("README.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// The same with other addresses.
#[track_caller]
fn with_addrs(config: &str, addrs: &[(&str, SocketAddr)]) -> String {
    let mut config = config.to_owned();
    for (shown, addr) in addrs {
        assert!(config.contains(shown), "no {shown} in:\n{config}");
        config = config.replace(shown, &addr.to_string());
    }
    config
}

/// Starts a server that serves.
#[track_caller]
fn start(name: &str, addrs: &[SocketAddr], dir: &Path) -> Running {
    let running = stand_by(name, addrs, dir);
    running.wait_for_stderr(|log| listening(log) == addrs.len());
    running
}

/// Starts a server that waits, if another one uses the folder.
fn stand_by(name: &str, addrs: &[SocketAddr], dir: &Path) -> Running {
    let mut command = Command::new(program(name));
    command.args(addrs.iter().map(|addr| addr.port().to_string()));
    command.arg("--data-dir").arg(dir).arg("--standby");
    Running::start(command)
}

/// The words of a client that comes through the balancer.
fn client(addrs: &[SocketAddr], words: &[&str]) -> Vec<String> {
    let ports = addrs.iter().map(|addr| addr.port().to_string());
    let host = ["127.0.0.1".to_owned()].into_iter();
    let words = words.iter().map(|word| (*word).to_owned());
    host.chain(ports).chain(words).collect()
}

#[test]
fn another_code_server_takes_over_behind_haproxy() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [one, two, front] = [(); 3].map(|()| [free_addr(), free_addr()]);
    let config = with_addrs(
        &shown("code-server", "haproxy"),
        &[
            ("10.0.0.1:8000", one[0]),
            ("10.0.0.1:8001", one[1]),
            ("10.0.0.2:8000", two[0]),
            ("10.0.0.2:8001", two[1]),
            (":8000", front[0]),
            (":8001", front[1]),
        ],
    );
    let active = start("code-server", &one, dir.path());
    let waiting = stand_by("code-server", &two, dir.path());
    let Some(_balancer) = Haproxy::start(&config, front[0]) else {
        return;
    };
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let request = || run("code-client", &client(&front, &["request", uuid]), b"");
    let code = request().expect(0).out();
    active.kill();
    eventually("the other hands out the same code", || {
        let ran = request();
        ran.code == Some(0) && ran.out() == code
    });
    let send = || {
        let args = client(&front, &["send", "-", "hello"]);
        run("code-client", &args, code.as_bytes())
    };
    eventually("it logs messages", || send().code == Some(0));
    assert!(waiting.ended().is_none());
    assert_eq!(request().expect(0).out(), code);
}

#[test]
fn another_history_server_takes_over_behind_haproxy() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [one, two, front] = [(); 3].map(|()| free_addr());
    let config = with_addrs(
        &shown("history-server", "haproxy"),
        &[
            ("10.0.0.1:5007", one),
            ("10.0.0.2:5007", two),
            (":5007", front),
        ],
    );
    let active = start("history-server", &[one], dir.path());
    let _waiting = stand_by("history-server", &[two], dir.path());
    let Some(_balancer) = Haproxy::start(&config, front) else {
        return;
    };
    let ask = |words: &[&str]| run("history-client", &client(&[front], words), b"");
    let mut follow = Command::new(program("history-client"));
    follow.args(client(
        &[front],
        &["follow", "bob", "--wait-for-server", "60"],
    ));
    let follow = Running::start(follow);
    ask(&["note", "alice", "first"]).expect(0);
    let shows = |note: &str| follow.stdout_text().contains(note);
    eventually("it is followed", || shows("alice note first"));
    active.kill();
    eventually("the other takes notes", || {
        ask(&["note", "alice", "second"]).code == Some(0)
    });
    eventually("it is followed further", || shows("alice note second"));
    let got = ask(&["get", "alice"]).expect(0).out();
    let notes: Vec<_> = got
        .lines()
        .filter_map(|line| line.split_once(" alice note "))
        .collect();
    let notes: Vec<_> = notes.iter().map(|(_, note)| *note).collect();
    assert_eq!(notes, ["first", "second"], "{got}");
}

#[test]
fn file_servers_share_a_root_behind_nginx() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let tree = Tree::new();
    let servers = [tree.start(&[]), tree.start(&[])];
    let addr = |server: &Server| server.addr().tcp();
    let shown = shown("file-server", "nginx");
    let (of_http, of_server) = shown.split_once("server {\n    listen 8080;\n").unwrap();
    let of_server = of_server.trim_end().strip_suffix('}').unwrap();
    let addrs = [
        ("10.0.0.1:8080", addr(&servers[0])),
        ("10.0.0.2:8080", addr(&servers[1])),
    ];
    let Some(proxy) = Nginx::start(&with_addrs(of_http, &addrs), of_server) else {
        return;
    };
    let port = proxy.addr.port().to_string();
    let ask = |words: &[&str]| {
        let words = [&["127.0.0.1", &port], words].concat();
        run("file-client", &words, b"")
    };
    let mine = tree.path("mine");
    let path = mine.to_str().unwrap();
    let round = |name: &str, length: usize| {
        fs::write(&mine, vec![7; length]).unwrap();
        ask(&["put", path, name]).expect(0);
        // Its requests go to one server and the other.
        ask(&["put", path, &format!("{name}.resumable"), "--resume"]).expect(0);
        for name in [name.to_owned(), format!("{name}.resumable")] {
            assert_eq!(fs::metadata(tree.root(&name)).unwrap().len(), length as u64);
            let got = ask(&["get", &name, "-o", "-"]).expect(0);
            assert!(got.stdout == vec![7; length], "{name}");
        }
    };
    round("a", 300_000);
    round("b", 20_000_000);
    let [one, _other] = servers;
    one.kill();
    round("c", 300_000);
    round("d", 3);
}
