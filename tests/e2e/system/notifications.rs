//! What a service manager hears from a server (sd_notify(3)).

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{PATIENCE, Running, Server, door, postgres, program, run};

/// The socket of a service manager, which gives up in time.
fn manager(address: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A socket in a folder, and its name.
fn manager_in(dir: &TempDir) -> (UnixDatagram, String) {
    let path = dir.path().join("notify");
    let socket = manager(&SocketAddr::from_pathname(&path).unwrap());
    (socket, path.to_str().unwrap().to_owned())
}

/// The lines of the next notification.
#[track_caller]
fn notified(socket: &UnixDatagram) -> Vec<String> {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).unwrap();
    let text = std::str::from_utf8(&bytes[..length]).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Starts a server that has a service manager, in a folder.
#[track_caller]
fn start(name: &str, args: &[&str], socket: &str, dir: &TempDir) -> Server {
    let mut command = Command::new(program(name));
    command
        .args(args)
        .current_dir(dir)
        .env("NOTIFY_SOCKET", socket);
    Server::spawn(command)
}

/// The microseconds since the machine was started, as /proc has them.
fn uptime_micros() -> u128 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let secs: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    (secs * 1e6) as u128
}

#[track_caller]
fn check_life(name: &str, args: &[&str], socket: &UnixDatagram, socket_name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let server = start(name, args, socket_name, &dir);
    let addrs: Vec<_> = server.addrs.iter().map(ToString::to_string).collect();
    let status = format!("STATUS=Serving on {}", addrs.join(", "));
    assert_eq!(notified(socket), ["READY=1", &status], "{name}");
    let before = uptime_micros();
    server.signal("HUP");
    let reloading = notified(socket);
    let [reloading, micros] = &reloading[..] else {
        panic!("{name}: {reloading:?}");
    };
    assert_eq!(reloading, "RELOADING=1", "{name}");
    let micros: u128 = micros
        .strip_prefix("MONOTONIC_USEC=")
        .unwrap()
        .parse()
        .unwrap();
    // That of /proc is in hundredths of a second.
    let range = before - 10_000..=uptime_micros() + 10_000;
    assert!(range.contains(&micros), "{name}: {micros}, {range:?}");
    assert_eq!(notified(socket), ["READY=1"], "{name}");
    server.signal("TERM");
    let stopping = ["STOPPING=1", "STATUS=Finishing the requests in flight"];
    assert_eq!(notified(socket), stopping, "{name}");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("service manager"), "{log}");
}

#[test]
fn each_server_says_that_it_is_ready_reloads_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = manager_in(&dir);
    check_life("code-server", &["0", "0"], &socket, &name);
    check_life("queue-server", &["0", "TCP"], &socket, &name);
    check_life("queue-server", &["0", "BOTH"], &socket, &name);
    check_life("history-server", &["0"], &socket, &name);
    check_life("file-server", &["0"], &socket, &name);
}

#[test]
fn a_service_manager_may_have_an_abstract_socket() {
    let name = format!("quartet-test-{}", std::process::id());
    let socket = manager(&SocketAddr::from_abstract_name(&name).unwrap());
    check_life("queue-server", &["0"], &socket, &format!("@{name}"));
}

#[test]
fn a_server_that_is_idle_for_long_says_that_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = manager_in(&dir);
    let server = start("file-server", &["0", "--idle-exit", "0.1"], &name, &dir);
    assert_eq!(notified(&socket)[0], "READY=1");
    assert_eq!(notified(&socket)[0], "STOPPING=1");
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn a_server_that_stands_by_is_ready_and_says_so() {
    for (server, ports) in [("code-server", &["0", "0"][..]), ("history-server", &["0"])] {
        let dir = tempfile::tempdir().unwrap();
        let (socket, name) = manager_in(&dir);
        let active = start(server, ports, &name, &dir);
        assert_eq!(notified(&socket)[0], "READY=1");
        let mut command = Command::new(program(server));
        command.args(ports).arg("--standby").current_dir(&dir);
        command.env("NOTIFY_SOCKET", &name);
        let _opened = door().open(&mut command);
        let waiting = Running::start(command);
        let status = "STATUS=Standing by until another server ends";
        assert_eq!(notified(&socket), ["READY=1", status], "{server}");
        active.kill();
        let serving = notified(&socket);
        assert_eq!(serving[0], "READY=1");
        assert!(serving[1].starts_with("STATUS=Serving on "), "{serving:?}");
        waiting.signal("TERM");
        assert_eq!(notified(&socket)[0], "STOPPING=1");
        assert_eq!(waiting.wait(), Some(0));
    }
}

#[test]
fn a_service_manager_that_does_not_listen_is_a_warning_and_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let server = start("queue-server", &["0"], "/nowhere/notify", &dir);
    let log = server.end();
    let sentence =
        "cannot notify the service manager at \"/nowhere/notify\" (NOTIFY_SOCKET): No such file";
    assert_eq!(log.matches(sentence).count(), 2, "{log}");
    assert_eq!(log.matches("[WARN]").count(), 2, "{log}");
}

#[test]
fn a_command_of_a_worker_cannot_speak_for_it() {
    let server = Server::start("queue-server", &["0"]);
    let host_and_port = server.host_and_ports();
    let client = |words: &[&str]| {
        let words = host_and_port
            .iter()
            .map(String::as_str)
            .chain(words.iter().copied());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    run("queue-client", &client(&["send", "-"]), b"job").expect(0);
    let mut command = Command::new(program("queue-client"));
    let shell = "echo ${NOTIFY_SOCKET-none} ${QUEUE_ATTEMPT-none}";
    command.args(client(&["work", "--once", "--", "sh", "-c", shell]));
    command.env("NOTIFY_SOCKET", "/nowhere/notify");
    let ran = crate::harness::run_command(command, b"").expect(0);
    assert_eq!(ran.out(), "none 1\n");
}

#[test]
fn a_server_on_postgresql_says_whether_it_serves_or_stands_by() {
    let Some(database) = postgres::database() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (socket, name) = manager_in(&dir);
    let args = ["0", "--data", &database.url()];
    let first = start("queue-server", &args, &name, &dir);
    let status = |what: &str, server: &Server| format!("STATUS={what} on {}", server.addr());
    assert_eq!(notified(&socket), ["READY=1", &status("Serving", &first)]);
    let second = start("queue-server", &args, &name, &dir);
    let standby = status("Standing by", &second);
    assert_eq!(notified(&socket), ["READY=1", &standby]);
    first.kill();
    assert_eq!(notified(&socket), [status("Serving", &second)]);
}
