//! The queue over HTTP, with programs that are not ours: curl, Python's http.client and urllib, and
//! schemathesis, which makes requests of the server's own description.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Needs, PATIENCE, Running, Server, eventually, has_door, has_program, python, root, run_at_most,
};

mod access;
mod refused;

const WHY: &str = "curl and python3 know nothing of the door";

fn is_ready() -> bool {
    has_door(Needs::Plain, WHY) && has_program("curl")
}

const POST: [&str; 2] = ["--request", "POST"];
const DELETE: [&str; 2] = ["--request", "DELETE"];
const PATCH: [&str; 2] = ["--request", "PATCH"];

/// A server in memory, and one with a database.
fn servers(options: &[&str]) -> Vec<(Server, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("queue.db");
    let start = |line: &[&str]| Server::start("queue-server", &[&["0"], line, options].concat());
    let durable = start(&["--data", file.to_str().unwrap()]);
    vec![(start(&[]), None), (durable, Some(dir))]
}

#[track_caller]
fn send(server: &Server, queue: &str, body: &str) {
    let target = format!("/queues/{queue}/messages");
    server.check_ask(&["--data-raw", body], &target, 201, "\"id\":");
}

/// Leases the oldest message; its token, its id and its body.
#[track_caller]
fn lease(server: &Server, queue: &str) -> (String, String, String) {
    let target = format!("/queues/{queue}/lease");
    let (status, reply) = server.ask(&[&POST[..], &["--include"]].concat(), &target);
    assert_eq!(status, 200, "{reply}");
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let field = |name| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().to_owned()
    };
    (field("Queue-Token: "), field("Queue-Id: "), body.to_owned())
}

