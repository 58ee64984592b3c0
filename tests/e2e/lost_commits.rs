//! A commit of which the server does not know whether it has happened: PostgreSQL is killed, or warns, while a commit
//! waits for the replica. Clients with a session go on by themselves and do everything once; one without is told that
//! it is not known.

use std::fs;
use std::io::Write;
use std::ops::RangeInclusive;
use std::process::Command;

use crate::harness::postgres::pair::Pair;
use crate::harness::{Needs, Running, Server, eventually, has_door, program};
use crate::work::{check, say};

const DATABASE: &str = "queue";

/// Nobody writes a message while this lasts.
const LOCK: &str = "BEGIN; LOCK TABLE messages IN SHARE MODE; SELECT pg_sleep(3600)";
const UNLOCK: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

/// What follows when the primary was killed while a commit waited for the replica.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The replica is promoted, which does not have what was committed.
    Promote,
    /// It is started again, and has it.
    Restart,
}

/// A queue server whose messages are in a pair.
struct World {
    pair: Pair,
    server: Server,
}

impl World {
    fn start() -> Option<Self> {
        // With TLS a connection may be ended before it has sent the reply.
        if !has_door(Needs::Plain, "the reply must come before the end") {
            return None;
        }
        let mut pair = Pair::start(Default::default())?;
        pair.primary().sql(&format!("CREATE DATABASE {DATABASE}"));
        let url = pair.url(DATABASE);
        // It does not step down because a commit takes long.
        let args = ["0", "tcp", "--data", &url, "--takeover-after", "1h"];
        let server = Server::start("queue-server", &args);
        server.wait_for_log(|log| log.contains("Active;"));
        Some(Self { pair, server })
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut client = Command::new(program("queue-client"));
        client.args(self.server.host_and_ports()).args(words);
        client
    }

    /// Has the commit of what is begun wait for a replica that is gone.
    fn hang<T>(&mut self, begin: impl FnOnce(&Self) -> T) -> T {
        let url = self.pair.url(DATABASE);
        // Otherwise the commit that shows that the server lives might be the one that waits.
        let _locked = Running::start(self.pair.primary().psql(&url, LOCK));
        self.wait_for("PgSleep");
        let begun = begin(self);
        self.wait_for("relation");
        self.pair.replica().kill();
        assert_eq!(self.pair.primary().sql(UNLOCK), "t");
        self.wait_for("SyncRep");
        begun
    }

    /// Waits until a session of PostgreSQL waits for this.
    fn wait_for(&mut self, event: &str) {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{event}'");
        let primary = self.pair.primary();
        eventually(event, || primary.sql(&count) == "1");
    }

    /// Does something after which the server is active once more.
    fn until_active(&mut self, act: impl FnOnce(&mut Pair)) {
        let terms = |log: &str| log.matches("Active;").count();
        let before = terms(&self.server.log());
        act(&mut self.pair);
        self.server.wait_for_log(|log| terms(log) > before);
    }

    fn fail_over(&mut self, next: Next) {
        self.until_active(|pair| {
            pair.primary().kill();
            match next {
                Next::Promote => {
                    pair.replica().restart();
                    pair.promote();
                }
                Next::Restart => {
                    pair.primary().restart();
                    pair.replica().restart();
                }
            }
        });
    }
}

fn lines(numbers: RangeInclusive<u32>) -> String {
    numbers.map(|number| format!("{number}\n")).collect()
}

/// Waits until a client that goes on has been told that something is not known.
#[track_caller]
fn wait_until_in_doubt(client: &Running) {
    client.wait_for_stderr(|said| said.contains("Trying again: "));
    let said = client.stderr.text();
    assert!(said.contains("is not known to be stored: "), "{said}");
}

#[track_caller]
fn check_that_lines_are_sent_once(next: Next) {
    let Some(mut world) = World::start() else {
        return;
    };
    let (sender, mut input) = Running::start_fed(world.client(&["send", "--lines", "-"]));
    input.write_all(lines(1..=9).as_bytes()).unwrap();
    eventually("they are stored", || {
        let list = say(&world.server, "list", b"").expect(0).out();
        list.starts_with("default\t9\t")
    });
    world.hang(|_| input.write_all(lines(10..=18).as_bytes()).unwrap());
    world.fail_over(next);
    wait_until_in_doubt(&sender);
    input.write_all(lines(19..=27).as_bytes()).unwrap();
    drop(input);
    assert_eq!(sender.wait(), Some(0), "{}", sender.stderr.text());
    check(&world.server, "receive --count 1000", "", 0, &lines(1..=27));
}

