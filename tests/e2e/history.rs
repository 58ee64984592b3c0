//! The history service: both dialects, what each operation leaves behind, who may, and that
//! nothing is lost, however many ask at once and whenever the server ends.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use history_client::Client;
use jiff::Timestamp;
use proto::ErrorCode;
use proto::frame::{self, Message};
use proto::history::{Filter, Operation, Reply, Request, TEXT_BYTES_MAX};
use proto::text::AUTHENTICATION_ERROR;
use tempfile::TempDir;

use crate::harness::{
    Needs, PATIENCE, Ran, Running, Server, Then, door, exchange, fake_server, has_door,
    has_program, program, python, read_to_end, records, run, run_command,
};

/// A server and its data folder.
struct Service {
    server: Server,
    dir: TempDir,
}

fn start(dir: TempDir, options: &[&str]) -> Service {
    let mut line = vec!["0", "--data-dir", dir.path().to_str().unwrap()];
    line.extend(options);
    let server = Server::start("history-server", &line);
    Service { server, dir }
}

/// A server whose history is this text.
fn start_with(text: &str) -> Service {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("history.txt"), text).unwrap();
    start(dir, &[])
}

/// A server without a history that serves only these users.
fn start_for(users: &str) -> Service {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("listed");
    fs::write(&file, users).unwrap();
    start(dir, &["--users", file.to_str().unwrap()])
}

const THREE_LINES: &str = "old 1\nold 2\nold 3\n";

impl Service {
    /// The file, without the times and peers in it.
    #[track_caller]
    fn file(&self) -> String {
        bare(&raw(self.dir.path()))
    }

    fn client(&self) -> Client {
        Client::connect(&self.server.endpoint()).unwrap()
    }

    /// Ends the server at once and starts it again over the same folder.
    fn restart(self) -> Self {
        self.server.kill();
        start(self.dir, &[])
    }
}

fn raw(dir: &Path) -> String {
    records(dir)
}

/// A text without the words that are times or addresses, which differ every time.
fn bare(text: &str) -> String {
    let is_constant = |word: &&str| {
        let is_peer = word.trim_end().parse::<SocketAddr>().is_ok() || word.starts_with("unix:");
        word.parse::<Timestamp>().is_err() && !is_peer
    };
    let lines = text.split_inclusive('\n').map(|line| {
        let words: Vec<_> = line.split(' ').filter(is_constant).collect();
        words.join(" ")
    });
    lines.collect()
}

/// What stands behind the lines that every reply starts with.
#[track_caller]
fn result_of(reply: &str) -> &str {
    let mut rest = reply;
    for start in ["Source: ", "Operations:", "  1 N: ", "  2: ", "  3: "] {
        let (line, behind) = rest.split_once('\n').unwrap_or_else(|| panic!("{reply}"));
        assert!(line.starts_with(start), "no '{start}' in: {reply}");
        rest = behind;
    }
    rest
}

fn request<'a>(user: &'a str, operation: Operation<'a>) -> Request<'a> {
    Request { user, operation }
}

/// A request in the text protocol, without its line end.
fn line_of(request: &Request) -> String {
    let line = format!("{} {}", request.user, request.operation);
    line.trim_end().to_owned()
}

/// The result of a line in the text protocol.
#[track_caller]
fn ask_line(server: &Server, line: &str) -> String {
    let reply = exchange(server.addr(), format!("{line}\n").as_bytes());
    result_of(&String::from_utf8(reply).unwrap()).to_owned()
}

/// A framed reply: its result as the text protocol shows it, and the code of its error.
type Framed = (String, Option<ErrorCode>);

/// Sends the requests in one piece, over one connection; what each is answered.
#[track_caller]
fn ask_framed(server: &Server, requests: &[Request]) -> Vec<Framed> {
    let mut bytes = Vec::new();
    for request in requests {
        request.encode(&mut bytes);
    }
    framed_replies(&exchange(server.addr(), &bytes))
}

#[track_caller]
fn framed_replies(mut frames: &[u8]) -> Vec<Framed> {
    let mut replies = Vec::new();
    let (mut payload, mut so_far) = (Vec::new(), String::new());
    while let Some(kind) = frame::read(&mut frames, TEXT_BYTES_MAX, &mut payload).unwrap() {
        let code = match Reply::decode(kind, &payload).unwrap() {
            Reply::About(text) => {
                assert_eq!(so_far, "", "a reply starts before the last has ended");
                so_far.push_str(text);
                continue;
            }
            Reply::Text(bytes) => {
                so_far.push_str(std::str::from_utf8(bytes).unwrap());
                continue;
            }
            Reply::Line { .. } | Reply::Deleted { .. } => panic!("nobody follows"),
            Reply::Done("") => None,
            Reply::Done(sentence) => {
                so_far.push_str(&format!("{sentence}\n"));
                None
            }
            Reply::Error(error) => {
                so_far.push_str(&format!("{}\n", error.sentence));
                Some(error.code)
            }
        };
        replies.push((result_of(&so_far).to_owned(), code));
        so_far.clear();
    }
    assert_eq!(so_far, "", "a reply has no end");
    replies
}

