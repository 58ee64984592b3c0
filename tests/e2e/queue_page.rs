//! The page of the queues, with curl and in a browser. `tests/python/queue_page.py` is what drives the
//! browser.

use std::io::{Read, Write};
use std::thread;

use queue_client::{Client, Transport};

use crate::browser::{BROWSERS, PICTURES_VARIABLE};
use crate::harness::{
    Needs, Server, Stream, eventually, has_door, has_program, is_installed, python, read_to_end,
    skipped,
};

const WHY: &str = "curl and the browser know nothing of the door";

/// How many queues there may be.
const QUEUES_MAX: usize = 10_000;

fn is_ready() -> bool {
    has_door(Needs::Plain, WHY) && has_program("curl")
}

/// Makes as many queues as there may be, with a message each.
fn fill(server: &Server) {
    let mut all = Vec::new();
    for number in 0..QUEUES_MAX {
        let path = format!("/queues/queue-{number:05}/messages");
        let end = if number + 1 == QUEUES_MAX {
            "Connection: close\r\n"
        } else {
            ""
        };
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n{end}");
        write!(all, "{head}\r\nmessage").unwrap();
    }
    let stream = server.connect();
    thread::scope(|scope| {
        // What comes back may be more than fits on the way.
        scope.spawn(|| (&stream).write_all(&all).unwrap());
        let mut said = String::new();
        (&stream).read_to_string(&mut said).unwrap();
        assert_eq!(said.matches("HTTP/1.1 201 Created").count(), QUEUES_MAX);
    });
}

#[test]
fn no_message_becomes_markup() {
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    let text = "</td><script>alert(\"1\")</script>&'";
    server.check_ask(&["--data-raw", text], "/queues/a/messages", 201, "");
    server.check_ask(&["--request", "POST"], "/queues/a/lease", 200, "alert(");
    let release = "/queues/a/messages/1/release";
    server.check_ask(&["--request", "POST"], release, 200, "");
    let key = "Queue-Key: </td><script>";
    for target in [
        "/?queue=a",
        "/?queue=a&ask=delete&id=1",
        "/?q=%3C%2Ftd%3E%3Cscript%3E",
        "/?from=%3C%2Ftd%3E%3Cscript%3E",
        "/?queue=%3C%2Ftd%3E%3Cscript%3E",
        "/?queue=a&state=%3Cscript%3E",
        "/?queue=a&ask=%3Cscript%3E",
    ] {
        let browser = ["--header", "Accept: text/html", "--header", key];
        let (_, html) = server.ask(&browser, target);
        assert!(html.contains("script"), "{target}: {html}");
        assert!(
            !html.contains("<script>") && !html.contains("</td><s"),
            "{target}: {html}"
        );
    }
    // As a file of its own it is no page either.
    let (_, head) = server.ask(&["--head"], "/queues/a/messages/1/body");
    assert!(
        head.contains("Content-Type: application/octet-stream"),
        "{head}"
    );
    assert!(head.contains("X-Content-Type-Options: nosniff"), "{head}");
}

#[test]
fn a_button_leads_back_to_the_page_and_nowhere_else() {
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    let browser = [
        "--header",
        "Accept: text/html",
        "--request",
        "POST",
        "--include",
    ];
    let check = |target: &str, status, part: &str| {
        server.check_ask(&["--data", "x"], "/queues/a/messages", 201, "");
        server.check_ask(&browser, target, status, part);
    };
    check(
        "/queues/a/pause?back=%3Fqueue%3Da%26state%3Ddead",
        303,
        "Location: ./../../?queue=a&state=dead\r\n",
    );
    check(
        "/queues/a/messages/1/delete",
        303,
        "Location: ./../../../../\r\n",
    );
    check(
        "/queues/a/resume?back=%0D%0ASet-Cookie%3A%20x%3Dy",
        303,
        "Location: ./../../?%0D%0ASet-Cookie%3A+x=y\r\n",
    );
    let target = "/queues/a/resume?back=%2F%2Fevil.example%2F";
    check(target, 303, "Location: ./../../\r\n");
    check(
        "/queues/b/pause",
        404,
        "<a href=\"./../../\">The queues</a>",
    );
    // A program is told in JSON.
    server.check_ask(
        &["--request", "POST"],
        "/queues/a/pause?back=x",
        200,
        "{\"messages\"",
    );
}

