//! Whole servers on PostgreSQL: one that hangs, one that is stopped or killed, and a PostgreSQL that hangs or ends.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use testing::{Cluster, Database, Process, SERVER_USER, eventually};

#[path = "../src/journal/postgres/testing.rs"]
#[allow(dead_code, reason = "the crate's own tests use the rest")]
mod testing;

/// What a server logs when it is active, and when it stands by.
const ACTIVE: &str = "Active; ";
const STANDING_BY: &str = "Standing by; ";

/// Longer than any of these tests.
const LONG: &str = "1h";

/// The shortest that there is. Half of it is how long a server acts without an answer of the database.
const SHORT: &str = "2s";

/// A queue server.
struct Server {
    process: Process,
    addr: String,
}

impl Server {
    /// Starts one on these databases, and waits until it serves or stands by.
    #[track_caller]
    fn start(url: &str, takeover_after: &str, state: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_queue-server"));
        command.args(["0", "TCP", "--data", url]);
        command.args(["--takeover-after", takeover_after]);
        let process = Process::start(command);
        process.wait_for_log(state);
        let line = process.wait_for_log("Server started on ");
        let addr = line.rsplit(' ').next().unwrap().to_owned();
        Self { process, addr }
    }

    /// Begins a request; the reply is read later.
    fn begin(&self, request: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        // It may be cut off at once.
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        stream
    }

    /// The status and the body of a reply; the status is 0 if there is none.
    fn ask(&self, request: &str, body: &str) -> (u16, String) {
        reply(self.begin(request, body))
    }

    #[track_caller]
    fn send(&self, body: &str) {
        let (status, reply) = self.ask("POST /queues/default/messages", body);
        assert_eq!(status, 201, "{reply}");
    }

    /// The next message.
    #[track_caller]
    fn lease(&self) -> String {
        let (status, reply) = self.ask(LEASE, "");
        assert_eq!(status, 200, "{reply}");
        reply
    }

    #[track_caller]
    fn check_stands_by(&self) {
        for request in ["GET /healthz", LEASE, "GET /queues"] {
            let (status, reply) = self.ask(request, "");
            assert_eq!(status, 503, "{request}: {reply}");
        }
    }
}

const LEASE: &str = "POST /queues/default/lease";

fn reply(mut stream: TcpStream) -> (u16, String) {
    let mut reply = String::new();
    // What has come until it was cut off.
    let _ = stream.read_to_string(&mut reply);
    let status = reply.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

/// Waits until the active server has been silent for a second, which is as long as it may act.
#[track_caller]
fn wait_until_silent(database: &Database) {
    let silent = "SELECT clock_timestamp() - heartbeat > INTERVAL '1.1 s' FROM leader";
    eventually("it is silent", || {
        (database.sql(silent) == "t").then_some(())
    });
}

#[test]
fn a_stopped_or_killed_server_is_replaced_at_once() {
    let Some(database) = Database::new() else {
        return;
    };
    let url = database.url();
    let mut first = Server::start(&url, LONG, ACTIVE);
    for (signal, body) in [(Signal::TERM, "a"), (Signal::KILL, "b"), (Signal::INT, "c")] {
        let second = Server::start(&url, LONG, STANDING_BY);
        second.check_stands_by();
        first.send(body);
        let waiting = first.begin("POST /queues/empty/lease?wait=60", "");
        let is_killed = signal == Signal::KILL;
        if !is_killed {
            // As on an engine without such locks: it hands over by the row.
            database.sql("UPDATE leader SET has_lock = FALSE");
        }
        first.process.signal(signal);
        second.process.wait_for_log(ACTIVE);
        assert_ne!(reply(waiting).0, 200);
        assert_eq!(first.process.wait().success(), !is_killed);
        assert_eq!(second.lease(), body);
        first = second;
    }
}

#[test]
fn a_server_that_was_stopped_for_too_long_hands_out_nothing_when_it_continues() {
    let Some(database) = Database::new() else {
        return;
    };
    let url = database.url();
    let former = Server::start(&url, SHORT, ACTIVE);
    former.send("a");
    former.process.signal(Signal::STOP);
    wait_until_silent(&database);
    let asked = former.begin(LEASE, "");
    former.process.signal(Signal::CONT);
    // Nobody else was there.
    let (status, body) = reply(asked);
    assert_ne!(status, 200, "{body}");
    former.process.wait_for_log(STANDING_BY);
    former.process.wait_for_log(ACTIVE);

    let next = Server::start(&url, SHORT, STANDING_BY);
    former.process.signal(Signal::STOP);
    next.process.wait_for_log(ACTIVE);
    let asked = former.begin(LEASE, "");
    former.process.signal(Signal::CONT);
    let (status, body) = reply(asked);
    assert_ne!(status, 200, "{body}");
    former.process.wait_for_log(STANDING_BY);
    former.check_stands_by();
    assert_eq!(next.lease(), "a");
}

/// Starts a server, which must end for this reason with this exit code.
#[track_caller]
fn check_start_fails(url: &str, reason: &str, code: i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queue-server"));
    command.args(["0", "TCP", "--data", url]);
    let mut process = Process::start(command);
    process.wait_for_log(&format!("queue-server: {reason}"));
    assert_eq!(process.wait().code(), Some(code));
}

#[test]
fn a_database_that_cannot_be_used_ends_the_start_with_a_reason() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let running = Arc::new(cluster.start(&[]));
    let database = Database::of(&running);
    let url = database.url();
    // What may pass is trouble with the network, and what somebody must change first is not.
    let nobody = url.replace(SERVER_USER, "nobody");
    check_start_fails(&nobody, "cannot use the database: 127.0.0.1:", 2);
    let name = database.sql("SELECT current_database()");
    database.sql(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    check_start_fails(&url, "cannot use the database now: 127.0.0.1:", 3);
    drop((database, running));
    check_start_fails(&url, "cannot use the database now: 127.0.0.1:", 3);
}

#[test]
fn a_database_that_does_not_wait_for_the_disk_is_told() {
    let Some(database) = Database::new() else {
        return;
    };
    let name = database.sql("SELECT current_database()");
    database.sql(&format!(
        "ALTER DATABASE {name} SET synchronous_commit = off"
    ));
    let mut command = Command::new(env!("CARGO_BIN_EXE_queue-server"));
    command.args(["0", "TCP", "--data", &database.url()]);
    let process = Process::start(command);
    process.wait_for_log("synchronous_commit is off in this database, and on for this server");
    // All tests have it so.
    process.wait_for_log("With fsync off in PostgreSQL, a power cut loses what was acknowledged");
    process.wait_for_log(ACTIVE);
}

#[test]
fn a_lock_that_somebody_else_keeps_makes_the_server_step_down_until_it_is_free() {
    let Some(database) = Database::new() else {
        return;
    };
    let server = Server::start(&database.url(), SHORT, ACTIVE);
    server.send("a");
    let held = database.hold("BEGIN; SELECT * FROM leader FOR UPDATE");
    let asked = server.begin("POST /queues/default/messages", "b");
    server.process.wait_for_log(STANDING_BY);
    server.check_stands_by();
    assert_ne!(reply(asked).0, 201);
    drop(held);
    server.process.wait_for_log(ACTIVE);
    assert_eq!(server.lease(), "a");
}

#[test]
fn servers_go_on_by_themselves_when_postgresql_was_started_again() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let running = Arc::new(cluster.start(&[]));
    let url = Database::of(&running).url();
    let active = Server::start(&url, LONG, ACTIVE);
    let standby = Server::start(&url, LONG, STANDING_BY);
    active.send("a");
    drop(running);
    active.process.wait_for_log(STANDING_BY);
    active.process.wait_for_log("cannot use the database now");
    standby.process.wait_for_log("trying again");
    active.check_stands_by();
    standby.check_stands_by();
    let _running = cluster.start(&[]);
    let lease = eventually("one of them serves", || {
        let asked = [&active, &standby].map(|server| server.ask(LEASE, ""));
        let leased = asked.into_iter().find(|(status, _)| *status == 200);
        leased.map(|(_, body)| body)
    });
    assert_eq!(lease, "a");
}

