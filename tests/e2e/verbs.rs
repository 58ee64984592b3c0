//! Every verb of the queue's client: its exit code, its standard output, and its bad input.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Address, Needs, Server, eventually, has_door, program, run_command};
use crate::work::{check, check_refused, client, say, start};

/// A server with these messages in the default queue.
fn server_with(lines: &str) -> Server {
    let server = start(&["tcp"]);
    say(&server, "send --lines -", lines.as_bytes()).expect(0);
    server
}

/// Leases the oldest message into a file; its token.
#[track_caller]
fn lease(server: &Server, secs: u32, want: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job");
    let line = format!("lease {secs} {}", file.display());
    let token = say(server, &line, b"").expect(0).out();
    assert_eq!(fs::read_to_string(&file).unwrap(), want);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    token.trim_end().to_owned()
}

/// What `list` says, without the ages.
#[track_caller]
fn listed(server: &Server) -> Vec<String> {
    let out = say(server, "list", b"").expect(0).out();
    let line = |line: &str| {
        let mut words: Vec<_> = line.split('\t').collect();
        words.drain(5..7);
        words.join(" ")
    };
    out.lines().map(line).collect()
}

#[test]
fn send_one() {
    let server = start(&["tcp"]);
    let ran = check(&server, "send -", "hello", 0, "");
    assert!(ran.stderr.contains("Sent: 5 bytes"), "{}", ran.stderr);
    check(&server, "receive", "", 0, "hello");
    check_refused(&server, "send", 2, "the FILE to send is missing");
    check_refused(&server, "send no-such-file", 2, "cannot read no-such-file");
    check_refused(&server, "send - x", 2, "one argument too many");
    check_refused(&server, "send - --json", 2, "--json does not go with send");
}

#[test]
fn send_lines() {
    let server = start(&["tcp"]);
    let ran = check(&server, "send --lines -", "one\n\nthree", 0, "");
    let want = "Sent: 3 messages, 8 bytes";
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
    check(&server, "receive --count 9", "", 0, "one\n\nthree\n");
    check(&server, "send --null -", "a\nb\0c", 0, "");
    check(&server, "receive --count 9 --null", "", 0, "a\nb\0c\0");
    check(&server, "send --lines -", "", 0, "");
    check(&server, "receive", "", 1, "");
}

#[test]
fn send_many_lines() {
    const LINES: usize = 20_000;
    let server = start(&["tcp"]);
    let input: String = (0..LINES).map(|n| format!("line {n}\n")).collect();
    say(&server, "send --lines -", input.as_bytes()).expect(0);
    let line = format!("receive --count {LINES}");
    let out = say(&server, &line, b"").expect(0).out();
    assert!(out == input, "{} bytes", out.len());
}

#[test]
fn a_line_that_is_too_long_is_named_and_those_before_it_are_sent() {
    let server = start(&["tcp"]);
    let input = b"1\n2\n123456\n4\n";
    let ran = say(&server, "send --lines - --max-message 5", input).expect(2);
    let want = "message 3 exceeds 5 bytes";
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
    check(&server, "receive --count 9", "", 0, "1\n2\n");
    // The server's own limit is lower.
    let server = start(&["tcp", "--max-message", "5"]);
    let ran = say(&server, "send --lines -", input).expect(1);
    let want = "message 3 was not stored; 3 were: the server refused: a message of 6 bytes";
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
    check(&server, "receive --count 9", "", 0, "1\n2\n4\n");
}

#[test]
fn send_later() {
    let server = start(&["tcp"]);
    check(&server, "send --delay 3600 -", "never", 0, "");
    check(&server, "send --delay 2 -", "soon", 0, "");
    check(&server, "receive", "", 1, "");
    assert_eq!(listed(&server), ["default 0 0 2 0"]);
    check(&server, "receive --wait 10", "", 0, "soon");
    let sentence = "--delay must be a duration from 0 to 49d";
    check_refused(&server, "send --delay x -", 2, sentence);
}

#[test]
fn receive() {
    let server = server_with("one\ntwo\nthree\nfour\nfive\n");
    let ran = check(&server, "receive", "", 0, "one");
    assert!(ran.stderr.contains("Received: 3 bytes"), "{}", ran.stderr);
    check(&server, "receive --count 2", "", 0, "two\nthree\n");
    check(&server, "receive --delimiter ;", "", 0, "four;");
    check(&server, "receive --null", "", 0, "five\0");
    check_refused(&server, "receive", 1, "Error - no messages in queue.");
    check_refused(&server, "receive --wait 0.01", 1, "no messages");
    check_refused(&server, "receive --count 0", 2, "--count must be a number");
}