#[test]
fn ten_thousand_queues_are_shown_in_pages() {
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    fill(&server);
    let (mut target, mut pages, mut rows) = ("/".to_owned(), 0, 0);
    loop {
        let (status, html) = server.ask(&[], &target);
        assert_eq!(status, 200, "{html}");
        assert!(html.len() < 100_000, "{} bytes", html.len());
        pages += 1;
        rows += html.matches("<tr id=\"queue-").count();
        let Some((before, _)) = html.split_once("\" rel=\"next\">") else {
            break;
        };
        let (_, link) = before.rsplit_once("href=\"./").unwrap();
        target = format!("/{link}");
    }
    assert_eq!((pages, rows), (QUEUES_MAX / 100, QUEUES_MAX));
    let (_, json) = server.ask(&[], "/queues");
    assert_eq!(json.matches("\"name\"").count(), QUEUES_MAX);
}

/// Begins to follow a table.
#[track_caller]
fn follow(server: &Server, target: &str) -> Stream {
    let mut stream = server.connect();
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
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
fn events_tell_what_changes_and_end_with_the_server() {
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    let mut stream = follow(&server, "/events");
    let mut said = String::new();
    read_until(&mut stream, &mut said, "event: table\ndata:\n\n");
    let send = |queue: &str| {
        let target = format!("/queues/{queue}/messages");
        server.check_ask(&["--data", "x"], &target, 201, "");
    };
    send("a");
    send("b");
    read_until(&mut stream, &mut said, "data: <tr id=\"queue-b\">");
    said.clear();
    send("b");
    read_until(&mut stream, &mut said, "event: rows\n");
    read_until(&mut stream, &mut said, "<td data-label=\"ready\">2</td>");
    let mut one = follow(&server, "/events?queue=b");
    let mut said_of_one = String::new();
    read_until(&mut one, &mut said_of_one, "queue-b");
    assert!(!said_of_one.contains("queue-a"), "{said_of_one}");
    server.signal("TERM");
    read_to_end(stream);
    read_to_end(one);
    assert_eq!(server.wait().0, Some(0));
}

/// Many look at a full server: the figures are made once for all of them, and a look takes little memory.
#[test]
fn hundreds_may_look_at_once() {
    const MANY: usize = 200;
    const EACH_BYTES_MAX: usize = 160 * 1024;
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0", "--max-connections", "1000"]);
    fill(&server);
    server.check_ask(&[], "/", 200, "");
    let before = server.peak_bytes();
    let mut streams: Vec<_> = (0..MANY)
        .map(|_| follow(&server, "/events?from=queue-09950"))
        .collect();
    for stream in &mut streams {
        read_until(stream, &mut String::new(), "queue-09999");
    }
    // All are told of a change.
    let changed = ["--data", "x"];
    server.check_ask(&changed, "/queues/queue-09990/messages", 201, "");
    for stream in &mut streams {
        read_until(
            stream,
            &mut String::new(),
            "<td data-label=\"ready\">2</td>",
        );
    }
    let each = (server.peak_bytes() - before) / MANY;
    assert!(each < EACH_BYTES_MAX, "{each} bytes each");
    // One address may have no more than its share, and is told so. What does not wait is served.
    let mut refused = 0;
    for _ in MANY..300 {
        let mut stream = follow(&server, "/events");
        let mut said = String::new();
        read_until(&mut stream, &mut said, "\r\n");
        match said.starts_with("HTTP/1.1 503 ") {
            true => refused += 1,
            false => streams.push(stream),
        }
    }
    assert!(refused > 0, "all of 300");
    server.check_ask(&[], "/queues/queue-00000/messages", 200, "message");
    Client::connect(&server.endpoint(), Transport::Tcp)
        .unwrap()
        .stats()
        .unwrap();
    drop(streams);
    eventually("they are gone", || server.connections() <= 1);
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
    let server = Server::start("queue-server", &["0"]);
    let many = Server::start("queue-server", &["0"]);
    fill(&many);
    let mut args = vec![(*browser).to_owned(), server.url(), many.url()];
    args.extend(std::env::var(PICTURES_VARIABLE));
    python("queue_page.py", &args).expect(0);
}
