//! The verbs of the history client: what each prints, its exit code, and what it says of a bad input.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::Command;

use jiff::Timestamp;
use proto::ErrorCode;
use proto::ErrorReply;
use proto::frame::Message as _;
use proto::history::{Reply, is_user_name};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Needs, Ran, Running, Server, Then, eventually, fake_server, has_door, has_program,
    on_a_terminal, program, records, run, run_command,
};

/// A server and its data folder.
struct Service {
    server: Server,
    dir: TempDir,
}

impl Service {
    #[track_caller]
    fn start() -> Self {
        Self::with("")
    }

    /// A server whose history is this text.
    #[track_caller]
    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("history.txt"), text).unwrap();
        Self::over(dir, "0", &[])
    }

    #[track_caller]
    fn over(dir: TempDir, port: &str, options: &[&str]) -> Self {
        let mut line = vec![port, "--data-dir", dir.path().to_str().unwrap()];
        line.extend(options);
        let server = Server::start("history-server", &line);
        Self { server, dir }
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(program("history-client"));
        command.args(self.server.host_and_ports()).args(line);
        command
    }

    #[track_caller]
    fn run(&self, line: &[&str], input: &[u8], code: i32) -> Ran {
        run_command(self.command(line), input).expect(code)
    }

    /// Runs a client and checks what it prints; times and peers are left out.
    #[track_caller]
    fn check(&self, line: &[&str], code: i32, stdout: &str, stderr: &str) {
        let ran = self.run(line, b"", code);
        assert_eq!(bare(&ran.out()), stdout, "{line:?}");
        assert_eq!(ran.stderr, stderr, "{line:?}");
    }

    /// The records, without times and peers.
    #[track_caller]
    fn records(&self) -> String {
        bare(&records(self.dir.path()))
    }

    /// What was noted, in order.
    #[track_caller]
    fn notes(&self) -> Vec<String> {
        let records = self.records();
        let notes = records.lines().filter_map(|line| line.split_once(" note "));
        notes.map(|(_, text)| text.to_owned()).collect()
    }

    /// Starts a client that notes the lines which it is fed.
    #[track_caller]
    fn note_lines(&self, options: &[&str]) -> (Running, impl Write + use<>) {
        let line = [&["note", "alice", "--lines", "-"], options].concat();
        Running::start_fed(self.command(&line))
    }

    #[track_caller]
    fn wait_for_note(&self, text: &str) {
        eventually(text, || self.notes().iter().any(|note| note == text));
    }
}

/// A text without the words that are times, and without those behind them, which are peers.
fn bare(text: &str) -> String {
    let mut shown = String::new();
    for line in text.split_inclusive('\n') {
        let mut words = line.split_inclusive(' ');
        while let Some(word) = words.next() {
            match word.trim_end().parse::<Timestamp>() {
                Ok(_) => drop(words.next()),
                Err(_) => shown.push_str(word),
            }
        }
    }
    shown
}

/// Four lines, as the server writes them.
const OLD: &str = "\
2026-11-20T10:00:00.000Z 10.0.0.1:1 alice hello
2026-11-21T10:00:00.000Z 10.0.0.1:2 bob note the pump stands
2026-11-22T10:00:00.000Z 10.0.0.1:3 alice note the pump runs
2026-11-23T10:00:00.000Z 10.0.0.1:4 bob 2
";

#[test]
fn a_note_is_one_line_of_the_history() {
    let service = Service::start();
    service.check(&["note", "alice", "the pump runs"], 0, "", "");
    let lines = service.run(&["note", "alice", "-"], "two\nlines ü\n".as_bytes(), 0);
    assert_eq!((lines.out().as_str(), lines.stderr.as_str()), ("", ""));
    service.check(&["note", "alice", "--", "--lines"], 0, "", "");
    let longest = "x".repeat(8192);
    service.run(
        &["note", "alice", "-"],
        format!("{longest}\n").as_bytes(),
        0,
    );
    let notes = service.notes();
    let want = ["the pump runs", r"two\nlines ü", "--lines", &longest];
    assert_eq!(notes, want);
}

