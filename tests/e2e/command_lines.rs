//! The words of a command line: misspelt verbs and options, options that a verb does not use, `-`, and
//! how much is said.

use std::fs;

use crate::harness::{Ran, Server, run};
use crate::work::{check, say, start};

/// Runs a client at a server.
#[track_caller]
fn at(server: &Server, name: &str, line: &str, input: &str) -> Ran {
    let mut args = server.host_and_ports();
    args.extend(line.split_whitespace().map(str::to_owned));
    run(name, &args, input.as_bytes())
}

#[track_caller]
fn check_unknown(name: &str, line: &str, want: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let ran = run(name, &words, b"").expect(2);
    let want = format!("{name}: {want} (see {name} --help)\n");
    assert_eq!(ran.stderr, want, "{line}");
}

#[test]
fn a_misspelt_verb_does_nothing() {
    let server = start(&["both"]);
    say(&server, "send -", b"precious").expect(0);
    let [host, port] = server.host_and_ports().try_into().unwrap();
    let sentence = "unknown verb 'recieve', did you mean receive?";
    for line in [
        "recieve".to_owned(),
        "recieve --wait 1".to_owned(),
        format!("{host} {port} recieve"),
        format!("{host} {port} TCP recieve"),
        format!("{host} {port} UDP recieve"),
    ] {
        check_unknown("queue-client", &line, sentence);
    }
    let sentence = "unknown verb 'darin', did you mean drain?";
    check_unknown(
        "queue-client",
        &format!("{host} {port} TCP darin"),
        sentence,
    );
    // It still takes messages, and has the one that it had.
    say(&server, "send -", b"more").expect(0);
    check(&server, "receive --count 9", "", 0, "precious\nmore\n");
}

#[test]
fn every_client_says_which_verb_was_meant() {
    for (name, ports, wrong, right) in [
        ("code-client", "1 2", "requst", "request"),
        ("code-client", "1 2", "snd", "send"),
        ("history-client", "1", "delte", "delete"),
        ("history-client", "1", "GETT", "get"),
        ("file-client", "1", "lits", "list"),
        ("file-client", "1", "psot", "post"),
    ] {
        let sentence = format!("unknown verb '{wrong}', did you mean {right}?");
        check_unknown(name, wrong, &sentence);
        check_unknown(name, &format!("{wrong} x"), &sentence);
        check_unknown(name, &format!("127.0.0.1 {ports} {wrong} x"), &sentence);
    }
    let verbs = "the verbs are get, post, put, head, list, rm, mkdir, mv, batch; a server is HOST PORT or unix:/path";
    check_unknown("file-client", "ls", &format!("unknown verb 'ls', {verbs}"));
}

#[test]
fn every_program_says_which_option_was_meant() {
    for (name, wrong, right) in [
        ("code-server", "--data-dri", "--data-dir"),
        ("queue-server", "--max-mesage", "--max-message"),
        ("history-server", "--user", "--users"),
        ("file-server", "--rot", "--root"),
        ("code-client", "--cuont", "--count"),
        ("queue-client", "--queu", "--queue"),
        ("history-client", "--time-out", "--timeout"),
        ("file-client", "--create_only", "--create-only"),
    ] {
        let sentence = format!("unknown option '{wrong}', did you mean {right}?");
        check_unknown(name, wrong, &sentence);
        let twice = format!("{right} 1 {right} 1");
        if right != "--create-only" {
            check_unknown(name, &twice, &format!("{right} is given twice"));
        }
    }
}

#[test]
fn what_a_verb_does_not_use_is_refused() {
    let server = start(&["tcp"]);
    say(&server, "send -", b"precious").expect(0);
    for verb in ["list", "stats", "drain"] {
        let ran = say(&server, &format!("{verb} --queue x"), b"").expect(2);
        let want = format!("--queue does not go with {verb}");
        assert!(ran.stderr.contains(&want), "{}", ran.stderr);
    }
    let ran = say(&server, "receive --queue x --queue default", b"").expect(2);
    assert!(
        ran.stderr.contains("--queue is given twice"),
        "{}",
        ran.stderr
    );
    check(&server, "receive", "", 0, "precious");
}

#[test]
fn a_token_may_come_from_standard_input() {
    let server = start(&["tcp"]);
    let dir = tempfile::tempdir().unwrap();
    let lease = format!("lease 1h {}", dir.path().join("job").display());
    say(&server, "send --lines -", b"one\ntwo\n").expect(0);
    let token = say(&server, &lease, b"").expect(0).out();
    check(&server, "extend - 2h", &token, 0, "");
    check(&server, "release -", &token, 0, "");
    let token = say(&server, &lease, b"").expect(0).out();
    check(&server, "ack -", token.trim_end(), 0, "");
    let ran = check(&server, "ack -", &token, 1, "");
    assert!(
        ran.stderr.contains("no message is leased"),
        "{}",
        ran.stderr
    );
    let ran = check(&server, "ack -", "7\n", 2, "");
    assert!(ran.stderr.contains("must be a token"), "{}", ran.stderr);
    check(&server, "receive", "", 0, "one");
}

