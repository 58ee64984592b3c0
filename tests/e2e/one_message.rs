//! What an operator sees of one message, and does to it: the verbs that name it by its id, and the list that a
//! monitor looks at.

use serde_json::Value;

use crate::harness::{Running, Server, eventually, program};
use crate::work::{check, check_refused, client, say, start};

/// What a verb with `--json` says: a line for each message, or queue.
#[track_caller]
fn json(server: &Server, line: &str) -> Vec<Value> {
    let out = say(server, line, b"").expect(0).out();
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A number or a text of each.
fn each<'v>(values: &'v [Value], name: &str) -> Vec<&'v Value> {
    values.iter().map(|value| &value[name]).collect()
}

/// What `list` says, without the ages.
#[track_caller]
fn listed(server: &Server) -> Vec<String> {
    let out = say(server, "list", b"").expect(0).out();
    let line = |line: &str| line.split('\t').take(5).collect::<Vec<_>>().join(" ");
    out.lines().map(line).collect()
}

/// Messages in every state: 1 is leased, 2 is a dead letter, 3 is delayed, 4 and 5 are ready.
fn in_every_state(options: &[&str]) -> Server {
    let server = start(options);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job");
    say(&server, "send -", b"leased").expect(0);
    say(&server, &format!("lease 1h {}", file.display()), b"").expect(0);
    say(&server, "send --max-attempts 1 -", b"dead").expect(0);
    say(&server, "work --once -- false", b"").expect(1);
    say(&server, "send --delay 1h -", b"delayed").expect(0);
    say(&server, "send --lines -", b"four\nfive\n").expect(0);
    server
}

#[test]
fn peek_finds_each_state() {
    let server = in_every_state(&["tcp"]);
    check(&server, "peek", "", 0, "four");
    check(&server, "peek --delayed --count 9", "", 0, "delayed\n");
    let ran = check(&server, "peek --dead", "", 0, "dead");
    for want in [
        "Message 2: ready in default.dead, age ",
        " s, attempts: 1 of 1, the last: exit status: 1\n",
    ] {
        assert!(ran.stderr.contains(want), "{}", ran.stderr);
    }
    check(&server, "peek --dead --queue default.dead", "", 0, "dead");
    let ran = check(&server, "peek --reserved", "", 0, "leased");
    // An hour, less what this took so far.
    let said = "Message 1: reserved in default under a lease for 3";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(ran.stderr.contains(" s more, age "), "{}", ran.stderr);
    for (id, body, state) in [
        (1, "leased", "reserved"),
        (2, "dead", "ready"),
        (3, "delayed", "delayed"),
        (5, "five", "ready"),
    ] {
        let line = format!("peek --id {id}");
        let ran = check(&server, &line, "", 0, body);
        let said = format!("Message {id}: {state} in default");
        assert!(ran.stderr.contains(&said), "{}", ran.stderr);
        assert_eq!(say(&server, &format!("-q {line}"), b"").stderr, "");
        let message = &json(&server, &format!("{line} --json"))[0];
        assert_eq!(
            (&message["id"], &message["state"]),
            (&id.into(), &state.into())
        );
    }
    let missing = "there is no message 9 in 'default' nor among its dead letters";
    check_refused(&server, "peek --id 9", 1, missing);
    check_refused(
        &server,
        "peek --id 5 --queue other",
        1,
        "no message 5 in 'other'",
    );
    check_refused(
        &server,
        "peek --reserved --queue other",
        1,
        "no messages in queue",
    );
    check_refused(&server, "peek --id x", 2, "--id must be a number from 1 to");
    check_refused(
        &server,
        "peek --id 1 --dead",
        2,
        "give one of --id, --reserved",
    );
}

#[test]
fn delete_takes_a_message_from_anywhere() {
    let server = in_every_state(&["tcp"]);
    for id in [1, 2, 3, 5] {
        let ran = check(&server, &format!("delete --id {id}"), "", 0, "");
        assert!(ran.stderr.contains(&format!("Message deleted: {id}\n")));
        check_refused(
            &server,
            &format!("delete --id {id}"),
            1,
            "there is no message",
        );
    }
    assert_eq!(listed(&server), ["default 1 0 0 0"]);
    check_refused(
        &server,
        "delete",
        2,
        "the --id ID of the message is missing",
    );
    check_refused(
        &server,
        "delete 4",
        2,
        "the --id ID of the message is missing",
    );
    check_refused(
        &server,
        "delete --id 0",
        2,
        "--id must be a number from 1 to",
    );
    check_refused(
        &server,
        "delete --id 4 --json",
        2,
        "--json does not go with delete",
    );
}