#[test]
fn what_is_no_note_is_not_sent() {
    let service = Service::start();
    let check = |line: &[&str], input: &[u8], want: &str| {
        let ran = service.run(&[&["note", "alice"], line].concat(), input, 2);
        assert_eq!(ran.out(), "");
        let stderr = ran.stderr.replace(" (see history-client --help)", "");
        assert_eq!(stderr, format!("history-client: {want}\n"));
    };
    check(&[""], b"", "the note is empty");
    check(&["-"], b"", "the note is empty");
    check(&["-"], b"\n", "the note is empty");
    let long = "x".repeat(8193);
    check(&[&long], b"", "the note exceeds 8192 bytes");
    check(&["-"], long.as_bytes(), "the note exceeds 8192 bytes");
    let not_text = "the note is not valid UTF-8: invalid utf-8 sequence of 1 bytes from index 1";
    check(&["-"], b"a\xff", not_text);
    check(&[], b"", "the TEXT to note is missing");
    let lines = "--lines is for standard input: note USER --lines -";
    check(&["x", "--lines"], b"", lines);
    check(&["x", "--json"], b"", "--json does not go with note");
    assert_eq!(service.records(), "");
}

#[test]
fn lines_are_noted_as_they_come() {
    let service = Service::start();
    let (client, mut input) = service.note_lines(&[]);
    input.write_all(b"one\n").unwrap();
    service.wait_for_note("one");
    input.write_all(b"two\n\nthree\nfo").unwrap();
    service.wait_for_note("three");
    assert_eq!(client.ended(), None);
    input.write_all(b"ur").unwrap();
    drop(input);
    assert_eq!(client.wait(), Some(0));
    assert_eq!(
        (client.stdout_text(), client.stderr.text()),
        Default::default()
    );
    assert_eq!(service.notes(), ["one", "two", "three", "four"]);
}

#[test]
fn many_lines_are_noted_in_their_order() {
    let service = Service::start();
    let text: String = (1..=5000).map(|n| format!("line {n}\n")).collect();
    let ran = service.run(&["note", "alice", "--lines", "-", "-v"], text.as_bytes(), 0);
    assert!(
        ran.stderr.contains("Noted: 5000 lines.\n"),
        "{}",
        ran.stderr
    );
    let notes: Vec<_> = (1..=5000).map(|n| format!("line {n}")).collect();
    assert_eq!(service.notes(), notes);
}

#[test]
fn a_line_that_is_refused_is_named() {
    let service = Service::start();
    let lines = ["note", "alice", "--lines", "-"];
    let check = |input: &[u8], want: &str| {
        let ran = service.run(&lines, input, 2);
        assert_eq!(ran.stderr, format!("history-client: {want}\n"));
    };
    let not_text = "line 4 was not noted; 2 were: the note is not valid UTF-8: invalid utf-8 \
                    sequence of 1 bytes from index 0";
    check(b"a\n\nb\n\xff\nc\n", not_text);
    let long = [b"a\n", "x".repeat(8193).as_bytes(), b"\nb\n"].concat();
    check(
        &long,
        "line 2 was not noted; 1 were: the note exceeds 8192 bytes",
    );
    assert_eq!(service.notes(), ["a", "b", "a"]);

    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("who");
    fs::write(&users, "alice\n").unwrap();
    let service = Service::over(dir, "0", &["--users", users.to_str().unwrap()]);
    let ran = service.run(&["note", "bob", "--lines", "-"], b"a\nb\n", 1);
    let want = "history-client: line 1 was not noted; 0 were: Authentication error.\n";
    assert_eq!(ran.stderr, want);
    let ran = service.run(&["note", "bob", "a"], b"", 1);
    assert_eq!(ran.stderr, "history-client: Authentication error.\n");
}

#[test]
fn a_server_that_is_lost_leaves_lines_in_doubt() {
    let about = Reply::About("hello\n");
    let mut reply = Vec::new();
    about.encode(&mut reply);
    Reply::Done("Noted.").encode(&mut reply);
    let port = fake_server(reply, Then::Close).to_string();
    let line = ["127.0.0.1", &port, "note", "al", "--lines", "-"];
    let ran = run("history-client", &line, b"a\n\nb\nc\n").expect(3);
    let want = "history-client: it is not known whether lines 3 to 4 were noted; 1 were: ";
    assert!(ran.stderr.starts_with(want), "{}", ran.stderr);
}

