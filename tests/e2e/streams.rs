//! Standard input and output that are closed, or open in the wrong direction: a verb that uses them
//! says so before it does anything, and one that does not use them never looks.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::harness::{Ran, Server, program, run_command, skipped};
use crate::work::{check, say, start};

/// A client with these redirections of the shell's behind its command line.
#[track_caller]
fn redirected(name: &str, server: &Server, line: &str, redirection: &str) -> Ran {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
    shell.arg(program(name)).args(server.host_and_ports());
    shell.args(line.split_whitespace());
    run_command(shell, b"text\n")
}

#[track_caller]
fn check_refused(name: &str, server: &Server, line: &str, redirection: &str, sentence: &str) {
    let ran = redirected(name, server, line, redirection).expect(2);
    assert!(ran.stderr.contains(sentence), "{line}: {}", ran.stderr);
}

/// Checks that the one message is there, and nobody has it. Its age is not looked at.
#[track_caller]
fn check_is_ready(server: &Server) {
    let out = say(server, "list", b"").expect(0).out();
    assert!(out.starts_with("default\t1\t0\t0\t0\t"), "{out}");
}

const OUT_CLOSED: &str = "cannot write to standard output: it is closed";
const OUT_NOT_OPEN: &str = "cannot write to standard output: it is not open for writing";
const IN_CLOSED: &str = "cannot read standard input: it is closed";
const IN_NOT_OPEN: &str = "cannot read standard input: it is not open for reading";

/// Redirections after which a verb that writes must not begin.
const BAD_OUTPUTS: [(&str, &str); 3] = [
    (">&-", OUT_CLOSED),
    ("1</dev/null", OUT_NOT_OPEN),
    ("1<>/dev/null", OUT_CLOSED),
];

const BAD_INPUTS: [(&str, &str); 3] = [
    ("<&-", IN_CLOSED),
    ("0>/dev/null", IN_NOT_OPEN),
    ("0<>/dev/null", IN_CLOSED),
];

#[test]
fn no_message_is_taken_for_an_output_that_cannot_take_it() {
    let server = start(&["tcp"]);
    say(&server, "send -", b"precious").expect(0);
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job");
    let lease = format!("lease 3600 {}", job.display());
    for verb in [
        "receive",
        "receive --follow",
        "peek",
        "list",
        "stats",
        &lease,
    ] {
        for (redirection, sentence) in BAD_OUTPUTS {
            check_refused("queue-client", &server, verb, redirection, sentence);
        }
    }
    assert!(!job.exists());
    check_is_ready(&server);
    redirected("queue-client", &server, "peek", ">/dev/null").expect(0);
    redirected("queue-client", &server, "receive", ">/dev/null").expect(0);
    check(&server, "receive", "", 1, "");
}

