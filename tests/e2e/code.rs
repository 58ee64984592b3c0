//! The code service: codes, messages, restarts, and its original Python client.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use code_client::Client;
use proto::code::Reply;
use uuid::Uuid;

use crate::harness::{Needs, Server, exchange, has_door, has_program, python, run};

fn start(dir: &Path, options: &[&str]) -> Server {
    let mut line = vec!["0", "0", "--data-dir", dir.to_str().unwrap()];
    line.extend(options);
    Server::start("code-server", &line)
}

fn client(server: &Server) -> Client {
    Client::new(server.endpoint(), server.addrs[1].endpoint())
}

/// Posts a body to the server's first or second port; the status and the body of the reply.
#[track_caller]
fn post(server: &Server, port: usize, body: &[u8]) -> (u16, String) {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let reply = exchange(server.addrs[port], &[head.as_bytes(), body].concat());
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nDate: "), "{head}");
    (status, body.to_owned())
}

#[track_caller]
fn code_of(server: &Server, uuid: &str) -> String {
    let (status, body) = post(server, 0, format!(r#"{{"uuid": "{uuid}"}}"#).as_bytes());
    assert_eq!(status, 200, "{body}");
    match Reply::decode(body.as_bytes()).unwrap() {
        Reply::Code(code) => code.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_uuid_keeps_its_code_in_any_spelling_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let code = code_of(&server, "67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!(Uuid::try_parse(&code).unwrap().get_version_num(), 4);
    assert_eq!(code_of(&server, "67E5504410B1426F9247BB680E5FE0C8"), code);
    assert_eq!(
        code_of(&server, "{67e55044-10b1-426f-9247-bb680e5fe0c8}"),
        code
    );
    server.kill();
    let server = start(dir.path(), &[]);
    assert_eq!(
        code_of(&server, "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8"),
        code
    );
    let mut client = client(&server);
    let uuid = Uuid::try_parse("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    client.send(uuid, &code, "after the restart").unwrap();
}

#[test]
fn sixty_four_clients_at_once_get_one_code_for_one_uuid() {
    const CLIENTS: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let barrier = Barrier::new(CLIENTS);
    let uuids: Vec<Uuid> = (0..20).map(|_| Uuid::new_v4()).collect();
    let codes: Vec<Vec<Uuid>> = thread::scope(|scope| {
        let one = || {
            let mut client = client(&server);
            barrier.wait();
            uuids
                .iter()
                .map(|uuid| client.request(*uuid).unwrap())
                .collect()
        };
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(codes.iter().all(|one| *one == codes[0]));
    assert_eq!(codes[0].iter().collect::<HashSet<_>>().len(), uuids.len());
    let lines = fs::read_to_string(dir.path().join("codes.txt")).unwrap();
    assert_eq!(lines.lines().count(), uuids.len());
}

#[test]
fn a_message_is_one_line_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut client = client(&server);
    let uuid = Uuid::new_v4();
    let code = client.request(uuid).unwrap().to_string();
    let long = "ü".repeat(30_000);
    let texts = [
        "plain",
        "two\nlines\r\n",
        "tab\t\x1b[31m\0",
        "",
        "\"quoted\" \\ 😀",
        &long,
    ];
    for text in texts {
        client.send(uuid, &code, text).unwrap();
    }
    let log = fs::read_to_string(dir.path().join("messages.log")).unwrap();
    let logged: Vec<_> = log
        .lines()
        .map(|line| line.splitn(3, ' ').collect::<Vec<_>>())
        .collect();
    assert!(logged.iter().all(|line| line[1] == uuid.to_string()));
    let logged: Vec<_> = logged.iter().map(|line| line[2]).collect();
    assert_eq!(
        logged,
        [
            "plain",
            r"two\nlines\r\n",
            r"tab\t\u{1b}[31m\u{0}",
            "",
            r#""quoted" \\ 😀"#,
            &long,
        ]
    );
}

#[track_caller]
fn check(server: &Server, port: usize, body: &str, status: u16, sentence: &str) {
    let (got, reply) = post(server, port, body.as_bytes());
    assert_eq!(got, status, "{body}: {reply}");
    match Reply::decode(reply.as_bytes()).unwrap() {
        Reply::Refused(error) => assert!(error.contains(sentence), "{body}: {error}"),
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_with_a_request_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let known = Uuid::new_v4().to_string();
    let code = code_of(&server, &known);
    let unknown = Uuid::new_v4();
    for port in [0, 1] {
        check(&server, port, "", 400, "must be a flat JSON object");
        check(&server, port, "[1]", 400, "must be a flat JSON object");
        check(&server, port, "{}", 400, "'uuid' is missing");
        check(
            &server,
            port,
            r#"{"uuid": 1}"#,
            400,
            "'uuid' must be a string",
        );
        check(
            &server,
            port,
            r#"{"uuid": "1"}"#,
            400,
            "'uuid' must be a UUID",
        );
        let nested = "[".repeat(60_000);
        check(&server, port, &nested, 400, "must be a flat JSON object");
        check(
            &server,
            port,
            &format!("{{'x': {nested}"),
            400,
            "must be a flat JSON object",
        );
        let large = format!("{{\"uuid\": \"{}\"}}", "x".repeat(64 * 1024));
        check(&server, port, &large, 413, "65536 bytes");
    }
    let message = |uuid: &str, unique: &str, text: &str| {
        format!(r#"{{"uuid": "{uuid}", "unique": {unique}, "text": {text}}}"#)
    };
    let right = format!("\"{code}\"");
    let missing = format!(r#"{{"uuid": "{known}", "unique": {right}}}"#);
    check(&server, 1, &missing, 400, "'text' is missing");
    check(
        &server,
        1,
        &message(&known, &right, "7"),
        400,
        "'text' must be a string",
    );
    check(
        &server,
        1,
        &message(&known, "7", "\"x\""),
        400,
        "'unique' must be a string",
    );
    let stranger = message(&unknown.to_string(), &right, "\"x\"");
    check(&server, 1, &stranger, 403, "no code was handed out");
    let wrong = message(&known, &format!("\"{unknown}\""), "\"x\"");
    check(&server, 1, &wrong, 403, "wrong code for this UUID");
    check(
        &server,
        1,
        &message(&known, "\"x\"", "\"x\""),
        403,
        "wrong code for this UUID",
    );
    assert_eq!(fs::read(dir.path().join("messages.log")).unwrap(), b"");
}

#[test]
fn other_methods_and_paths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let ask = |request: &str| {
        let request = format!("{request}\r\nHost: h\r\nConnection: close\r\n\r\n");
        String::from_utf8(exchange(server.addr(), request.as_bytes())).unwrap()
    };
    let reply = ask("GET / HTTP/1.1");
    assert!(
        reply.starts_with("HTTP/1.1 405 ") && reply.contains("\r\nAllow: POST\r\n"),
        "{reply}"
    );
    assert!(ask("POST /x HTTP/1.1").starts_with("HTTP/1.1 404 "));
    assert!(ask("POST / HTTP/1.1").starts_with("HTTP/1.1 411 "));
    let head = ask("HEAD / HTTP/1.1");
    assert!(
        head.starts_with("HTTP/1.1 405 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn past_the_limit_known_codes_still_work() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-codes", "1"]);
    let first = Uuid::new_v4().to_string();
    let code = code_of(&server, &first);
    let other = format!(r#"{{"uuid": "{}"}}"#, Uuid::new_v4());
    check(&server, 0, &other, 503, "all 1 codes have been handed out");
    assert_eq!(code_of(&server, &first), code);
}

#[test]
fn the_original_client_gets_a_bare_dict() {
    if !has_door(Needs::Plain, "the original client knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--python-replies"]);
    let mut line = server.host_and_ports();
    line.push("50".to_owned());
    let ran = python("code_client.py", &line).expect(0).out();
    assert_eq!(ran.matches("(bare dict)").count(), 100, "{ran}");
    let log = fs::read_to_string(dir.path().join("messages.log")).unwrap();
    for index in 0..50 {
        assert!(log.contains(&format!(" Text insertion for index {index}\n")));
    }
    let reply = exchange(
        server.addr(),
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(
        reply,
        br"{'success': False, 'error': 'the field \'uuid\' is missing'}"
    );
}

#[test]
fn the_original_clients_dict_works_without_a_flag_too() {
    if !has_door(Needs::Plain, "the original client knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut line = server.host_and_ports();
    line.push("3".to_owned());
    let ran = python("code_client.py", &line).expect(0).out();
    assert_eq!(ran.matches("(HTTP with JSON)").count(), 6, "{ran}");
}

#[test]
fn the_program_is_fifty_clients_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let ports = server.host_and_ports();
    let out = run("code-client", &ports, b"").expect(0).out();
    assert_eq!(out.lines().count(), 100);
    assert!(out.contains("Client 49: the message is stored\n"), "{out}");
    let log = fs::read_to_string(dir.path().join("messages.log")).unwrap();
    assert_eq!(log.lines().count(), 50);
    let with = |extra: &[&str]| -> Vec<String> {
        ports
            .iter()
            .cloned()
            .chain(extra.iter().map(|arg| arg.to_string()))
            .collect()
    };
    let out = run("code-client", &with(&["run", "-n", "2"]), b"")
        .expect(0)
        .out();
    assert_eq!(out.lines().count(), 4);
    let uuid = Uuid::new_v4().to_string();
    let out = run("code-client", &with(&["request", &uuid]), b"")
        .expect(0)
        .out();
    let (same, code) = out.trim_end().split_once(' ').unwrap();
    assert_eq!(same, uuid);
    run("code-client", &with(&["send", &uuid, code, "given"]), b"").expect(0);
    run(
        "code-client",
        &with(&["send", &uuid, code, "-"]),
        b"piped\n",
    )
    .expect(0);
    let refused = run("code-client", &with(&["send", &uuid, "wrong", "x"]), b"").expect(1);
    assert!(refused.stderr.contains("wrong code for this UUID"));
    let log = fs::read_to_string(dir.path().join("messages.log")).unwrap();
    let newest: Vec<_> = log.lines().rev().take(2).collect();
    assert!(
        newest[0].ends_with(r" piped\n") && newest[1].ends_with(" given"),
        "{newest:?}"
    );
}

#[test]
fn a_damaged_file_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("codes.txt"), "rubbish\nrubbish\n").unwrap();
    let line = ["0", "0", "--data-dir", dir.path().to_str().unwrap()];
    let ran = run("code-server", &line, b"").expect(2);
    assert!(ran.stderr.contains("line 1 of "), "{}", ran.stderr);
}