#[track_caller]
fn json(server: &Server, target: &str) -> Value {
    let (status, body) = server.ask(&[], target);
    assert_eq!(status, 200, "{target}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The figures of a queue: ready, reserved, delayed, dead; `None` if there is no such queue.
#[track_caller]
fn figures(server: &Server, queue: &str) -> Option<[u64; 4]> {
    let stats = json(server, "/queues");
    let mut queues = stats["queues"].as_array().unwrap().iter();
    let found = queues.find(|one| one["name"] == queue)?;
    Some(["ready", "reserved", "delayed", "dead"].map(|name| found[name].as_u64().unwrap()))
}

#[test]
fn a_message_goes_through_all_of_its_life() {
    if !is_ready() {
        return;
    }
    for (server, _dir) in servers(&[]) {
        send(&server, "a", "first");
        let fields = ["--data", "urgent", "--header", "Queue-Priority: 9"];
        server.check_ask(&fields, "/queues/a/messages", 201, "id");
        let query = "/queues/a/messages?delay=1h&max-attempts=1&expires=2h";
        server.check_ask(&["--data", "later"], query, 201, "id");
        assert_eq!(figures(&server, "a"), Some([2, 0, 1, 0]));
        let delayed = json(&server, "/queues/a/messages?state=delayed");
        let message = &delayed["messages"][0];
        assert_eq!(message["body"], "later");
        assert_eq!(message["attempts_max"], 1);
        assert!(message["expiry_millis"].as_u64().unwrap() > 7_000_000);
        // Of several queues, the first that has something.
        let (token, urgent, body) = lease(&server, "none,a");
        assert_eq!(body, "urgent");
        assert_eq!(
            json(&server, &format!("/queues/a/messages/{urgent}"))["state"],
            "reserved"
        );
        let leased = format!("/leases/{token}");
        server.check_ask(
            &PATCH,
            &format!("{leased}?seconds=2h"),
            200,
            "{\"messages\":1}",
        );
        server.check_ask(&DELETE, &leased, 200, "{\"messages\":1}");
        server.check_ask(&DELETE, &leased, 404, "\"name\":\"NotFound\"");
        server.check_ask(
            &PATCH,
            &format!("{leased}?seconds=9"),
            404,
            "no message is leased",
        );
        // It fails, and says why.
        let (token, first, _) = lease(&server, "a");
        let release = format!("/leases/{token}/release");
        server.check_ask(
            &["--data", "no such file"],
            &release,
            200,
            "{\"messages\":1}",
        );
        let (token, _, _) = lease(&server, "a");
        let release = format!("/leases/{token}/release?retry=never");
        server.check_ask(&["--data", "never"], &release, 200, "{\"messages\":0}");
        let dead = json(&server, "/queues/a.dead/messages");
        assert_eq!(dead["messages"][0]["reason"], "never", "{dead}");
        assert_eq!(dead["messages"][0]["attempts"], 2, "{dead}");
        let one = format!("/queues/a/messages/{first}");
        server.check_ask(&POST, &format!("{one}/kick"), 200, "{\"messages\":1}");
        let uncounted = format!(
            "/leases/{}/release?retry=uncounted&delay=0.1s",
            lease(&server, "a").0
        );
        server.check_ask(&POST, &uncounted, 200, "");
        eventually("it is ready", || {
            figures(&server, "a") == Some([1, 0, 1, 0])
        });
        server.check_ask(&POST, &format!("{one}/move?to=b"), 200, "{\"messages\":1}");
        assert_eq!(figures(&server, "b"), Some([1, 0, 0, 0]));
        let moved = format!("/queues/b/messages/{first}");
        server.check_ask(&[], &format!("{moved}/body"), 200, "first");
        lease(&server, "b");
        server.check_ask(&POST, &format!("{moved}/release"), 200, "{\"messages\":1}");
        server.check_ask(&DELETE, &moved, 200, "{\"messages\":1}");
        server.check_ask(&[], &moved, 404, "\"code\":7");
        // Whole queues.
        server.check_ask(&POST, "/queues/a/pause", 200, "");
        assert_eq!(json(&server, "/queues")["queues"][0]["is_paused"], true);
        send(&server, "a", "waits");
        server.check_ask(&POST, "/queues/a/lease", 409, "\"name\":\"Paused\"");
        server.check_ask(&POST, "/queues/a/resume", 200, "");
        server.check_ask(&DELETE, "/queues/a/messages", 200, "{\"messages\":2}");
        server.check_ask(&POST, "/queues/a/kick", 404, "there is no queue 'a'");
        // A browser is sent back to the queue, and to all of them if it is gone.
        for (body, target, back) in [
            ("1", "resume", "Location: ./../../?queue=c\r\n"),
            ("2", "purge", "Location: ./../../\r\n"),
        ] {
            send(&server, "c", body);
            let page = ["--include", "--header", "Accept: text/html"];
            let target = format!("/queues/c/{target}?back=%3Fqueue%3Dc");
            server.check_ask(&[&POST[..], &page].concat(), &target, 303, back);
        }
        server.check_ask(&POST, "/drain", 200, "");
        server.check_ask(
            &["--data", "x"],
            "/queues/a/messages",
            503,
            "\"name\":\"Draining\"",
        );
        server.check_ask(&DELETE, "/drain", 200, "");
        server.check_ask(&POST, "/queues/a/lease?wait=0.05", 204, "");
        assert_eq!(
            json(&server, "/queues")["queues"].as_array().unwrap().len(),
            0
        );
    }
}

#[test]
fn a_body_may_have_every_byte_and_any_length() {
    if !is_ready() {
        return;
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let long: Vec<u8> = (0..1_000_000_u32)
        .map(|at| (at.wrapping_mul(at) >> 7) as u8)
        .collect();
    for (server, _dir) in servers(&["--max-message", "1000000"]) {
        let files = tempfile::tempdir().unwrap();
        let (sent, received) = (files.path().join("sent"), files.path().join("received"));
        for body in [&bytes, &long, &Vec::new()] {
            fs::write(&sent, body).unwrap();
            let data = format!("@{}", sent.display());
            let data = ["--data-binary", data.as_str()];
            let chunked = ["--header", "Transfer-Encoding: chunked"];
            let expect = ["--header", "Expect: 100-continue"];
            for how in [vec![], chunked.to_vec(), expect.to_vec()] {
                let args = [&data[..], &how].concat();
                server.check_ask(&args, "/queues/bytes/messages", 201, "");
                let messages = json(&server, "/queues/bytes/messages");
                let id = &messages["messages"][0]["id"];
                assert_eq!(messages["messages"][0]["body_bytes"], body.len());
                let target = format!("/queues/bytes/messages/{id}/body");
                let output = ["--output", received.to_str().unwrap()];
                server.check_ask(&output, &target, 200, "");
                assert!(fs::read(&received).unwrap() == *body);
                let (status, head) = server.ask(&["--head"], &target);
                assert_eq!(status, 200);
                assert!(
                    head.contains(&format!("Content-Length: {}", body.len())),
                    "{head}"
                );
                fs::write(&received, "").unwrap();
                let args = [&POST[..], &output].concat();
                server.check_ask(&args, "/queues/bytes/lease?seconds=600", 200, "");
                assert!(fs::read(&received).unwrap() == *body);
                server.check_ask(&DELETE, &format!("/queues/bytes/messages/{id}"), 200, "");
            }
        }
    }
}

#[test]
fn pages_of_messages_follow_each_other() {
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    for number in 0..7 {
        send(&server, "a", &format!("number {number}"));
    }
    let (mut seen, mut target) = (Vec::new(), "/queues/a/messages?limit=3".to_owned());
    loop {
        let page = json(&server, &target);
        let messages = page["messages"].as_array().unwrap();
        seen.extend(
            messages
                .iter()
                .map(|one| one["body"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => target = format!("/queues/a/messages?limit=3&after={next}"),
            None => break,
        }
    }
    let want: Vec<_> = (0..7).map(|number| format!("number {number}")).collect();
    assert_eq!(seen, want);
    let start = json(&server, "/queues/a/messages?bytes=3&limit=1");
    assert_eq!(start["messages"][0]["body"], "num");
}

/// curl, which waits for a message.
fn waiting(server: &Server, target: &str) -> Running {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--request", "POST"]);
    curl.args(["--write-out", " %{http_code}"])
        .arg(server.url() + target);
    Running::start(curl)
}

fn waiters(server: &Server) -> u64 {
    let stats = json(server, "/queues");
    let waiters = stats["queues"].as_array().unwrap().iter();
    waiters.map(|one| one["waiters"].as_u64().unwrap()).sum()
}

#[test]
fn a_wait_ends_with_a_message_with_its_peer_and_with_the_server() {
    if !is_ready() {
        return;
    }
    for (server, _dir) in servers(&[]) {
        let first = waiting(&server, "/queues/a/lease?wait=60");
        let second = waiting(&server, "/queues/b,a/lease?wait=60");
        eventually("both wait", || waiters(&server) == 3);
        send(&server, "b", "for the second");
        assert_eq!(second.wait(), Some(0));
        assert_eq!(second.stdout_text(), "for the second 200");
        eventually("one waits", || waiters(&server) == 1);
        // What comes when nobody waits any more is nobody's.
        first.kill();
        eventually("nobody waits", || waiters(&server) == 0);
        send(&server, "a", "still there");
        assert_eq!(figures(&server, "a"), Some([1, 0, 0, 0]));
        let (token, ..) = lease(&server, "a");
        server.check_ask(&DELETE, &format!("/leases/{token}"), 200, "");
        let third = waiting(&server, "/queues/a/lease?wait=60");
        eventually("the third waits", || waiters(&server) == 1);
        server.signal("TERM");
        assert_eq!(third.wait(), Some(0));
        let said = third.stdout_text();
        assert!(
            said.contains("\"name\":\"ShuttingDown\"") && said.ends_with(" 503"),
            "{said}"
        );
        assert_eq!(server.wait().0, Some(0));
    }
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    if !is_ready() {
        return;
    }
    for (server, _dir) in servers(&[]) {
        let mut all = Vec::new();
        for number in 0..200 {
            let body = format!("number {number}");
            let length = body.len();
            let head = "POST /queues/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
            write!(all, "{head} {length}\r\n\r\n{body}").unwrap();
        }
        // It is handed what was sent before it.
        for path in ["/queues/a/lease", "/queues/a/purge"] {
            write!(all, "POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
        all.extend(b"GET /queues HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut stream = server.connect();
        stream.write_all(&all).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said.matches("HTTP/1.1 201 Created").count(), 200, "{said}");
        assert!(said.contains("\r\n\r\nnumber 0HTTP/1.1 200"), "{said}");
        assert!(said.contains("{\"messages\":199}"), "{said}");
        assert!(said.contains("\"ready\":0,\"reserved\":1"), "{said}");
    }
}

#[test]
fn what_was_answered_201_is_there_after_a_kill() {
    if !is_ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("queue.db");
    let line = ["0", "--data", file.to_str().unwrap()];
    let server = Server::start("queue-server", &line);
    send(&server, "a", "kept");
    send(&server, "a", "leased");
    let (token, ..) = lease(&server, "a");
    server.kill();
    let server = Server::start("queue-server", &line);
    assert_eq!(figures(&server, "a"), Some([1, 1, 0, 0]));
    server.check_ask(&DELETE, &format!("/leases/{token}"), 200, "");
    assert_eq!(lease(&server, "a").2, "leased");
}

#[test]
fn a_key_makes_a_repeat_the_same_message() {
    if !is_ready() {
        return;
    }
    for (server, _dir) in servers(&[]) {
        let field = ["--header", "Queue-Key: job 7/ä"];
        let once = [&["--data", "one"], &field[..]].concat();
        server.check_ask(&once, "/queues/a/messages", 201, "{\"id\":1}");
        server.check_ask(&once, "/queues/a/messages", 200, "{\"id\":1}");
        let query = "/queues/a/messages?key=job+7%2F%C3%A4";
        server.check_ask(&["--data", "one"], query, 200, "{\"id\":1}");
        server.check_ask(&["--data", "two"], query, 409, "\"name\":\"Conflict\"");
        assert_eq!(figures(&server, "a"), Some([1, 0, 0, 0]));
        let listed = json(&server, "/queues/a/messages");
        assert_eq!(listed["messages"][0]["key"], "job 7/ä");
        // Also when it was acknowledged a moment ago.
        let (token, ..) = lease(&server, "a");
        server.check_ask(&DELETE, &format!("/leases/{token}"), 200, "");
        server.check_ask(&once, "/queues/a/messages", 200, "{\"id\":1}");
        assert_eq!(figures(&server, "a"), None);
    }
}

#[test]
fn python_uses_it_too() {
    if !(has_door(Needs::Plain, WHY) && has_program("python3")) {
        return;
    }
    for (server, _dir) in servers(&[]) {
        python("queue_http.py", &[server.url()]).expect(0);
    }
}

#[test]
fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    if !(has_door(Needs::Plain, WHY) && has_program("schemathesis")) {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new("schemathesis");
    let python = root().join("tests/python");
    run.env("PYTHONPATH", &python)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run.env("SCHEMATHESIS_HOOKS", "openapi_hooks")
        .current_dir(folder.path());
    run.arg("--config-file")
        .arg(python.join("schemathesis.toml"));
    run.arg("run").arg(server.url() + "/openapi.json");
    // A drained server refuses the rest, events have no end, and the page is for people.
    run.args(["--exclude-path-regex", "^/drain|^/events|^/$"]);
    run.args([
        "--max-examples",
        "20",
        "--seed",
        "1",
        "--request-timeout",
        "20",
        "--no-color",
    ]);
    let ran = run_at_most(PATIENCE * 4, run, b"");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out(), ran.stderr);
}