#[test]
fn kick_makes_one_message_ready() {
    let server = in_every_state(&["tcp"]);
    for id in [3, 2] {
        let ran = check(&server, &format!("kick --id {id}"), "", 0, "");
        assert!(ran.stderr.contains(&format!("Message kicked: {id}\n")));
    }
    check(
        &server,
        "peek --count 9",
        "",
        0,
        "four\nfive\ndelayed\ndead\n",
    );
    let refused = "message 5 is ready, and only a delayed or a dead message can be kicked";
    check_refused(&server, "kick --id 5", 1, refused);
    check_refused(&server, "kick --id 1", 1, "message 1 is reserved");
    check_refused(&server, "kick --id 9", 1, "there is no message 9");
    check_refused(&server, "kick default --id 2", 2, "one argument too many");
    // A queue may have a number for its name.
    say(&server, "send --queue 42 -", b"x").expect(0);
    check(&server, "kick 42", "", 0, "");
}

#[test]
fn move_puts_a_message_into_another_queue() {
    let server = in_every_state(&["tcp", "--max-messages", "5"]);
    for id in [1, 2, 3, 5] {
        let ran = check(&server, &format!("move --id {id} 42"), "", 0, "");
        assert!(ran.stderr.contains(&format!("Message moved: {id}\n")));
    }
    assert_eq!(listed(&server), ["42 4 0 0 0", "default 1 0 0 0"]);
    let moved = json(&server, "peek --queue 42 --count 9 --json");
    assert_eq!(each(&moved, "id"), [1, 2, 3, 5]);
    assert_eq!(each(&moved, "attempts"), [0; 4]);
    say(&server, "send --queue 42 -", b"fifth").expect(0);
    check_refused(
        &server,
        "move --id 4 42",
        1,
        "the queue is full: --max-messages is 5",
    );
    check_refused(&server, "move --id 9 42", 1, "there is no message 9");
    check_refused(
        &server,
        "move --id 4",
        2,
        "the QUEUE that it goes to is missing",
    );
    check_refused(&server, "move --id 4 a/b", 2, "QUEUE must be 1 to 64 of");
    check_refused(
        &server,
        "move 42",
        2,
        "the --id ID of the message is missing",
    );
    check(&server, "peek", "", 0, "four");
}

#[test]
fn release_frees_what_a_stopped_holder_keeps() {
    let server = in_every_state(&["tcp"]);
    let mut stopped = client(&server);
    let reserved_two: Vec<_> = (0..2)
        .map(|_| stopped.receive().unwrap().unwrap())
        .collect();
    let reserved = json(&server, "peek --reserved --count 9 --json");
    assert_eq!(each(&reserved, "id"), [1, 4, 5]);
    assert!(reserved[0]["holder"]["lease_millis"].as_u64().unwrap() > 3_500_000);
    let holder = reserved[1]["holder"]["id"].as_u64().unwrap();
    assert_eq!(reserved[2]["holder"], reserved[1]["holder"]);
    let peer = reserved[1]["holder"]["peer"].as_str().unwrap();
    let ran = say(&server, "peek --id 4", b"").expect(0);
    let said = format!("Message 4: reserved in default by connection {holder} ({peer}), age 0 s");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    let line = format!("release --holder {holder}");
    let ran = check(&server, &line, "", 0, "");
    assert!(
        ran.stderr.contains("Messages released: 2\n"),
        "{}",
        ran.stderr
    );
    check_refused(
        &server,
        &line,
        1,
        &format!("no connection {holder} has reserved a message"),
    );
    let ran = check(&server, "release --id 1", "", 0, "");
    assert!(
        ran.stderr.contains("Message released: 1\n"),
        "{}",
        ran.stderr
    );
    check_refused(
        &server,
        "release --id 1",
        1,
        "nobody has reserved message 1",
    );
    check(&server, "peek --count 9", "", 0, "leased\nfour\nfive\n");
    let mut ack = |at: usize| stopped.ack(&reserved_two[at]).unwrap_err().to_string();
    let refused = "the server refused: message 4 is not reserved any more: it was deleted, moved or \
                   released by an operator";
    assert_eq!(ack(0), refused);
    assert!(ack(1).contains("message 5 is not reserved any more"));
    // It may go on.
    let next = stopped.receive().unwrap().unwrap();
    assert_eq!((next.id, next.attempt), (1, 2));
    stopped.ack(&next).unwrap();
    check_refused(&server, "release", 2, "the TOKEN is missing");
    check_refused(&server, "release --id 1 --holder 2", 2, "so give one");
    check_refused(
        &server,
        "release --holder 0",
        2,
        "--holder must be a number from 1 to",
    );
}

