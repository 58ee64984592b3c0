//! Servers that are away, or have no connection left.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use super::Place;
use crate::harness::{
    Needs, Running, Server, eventually, has_door, has_sqlite, program, run_command,
};
use crate::work::{client, say, start};

/// A client that waits for this server.
fn wait(server: &Server, words: &str) -> Running {
    let mut command = Command::new(program("queue-client"));
    command.args(server.host_and_ports());
    command.args(words.split_whitespace());
    Running::start(command)
}

fn waiting(server: &Server) -> u64 {
    let queues = client(server).stats().unwrap().queues;
    queues.iter().map(|queue| queue.waiters).sum()
}

const WAITS: [&str; 4] = [
    "receive --wait 60",
    "receive --follow",
    "work --once --wait 60 -- cat",
    "lease 60 job --wait 60",
];

#[test]
fn who_waits_for_a_message_is_never_told_that_there_is_none_by_a_server_that_stops() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&["tcp"]);
    let waits = WAITS.map(|words| {
        let words = words.replace(" job ", &format!(" {}/job ", folder.path().display()));
        wait(&server, &format!("--wait-for-server 0 {words}"))
    });
    eventually("all wait", || waiting(&server) == WAITS.len() as u64);
    server.signal("TERM");
    for client in waits {
        assert_eq!(
            client.wait(),
            Some(3),
            "{}: {}",
            client.command,
            client.stderr.text()
        );
    }
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn who_may_wait_for_the_server_waits_on_when_it_is_there_again() {
    if !has_door(
        Needs::Tcp,
        "the harness gives each server a socket of its own",
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job");
    for words in WAITS {
        let server = start(&["tcp"]);
        let port = server.addr().port().to_string();
        let words = words.replace(" job ", &format!(" {} ", job.display()));
        // The others do so by themselves.
        let option = match words.starts_with("work") || words.contains("--follow") {
            true => "",
            false => "--wait-for-server 60",
        };
        let client = wait(&server, &format!("{option} {words}"));
        eventually("it waits", || waiting(&server) == 1);
        server.signal("TERM");
        assert_eq!(server.wait().0, Some(0));
        let server = Server::start("queue-server", &[&port, "tcp"]);
        say(&server, "send -", b"late").expect(0);
        if words.contains("--follow") {
            client.wait_for_stderr(|said| said.contains("Received: 4 bytes"));
            assert_eq!(client.ended(), None, "it waits for more");
        } else {
            assert_eq!(client.wait(), Some(0), "{words}: {}", client.stderr.text());
        }
    }
}

#[test]
fn what_one_worker_has_done_while_the_server_was_away_is_not_done_again() {
    if !has_door(
        Needs::Tcp,
        "the harness gives each server a socket of its own",
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (begun, end, data) = (
        folder.path().join("begun"),
        folder.path().join("end"),
        folder.path().join("data"),
    );
    let data = data.to_str().unwrap();
    let server = start(&["tcp", "--data", data]);
    let port = server.addr().port().to_string();
    say(&server, "send -", b"job").expect(0);
    say(&server, "send -", b"other").expect(0);
    let mut worker = Command::new(program("queue-client"));
    worker.args(server.host_and_ports());
    worker.args(["work", "--once", "--", "sh", "-c"]);
    worker.arg(format!(
        "touch {}; until [ -e {} ]; do sleep 0.01; done",
        begun.display(),
        end.display()
    ));
    let worker = Running::start(worker);
    eventually("it has begun", || begun.exists());
    server.kill();
    let server = Server::start("queue-server", &[&port, "tcp", "--data", data]);
    fs::write(end, "").unwrap();
    assert_eq!(worker.wait(), Some(0), "{}", worker.stderr.text());
    let left = say(&server, "receive", b"").expect(0).out();
    assert_eq!(left, "other");
    say(&server, "receive", b"").expect(1);
}

#[test]
fn a_new_message_is_not_taken_for_one_that_is_done_because_the_server_counts_from_1_again() {
    let is_there = has_door(Needs::Tcp, "its server starts again on the same port")
        && has_sqlite("its server keeps its messages in memory");
    if !is_there {
        return;
    }
    let place = Place::new("", "old\n");
    let script =
        "read -r job; echo $job >> begun; until [ -e go ]; do sleep 0.01; done; echo $job >> done";
    let worker = place.work("", script);
    eventually("it has begun", || place.read("begun") == "old\n");
    let port = place.server.addr().port().to_string();
    let Place { server, folder } = place;
    server.kill();
    let server = Server::start("queue-server", &[&port, "tcp"]);
    fs::write(folder.path().join("go"), "").unwrap();
    worker.wait_for_stderr(|said| said.contains("Message 1 is gone with the server"));
    say(&server, "send -", b"new").expect(0);
    let done = || fs::read_to_string(folder.path().join("done")).unwrap_or_default();
    eventually("the new one is done", || done() == "old\nnew\n");
    worker.signal("TERM");
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn who_has_never_reached_a_server_does_not_wait_for_it() {
    let server = start(&["tcp"]);
    let words = ["send /dev/null --lines", "receive --follow", "work -- cat"];
    let commands = words.map(|words| {
        let mut command = Command::new(program("queue-client"));
        command.args(server.host_and_ports()).args(words.split(' '));
        command
    });
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
    for command in commands {
        run_command(command, b"").expect(3);
    }
}

#[test]
fn more_jobs_than_connections_are_no_failure() {
    let place = Place::new("--max-connections 2", "1\n2\n3\n4\n5\n6\n7\n8\n");
    let options = "--jobs 4 --drain --wait-for-server 60";
    let script = "read -r job; sleep 0.05; echo $job >> done";
    run_command(place.command(&[], options, script), b"").expect(0);
    assert_eq!(place.read("done").lines().count(), 8);
}

#[test]
fn who_may_wait_for_the_server_waits_for_a_connection() {
    let server = start(&["tcp", "--max-connections", "1"]);
    for words in [
        "send /dev/null",
        "list",
        "receive",
        "send --lines /dev/null",
    ] {
        let turned_away = || server.log().matches("WARN").count();
        // A client that has a message reserved keeps its connection. The server may not know yet that the
        // client before it is gone.
        let mut holder = client(&server);
        while let Err(error) = holder.send(b"job") {
            assert!(error.to_string().contains("as many connections"), "{error}");
            holder = client(&server);
        }
        let before = turned_away();
        let message = holder.receive().unwrap().unwrap();
        let waiting = wait(&server, &format!("--wait-for-server 60 {words}"));
        eventually("it is turned away", || turned_away() > before);
        holder.release(&message, Duration::ZERO).unwrap();
        drop(holder);
        assert_eq!(
            waiting.wait(),
            Some(0),
            "{words}: {}",
            waiting.stderr.text()
        );
    }
}

#[test]
fn who_sends_many_is_told_which_is_the_first_that_may_not_be_stored() {
    let place = Place::new("", "");
    let fifo = place.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let words = format!("--wait-for-server 0 send --lines {}", fifo.display());
    let sender = wait(&place.server, &words);
    let mut lines = fs::File::create(&fifo).unwrap();
    lines.write_all(b"one\ntwo\nthree\n").unwrap();
    let ready = || {
        let queues = client(&place.server).stats().unwrap().queues;
        queues.iter().map(|queue| queue.ready).sum::<u64>()
    };
    eventually("three are stored", || ready() == 3);
    let Place { server, .. } = place;
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
    lines.write_all(b"four\nfive\n").unwrap();
    drop(lines);
    assert_eq!(sender.wait(), Some(3));
    let said = sender.stderr.text();
    let knows =
        said.contains("not known whether message 4 and the 1 behind it were stored; 3 were");
    assert!(
        knows || said.contains("message 4 was not stored; 3 were"),
        "{said}"
    );
}