#[test]
fn lines_are_noted_over_a_restart_of_the_server() {
    if !has_door(Needs::Tcp, "a server is started again at its port") {
        return;
    }
    let service = Service::start();
    let (client, mut input) = service.note_lines(&["--wait-for-server", "60"]);
    input.write_all(b"one\n").unwrap();
    service.wait_for_note("one");
    let port = service.server.addr().port().to_string();
    service.server.end();
    let service = Service::over(service.dir, &port, &[]);
    input.write_all(b"two\n").unwrap();
    service.wait_for_note("two");
    drop(input);
    assert_eq!(client.wait(), Some(0), "{}", client.stderr.text());
    assert_eq!(service.notes(), ["one", "two"]);
}

#[test]
fn lines_that_meet_all_of_the_options_are_shown() {
    let get = |options: &[&str], want: &str| {
        let service = Service::with(OLD);
        service.check(&[&["get", "alice"], options].concat(), 0, want, "");
    };
    get(&["--by", "bob"], "2 bob note the pump stands\n4 bob 2\n");
    get(&["--by", "bob", "--last", "1"], "4 bob 2\n");
    get(&["--last", "2"], "4 bob 2\n5 alice 2 last 2\n");
    get(&["--match", "pump runs"], "3 alice note the pump runs\n");
    let days = [
        "--since",
        "2026-11-21T10:00:00Z",
        "--until",
        "2026-11-23T10:00:00Z",
    ];
    get(
        &days,
        "2 bob note the pump stands\n3 alice note the pump runs\n",
    );
    get(&["--match", "no such text", "--by", "bob"], "");
}

#[test]
fn lines_may_be_had_as_json() {
    let service = Service::with(&format!("{OLD}an old line\n"));
    let ran = service.run(&["get", "alice", "--json"], b"", 0);
    let out = ran.out();
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
    let want = json!({
        "line": 2,
        "time": "2026-11-21T10:00:00.000Z",
        "from": "10.0.0.1:2",
        "user": "bob",
        "text": "note the pump stands",
    });
    assert_eq!(lines[1], want);
    let none = Value::Null;
    let want =
        json!({ "line": 5, "time": none, "from": none, "user": none, "text": "an old line" });
    assert_eq!(lines[4], want);
    assert_eq!(lines[5]["text"], "2");
    let ran = service.run(&["get", "alice", "--json", "--by", "nobody"], b"", 0);
    assert_eq!(ran.out(), "");
}

#[test]
fn a_line_is_deleted_only_if_it_is_what_was_meant() {
    let service = Service::with(OLD);
    let delete = |words: &[&str], code, stdout: &str, stderr: &str| {
        service.check(
            &[&["delete", "alice"], words].concat(),
            code,
            stdout,
            stderr,
        );
    };
    let no_match = "history-client: Line 3 does not contain 'stands'; nothing was deleted.\n";
    delete(&["3", "--if", "stands"], 1, "", no_match);
    delete(&["3", "--if", "runs"], 0, "Line 3 deleted.\n", "");
    let no_match = "history-client: Line 1 does not contain 'bob'; nothing was deleted.\n";
    delete(&["1-3", "--if", "bob"], 1, "", no_match);
    delete(&["2-3", "--if", "bob"], 0, "Lines 2 to 3 deleted.\n", "");
    delete(&["1"], 0, "Line 1 deleted.\n", "");
    let none = "history-client: There is no line 9; the history has 6 lines.\n";
    delete(&["3-9"], 1, "", none);
    let see = "(see history-client --help)";
    let wrong = format!(
        "history-client: N must be the number of a line, 1 or more, or a range, as 3-5, not '5-3' \
         {see}\n"
    );
    delete(&["5-3"], 2, "", &wrong);
    let wrong = format!("history-client: --last does not go with delete {see}\n");
    delete(&["1", "--last", "3"], 2, "", &wrong);
}

/// A client that follows.
struct Tail {
    client: Running,
    lines: BufReader<std::process::ChildStdout>,
}