#[test]
fn a_code_may_come_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        "code-server",
        &["0", "0", "--data-dir", dir.path().to_str().unwrap()],
    );
    let pair = at(&server, "code-client", "request", "").expect(0).out();
    let ran = at(&server, "code-client", "send - one", &pair).expect(0);
    assert!(ran.stderr.contains("Message stored"), "{}", ran.stderr);
    let both = format!("{pair}two\n");
    let ran = at(&server, "code-client", "-q send - -", &both).expect(0);
    assert_eq!(ran.stderr, "");
    let ran = at(&server, "code-client", "send - x", "nonsense\n").expect(2);
    assert!(ran.stderr.contains("must be UUID CODE"), "{}", ran.stderr);
    let log = fs::read_to_string(dir.path().join("messages.log")).unwrap();
    let texts: Vec<_> = log.lines().map(|line| &line[62..]).collect();
    assert_eq!(texts, ["one", "two\\n"], "{log}");
}

#[test]
fn a_request_to_the_history_may_come_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(
        "history-server",
        &["0", "--data-dir", dir.path().to_str().unwrap()],
    );
    let ask =
        |line: &str, input: &str, code| at(&server, "history-client", line, input).expect(code);
    assert!(ask("send -", "alice 2\nbob\n", 0).out().contains("alice 2"));
    assert_eq!(ask("-q send -", "bob\n", 0).stderr, "");
    assert_eq!(ask("-q", "carol", 0).stderr, "");
    assert!(
        ask("send -", "", 2)
            .stderr
            .contains("starts with a user name")
    );
    let got = ask("get dora --quiet", "", 0);
    assert_eq!(got.stderr, "");
    let users: Vec<_> = got
        .out()
        .lines()
        .map(|line| {
            let (_, user) = line.rsplit_once("127.0.0.1:").unwrap();
            user.split_once(' ').unwrap().1.to_owned()
        })
        .collect();
    assert_eq!(users, ["alice 2", "bob hello", "carol hello", "dora 2"]);
}

#[test]
fn a_file_may_come_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let server = Server::start("file-server", &["0", "--root", root.to_str().unwrap()]);
    let ask = |line: &str, input: &str, code| at(&server, "file-client", line, input).expect(code);
    let long = "0123456789".repeat(20_000);
    let ran = ask("post - a/long", &long, 0);
    assert!(
        ran.stderr.contains("Sent standard input: 200000 bytes"),
        "{}",
        ran.stderr
    );
    assert_eq!(fs::read_to_string(root.join("a/long")).unwrap(), long);
    assert_eq!(ask("put - empty -q", "", 0).stderr, "");
    assert_eq!(fs::read(root.join("empty")).unwrap(), b"");
    ask("put - empty --create-only", "x", 1);
    ask("put -", "x", 2);
    let [host, port] = server.host_and_ports().try_into().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let batch = format!("client_post {} {host} {port}\n", file.display());
    assert_eq!(ask("batch - --quiet", &batch, 0).stderr, "");
    assert_eq!(fs::read(root.join("file")).unwrap(), b"x");
}

#[test]
fn what_is_no_error_can_be_silenced() {
    let server = start(&["tcp"]);
    for line in [
        "-q send -",
        "send --quiet --truncate --max-message 1 -",
        "receive -q",
    ] {
        let ran = say(&server, line, b"text").expect(0);
        assert_eq!(ran.stderr, "", "{line}");
    }
    say(&server, "receive -q", b"").expect(0);
    let ran = say(&server, "receive -q", b"").expect(1);
    assert!(ran.stderr.contains("no messages"), "{}", ran.stderr);
}

#[test]
fn durations_and_sizes_have_units() {
    let server = start(&["tcp", "--max-message", "64K", "--max-memory", "2G"]);
    let long = "x".repeat(65_536);
    check(&server, "send --max-message 64K -", &long, 0, "");
    check(&server, "receive --wait 1m --timeout 1h", "", 0, &long);
    check(&server, "send --delay 7d -", "later", 0, "");
    check(&server, "receive", "", 1, "");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let options = [
        "0",
        "--root",
        root,
        "--idle-exit",
        "1h",
        "--max-upload",
        "1K",
        "--keep-free",
        "1M",
    ];
    let server = Server::start("file-server", &options);
    at(&server, "file-client", "post - a", &"x".repeat(1024)).expect(0);
    at(&server, "file-client", "post - a", &"x".repeat(1025)).expect(1);
}