#[test]
fn receive_for_ever() {
    let server = start(&["tcp"]);
    let mut command = Command::new("sh");
    // Ends when head has seen enough.
    command.args(["-c", "\"$0\" \"$@\" | head -n 2"]);
    command.arg(program("queue-client"));
    command.args(server.host_and_ports());
    command.args(["receive", "--follow"]);
    let received = std::thread::scope(|scope| {
        let follower = scope.spawn(|| run_command(command, b"").expect(0).out());
        let mut sender = client(&server);
        for n in 0.. {
            if follower.is_finished() {
                break;
            }
            sender.send(format!("{n}").as_bytes()).unwrap();
            let gone = || sender_sees_nothing(&server) || follower.is_finished();
            eventually("it is taken", gone);
        }
        follower.join().unwrap()
    });
    assert_eq!(received, "0\n1\n");
}

fn sender_sees_nothing(server: &Server) -> bool {
    let queues = client(server).stats().unwrap().queues;
    queues.iter().all(|queue| queue.ready + queue.reserved == 0)
}

#[test]
fn a_message_that_could_not_be_written_stays() {
    let server = server_with("one\ntwo\n");
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" \"$@\" > /dev/full"]);
    command.arg(program("queue-client"));
    command.args(server.host_and_ports());
    command.args(["receive", "--count", "2"]);
    run_command(command, b"").expect(2);
    check(&server, "receive --wait 10", "", 0, "one");
}

#[test]
fn lease_and_ack() {
    let server = server_with("one\ntwo\n");
    let token = lease(&server, 3600, "one");
    assert_eq!(listed(&server), ["default 1 1 0 0"]);
    check(&server, &format!("extend {token} 7200"), "", 0, "");
    check(&server, &format!("ack {token}"), "", 0, "");
    let sentence = "no message is leased under this token";
    check_refused(&server, &format!("ack {token}"), 1, sentence);
    check_refused(&server, &format!("release {token}"), 1, sentence);
    check_refused(&server, &format!("extend {token} 1"), 1, sentence);
    check(&server, "receive", "", 0, "two");
    check_refused(&server, "lease 1 job.txt", 1, "no messages");
    check_refused(&server, "lease 1 /no/such/folder/x", 2, "cannot write");
    check_refused(&server, "lease 1", 2, "the FILE for the message is missing");
    check_refused(&server, "ack", 2, "the TOKEN is missing");
    check_refused(&server, "ack 1", 2, "TOKEN must be what lease has printed");
    check_refused(&server, "release", 2, "the TOKEN is missing");
    let extend = format!("extend {token}");
    check_refused(&server, &extend, 2, "the TIME of the lease is missing");
}

#[test]
fn release_puts_to_the_end() {
    let server = server_with("one\ntwo\n");
    let token = lease(&server, 3600, "one");
    check(&server, &format!("release {token}"), "", 0, "");
    check(&server, "receive --count 2", "", 0, "two\none\n");
    let server = server_with("one\n");
    let token = lease(&server, 3600, "one");
    let line = format!("release {token} --retry-delay 3600");
    check(&server, &line, "", 0, "");
    assert_eq!(listed(&server), ["default 0 0 1 0"]);
}

#[test]
fn a_lease_that_runs_out_gives_the_message_back_to_the_front() {
    let server = server_with("one\ntwo\n");
    let token = lease(&server, 0, "one");
    eventually("the lease is over", || {
        listed(&server) == ["default 2 0 0 0"]
    });
    check(&server, "receive --wait 10 --count 2", "", 0, "one\ntwo\n");
    check(&server, &format!("ack {token}"), "", 1, "");
}

#[test]
fn a_lease_survives_both_client_and_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let args = ["tcp", "--data", data.to_str().unwrap()];
    let server = start(&args);
    say(&server, "send --lines -", b"one\ntwo\nthree\n").expect(0);
    let (first, second) = (lease(&server, 3600, "one"), lease(&server, 10, "two"));
    server.kill();
    let server = start(&args);
    assert_eq!(listed(&server), ["default 1 2 0 0"]);
    check(&server, &format!("ack {first}"), "", 0, "");
    check(&server, "receive", "", 0, "three");
    check(&server, "receive --wait 60", "", 0, "two");
    check(&server, &format!("ack {second}"), "", 1, "");
    assert_eq!(listed(&server), [""; 0]);
}