/// `history-client HOST PORT ...`
#[track_caller]
fn client_program(server: &Server, args: &[&str], input: &[u8]) -> Ran {
    let mut line = server.host_and_ports();
    line.extend(args.iter().map(|arg| arg.to_string()));
    run("history-client", &line, input)
}

/// The result of a request, asked in one of the dialects.
type Ask = fn(&Server, Request) -> String;

const DIALECTS: [(&str, Ask); 2] = [
    ("plain", |server, request| {
        ask_line(server, &line_of(&request))
    }),
    ("framed", |server, request| {
        let mut replies = ask_framed(server, &[request]);
        let (result, _) = replies.pop().unwrap();
        assert_eq!(replies, []);
        result
    }),
];

/// The dialects that can be spoken through the door.
fn dialects() -> &'static [(&'static str, Ask)] {
    // The text protocol cannot log in.
    &DIALECTS[usize::from(door().has_accounts)..]
}

/// Asks in each dialect; the result, and what the history is afterwards.
#[track_caller]
fn check(text: &str, operation: Operation, want: &str, after: &str) {
    for (dialect, ask) in dialects() {
        let service = start_with(text);
        let got = ask(&service.server, request("alice", operation));
        assert_eq!(bare(&got), want, "{dialect} {operation}");
        assert_eq!(service.file(), after, "{dialect} {operation}");
    }
}

#[test]
fn each_operation_answers_and_leaves_what_it_should() {
    let three = THREE_LINES;
    check(
        three,
        Operation::Hello,
        "",
        "old 1\nold 2\nold 3\nalice hello\n",
    );
    check(
        three,
        Operation::Get(Filter::ALL),
        "1 old 1\n2 old 2\n3 old 3\n4 alice 2\n",
        "old 1\nold 2\nold 3\nalice 2\n",
    );
    check(
        three,
        Operation::delete_line(2),
        "Line 2 deleted.\n",
        "old 1\nold 3\nalice 1 2\n",
    );
    check(
        three,
        Operation::delete_line(1),
        "Line 1 deleted.\n",
        "old 2\nold 3\nalice 1 1\n",
    );
    check(
        three,
        Operation::Clear,
        "History deleted.\n",
        "alice deleted the history\n",
    );
    check("", Operation::Get(Filter::ALL), "1 alice 2\n", "alice 2\n");
}

/// The request's own line is there to be deleted: it was put down first.
#[test]
fn a_request_is_logged_before_it_is_acted_on() {
    check(
        THREE_LINES,
        Operation::delete_line(4),
        "Line 4 deleted.\n",
        THREE_LINES,
    );
}

#[test]
fn a_line_of_the_history_has_time_peer_user_and_request() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    if !has_door(Needs::Tcp, "a Unix socket has no address to show") {
        return;
    }
    let service = start_with("");
    let mut peers = Vec::new();
    let before = Timestamp::now();
    for (_, ask) in DIALECTS {
        ask(
            &service.server,
            request("al.i-c_e", Operation::Get(Filter::ALL)),
        );
    }
    for end in ["\n", "\r\n", ""] {
        let mut stream = service.server.connect();
        peers.push(stream.local_addr());
        stream
            .write_all(format!("al.i-c_e 2{end}").as_bytes())
            .unwrap();
        if end.is_empty() {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        // With a line end, the server answers and closes while we could still write.
        read_to_end(&mut stream);
    }
    let after = Timestamp::now();
    let text = raw(service.dir.path());
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 5, "{text}");
    for line in &lines {
        assert_eq!(line[2..], ["al.i-c_e", "2"], "{text}");
        assert_eq!(line[0].len(), "2026-11-20T17:37:53.230Z".len(), "{text}");
        let time: Timestamp = line[0].parse().unwrap();
        let since = time.as_millisecond() - before.as_millisecond();
        assert!(since >= 0 && time <= after, "{text}");
    }
    let logged = lines[2..].iter().map(|line| line[1].parse().unwrap());
    assert_eq!(logged.collect::<Vec<SocketAddr>>(), peers);
}

#[test]
fn a_request_is_shown_on_the_servers_terminal() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    if !has_door(Needs::Tcp, "a Unix socket has no address to show") {
        return;
    }
    let service = start_for("alice\n");
    for (user, operation) in [
        ("alice", Operation::Hello),
        ("alice", Operation::delete_line(7)),
        ("bob", Operation::Clear),
    ] {
        let replies = ask_framed(&service.server, &[request(user, operation)]);
        assert_eq!(replies.len(), 1);
    }
    for line in ["] alice hello\n", "] alice 1 7\n", "] bob refused: 3\n"] {
        service
            .server
            .wait_for_log(|log| log.contains("[INFO] [127.0.0.1:") && log.contains(line));
    }
}