impl Tail {
    #[track_caller]
    fn start(service: &Service, options: &[&str]) -> Self {
        let line = [&["follow", "alice"], options].concat();
        let (client, stdout) = Running::start_unread(service.command(&line));
        let lines = BufReader::new(stdout);
        Self { client, lines }
    }

    /// The next line, without its time and peer.
    #[track_caller]
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(
            line.ends_with('\n'),
            "{line:?}: {}",
            self.client.stderr.text()
        );
        bare(&line)
    }
}

#[test]
fn a_follower_prints_the_last_lines_and_each_new_one() {
    let service = Service::with(OLD);
    let mut tail = Tail::start(&service, &["--last", "2"]);
    assert_eq!(tail.next(), "#3 alice note the pump runs\n");
    assert_eq!(tail.next(), "#4 bob 2\n");
    assert_eq!(tail.next(), "#5 alice follow last 2\n");
    service.run(&["note", "alice", "now"], b"", 0);
    assert_eq!(tail.next(), "#6 alice note now\n");
    service.run(&["delete", "alice", "1"], b"", 0);
    assert_eq!(tail.next(), "#7 alice 1 1\n");
    assert_eq!(tail.next(), "#1 deleted\n");
    service.run(&["delete", "alice", "1-2"], b"", 0);
    assert_eq!(tail.next(), "#8 alice 1 1-2\n");
    assert_eq!(tail.next(), "#2-3 deleted\n");
    tail.client.signal("INT");
    assert_eq!(tail.client.wait(), None);
}

#[test]
fn a_follower_of_new_lines_alone_prints_no_old_one() {
    let service = Service::with(OLD);
    let mut tail = Tail::start(&service, &["--last", "0"]);
    assert_eq!(tail.next(), "#5 alice follow last 0\n");
    service.run(&["note", "alice", "now"], b"", 0);
    assert_eq!(tail.next(), "#6 alice note now\n");
}

#[test]
fn a_follower_prints_each_line_once_over_restarts_of_the_server() {
    if !has_door(Needs::Tcp, "a server is started again at its port") {
        return;
    }
    let mut service = Service::start();
    let options = ["--last", "0", "--wait-for-server", "60"];
    let mut tail = Tail::start(&service, &options);
    eventually("it follows", || service.records().contains("alice follow"));
    let port = service.server.addr().port().to_string();
    let mut seen = Vec::new();
    for round in 1..=4 {
        service.run(&["note", "alice", &format!("{round}")], b"", 0);
        if round % 2 == 0 {
            service.server.signal("KILL");
            service.server.wait();
        } else {
            service.server.end();
        }
        service = Service::over(service.dir, &port, &[]);
        let missed = format!("missed {round}");
        service.run(&["note", "alice", &missed], b"", 0);
        loop {
            let line = tail.next();
            let is_missed = line.trim_end().ends_with(&missed);
            seen.push(line);
            if is_missed {
                break;
            }
        }
    }
    let numbers = seen.iter().map(|line| line.split_once(' ').unwrap().0);
    let numbers: Vec<u64> = numbers.map(|word| word[1..].parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let notes = seen.iter().filter(|line| line.contains(" note ")).count();
    assert_eq!(notes, 8, "{seen:?}");
    assert!(tail.client.stderr.text().contains("Trying again: "));
}

#[test]
fn a_follower_ends_with_the_server_and_with_its_reader() {
    let service = Service::start();
    let mut tail = Tail::start(&service, &[]);
    assert_eq!(tail.next(), "#1 alice follow last 10\n");
    // Nothing is written, and yet it notices.
    drop(tail.lines);
    assert_eq!(tail.client.wait(), Some(0));
    assert_eq!(tail.client.stderr.text(), "");
    let mut tail = Tail::start(&service, &["--last", "1"]);
    assert_eq!(tail.next(), "#1 alice follow last 10\n");
    assert_eq!(tail.next(), "#2 alice follow last 1\n");
    service.server.end();
    assert_eq!(tail.client.wait(), Some(3));
    let want = "history-client: The server is shutting down.\n";
    assert_eq!(tail.client.stderr.text(), want);
}

#[test]
fn a_follower_that_cannot_begin_says_why() {
    let service = Service::start();
    let see = "(see history-client --help)";
    service.check(
        &["follow"],
        2,
        "",
        &format!("history-client: USER is missing {see}\n"),
    );
    let wrong = format!("history-client: --json does not go with follow {see}\n");
    service.check(&["follow", "alice", "--json"], 2, "", &wrong);
    let wrong = format!(
        "history-client: --last must be a number from 0 to {}, not 'x' {see}\n",
        u64::MAX
    );
    service.check(&["follow", "alice", "--last", "x"], 2, "", &wrong);
    let mut full = service.command(&["follow", "alice"]);
    full.stdout(File::options().write(true).open("/dev/full").unwrap());
    let status = full.stderr(std::process::Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));

    let mut reply = Vec::new();
    let error = ErrorReply {
        code: ErrorCode::Forbidden,
        sentence: "no",
    };
    Reply::Error(error).encode(&mut reply);
    let port = fake_server(reply, Then::Close).to_string();
    let line = ["127.0.0.1", &port, "follow", "al"];
    assert_eq!(
        run("history-client", &line, b"").expect(1).stderr,
        "history-client: no\n"
    );
    let port = fake_server(Vec::new(), Then::Close).to_string();
    let ran = run("history-client", &["127.0.0.1", &port, "follow", "al"], b"").expect(3);
    let lost = "history-client: the connection to the server was lost: ";
    assert!(ran.stderr.starts_with(lost), "{}", ran.stderr);
}