#[test]
fn a_worker_whose_message_was_deleted_or_released_works_on() {
    let server = start(&["tcp"]);
    let dir = tempfile::tempdir().unwrap();
    say(&server, "send --lines -", b"first\nsecond\n").expect(0);
    let mut worker = std::process::Command::new(program("queue-client"));
    worker
        .args(server.host_and_ports())
        .args(["work", "--drain", "--", "sh", "-c"]);
    let script =
        "read -r job; echo $job >> begun; until test -e go; do sleep 0.05; done; test $job = first";
    worker.arg(script).current_dir(dir.path());
    let worker = Running::start(worker);
    let begun = || std::fs::read_to_string(dir.path().join("begun")).unwrap_or_default();
    eventually("the first job", || begun() == "first\n");
    check(&server, "delete --id 1", "", 0, "");
    std::fs::write(dir.path().join("go"), "").unwrap();
    eventually("the second job", || begun().starts_with("first\nsecond\n"));
    // While its release is committed, it is nowhere.
    eventually("the second message", || {
        say(&server, "peek --id 2 --json", b"").code == Some(0)
    });
    check(&server, "move --id 2 other", "", 0, "");
    assert_eq!(worker.wait(), Some(0));
    let said = "Message 1: the server refused: message 1 is not reserved any more";
    worker.wait_for_stderr(|text| text.contains(said));
}

#[test]
fn what_is_done_to_one_message_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let args = ["tcp", "--data", data.to_str().unwrap()];
    let server = in_every_state(&args);
    say(&server, "send --lines -", b"six\nseven\n").expect(0);
    for line in [
        "release --id 1",
        "kick --id 2",
        "delete --id 3",
        "move --id 4 other",
        "delete --id 5",
    ] {
        say(&server, line, b"").expect(0);
    }
    server.kill();
    let server = start(&args);
    assert_eq!(listed(&server), ["default 4 0 0 0", "other 1 0 0 0"]);
    check(
        &server,
        "receive --count 9",
        "",
        0,
        "leased\nsix\nseven\ndead\n",
    );
    check(&server, "receive --queue other", "", 0, "four");
}

#[test]
fn list_says_what_is_beyond_a_limit() {
    let server = in_every_state(&["tcp"]);
    let out = say(&server, "list", b"").expect(0).out();
    let want = "default\t2\t1\t1\t1\t";
    assert!(out.starts_with(want), "{out}");
    let queues = json(&server, "list --json");
    assert_eq!(each(&queues, "name"), ["default", "default.dead"]);
    assert_eq!(each(&queues, "ready"), [2, 1]);
    let default = &queues[0];
    let counts = ["reserved", "delayed", "dead"].map(|name| &default[name]);
    assert_eq!(counts, [1, 1, 1]);
    assert!(default["oldest_reserved_millis"].as_u64() >= default["oldest_millis"].as_u64());
    let ran = say(&server, "list --max-ready 2 --max-age 1h", b"").expect(0);
    assert!(ran.out().starts_with(want) && ran.stderr.is_empty());
    let ran = say(&server, "list --max-ready 1 --max-age 1h", b"").expect(1);
    assert!(ran.out().starts_with(want));
    assert_eq!(
        ran.stderr,
        "queue-client: in 'default' 2 are ready (--max-ready 1)\n"
    );
    eventually("an old message", || {
        let ran = say(&server, "list --max-age 0 --json", b"");
        let said =
            "in 'default' the oldest ready is 0 s old (--max-age 0s), the oldest reserved is";
        ran.code == Some(1) && ran.stderr.contains(said)
    });
    check_refused(
        &server,
        "list --max-age x",
        2,
        "--max-age must be a duration",
    );
    check_refused(
        &server,
        "list --max-ready -1",
        2,
        "--max-ready must be a number",
    );
    check_refused(
        &server,
        "stats --max-ready 1",
        2,
        "--max-ready does not go with stats",
    );
    check_refused(&server, "list x", 2, "one argument too many");
}