/// As in [`check`], and the code that a program sees.
#[track_caller]
fn check_no_such_line(text: &str, line: u64, want: &str) {
    let operation = Operation::delete_line(line);
    let after = format!("{text}alice {operation}\n");
    // The text protocol knows no line 0.
    if line > 0 {
        check(text, operation, want, &after);
    }
    let service = start_with(text);
    let replies = ask_framed(&service.server, &[request("alice", operation)]);
    assert_eq!(replies, [(want.to_owned(), Some(ErrorCode::NotFound))]);
    assert_eq!(service.file(), after);
}

#[test]
fn a_line_that_is_not_there_says_how_many_are() {
    let three = THREE_LINES;
    for line in [0, 5, 6, 1000, u64::MAX] {
        let want = format!("There is no line {line}; the history has 4 lines.\n");
        check_no_such_line(three, line, &want);
    }
    check_no_such_line("", 2, "There is no line 2; the history has 1 line.\n");
}

/// What operation 2 shows as line N is what `1 N` deletes, although a line is added in between.
#[test]
fn lines_are_counted_as_operation_2_shows_them() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let service = start_with(&(1..=30).map(|n| format!("old {n}\n")).collect::<String>());
    for target in ["old 30", "old 1", "old 17", "alice 2"] {
        let shown = ask_line(&service.server, "alice 2");
        let shown = bare(&shown);
        let numbered = (1..).zip(shown.lines());
        let mut found = None;
        for (n, line) in numbered {
            let (number, line) = line.split_once(' ').unwrap();
            assert_eq!(number, n.to_string());
            if line == target {
                found.get_or_insert(n);
            }
        }
        let before = service.file().matches(&format!("{target}\n")).count();
        let answer = ask_line(&service.server, &format!("alice 1 {}", found.unwrap()));
        assert_eq!(answer, format!("Line {} deleted.\n", found.unwrap()));
        let after = service.file().matches(&format!("{target}\n")).count();
        assert_eq!(after, before - 1, "{target}");
    }
}

#[test]
fn clearing_says_who_and_when() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    let service = start_with(THREE_LINES);
    let mut client = service.client();
    assert_eq!(client.clear("alice").unwrap(), "History deleted.");
    let text = raw(service.dir.path());
    let (time, rest) = text.split_once(' ').unwrap();
    let age = Timestamp::now().duration_since(time.parse().unwrap());
    assert!(age.unsigned_abs() < PATIENCE, "{text}");
    assert!(rest.ends_with(" alice deleted the history\n"), "{text}");
    assert_eq!(ask_line(&service.server, "bob 2").lines().count(), 2);
}

/// How many warnings a log has, those among them that are only counted.
fn warnings(log: &str) -> usize {
    let warnings = log.lines().filter(|line| line.contains("[WARN]"));
    let more = |line: &str| {
        let more = line.strip_suffix(" more like it)")?;
        more.rsplit_once("(and ")?.1.parse::<usize>().ok()
    };
    warnings.map(|line| 1 + more(line).unwrap_or(0)).sum()
}

#[test]
fn a_malformed_line_gets_one_sentence_and_changes_nothing() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let service = start_with(THREE_LINES);
    let not_a_user = "A request starts with a user name: 1 to 64 of A-Z a-z 0-9 . _ - \
                      (as in 'alice 2').\n";
    let not_a_line = "A request is one line of at most 256 bytes of UTF-8 text.\n";
    let not_an_operation = "The operation is 1, 2 or 3 (as in 'alice 2').\n";
    let not_a_number = "A line number is 1 or more, in digits (as in 'alice 1 3').\n";
    let too_many =
        "There are too many words; a request is 'USER', 'USER 1 N', 'USER 2' or 'USER 3'.\n";
    let (name_65, name_300) = ("x".repeat(65), "x".repeat(300));
    let table: &[(&[u8], &str)] = &[
        (b"\n", not_a_user),
        (b"   \r\n", not_a_user),
        (b"al/ice 2\n", not_a_user),
        ("älice 2\n".as_bytes(), not_a_user),
        (b"alice\0 2\n", not_a_user),
        (b"alice\x1b[2J 3\n", not_a_user),
        (b"<<GET>>\n", not_a_user),
        (name_65.as_bytes(), not_a_user),
        (name_300.as_bytes(), not_a_line),
        (b"alice \xff\xfe\n", not_a_line),
        (b"alice 4\n", not_an_operation),
        (b"alice two\n", not_an_operation),
        (b"alice -3\n", not_an_operation),
        (b"alice 3x\n", not_an_operation),
        (
            b"alice 1\n",
            "Operation 1 needs the number of a line (as in 'alice 1 3').\n",
        ),
        (b"alice 1 0\n", not_a_number),
        (b"alice 1 -1\n", not_a_number),
        (b"alice 1 +1\n", not_a_number),
        (b"alice 1 1.0\n", not_a_number),
        (b"alice 1 x\n", not_a_number),
        (b"alice 1 99999999999999999999\n", not_a_number),
        (b"alice 1 1 1\n", too_many),
        (b"alice 3 please\n", too_many),
    ];
    for (line, want) in table {
        let reply = String::from_utf8(exchange(service.server.addr(), line)).unwrap();
        assert_eq!(
            result_of(&reply),
            *want,
            "{:?}",
            String::from_utf8_lossy(line)
        );
    }
    assert_eq!(service.file(), THREE_LINES);
    service
        .server
        .wait_for_log(|log| warnings(log) == table.len());
    // A port probe is no request, malformed or other.
    exchange(service.server.addr(), b"");
    assert_eq!(ask_line(&service.server, "alice 1 4"), "Line 4 deleted.\n");
}