#[test]
fn the_file_of_a_lease_cannot_be_its_standard_output() {
    let server = start(&["tcp"]);
    say(&server, "send -", b"precious").expect(0);
    let dir = tempfile::tempdir().unwrap();
    let (job, link) = (dir.path().join("job"), dir.path().join("link"));
    symlink("/proc/self/fd/1", &link).unwrap();
    let redirection = format!(">{}", job.display());
    let sentence = "it is standard output, which gets the token";
    for file in [&job, &link] {
        let lease = format!("lease 3600 {}", file.display());
        check_refused("queue-client", &server, &lease, &redirection, sentence);
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    check_is_ready(&server);
}

#[test]
fn an_input_without_end_is_too_long() {
    let server = start(&["tcp"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let file = Server::start("file-server", &["0", "--root", path]);
    let history = Server::start("history-server", &["0", "--data-dir", path]);
    let too_long = "standard input exceeds 3000 bytes";
    let no_note = "the note exceeds 8192 bytes";
    for (name, server, verb, sentence) in [
        ("history-client", &history, "note al -", no_note),
        ("history-client", &history, "note al - --lines", no_note),
        ("queue-client", &server, "send -", too_long),
        ("file-client", &file, "", "a line exceeds 65535 bytes"),
        (
            "file-client",
            &file,
            "batch -",
            "a batch exceeds 67108864 bytes",
        ),
    ] {
        check_refused(name, server, verb, "</dev/zero", sentence);
    }
    check(&server, "receive", "", 1, "");
}

#[test]
fn a_full_disk_gets_no_message() {
    let server = start(&["tcp"]);
    say(&server, "send -", b"precious").expect(0);
    let sentence = "cannot write to standard output: No space left on device";
    check_refused("queue-client", &server, "receive", ">/dev/full", sentence);
    check(&server, "receive", "", 0, "precious");
}

#[test]
fn no_empty_message_is_made_of_a_closed_input() {
    let server = start(&["tcp"]);
    for (redirection, sentence) in BAD_INPUTS {
        for verb in ["send -", "send - --lines", "send --null -"] {
            check_refused("queue-client", &server, verb, redirection, sentence);
        }
    }
    check(&server, "receive", "", 1, "");
    redirected("queue-client", &server, "send -", "</dev/null").expect(0);
    check(&server, "receive", "", 0, "");
}

#[test]
fn the_other_clients_look_at_their_streams() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let code = Server::start("code-server", &["0", "0", "--data-dir", path]);
    let history = Server::start("history-server", &["0", "--data-dir", path]);
    let file = Server::start("file-server", &["0", "--root", path]);
    for (redirection, sentence) in BAD_OUTPUTS {
        for verb in ["request", "run -n 1"] {
            check_refused("code-client", &code, verb, redirection, sentence);
        }
        for verb in ["get al", "follow al", "register", "delete al 1", "clear al"] {
            check_refused("history-client", &history, verb, redirection, sentence);
        }
        for verb in ["get codes.txt -o -", "head codes.txt", "list"] {
            check_refused("file-client", &file, verb, redirection, sentence);
        }
        for name in ["queue-client", "file-server"] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("\"$0\" --help {redirection}")]);
            shell.arg(program(name));
            let ran = run_command(shell, b"").expect(2);
            assert!(ran.stderr.contains(sentence), "{name}");
        }
    }
    for (redirection, sentence) in BAD_INPUTS {
        let send = format!("send {uuid} {uuid} -");
        check_refused("code-client", &code, &send, redirection, sentence);
        for verb in ["", "send -", "note al -", "note al - --lines"] {
            check_refused("history-client", &history, verb, redirection, sentence);
        }
        check_refused("file-client", &file, "", redirection, sentence);
    }
    // Nothing was asked for.
    for name in ["codes.txt", "messages.log", "history.txt"] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"", "{name}");
    }
    redirected("history-client", &history, "hello al", "<&- >&-").expect(0);
    redirected("code-client", &code, "request", ">/dev/null").expect(0);
    redirected("history-client", &history, "get al", ">/dev/null").expect(0);
    redirected("file-client", &file, "get codes.txt -o -", ">/dev/null").expect(0);
}

#[test]
fn an_access_log_that_nobody_can_get_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (redirection, sentence) in BAD_OUTPUTS {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
        shell
            .arg(program("file-server"))
            .args(["0", "--access-log"]);
        shell.arg("--root").arg(dir.path());
        let ran = run_command(shell, b"").expect(2);
        let want = format!("cannot write the access log: {sentence}");
        assert!(ran.stderr.contains(&want), "{}", ran.stderr);
    }
}

/// What other languages give a child that is to have no streams: /dev/null, opened for both.
const PYTHON: &str = "
import subprocess, sys
null = subprocess.DEVNULL
sys.exit(subprocess.run(sys.argv[1:], stdin=null, stdout=null).returncode)";

const NODE: &str = "
const { spawnSync } = require('child_process')
const stdio = ['ignore', 'ignore', 'inherit']
const [command, ...args] = process.argv.slice(1)
process.exit(spawnSync(command, args, { stdio }).status)";

#[track_caller]
fn without_streams(server: &Server, (language, script): (&str, &str), line: &str, code: i32) {
    let flag = if language == "node" { "-e" } else { "-c" };
    let mut command = Command::new(language);
    command.args([flag, script]).arg(program("queue-client"));
    command.args(server.host_and_ports());
    command.args(line.split_whitespace());
    run_command(command, b"").expect(code);
}

#[test]
fn what_uses_no_stream_works_where_other_languages_give_none() {
    let server = start(&["tcp"]);
    let dir = tempfile::tempdir().unwrap();
    let (file, job) = (dir.path().join("file"), dir.path().join("job"));
    fs::write(&file, "a message").unwrap();
    for language in [("python3", PYTHON), ("node", NODE)] {
        let version = Command::new(language.0).arg("--version").output();
        if version.is_err() {
            skipped(&format!("there is no {}", language.0));
            continue;
        }
        let send = format!("send {}", file.display());
        without_streams(&server, language, &send, 0);
        let lease = format!("lease 3600 {}", job.display());
        without_streams(&server, language, &lease, 2);
        let token = say(&server, &lease, b"").expect(0).out();
        without_streams(&server, language, &format!("release {token}"), 0);
        without_streams(&server, language, "receive", 2);
        if language.0 == "python3" {
            // Node opens it for reading alone, which is an empty input.
            without_streams(&server, language, "send -", 2);
        }
        check_is_ready(&server);
        let token = say(&server, &lease, b"").expect(0).out();
        without_streams(&server, language, &format!("extend {token} 60"), 0);
        without_streams(&server, language, "pause", 0);
        without_streams(&server, language, "resume", 0);
        without_streams(&server, language, &format!("ack {token}"), 0);
        check(&server, "receive", "", 1, "");
    }
}