#[test]
fn a_lease_works_over_udp() {
    if !has_door(Needs::Plain, "UDP has no door") {
        return;
    }
    let server = start(&["both"]);
    let mut tcp = client(&server);
    tcp.send(b"job").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job");
    let line = format!("udp lease 60 {}", file.display());
    let token = say(&server, &line, b"").expect(0).out();
    check(&server, &format!("udp ack {token}"), "", 0, "");
    check_refused(&server, "udp receive --wait 1", 2, "needs TCP");
    assert_eq!(tcp.receive().unwrap(), None);
}

#[test]
fn peek() {
    let server = server_with("one\ntwo\nthree\n");
    check(&server, "peek", "", 0, "one");
    check(&server, "peek --count 2", "", 0, "one\ntwo\n");
    check(&server, "peek --count 9 --null", "", 0, "one\0two\0three\0");
    check(&server, "receive", "", 0, "one");
    check_refused(&server, "peek --queue other", 1, "no messages");
    check_refused(&server, "peek --wait 1", 2, "--wait does not go with peek");
}

#[test]
fn list() {
    let server = server_with("one\ntwo\n");
    say(&server, "send --queue b.2 -", b"x").expect(0);
    let out = check(
        &server,
        "list",
        "",
        0,
        "b.2\t1\t0\t0\t0\t0\t-\ndefault\t2\t0\t0\t0\t0\t-\n",
    );
    assert_eq!(out.stderr, "");
    say(&server, "send --queue p -", b"x").expect(0);
    say(&server, "pause --queue p", b"").expect(0);
    say(&server, "purge --queue p", b"").expect(0);
    assert_eq!(
        listed(&server),
        ["b.2 1 0 0 0", "default 2 0 0 0", "p 0 0 0 0 paused"]
    );
    check_refused(&server, "list x", 2, "one argument too many");
}

#[test]
fn stats() {
    let server = server_with("one\ntwo\n");
    check(&server, "receive", "", 0, "one");
    let text = say(&server, "stats", b"").expect(0).out();
    for want in [
        "sent 2\n",
        "received 1\n",
        "acked 1\n",
        "default: ready 1\n",
    ] {
        assert!(text.contains(want), "{text}");
    }
    let json = say(&server, "stats --json", b"").expect(0).out();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["sent"], &json["is_draining"]),
        (&2.into(), &false.into())
    );
    let queue = &json["queues"][0];
    assert_eq!(
        (&queue["name"], &queue["ready"]),
        (&"default".into(), &1.into())
    );
    check_refused(
        &server,
        "stats --lines",
        2,
        "--lines does not go with stats",
    );
    // What one message costs. Besides messages the server remembers the sessions of clients.
    check(&server, "receive", "", 0, "two");
    let after = say(&server, "stats --json", b"").expect(0).out();
    let after: serde_json::Value = serde_json::from_str(&after).unwrap();
    let bytes = |json: &serde_json::Value| json["memory_bytes"].as_u64().unwrap();
    assert_eq!(bytes(&json) - bytes(&after), 67);
}

#[test]
fn purge() {
    let server = server_with("one\ntwo\nthree\n");
    say(&server, "send --queue other -", b"x").expect(0);
    say(&server, "send --delay 3600 -", b"later").expect(0);
    let mut holder = client(&server);
    let message = holder.receive().unwrap().unwrap();
    let ran = check(&server, "purge", "", 0, "");
    assert!(ran.stderr.contains("Messages purged: 3"), "{}", ran.stderr);
    holder.release(&message, Duration::ZERO).unwrap();
    check(&server, "receive --count 9", "", 0, "one\n");
    check(&server, "receive --queue other", "", 0, "x");
    check_refused(&server, "purge x", 2, "one argument too many");
}

#[test]
fn pause_and_resume() {
    let server = server_with("one\n");
    check(&server, "pause", "", 0, "");
    check(&server, "send -", "two", 0, "");
    check(&server, "receive --wait 0.01", "", 1, "");
    check(&server, "resume", "", 0, "");
    check(&server, "receive --count 9", "", 0, "one\ntwo\n");
    check_refused(&server, "pause x", 2, "one argument too many");
    check_refused(&server, "resume --off", 2, "--off does not go with resume");
}