/// A frame as it stands on the wire.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, kind, |out| out.extend_from_slice(payload));
    out
}

/// Sends bytes and then a good request, over one connection. If the bytes are a frame, the good
/// request is answered too; if not, nobody knows where it starts.
#[track_caller]
fn check_malformed(service: &Service, bytes: &[u8], code: ErrorCode, word: &str, goes_on: bool) {
    let mut all = bytes.to_vec();
    request("alice", Operation::Hello).encode(&mut all);
    let before = service.file();
    let replies = framed_replies(&exchange(service.server.addr(), &all));
    let (sentence, got) = &replies[0];
    assert_eq!(*got, Some(code), "{bytes:?}: {sentence}");
    assert!(sentence.contains(word), "{bytes:?}: {sentence}");
    assert_eq!(sentence.lines().count(), 1, "{bytes:?}: {sentence}");
    assert_eq!(replies.len(), if goes_on { 2 } else { 1 }, "{bytes:?}");
    let added = if goes_on { "alice hello\n" } else { "" };
    assert_eq!(service.file(), format!("{before}{added}"), "{bytes:?}");
}

#[test]
fn a_malformed_frame_gets_one_sentence_and_changes_nothing() {
    use ErrorCode::{BadRequest, TooLarge, Unsupported};
    let service = start_with("");
    let check = |bytes: &[u8], code, word: &str, goes_on| {
        check_malformed(&service, bytes, code, word, goes_on);
    };
    let long_name = [&[65][..], &[b'x'; 65]].concat();
    // Clear with a name that is too long, broken, or followed by something; and so on.
    check(&frame(0x23, b""), BadRequest, "user", true);
    check(&frame(0x23, b"\x00"), BadRequest, "user", true);
    check(&frame(0x23, b"\x06alice"), BadRequest, "user", true);
    check(&frame(0x23, b"\x05al\nce"), BadRequest, "user", true);
    check(&frame(0x23, b"\x05al\xffce"), BadRequest, "user", true);
    check(&frame(0x23, &long_name), BadRequest, "user", true);
    check(&frame(0x23, b"\x05alice\0"), BadRequest, "", true);
    check(&frame(0x21, b"\x05alice"), BadRequest, "first", true);
    check(
        &frame(0x21, b"\x05alice\0\0\0\0\0\0\0"),
        BadRequest,
        "first",
        true,
    );
    check(&frame(0x24, b"\x05alice"), BadRequest, "text", true);
    check(&frame(0x2f, b"\x05alice"), Unsupported, "0x2f", true);
    check(&frame(0x61, b"\x05alice"), Unsupported, "0x61", true);
    check(&frame(0x23, &[5; 10_000]), TooLarge, "10000 bytes", false);
    check(b"\0\xff\xff\xff\x23", TooLarge, "16777214 bytes", false);
    check(b"\0\0\0\0", BadRequest, "length 0", false);
    service.server.wait_for_log(|log| warnings(log) == 15);
}

/// A web page's request, whatever its first word is, is no line of the history.
#[test]
fn a_request_of_http_is_answered_in_http_and_changes_nothing() {
    let service = start_with(THREE_LINES);
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "POST /alice HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nalice 3\n",
        "ALICE 3 HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let reply = exchange(service.server.addr(), request.as_bytes());
        let reply = String::from_utf8(reply).unwrap();
        let is_refused = ["HTTP/1.1 4", "HTTP/1.1 5"]
            .iter()
            .any(|start| reply.starts_with(start));
        assert!(is_refused, "{request}: {reply}");
    }
    assert_eq!(service.file(), THREE_LINES);
}

#[test]
fn a_malformed_line_is_escaped_in_the_log() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let service = start_with(THREE_LINES);
    exchange(service.server.addr(), b"alice\x1b[2J 3\n");
    let want = r"Not a request: 'alice\u{1b}[2J 3'. ";
    service.server.wait_for_log(|log| log.contains(want));
}

