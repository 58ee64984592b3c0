//! The page of the history, with curl and in a browser, and who may not use it.
//! `tests/python/history_page.py` is what drives the browser.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use history_client::Client;
use serde_json::Value;
use tempfile::TempDir;

use crate::browser::{BROWSERS, PICTURES_VARIABLE};
use crate::harness::{
    Needs, Server, has_door, has_program, is_installed, python, records, skipped,
};

const WHY: &str = "curl and the browser know nothing of the door";

/// Of "sesame", as `openssl passwd -6` makes it.
const HASH: &str = "$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/";

/// A server and its data folder.
struct Page {
    server: Server,
    dir: TempDir,
}

impl Page {
    fn start(dir: TempDir, options: &[&str]) -> Self {
        let mut line = vec!["0", "--data-dir", dir.path().to_str().unwrap()];
        line.extend(options);
        let server = Server::start("history-server", &line);
        Self { server, dir }
    }

    #[track_caller]
    fn curl(&self, args: &[&str], target: &str) -> (u16, String) {
        self.server.ask(args, target)
    }

    #[track_caller]
    fn check(&self, args: &[&str], target: &str, status: u16, part: &str) {
        self.server.check_ask(args, target, status, part);
    }

    /// All lines, the newest first.
    #[track_caller]
    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let (status, body) = self.curl(args, "/history?last=0");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks for the deletion of a line that looked like this.
    #[track_caller]
    fn delete(&self, args: &[&str], user: &str, line: &Value) -> u16 {
        let field = |name: &str| match &line[name] {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        };
        let user = format!("user={user}");
        let fields = [user, field("sequence"), field("time"), field("text")];
        let data = fields.iter().flat_map(|one| ["--data-urlencode", one]);
        let args: Vec<_> = args.iter().copied().chain(data).collect();
        self.curl(&args, "/delete").0
    }
}

fn is_ready() -> bool {
    has_door(Needs::Plain, WHY) && has_program("curl")
}

#[test]
fn notes_and_deletions_are_recorded_and_looks_are_not() {
    if !is_ready() {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    page.check(&["--data", "user=al&text=one"], "/notes", 303, "Noted.");
    page.check(&["--data", "user=bo&text=two"], "/notes", 303, "Noted.");
    for target in [
        "/",
        "/history",
        "/delete?sequence=1",
        "/style.css",
        "/page.js",
    ] {
        page.check(&[], target, 200, "");
        page.check(&["--head"], target, 200, "");
    }
    page.check(&["--head"], "/events", 200, "text/event-stream");
    let lines = page.lines(&[]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["user"], "bo");
    assert_eq!(lines[0]["text"], "note two");
    assert_eq!(lines[0]["line"], 2);
    let (_, found) = page.curl(&[], "/history?by=al&since=1h&q=one");
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found.as_array().unwrap().as_slice(), &lines[1..]);
    // The line above goes, so the number of this one changes. Its sequence number does not.
    assert_eq!(page.delete(&[], "al", &lines[1]), 303);
    assert_eq!(page.delete(&[], "al", &lines[1]), 409, "it is gone");
    let mut other = lines[0].clone();
    other["text"] = "note tw".into();
    assert_eq!(page.delete(&[], "al", &other), 409, "that is another text");
    let mut other = lines[0].clone();
    other["time"] = "2026-01-01T00:00:00.000Z".into();
    assert_eq!(page.delete(&[], "al", &other), 409, "that is another time");
    assert_eq!(page.delete(&[], "al", &lines[0]), 303);
    let file = records(page.dir.path());
    let asked = format!("al 1 #{}", lines[1]["sequence"]);
    assert_eq!(file.matches(&asked).count(), 2, "{file}");
    assert!(!file.contains("note"), "{file}");
}

#[test]
fn a_line_of_another_program_can_be_deleted_as_a_form_sends_it() {
    if !is_ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let text = "2026-01-01T00:00:00Z peer al note one\rtwo\r\n2026-01-01T00:00:00Z peer al note last\0 \u{7f}\n";
    fs::write(dir.path().join("history.txt"), text).unwrap();
    let page = Page::start(dir, &[]);
    let lines = page.lines(&[]);
    for (line, text) in [
        (&lines[1], "note one\r\ntwo\r\n"),
        (&lines[0], "note last\u{fffd} \u{7f}"),
    ] {
        let mut sent = line.clone();
        sent["text"] = text.into();
        assert_eq!(page.delete(&[], "al", &sent), 303, "{line}");
    }
    assert_eq!(page.lines(&[]).len(), 2, "the deletions");
}

