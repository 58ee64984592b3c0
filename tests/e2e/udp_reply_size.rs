//! The queue over UDP from another machine: a reply is at most three times as long as its request, so
//! that a forged source turns nobody into a target.
//!
//! The other machine is this one, in a network namespace that has an address which is not loopback.

use std::process::Command;

use crate::harness::{Server, program, python, root, run_command, skipped};

/// An address for documentation (RFC 5737).
const ADDRESS: &str = "192.0.2.1";

/// A server in a network of its own; `None` where there cannot be one.
fn start(options: &[&str]) -> Option<Server> {
    let set_up = format!("ip link set lo up && ip addr add {ADDRESS}/32 dev lo");
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-c", command]);
        unshare
    };
    if !unshare(&set_up)
        .output()
        .is_ok_and(|output| output.status.success())
    {
        skipped("there is no unshare(1) or ip(8), or they may not make a network");
        return None;
    }
    let server = program("queue-server");
    let mut command = unshare(&format!("{set_up} && exec \"$0\" \"$@\""));
    command.arg(server).args(["0", "udp", "--bind", ADDRESS]);
    command.args(options);
    Some(Server::spawn(command))
}

/// A command in the network of a server.
fn beside(server: &Server) -> Command {
    let mut command = Command::new("nsenter");
    let pid = server.pid().to_string();
    command.args([
        "--preserve-credentials",
        "--user",
        "--net",
        "--target",
        &pid,
    ]);
    command
}

/// What a client of thirty lines of Python sends and gets: the lengths of requests and replies.
fn lengths(server: &Server) -> Vec<(usize, Option<usize>)> {
    let mut command = beside(server);
    command.arg("python3");
    command.arg(root().join("tests/python/queue_udp.py"));
    command.arg(ADDRESS).arg(server.addr().port().to_string());
    let ran = run_command(command, b"").expect(0);
    let line = |line: &str| {
        let (request, reply) = line.split_once(' ').unwrap();
        (request.parse().unwrap(), reply.parse().ok())
    };
    ran.out().lines().map(line).collect()
}

#[test]
fn from_afar_a_reply_is_at_most_three_times_as_long_as_its_request() {
    let Some(server) = start(&[]) else { return };
    let lengths = lengths(&server);
    for (request, reply) in &lengths {
        assert!(reply.unwrap_or(0) <= 3 * request, "{lengths:?}");
    }
    // A send, a receive that has to be padded, and so do the figures; plain text gets no reply.
    assert_eq!(lengths.len(), 6, "{lengths:?}");
    assert_eq!(lengths[5], (7, None));
    server.wait_for_log(|log| log.contains("--udp-text takes it"));
    // Our own client pads by itself.
    let port = server.addr().port().to_string();
    let ask = |verb: &[&str], input: &[u8]| {
        let mut command = beside(&server);
        command.arg(program("queue-client"));
        command.args([ADDRESS, &port, "UDP"]).args(verb);
        run_command(command, input).expect(0).stdout
    };
    let body = [b'y'; 3000];
    ask(&["send", "-"], &body);
    assert!(ask(&["peek"], b"") == body);
    let stats = String::from_utf8(ask(&["stats"], b"")).unwrap();
    assert!(stats.contains("sent 2\n"), "{stats}");
    assert!(ask(&["receive"], b"") == body);
}

#[test]
fn from_afar_plain_text_is_taken_where_it_may_be() {
    let Some(server) = start(&["--udp-text"]) else {
        return;
    };
    assert_eq!(lengths(&server)[5], (7, Some(29)));
}

#[test]
fn on_this_machine_everything_may_be_short() {
    let server = Server::start("queue-server", &["0", "udp"]);
    let port = server.addr().port().to_string();
    let ran = python("queue_udp.py", &["127.0.0.1", &port]).expect(0);
    assert_eq!(
        ran.out().lines().count(),
        4,
        "nothing was padded: {}",
        ran.out()
    );
}