#[test]
fn with_a_users_file_others_are_refused_and_it_is_on_record() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    let service = start_for("# Staff\nalice\ncarol # on leave\n");
    service.client().get("alice", &mut Vec::new()).unwrap();
    let mut want = "alice 2\n".to_owned();
    let refusal = format!("{AUTHENTICATION_ERROR}\n");
    for (operation, shown) in [
        (Operation::Hello, "hello"),
        (Operation::delete_line(1), "1 1"),
        (Operation::Get(Filter::ALL), "2"),
        (Operation::Clear, "3"),
    ] {
        for user in ["bob", "Alice", "alic", "alicee", "on"] {
            let asked = request(user, operation);
            let replies = ask_framed(&service.server, &[asked]);
            assert_eq!(replies, [(refusal.clone(), Some(ErrorCode::Forbidden))]);
            assert_eq!(ask_line(&service.server, &line_of(&asked)), refusal);
            want.push_str(&format!("{user} refused: {shown}\n").repeat(2));
        }
    }
    assert_eq!(service.file(), want);
    assert_eq!(ask_line(&service.server, "carol 3"), "History deleted.\n");
    assert_eq!(service.file(), "carol deleted the history\n");
}

#[track_caller]
fn check_does_not_start(options: &[&str], want: &str) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut line = vec!["0", "--data-dir", data.to_str().unwrap()];
    line.extend(options);
    let ran = run("history-server", &line, b"").expect(2);
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(ran.out(), "");
    assert!(!data.exists(), "it touched the disk");
}

#[test]
fn a_server_that_others_can_reach_insists_on_users() {
    if !has_door(
        Needs::Plain,
        "it is about servers that are reached over plain TCP",
    ) {
        return;
    }
    let insists = "can be reached from other machines: --auth-file or --users must say who may";
    check_does_not_start(&["--bind", "0.0.0.0"], insists);
    check_does_not_start(&["--bind", "::"], insists);
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("listed");
    fs::write(&users, "alice\n").unwrap();
    let service = start(
        dir,
        &["--bind", "0.0.0.0", "--users", users.to_str().unwrap()],
    );
    let warns = |log: &str| log.contains("[WARN] [main] 0.0.0.0:");
    service.server.wait_for_log(warns);
}

#[test]
fn a_users_file_that_cannot_be_read_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.txt");
    let users = users.to_str().unwrap();
    check_does_not_start(&["--users", users], "cannot read the users in ");
    fs::write(users, "alice\nbob carol\n").unwrap();
    check_does_not_start(&["--users", users], "users.txt, line 2: a user name is ");
}

#[test]
fn pipelined_requests_on_one_connection_are_answered_in_order() {
    use Operation::{Clear, Get, Hello};
    let service = start_with(THREE_LINES);
    let script = [
        (Hello, ""),
        (Operation::delete_line(1), "Line 1 deleted.\n"),
        (
            Get(Filter::ALL),
            "1 old 2\n2 old 3\n3 alice hello\n4 alice 1 1\n5 alice 2\n",
        ),
        (
            Operation::delete_line(7),
            "There is no line 7; the history has 6 lines.\n",
        ),
        (Clear, "History deleted.\n"),
        (Get(Filter::ALL), "1 alice deleted the history\n2 alice 2\n"),
        (Operation::delete_line(1), "Line 1 deleted.\n"),
        (Get(Filter::ALL), "1 alice 2\n2 alice 1 1\n3 alice 2\n"),
    ];
    let requests = script.map(|(operation, _)| request("alice", operation));
    let replies = ask_framed(&service.server, &requests);
    let replies: Vec<_> = replies.iter().map(|(result, _)| bare(result)).collect();
    assert_eq!(replies, script.map(|(_, want)| want));
}

#[test]
fn many_clients_at_once_have_exactly_one_line_for_each_request() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    const CLIENTS: usize = 64;
    const REQUESTS: usize = 50;
    let service = start_with("");
    let barrier = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (service, barrier) = (&service, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut framed = service.client();
                for n in 0..REQUESTS {
                    let user = format!("{client}.{n}");
                    match client % 2 {
                        0 => drop(framed.hello(&user).unwrap()),
                        _ => assert_eq!(ask_line(&service.server, &user), ""),
                    }
                }
            });
        }
    });
    let text = service.file();
    let mut next = [0; CLIENTS];
    for line in text.lines() {
        let (user, hello) = line.split_once(' ').unwrap();
        assert_eq!(hello, "hello");
        let (client, n) = user.split_once('.').unwrap();
        let client: usize = client.parse().unwrap();
        assert_eq!(n, next[client].to_string(), "of client {client}");
        next[client] += 1;
    }
    assert_eq!(next, [REQUESTS; CLIENTS]);
}