#[test]
fn a_server_can_be_stopped_while_postgresql_hangs() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let running = Arc::new(cluster.start(&[]));
    let url = Database::of(&running).url();
    let mut active = Server::start(&url, SHORT, ACTIVE);
    let mut standby = Server::start(&url, SHORT, STANDING_BY);
    running.freeze();
    let asked = active.begin("POST /queues/default/messages", "b");
    active.process.wait_for_log("has not answered for too long");
    assert_ne!(reply(asked).0, 201);
    for server in [&mut active, &mut standby] {
        server.check_stands_by();
        server.process.signal(Signal::TERM);
        assert!(server.process.wait().success());
    }
    // One that has not noticed yet.
    running.thaw();
    let mut active = Server::start(&url, LONG, ACTIVE);
    running.freeze();
    active.process.signal(Signal::TERM);
    assert!(active.process.wait().success());
}

#[test]
fn a_postgresql_that_hangs_is_left_for_the_next_one_of_the_url() {
    let (Some(first), Some(second)) = (Cluster::new(), Cluster::new()) else {
        return;
    };
    let [first, second] = [first, second].map(|cluster| Arc::new(cluster.start(&[])));
    // They need not know each other: this is about who is asked.
    let name = Database::of(&first).sql("SELECT current_database()");
    Database::of(&second).sql(&format!("CREATE DATABASE {name} OWNER {SERVER_USER}"));
    let [port, other] = [&first, &second].map(|running| running.cluster().port());
    let both = format!(
        "postgresql://{SERVER_USER}@127.0.0.1:{port},127.0.0.1:{other}/{name}?connect_timeout=1"
    );
    let active = Server::start(&both, SHORT, ACTIVE);
    let standby = Server::start(&both, SHORT, STANDING_BY);
    active.send("a");
    first.freeze();
    active.process.wait_for_log(STANDING_BY);
    // The other one looks there, too.
    let servers = [&active, &standby];
    let last = eventually("one of them serves", || {
        let is_there = |server: &&Server| server.ask("GET /healthz", "").0 == 200;
        servers.iter().position(is_there)
    });
    let [mut last, next] = if last == 0 {
        [active, standby]
    } else {
        [standby, active]
    };
    last.send("b");
    last.process.signal(Signal::TERM);
    assert!(last.process.wait().success());
    next.process.wait_for_log(ACTIVE);
    assert_eq!(next.lease(), "b");
}