#[test]
fn lines_are_sent_once_while_a_replica_is_promoted() {
    check_that_lines_are_sent_once(Next::Promote);
}

#[test]
fn lines_are_sent_once_while_postgresql_is_started_again() {
    check_that_lines_are_sent_once(Next::Restart);
}

#[track_caller]
fn check_that_messages_are_worked_on_once(next: Next) {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    say(&world.server, "send --lines -", lines(1..=9).as_bytes()).expect(0);
    let script = format!("cat >> {0}; echo >> {0}", done.display());
    let words = ["work", "--drain", "--", "sh", "-c", &script];
    let worker = world.hang(|world| Running::start(world.client(&words)));
    world.fail_over(next);
    assert_eq!(worker.wait(), Some(0), "{}", worker.stderr.text());
    wait_until_in_doubt(&worker);
    assert_eq!(fs::read_to_string(done).unwrap(), lines(1..=9));
    check(&world.server, "list", "", 0, "");
}

#[test]
fn messages_are_worked_on_once_while_a_replica_is_promoted() {
    check_that_messages_are_worked_on_once(Next::Promote);
}

#[test]
fn messages_are_worked_on_once_while_postgresql_is_started_again() {
    check_that_messages_are_worked_on_once(Next::Restart);
}

#[test]
fn a_lease_that_was_not_known_is_had_when_postgresql_is_started_again() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job");
    say(&world.server, "send -", b"job").expect(0);
    let file = job.to_str().unwrap();
    let words = [
        "lease",
        "1h",
        file,
        "--wait",
        "60",
        "--wait-for-server",
        "60",
    ];
    let client = world.hang(|world| Running::start(world.client(&words)));
    world.fail_over(Next::Restart);
    // Otherwise it would wait for an hour: nobody else has the token.
    assert_eq!(client.wait(), Some(0), "{}", client.stderr.text());
    wait_until_in_doubt(&client);
    assert_eq!(fs::read_to_string(job).unwrap(), "job");
    let ack = format!("ack {}", client.stdout_text().trim_end());
    check(&world.server, &ack, "", 0, "");
    check(&world.server, "list", "", 0, "");
}

#[test]
fn one_without_a_session_is_told_that_it_is_not_known() {
    let Some(mut world) = World::start() else {
        return;
    };
    let send = |words: &'static [&str]| {
        move |world: &World| {
            let (client, mut input) = Running::start_fed(world.client(words));
            input.write_all(b"one\ntwo\n").unwrap();
            client
        }
    };
    let mut check = |begin: &dyn Fn(&World) -> Running, code: i32, says: &str| {
        let client = world.hang(begin);
        let cancel =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        assert_eq!(world.pair.primary().sql(cancel), "t");
        assert_eq!(client.wait(), Some(code), "{}", client.stderr.text());
        let said = client.stdout_text() + &client.stderr.text();
        assert!(said.contains(says), "{said}");
        world.until_active(|pair| pair.replica().restart());
    };
    let sentence =
        "queue-client: the change is not known to be stored: its commit had no certain answer";
    check(&send(&["send", "-"]), 3, sentence);
    let words = &["send", "--lines", "--wait-for-server", "0", "-"];
    let sentence = "it is not known whether message 1 and the 1 behind it were stored; 0 were: ";
    check(&send(words), 3, sentence);
    let post = |world: &World| {
        let mut curl = world.server.curl("/queues/default/messages");
        curl.args(["--data", "one", "--write-out", "%{http_code}"]);
        Running::start(curl)
    };
    let reply = "{\"code\":16,\"error\":\"the change is not known to be stored: ";
    check(&post, 0, reply);
    // The first of each was stored, whatever has become of the second line.
    let list = say(&world.server, "list", b"").expect(0).out();
    let is_stored = ["default\t3\t", "default\t4\t"];
    assert!(
        is_stored.iter().any(|stored| list.starts_with(stored)),
        "{list}"
    );
}