/// Lines from the top are deleted while others append below them, and somebody reads.
#[test]
fn deleting_while_others_append_loses_nothing() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    const OLD: usize = 2000;
    const APPENDERS: usize = 4;
    const APPENDS: usize = 250;
    const DELETERS: usize = 2;
    const DELETES: usize = 60;
    let service = start_with(&(0..OLD).map(|n| format!("old {n}\n")).collect::<String>());
    thread::scope(|scope| {
        let service = &service;
        for appender in 0..APPENDERS {
            scope.spawn(move || {
                let mut client = service.client();
                for n in 0..APPENDS {
                    client.hello(&format!("a{appender}.{n}")).unwrap();
                }
            });
        }
        for _ in 0..DELETERS {
            scope.spawn(move || {
                let mut client = service.client();
                for _ in 0..DELETES {
                    assert_eq!(client.delete("d", 1).unwrap(), "Line 1 deleted.");
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..20 {
                let mut text = Vec::new();
                service.client().get("r", &mut text).unwrap();
                let text = String::from_utf8(text).unwrap();
                for (n, line) in (1..).zip(text.split_inclusive('\n')) {
                    assert!(line.starts_with(&format!("{n} ")), "{line}");
                    assert!(line.ends_with('\n'), "{line}");
                }
            }
        });
    });
    let text = service.file();
    let mut left = (DELETERS * DELETES)..OLD;
    let (mut deletes, mut appended) = (0, [0; APPENDERS]);
    for line in text.lines() {
        match line.split_once(' ').unwrap() {
            ("old", n) => assert_eq!(n, left.next().unwrap().to_string()),
            ("d", "1 1") => deletes += 1,
            ("r", "2") => {}
            (user, "hello") => {
                let (appender, n) = user[1..].split_once('.').unwrap();
                let appender: usize = appender.parse().unwrap();
                assert_eq!(n, appended[appender].to_string());
                appended[appender] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(left.next(), None, "an old line was lost");
    assert_eq!(deletes, DELETERS * DELETES);
    assert_eq!(appended, [APPENDS; APPENDERS]);
}

#[test]
fn a_history_of_30_megabytes_arrives_whole() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    const LINES: usize = 400_000;
    let mut text = String::new();
    let mut want = String::new();
    let padding = "x".repeat(64);
    for n in 1..=LINES {
        // One of them is a lot longer than what is sent at once.
        let line = match n {
            1000 => format!("old {}\n", "y".repeat(1_000_000)),
            _ => format!("old {n} {padding}\n"),
        };
        text.push_str(&line);
        want.push_str(&format!("{n} {line}"));
    }
    assert!(text.len() > 30_000_000);
    let service = start_with(&text);
    let mut asked = 0;
    let mut check = |got: &str| {
        asked += 1;
        let own: String = (1..=asked)
            .map(|n| format!("{} alice 2\n", LINES + n))
            .collect();
        // Not assert_eq!, which would print both.
        let rest = got.strip_prefix(&want);
        let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b);
        let rest = rest.unwrap_or_else(|| panic!("it differs at byte {}", at.count()));
        assert_eq!(bare(rest), own);
    };
    check(&ask_line(&service.server, "alice 2"));
    let get = request("alice", Operation::Get(Filter::ALL));
    check(&ask_framed(&service.server, &[get])[0].0);
    let ran = client_program(&service.server, &["get", "alice"], b"").expect(0);
    check(&ran.out());
    let knows_door = has_door(Needs::Plain, "the original client knows plain TCP alone");
    if knows_door && has_program("python3") {
        let ports = service.server.host_and_ports();
        let line = [ports[0].as_str(), &ports[1], "alice 2", "--all"];
        let ran = python("history_client.py", &line).expect(0);
        check(result_of(&ran.out()));
    }

    let delete = format!("alice 1 {}", LINES - 1);
    ask_line(&service.server, &delete);
    let left = raw(service.dir.path());
    let gone = format!("old {} {padding}\n", LINES - 1);
    assert!(
        left.starts_with(&text.replace(&gone, "")),
        "another line went"
    );
}

#[test]
fn a_restart_keeps_the_history() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    let mut service = start_with("");
    let mut want = String::new();
    for user in ["a", "b", "c"] {
        service.client().hello(user).unwrap();
        want.push_str(&format!("{user} hello\n"));
        service = service.restart();
        assert_eq!(service.file(), want);
    }
    service.client().delete("d", 2).unwrap();
    let service = service.restart();
    assert_eq!(service.file(), "a hello\nc hello\nd 1 2\n");
    assert_eq!(
        bare(&ask_line(&service.server, "e 2")),
        "1 a hello\n2 c hello\n3 d 1 2\n4 e 2\n"
    );
    service.client().clear("f").unwrap();
    let service = service.restart();
    assert_eq!(service.file(), "f deleted the history\n");
}

/// Watches the file while a history of 4 MB is rewritten again and again, and ends the server with
/// SIGKILL in the middle of it, several times. What stands under the file's name at any moment is
/// what a crash at that moment would leave.
#[test]
fn a_crash_while_deleting_leaves_the_old_history_or_the_new_one() {
    const OLD: usize = 40_000;
    let padding = "x".repeat(90);
    let old = |n| format!("old {n} {padding}\n");
    for round in 0..5 {
        let service = start_with(&(0..OLD).map(old).collect::<String>());
        let file = service.dir.path().join("history.txt");
        let new_file = service.dir.path().join(".history.txt.new");
        let bytes = fs::metadata(&file).unwrap().len();
        let line_bytes = "#00000 ".len() + old(OLD).len();
        let deleted = AtomicUsize::new(0);
        let mut client = service.client();
        let dir = thread::scope(|scope| {
            scope.spawn(|| {
                while client.delete("alice", 1).is_ok() {
                    deleted.fetch_add(1, Ordering::SeqCst);
                }
            });
            let deadline = Instant::now() + PATIENCE;
            while deleted.load(Ordering::SeqCst) < 2 * round || !new_file.exists() {
                assert!(Instant::now() < deadline, "nothing is deleted");
                let there = fs::metadata(&file).unwrap().len();
                let gone = (deleted.load(Ordering::SeqCst) + 1) * line_bytes;
                assert!(there + gone as u64 >= bytes, "{there} bytes of {bytes}");
            }
            service.server.kill();
            service.dir
        });
        let deleted = deleted.into_inner();
        let text = raw(dir.path());
        let gone = OLD - text.matches("old ").count();
        assert!(
            gone == deleted || gone == deleted + 1,
            "{gone} of {deleted}"
        );
        let left = text.strip_prefix(&(gone..OLD).map(old).collect::<String>());
        let records = bare(left.expect("the lines that are left are whole and in order"));
        let requests = records.lines().count();
        assert_eq!(records, "alice 1 1\n".repeat(requests));
        assert!(
            requests == deleted || requests == deleted + 1,
            "{requests} of {deleted}"
        );

        // What the crash may have left does not stand in the way.
        let service = start(dir, &[]);
        service.client().delete("alice", 1).unwrap();
        let names = fs::read_dir(service.dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names
            .filter(|name| name == "history.txt" || name == ".history.txt.new")
            .collect();
        assert_eq!(names, ["history.txt"]);
    }
}

#[test]
fn an_unfinished_last_line_is_cut_off_with_a_warning() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let service = start_with("old 1\nold 2\nhalf a li");
    let log = service.server.log();
    let warning = "history.txt is not whole and is cut off: half a li\n";
    assert!(log.contains("[WARN]") && log.contains(warning), "{log}");
    let shown = ask_line(&service.server, "alice 2");
    assert_eq!(bare(&shown), "1 old 1\n2 old 2\n3 alice 2\n");
    assert_eq!(service.file(), "old 1\nold 2\nalice 2\n");
}

#[test]
fn the_original_client_gets_the_reply_in_one_recv() {
    if !has_door(Needs::Plain, "the original client knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let service = start_with(THREE_LINES);
    let ports = service.server.host_and_ports();
    for (line, want) in [
        ("alice", ""),
        (
            "alice 2",
            "1 old 1\n2 old 2\n3 old 3\n4 alice hello\n5 alice 2\n",
        ),
        ("alice 1 1", "Line 1 deleted.\n"),
        (
            "alice 1 77",
            "There is no line 77; the history has 6 lines.\n",
        ),
        ("alice 9", "The operation is 1, 2 or 3 (as in 'alice 2').\n"),
        ("alice 3", "History deleted.\n"),
        ("alice 2", "1 alice deleted the history\n2 alice 2\n"),
    ] {
        let ran = python("history_client.py", &[ports[0].as_str(), &ports[1], line]).expect(0);
        assert_eq!(bare(result_of(&ran.out())), want, "{line}");
    }
}

#[track_caller]
fn check_program(args: &[&str], code: i32, stdout: &str, stderr: &str) {
    let service = start_with(THREE_LINES);
    let ran = client_program(&service.server, args, b"").expect(code);
    assert_eq!(bare(&ran.out()), stdout, "{args:?}");
    assert_eq!(ran.stderr, stderr, "{args:?}");
}

#[test]
fn every_verb_of_the_client_has_its_output_and_exit_code() {
    let all = "1 old 1\n2 old 2\n3 old 3\n4 alice 2\n";
    let no_line = "history-client: There is no line 9; the history has 4 lines.\n";
    check_program(&["hello", "alice"], 0, "", "");
    check_program(&["get", "alice"], 0, all, "");
    check_program(&["delete", "alice", "2"], 0, "Line 2 deleted.\n", "");
    check_program(&["delete", "alice", "9"], 1, "", no_line);
    check_program(&["clear", "alice"], 0, "History deleted.\n", "");
    check_program(&["send", "alice"], 0, "", "");
    check_program(&["send", "alice 2"], 0, all, "");
    check_program(&["send", " alice  1 3 \r\n"], 0, "Line 3 deleted.\n", "");
    check_program(&["send", "alice 1 9"], 1, "", no_line);
    check_program(&["send", "alice 3"], 0, "History deleted.\n", "");
    check_program(
        &["send", "alice 4"],
        2,
        "",
        "history-client: The operation is 1, 2 or 3 (as in 'alice 2').\n",
    );
    check_program(
        &["delete", "alice", "0"],
        2,
        "",
        "history-client: N must be the number of a line, 1 or more, or a range, as 3-5, not '0' \
         (see history-client --help)\n",
    );
    check_program(
        &["get"],
        2,
        "",
        "history-client: USER is missing (see history-client --help)\n",
    );
}

#[test]
fn a_client_that_is_not_a_user_exits_1() {
    if !has_door(Needs::NoAccounts, "it asks under several names") {
        return;
    }
    let service = start_for("alice\n");
    for args in [&["get", "bob"][..], &["send", "bob 3"], &["hello", "bob"]] {
        let ran = client_program(&service.server, args, b"").expect(1);
        assert_eq!(ran.out(), "");
        assert_eq!(ran.stderr, "history-client: Authentication error.\n");
    }
}

#[track_caller]
fn check_prompt(input: &str, code: i32, stdout: &str, stderr: &str) {
    let service = start_with(THREE_LINES);
    let ran = client_program(&service.server, &[], input.as_bytes()).expect(code);
    assert_eq!(bare(&ran.out()), stdout, "{input:?}");
    let told = ran.stderr.strip_prefix("Enter authentication: ");
    assert_eq!(told, Some(stderr), "{input:?}");
}

#[test]
fn without_a_verb_the_client_asks_for_a_line() {
    let all = "1 old 1\n2 old 2\n3 old 3\n4 alice 2\n";
    let no_line = "history-client: There is no line 9; the history has 4 lines.\n";
    let not_a_user = "history-client: A request starts with a user name: 1 to 64 of \
                      A-Z a-z 0-9 . _ - (as in 'alice 2').\n";
    check_prompt("alice 2\n", 0, all, "");
    check_prompt("alice 2\r\nbob 3\n", 0, all, "");
    check_prompt("alice", 0, "", "");
    check_prompt("alice 1 3\n", 0, "Line 3 deleted.\n", "");
    check_prompt("alice 1 9\n", 1, "", no_line);
    check_prompt("\n", 2, "", not_a_user);
    check_prompt("", 2, "", not_a_user);
}

#[test]
fn a_client_whose_reader_goes_away_ends_quietly() {
    let service = start_with(&"old line\n".repeat(300_000));
    let mut command = Command::new(program("history-client"));
    command
        .args(service.server.host_and_ports())
        .args(["get", "alice"]);
    let (client, mut stdout) = Running::start_unread(command);
    let mut start = [0; 11];
    stdout.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"1 old line\n");
    drop(stdout);
    let code = client.wait();
    assert_eq!((code, client.stderr.text().as_str()), (Some(0), ""));
}

#[test]
fn a_client_whose_output_is_full_exits_2() {
    let service = start_with(THREE_LINES);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" > /dev/full"]);
    command.arg(program("history-client"));
    command
        .args(service.server.host_and_ports())
        .args(["get", "alice"]);
    let ran = run_command(command, b"").expect(2);
    let want = "cannot write to standard output";
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
}