#[test]
fn a_name_is_printed_that_nobody_has() {
    let service = Service::start();
    let see = "(see history-client --help)";
    let wrong =
        format!("history-client: PREFIX must be 1 to 40 of A-Z a-z 0-9 . _ -, not 'a/b' {see}\n");
    service.check(&["register", "a/b"], 2, "", &wrong);
    let wrong = format!("history-client: --last does not go with register {see}\n");
    service.check(&["register", "--last", "1"], 2, "", &wrong);
    if !has_door(Needs::NoAccounts, "a name is a login there") {
        let refused = service.run(&["register", "lab"], b"", 1);
        assert!(
            refused.stderr.contains("A name is a login here"),
            "{}",
            refused.stderr
        );
        return;
    }
    let register = |line: &[&str]| {
        let ran = service.run(&[&["register"], line].concat(), b"", 0);
        assert_eq!(ran.stderr, "");
        let out = ran.out();
        let name = out.strip_suffix('\n').unwrap();
        assert!(is_user_name(name), "{name}");
        name.to_owned()
    };
    let names = [register(&[]), register(&["lab"]), register(&["lab"])];
    assert!(names[1].starts_with("lab-") && names[2].starts_with("lab-"));
    assert_ne!(names[1], names[2]);
    service.run(&["note", &names[0], "here"], b"", 0);
    let given = fs::read_to_string(service.dir.path().join("users.txt")).unwrap();
    assert_eq!(given, names.map(|name| name + "\n").concat());

    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("who");
    fs::write(&users, "alice\n").unwrap();
    let service = Service::over(dir, "0", &["--users", users.to_str().unwrap()]);
    let none = "history-client: This server gives no names; it needs --register to do that.\n";
    service.check(&["register"], 1, "", none);
}

#[test]
fn what_a_script_does_not_need_is_for_a_person_alone() {
    let service = Service::start();
    let greeting = "Source: Quartet, crates/history-server\n";
    for line in ["hello alice", "note alice x", "clear alice", "send alice"] {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(service.run(&words, b"", 0).stderr, "", "{line}");
        let wordy = service.run(&[&words[..], &["-v"]].concat(), b"", 0).stderr;
        assert!(wordy.contains(greeting), "{line}: {wordy}");
    }
    if !has_program("python3") {
        return;
    }
    let terminal = |options: &[&str]| {
        let client = service.command(&[&["note", "alice", "x"], options].concat());
        run_command(on_a_terminal("stderr", &client), b"")
            .expect(0)
            .out()
    };
    let told = terminal(&[]).replace("\r\n", "\n");
    assert!(
        told.starts_with(greeting) && told.ends_with("Noted.\n"),
        "{told}"
    );
    assert_eq!(terminal(&["-q"]), "");
}