#[test]
fn what_is_wrong_is_said() {
    if !is_ready() {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    let long = format!("user=al&text={}", "x".repeat(8193));
    let too_long = page.dir.path().join("form");
    fs::write(&too_long, format!("user=al&text={}", "x".repeat(300_000))).unwrap();
    let too_long = format!("@{}", too_long.display());
    for (args, target, status, part) in [
        (vec!["--data", "text=x"], "/notes", 400, "1 to 64"),
        (vec!["--data", "user=a+b&text=x"], "/notes", 400, "1 to 64"),
        (vec!["--data", "user=al"], "/notes", 400, "1 to 8192 bytes"),
        (vec!["--data", &long], "/notes", 400, "8193"),
        (vec!["--data", &too_long], "/notes", 413, "exceeds"),
        (vec!["--data", "user=al&texd=x"], "/notes", 400, "'texd'"),
        (vec!["--data", "user=al&text=%ff"], "/notes", 400, "UTF-8"),
        (vec!["--json", "{}"], "/notes", 415, "form"),
        (vec!["--data", "user=al"], "/delete", 400, "sequence"),
        (vec![], "/notes", 405, "POST"),
        (vec!["--data", "x"], "/", 405, "GET"),
        (vec![], "/nothing", 404, "no such page"),
        (vec![], "/?sinse=2h", 400, "'sinse'"),
        (vec![], "/?since=soon", 400, "'soon'"),
        (vec![], "/?by=a/b", 400, "'a/b'"),
        (vec![], "/delete?sequence=7", 404, "#7"),
        (vec![], "/events?behind=x", 400, "'x'"),
    ] {
        page.check(&args, target, status, part);
    }
    assert_eq!(records(page.dir.path()), "");
    // To a browser it is a page.
    let browser = ["--header", "Accept: text/html"];
    page.check(&browser, "/nothing", 404, "<!DOCTYPE html>");
}

#[test]
fn no_other_page_reads_or_writes_the_history() {
    if !is_ready() {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    let rebound = ["--header", "Host: evil.example"];
    let cross = ["--header", "Origin: http://evil.example"];
    let note = ["--data", "user=al&text=planted"];
    for target in ["/", "/history", "/events", "/delete?sequence=1"] {
        page.check(&rebound, target, 421, "--host evil.example");
    }
    page.check(&[rebound, note].concat(), "/notes", 421, "");
    page.check(&[cross, note].concat(), "/notes", 403, "may not change");
    page.check(&[cross, note].concat(), "/delete", 403, "may not change");
    let frame = ["--header", "Sec-Fetch-Site: cross-site"];
    page.check(&[frame, note].concat(), "/notes", 403, "");
    // A picture there shows nothing of this history, and a link opens it.
    let neighbour = ["--header", "Sec-Fetch-Site: same-site"];
    for other in [frame, neighbour] {
        for target in [
            "/?q=x",
            "/history",
            "/events",
            "/delete?sequence=1",
            "/page.js",
        ] {
            page.check(&other, target, 403, "may only open the page");
        }
        let opens = ["--header", "Sec-Fetch-Mode: navigate", "--header"];
        let link = [&other[..], &opens, &["Sec-Fetch-Dest: document"]].concat();
        page.check(&link, "/", 200, "");
        page.check(&link, "/history", 403, "may only open the page");
        // How long a search takes tells what it has found.
        page.check(&link, "/?q=x", 403, "without a search");
        let frame = [&other[..], &opens, &["Sec-Fetch-Dest: iframe"]].concat();
        page.check(&frame, "/", 403, "may only open the page");
    }
    for own in ["same-origin", "none"] {
        let own = format!("Sec-Fetch-Site: {own}");
        page.check(&["--header", &own], "/history", 200, "[");
    }
    assert_eq!(records(page.dir.path()), "");
    let (_, head) = page.curl(&["--head"], "/");
    assert!(head.contains("script-src 'self'"), "{head}");
    assert!(head.contains("frame-ancestors 'none'"), "{head}");
}

#[test]
fn no_text_becomes_markup() {
    if !is_ready() {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    let text = "text=</td><script>alert(\"1\")</script>&'";
    let args = ["--data", "user=al", "--data-urlencode", text];
    page.check(&args, "/notes", 303, "");
    for target in ["/", "/delete?sequence=1", "/?q=%3C%2Ftd%3E%3Cscript%3E"] {
        let (_, html) = page.curl(&[], target);
        assert!(html.contains("alert("), "{html}");
        assert!(
            !html.contains("<script>") && !html.contains("</td><s"),
            "{html}"
        );
    }
    assert_eq!(page.lines(&[])[0]["text"], format!("note {}", &text[5..]));
}

/// Reads from a stream of events until it has this text.
#[track_caller]
fn read_until(stream: &mut impl Read, so_far: &mut String, part: &str) {
    let mut bytes = [0; 4096];
    while !so_far.contains(part) {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "no '{part}' in {so_far}");
        so_far.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

#[test]
fn events_come_as_lines_do_and_continue_where_they_were() {
    if !is_ready() {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    let note = |text: &str| {
        let data = format!("user=al&text={text}");
        page.check(&["--data", &data], "/notes", 303, "");
    };
    note("first");
    note("second");
    let follow = |target: &str, fields: &str| {
        let mut stream = page.server.connect();
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let (mut new, mut continued) = (String::new(), String::new());
    let mut stream = follow("/events?q=third", "");
    read_until(&mut stream, &mut new, ": lines");
    let mut other = follow("/events?behind=0", "Last-Event-ID: 1\r\n");
    read_until(&mut other, &mut continued, "second");
    note("third");
    read_until(&mut stream, &mut new, "third");
    read_until(&mut other, &mut continued, "third");
    assert!(
        !new.contains("second") && new.contains("\nid: 3\n"),
        "{new}"
    );
    assert!(!continued.contains("first"), "{continued}");
    let third = &page.lines(&[])[0];
    assert_eq!(page.delete(&[], "al", third), 303);
    read_until(&mut other, &mut continued, "event: deleted\ndata: 3-3\n");
    // They end when the server stops.
    page.server.signal("TERM");
    other.read_to_string(&mut continued).unwrap();
    stream.read_to_string(&mut new).unwrap();
}

#[test]
fn a_page_that_shows_none_of_many_lines_is_told_that_the_server_is_there() {
    if !is_ready() {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    let stream = page.server.connect();
    let request = "GET /events?q=rare HTTP/1.1\r\nHost: localhost\r\n\r\n";
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut client = Client::connect(&page.server.endpoint()).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut text = String::new();
            read_until(&mut &stream, &mut text, ": lines as they come\n\n");
            read_until(&mut &stream, &mut text, ":\n\n");
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while !reader.is_finished() && Instant::now() < deadline {
            client.hello("al").unwrap();
        }
        stream.shutdown(Shutdown::Both).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn names_and_roles_count() {
    if !is_ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, "al\n").unwrap();
    let page = Page::start(dir, &["--users", users.to_str().unwrap()]);
    for target in [
        "/",
        "/history",
        "/events",
        "/?user=bo",
        "/delete?sequence=1",
    ] {
        page.check(&[], target, 403, "Authentication error.");
    }
    page.check(&[], "/?user=al", 200, "<table>");
    page.check(&["--data", "user=bo&text=x"], "/notes", 403, "");
    page.check(&["--data", "user=al&text=x"], "/notes", 303, "");
    let file = records(page.dir.path());
    assert!(file.contains("bo refused: note x\n"), "{file}");

    let dir = tempfile::tempdir().unwrap();
    let accounts = dir.path().join("accounts");
    let lines = ["al:read", "bo:write", "eve:admin"].map(|line| {
        let (user, role) = line.split_once(':').unwrap();
        format!("{user}:{HASH}:{role}\n")
    });
    fs::write(&accounts, lines.concat()).unwrap();
    fs::set_permissions(&accounts, fs::Permissions::from_mode(0o600)).unwrap();
    let page = Page::start(dir, &["--auth-file", accounts.to_str().unwrap()]);
    page.check(&[], "/", 401, "user and a password");
    let (al, bo, eve) = (
        ["--user", "al:sesame"],
        ["--user", "bo:sesame"],
        ["--user", "eve:sesame"],
    );
    let note = ["--data", "text=x"];
    page.check(&al, "/", 200, "<table>");
    page.check(&[al, note].concat(), "/notes", 403, "role");
    page.check(&[bo, note].concat(), "/notes", 303, "Noted.");
    page.check(
        &[bo, ["--data", "user=al&text=x"]].concat(),
        "/notes",
        403,
        "'bo'",
    );
    page.check(&[eve, note].concat(), "/notes", 303, "Noted.");
    let lines = page.lines(&bo);
    assert_eq!(page.delete(&bo, "", &lines[0]), 403, "eve wrote that");
    assert_eq!(page.delete(&bo, "", &lines[1]), 303);
    assert_eq!(page.delete(&eve, "", &lines[0]), 303);
}

#[test]
fn a_browser_does_all_of_the_page() {
    if !has_door(Needs::Plain, WHY) {
        return;
    }
    let Some(browser) = BROWSERS.iter().find(|name| is_installed(name)) else {
        return skipped("there is no Chromium");
    };
    if !has_program("python3") {
        return;
    }
    let page = Page::start(tempfile::tempdir().unwrap(), &[]);
    let mut args = vec![(*browser).to_owned(), page.server.url()];
    args.extend(std::env::var(PICTURES_VARIABLE));
    python("history_page.py", &args).expect(0);
}