#[track_caller]
fn check_lost(reply: &[u8], then: Then, want: &str) {
    let port = fake_server(reply.to_vec(), then).to_string();
    let line = ["127.0.0.1", &port, "get", "alice"];
    let line = [&line, then.timeout()].concat();
    let ran = run("history-client", &line, b"").expect(3);
    assert_eq!(ran.out(), "");
    assert!(ran.stderr.contains(want), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn a_client_that_gets_no_sense_exits_3() {
    let lost = "history-client: the connection to the server was lost";
    let nonsense = "history-client: the server's reply is malformed: ";
    check_lost(b"", Then::Close, lost);
    check_lost(b"\0\0\0\x09\x61abc", Then::Close, lost);
    check_lost(b"HTTP/1.1 400 Bad Request\r\n\r\n", Then::Close, nonsense);
    check_lost(b"\0\0\0\x01\x99", Then::Close, nonsense);
    check_lost(
        b"",
        Then::Wait,
        "history-client: the server did not answer in time",
    );
}

/// Nobody holds a place with half a request.
#[test]
fn a_request_that_does_not_end_is_given_up() {
    if !has_door(Needs::NoAccounts, "the text protocol cannot log in") {
        return;
    }
    let service = start_with(THREE_LINES);
    let mut plain = service.server.connect();
    let mut framed = service.server.connect();
    plain.write_all(b"alice 3").unwrap();
    framed.write_all(&frame(0x23, b"\x05alice")[..8]).unwrap();
    let reply = String::from_utf8(read_to_end(&mut plain)).unwrap();
    let want = "The request did not end within 10 s; nothing was done.\n";
    assert_eq!(result_of(&reply), want);
    assert_eq!(read_to_end(&mut framed), b"");
    assert_eq!(service.file(), THREE_LINES);
}