#[test]
fn drain() {
    let server = server_with("one\n");
    check(&server, "drain", "", 0, "");
    let sentence = "the server is draining and takes no new messages";
    let ran = say(&server, "send -", b"two").expect(1);
    assert!(ran.stderr.contains(sentence), "{}", ran.stderr);
    check(&server, "receive --count 9", "", 0, "one\n");
    check(&server, "drain --off", "", 0, "");
    check(&server, "send -", "two", 0, "");
    check(&server, "receive", "", 0, "two");
    check_refused(&server, "drain x", 2, "one argument too many");
}

#[test]
fn kick() {
    let server = start(&["tcp", "--max-attempts", "1"]);
    say(&server, "send --lines -", b"one\ntwo\n").expect(0);
    let mut holder = client(&server);
    for _ in 0..2 {
        let message = holder.receive().unwrap().unwrap();
        holder.release(&message, Duration::ZERO).unwrap();
    }
    assert_eq!(listed(&server), ["default 0 0 0 2", "default.dead 2 0 0 0"]);
    let ran = check(&server, "kick default", "", 0, "");
    assert!(ran.stderr.contains("Messages kicked: 2"), "{}", ran.stderr);
    check(&server, "receive --count 9", "", 0, "one\ntwo\n");
    check_refused(&server, "kick", 2, "the NAME of the queue is missing");
    check_refused(&server, "kick a/b", 2, "NAME must be 1 to 64 of");
}

#[test]
fn work() {
    let server = server_with("one\ntwo\n");
    check(&server, "work --once -- cat", "", 0, "one");
    // A command need not read its input.
    check(&server, "work --drain -- echo done", "", 0, "done\n");
    check(&server, "work --drain -- echo done", "", 0, "");
    check(&server, "work --wait 0.01 -- cat", "", 0, "");
    check_refused(&server, "work --once -- cat", 1, "no messages");
    check_refused(&server, "work", 2, "the COMMAND, behind --, is missing");
    // A Unix socket has no transports to choose from.
    if let Address::Tcp(_) = server.addr() {
        check_refused(&server, "udp work -- cat", 2, "needs TCP");
    }
}

#[test]
fn every_verb_needs_a_server() {
    let token = "0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f";
    let server = start(&["tcp"]);
    let address = server.host_and_ports();
    server.kill();
    for verb in [
        "send -",
        "send --lines -",
        "receive",
        "lease 1 /tmp/quartet-never-written",
        &format!("ack {token}"),
        &format!("release {token}"),
        &format!("extend {token} 1"),
        "peek",
        "list",
        "stats",
        "purge",
        "pause",
        "resume",
        "kick a",
        "drain",
        "work -- cat",
    ] {
        let verb = verb.split(' ').map(str::to_owned);
        let line: Vec<_> = address.iter().cloned().chain(verb).collect();
        let ran = crate::harness::run("queue-client", &line, b"").expect(3);
        assert!(ran.stderr.contains("cannot connect to"), "{}", ran.stderr);
    }
}

#[test]
fn what_is_full_says_what_is_full() {
    #[track_caller]
    fn check_full(options: &[&str], sentence: &str) {
        let server = start(&[&["tcp"], options].concat());
        say(&server, "send -", b"one").expect(0);
        let ran = say(&server, "send -", b"two").expect(1);
        assert!(ran.stderr.contains(sentence), "{}", ran.stderr);
        check(&server, "receive", "", 0, "one");
        say(&server, "send -", b"two").expect(0);
    }
    check_full(
        &["--max-messages", "1"],
        "the queue is full: --max-messages is 1",
    );
    check_full(
        &["--max-bytes", "100"],
        "the queue is full: --max-bytes is 100",
    );
    check_full(
        &["--max-memory", "100"],
        "the server is full: --max-memory is 100",
    );
}

#[test]
fn the_options_of_the_server_are_checked() {
    for (option, bad) in [
        ("--max-messages", "0"),
        ("--max-bytes", "x"),
        ("--max-memory", "-1"),
        ("--max-attempts", "0"),
    ] {
        let ran = crate::harness::run("queue-server", &["0", option, bad], b"").expect(2);
        let want = format!("{option} must be a ");
        assert!(ran.stderr.contains(&want), "{}", ran.stderr);
    }
}
