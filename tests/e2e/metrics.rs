//! `/metrics` and `/healthz` of all four services, as programs that watch them see them.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use proto::frame::Message as _;
use proto::queue::{Claim, Delivery, Properties, QueueName, Request};

use crate::harness::{
    Needs, PATIENCE, Server, eventually, exchange, has_door, has_program, python, read_to_end,
    receive_request, root, run, run_command, send_request, signed, skipped,
};

/// The exit code of a Python script that lacks what it needs.
const NO_PACKAGE: Option<i32> = Some(77);

/// A page of metrics: each sample by its name and labels.
struct Page(HashMap<String, f64>);

impl Page {
    /// Gets the page of a server's nth port.
    #[track_caller]
    fn of(server: &Server, port: usize, prefix: &str) -> Self {
        Self::parse(&get(server, port, &format!("{prefix}/metrics")))
    }

    /// Reads a page, and checks that it is what OpenMetrics 1.0 asks for.
    #[track_caller]
    fn parse(reply: &str) -> Self {
        let (head, page) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("Content-Type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        let page = page.strip_suffix("# EOF\n").expect("its end is marked");
        let mut samples = HashMap::new();
        let mut families: Vec<(&str, &str)> = Vec::new();
        let (mut bucket, mut help) = (0.0, "");
        for line in page.lines() {
            if let Some(described) = line.strip_prefix("# HELP ") {
                let (name, sentence) = described.split_once(' ').unwrap();
                assert!(
                    name.starts_with("quartet_") && !sentence.ends_with('.'),
                    "{line}"
                );
                assert!(
                    families.iter().all(|(other, _)| *other != name),
                    "twice: {line}"
                );
                help = name;
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').unwrap();
                assert_eq!(name, help);
                families.push((name, kind));
            } else if let Some(unit) = line.strip_prefix("# UNIT ") {
                let (name, unit) = unit.split_once(' ').unwrap();
                assert!(
                    name == help && name.ends_with(&format!("_{unit}")),
                    "{line}"
                );
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let (family, kind) = *families.last().unwrap();
                let name = sample.split('{').next().unwrap();
                let suffix = name.strip_prefix(family).unwrap();
                let value: f64 = value.parse().unwrap();
                match kind {
                    "gauge" => assert_eq!(suffix, "", "{line}"),
                    "counter" => assert_eq!(suffix, "_total", "{line}"),
                    "histogram" if suffix == "_bucket" => {
                        assert!(value >= bucket, "buckets include those before them: {line}");
                        bucket = value;
                    }
                    "histogram" => {
                        assert!(["_sum", "_count"].contains(&suffix), "{line}");
                        bucket = 0.0;
                    }
                    other => panic!("{other}: {line}"),
                }
                let before = samples.insert(sample.to_owned(), value);
                assert!(before.is_none() && value >= 0.0, "{line}");
            }
        }
        Self(samples)
    }

    /// A sample; one that is not there is 0.
    fn get(&self, sample: &str) -> f64 {
        self.0.get(sample).copied().unwrap_or(0.0)
    }

    /// How many requests there were with this kind and outcome.
    fn requests(&self, kind: &str, outcome: &str) -> f64 {
        self.get(&format!(
            "quartet_requests_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}"
        ))
    }

    /// The sum of the samples of one name.
    fn sum(&self, name: &str) -> f64 {
        let start = format!("{name}{{");
        let samples = self
            .0
            .iter()
            .filter(|(sample, _)| sample.starts_with(&start));
        samples.map(|(_, value)| value).sum()
    }

    /// The samples whose names begin like this.
    fn count(&self, start: &str) -> usize {
        self.0
            .keys()
            .filter(|sample| sample.starts_with(start))
            .count()
    }
}

/// The reply to a GET at a server's nth port.
#[track_caller]
fn get(server: &Server, port: usize, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    let reply = exchange(server.addrs[port], request.as_bytes());
    String::from_utf8(reply).unwrap()
}

/// Sends requests in frames over one connection, and waits for the end.
fn ask_frames(server: &Server, requests: &[Request]) {
    let mut frames = Vec::new();
    for request in requests {
        request.encode(&mut frames);
    }
    exchange(server.addr(), &frames);
}

struct Started {
    server: Server,
    /// Its port with a page, and what stands in front of `/metrics`.
    pages: Vec<(usize, &'static str)>,
    _dir: tempfile::TempDir,
}

fn start(name: &str, options: &[&str]) -> Started {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let database = dir.path().join("queue.db");
    let (args, pages) = match name {
        "queue-server" => (
            vec!["0", "TCP", "--data", database.to_str().unwrap()],
            vec![(0, "")],
        ),
        "history-server" => (vec!["0", "--data-dir", path], vec![(0, "")]),
        "code-server" => (vec!["0", "0", "--data-dir", path], vec![(0, ""), (1, "")]),
        "file-server" => (vec!["0", "--root", path], vec![(0, "/.quartet")]),
        other => panic!("{other}"),
    };
    let server = Server::start(name, &[&args[..], options].concat());
    Started {
        server,
        pages,
        _dir: dir,
    }
}

const SERVERS: [&str; 4] = [
    "code-server",
    "file-server",
    "history-server",
    "queue-server",
];

#[test]
fn every_port_answers_probes() {
    for name in SERVERS {
        let Started { server, pages, .. } = &start(name, &[]);
        for (port, prefix) in pages {
            let page = Page::of(server, *port, prefix);
            assert_eq!(page.get("quartet_connections_max"), 4096.0);
            let health = get(server, *port, &format!("{prefix}/healthz"));
            assert!(
                health.starts_with("HTTP/1.1 200 OK\r\n"),
                "{name}: {health}"
            );
            assert!(health.ends_with("\r\n\r\nok\n"), "{name}: {health}");
            let path = format!("{prefix}/metrics");
            let ask = |request: String| {
                String::from_utf8(exchange(server.addrs[*port], request.as_bytes())).unwrap()
            };
            let head = ask(format!("HEAD {path} HTTP/1.0\r\n\r\n"));
            assert!(
                head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
                "{head}"
            );
            let post = ask(format!("POST {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n"));
            assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
            assert!(post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
            let rebound = ask(format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
            assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
        }
    }
}

#[test]
fn the_page_of_the_queues_stands_beside_what_is_measured() {
    let started = start("queue-server", &[]);
    let reply = get(&started.server, 0, "/");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("<h1>Queues</h1>"), "{reply}");
    let reply = get(&started.server, 0, "/healthz");
    assert!(reply.ends_with("\r\n\r\nok\n"), "{reply}");
}

#[test]
fn the_strict_parser_of_prometheus_reads_the_pages() {
    if !has_door(Needs::Plain, "the script knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    for name in SERVERS {
        let started = start(name, &[]);
        for (port, prefix) in &started.pages {
            let addr = started.server.addrs[*port];
            let ran = python("scrape.py", &[format!("http://{addr}{prefix}/metrics")]);
            if ran.code == NO_PACKAGE {
                return skipped("there is no prometheus_client package");
            }
            let families = ran.expect(0).out();
            assert!(families.contains("counter quartet_requests "), "{families}");
            assert!(
                families.contains("histogram quartet_request_seconds "),
                "{families}"
            );
        }
    }
}

#[test]
fn the_page_about_the_front_door_has_every_metric() {
    let mut names = BTreeSet::new();
    for name in SERVERS {
        let Started { server, pages, .. } = &start(name, &[]);
        let (port, prefix) = pages[0];
        let page = get(server, port, &format!("{prefix}/metrics"));
        for typed in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            names.insert(
                typed
                    .replace(" counter", "_total")
                    .split(' ')
                    .next()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    let readme = fs::read_to_string(root().join("crates/daemon/README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| "));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let words = words.filter(|word| word.starts_with("quartet_"));
    let told = words.map(|word| word.split('{').next().unwrap().to_owned());
    assert_eq!(told.collect::<BTreeSet<_>>(), names);
}

#[test]
fn curl_sees_the_numbers_of_the_file_service_move() {
    if !has_program("curl") {
        return;
    }
    let started = start("file-server", &[]);
    let curl = |path: &str, args: &[&str]| {
        let mut command = started.server.curl(path);
        command.args(["--silent", "--noproxy", "*"]).args(args);
        run_command(command, b"").expect(0).out()
    };
    let page = || Page::parse(&curl("/.quartet/metrics", &["--include", "--http1.0"]));
    let before = page();
    fs::write(started._dir.path().join("a"), [b'x'; 1000]).unwrap();
    for path in ["/a", "/a", "/none"] {
        curl(path, &[]);
    }
    curl("/new", &["--request", "PUT", "--data", "uploaded"]);
    curl("/a", &["--request", "BREW"]);
    let after = page();
    let moved = |sample: &str| after.get(sample) - before.get(sample);
    let requests = |kind, outcome| after.requests(kind, outcome) - before.requests(kind, outcome);
    // Two files, and the page before.
    assert_eq!(requests("GET", "2xx"), 3.0);
    assert_eq!(requests("GET", "4xx"), 1.0);
    assert_eq!(requests("PUT", "2xx"), 1.0);
    assert_eq!(requests("other", "5xx"), 1.0);
    assert_eq!(moved("quartet_request_seconds_count"), 6.0);
    assert_eq!(moved("quartet_connections_accepted_total"), 6.0);
    assert!(moved("quartet_sent_bytes_total") > 2000.0);
    assert!(moved("quartet_received_bytes_total") > 100.0);
    assert_eq!(after.get("quartet_connections_open"), 1.0);
    // The page itself is somebody's file.
    fs::write(started._dir.path().join("metrics"), "mine").unwrap();
    assert_eq!(curl("/metrics", &[]), "mine");
}

#[test]
fn requests_in_frames_are_counted_by_their_names() {
    for options in [&["--fsync", "always"][..], &[]] {
        let started = match options {
            [] => Started {
                server: Server::start("queue-server", &["0", "TCP"]),
                pages: vec![(0, "")],
                _dir: tempfile::tempdir().unwrap(),
            },
            options => start("queue-server", options),
        };
        let server = &started.server;
        let ack = Request::Ack {
            claim: Claim::Reserved(1),
        };
        let receive = receive_request(Delivery::AtLeastOnce);
        ask_frames(
            server,
            &[
                send_request(b"1"),
                send_request(b"2"),
                receive.clone(),
                ack.clone(),
                ack,
            ],
        );
        exchange(server.addr(), b"\0\0\0\x01\x7e");
        run(
            "queue-client",
            &[&server.host_and_ports()[..], &["stats".to_owned()]].concat(),
            b"",
        )
        .expect(0);
        let page = Page::of(server, 0, "");
        assert_eq!(page.requests("Send", "ok"), 2.0);
        assert_eq!(page.requests("Receive", "ok"), 1.0);
        assert_eq!(page.requests("Ack", "ok"), 1.0);
        assert_eq!(page.requests("Ack", "error"), 1.0);
        assert_eq!(page.requests("other", "error"), 1.0);
        assert_eq!(page.requests("Stats", "ok"), 1.0);
        assert_eq!(
            page.get("quartet_request_seconds_count"),
            page.sum("quartet_requests_total")
        );
        assert_eq!(page.get("quartet_queue_sent_total"), 2.0);
        assert_eq!(page.get("quartet_queue_acked_total"), 1.0);
        let messages = "quartet_queue_messages{queue=\"default\",state=\"ready\"}";
        assert_eq!(page.get(messages), 1.0);
        if !options.is_empty() {
            let changes = page.get("quartet_commit_changes_sum{store=\"queues\"}");
            assert!(changes >= 3.0, "{changes}");
            assert!(page.get("quartet_commit_seconds_count{store=\"queues\"}") >= 1.0);
        }
    }
}

#[test]
fn a_receiver_that_waits_is_no_slow_request() {
    let server = Server::start("queue-server", &["0", "TCP"]);
    let mut receiver = server.connect();
    let mut frame = Vec::new();
    Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis: 1_500,
        delivery: Delivery::AtMostOnce,
    }
    .encode(&mut frame);
    receiver.write_all(&frame).unwrap();
    receiver.shutdown(std::net::Shutdown::Write).unwrap();
    let since = Instant::now();
    read_to_end(&mut receiver);
    // Its half of the connection has ended, so it may not have waited.
    let mut receiver = server.connect();
    receiver.write_all(&frame).unwrap();
    let mut reply = [0; 5];
    receiver.read_exact(&mut reply).unwrap();
    assert!(since.elapsed() >= Duration::from_millis(1_400));
    eventually("the wait is counted", || {
        Page::of(&server, 0, "").requests("Receive", "ok") >= 1.0
    });
    let page = Page::of(&server, 0, "");
    let slow = page.get("quartet_request_seconds_bucket{le=\"+Inf\"}")
        - page.get("quartet_request_seconds_bucket{le=\"0.5\"}");
    assert_eq!(slow, 0.0);
}

#[test]
fn text_and_datagrams_are_counted() {
    if !has_door(Needs::Plain, "UDP has no door, and text no login") {
        return;
    }
    let server = Server::start("queue-server", &["0", "BOTH"]);
    exchange(server.addr(), b"a message");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"<<GET>>", server.addr().tcp()).unwrap();
    let mut reply = [0; 100];
    let (bytes, _) = socket.recv_from(&mut reply).unwrap();
    assert_eq!(&reply[..bytes], b"a message");
    eventually("both are counted", || {
        Page::of(&server, 0, "").requests("text", "ok") == 2.0
    });

    let history = start("history-server", &[]);
    exchange(history.server.addr(), b"ann\n");
    exchange(history.server.addr(), b"ann 9 9\n");
    let page = Page::of(&history.server, 0, "");
    assert_eq!(page.requests("text", "ok"), 1.0);
    assert_eq!(page.requests("text", "error"), 1.0);
    assert_eq!(page.get("quartet_history_lines"), 1.0);
    assert!(page.get("quartet_history_file_bytes") > 10.0);
    assert_eq!(
        page.get("quartet_commit_changes_sum{store=\"history\"}"),
        1.0
    );
}

#[test]
fn codes_and_messages_are_counted() {
    let started = start("code-server", &[]);
    let server = &started.server;
    // Fifty clients: each asks for a code and sends a message.
    let run_all = [&server.host_and_ports()[..], &["run".to_owned()]].concat();
    run("code-client", &run_all, b"").expect(0);
    let page = Page::of(server, 1, "");
    assert_eq!(page.requests("POST", "2xx"), 100.0);
    assert_eq!(page.get("quartet_codes"), 50.0);
    assert_eq!(page.get("quartet_code_messages_total"), 50.0);
    for store in ["codes", "messages"] {
        let of = |name: &str| page.get(&format!("quartet_commit_{name}{{store=\"{store}\"}}"));
        assert_eq!(of("changes_sum"), 50.0);
        assert!((1.0..=50.0).contains(&of("changes_count")));
        assert_eq!(of("changes_count"), of("seconds_count"));
    }
}

#[test]
fn what_happened_in_a_queue_is_counted_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("queue.db");
    let args = ["0", "TCP", "--data", data.to_str().unwrap()];
    let server = Server::start("queue-server", &args);
    let count = |server: &Server, name: &str, queue: &str| {
        let page = Page::of(server, 0, "");
        page.get(&format!("quartet_queue_{name}_total{{queue=\"{queue}\"}}"))
    };
    let ask = |server: &Server, line: &str, input: &[u8], code| {
        let mut args = server.host_and_ports();
        args.extend(line.split_whitespace().map(str::to_owned));
        run("queue-client", &args, input).expect(code);
    };
    ask(&server, "send --queue jobs --lines -", b"a\nb\nc\nd\n", 0);
    // One is acknowledged, one fails twice and dies at once, one is deleted.
    ask(&server, "receive --queue jobs", b"", 0);
    ask(
        &server,
        "work --queue jobs --once --backoff 0 -- false",
        b"",
        1,
    );
    ask(&server, "purge --queue jobs", b"", 0);
    ask(&server, "send --queue jobs --expires 0.01 -", b"late", 0);
    ask(&server, "send --queue jobs -", b"e", 0);
    ask(
        &server,
        "work --queue jobs --drain --dead-on 1 -- false",
        b"",
        1,
    );
    let want = [
        ("messages_sent", 6.0),
        ("messages_acked", 1.0),
        ("attempts_failed", 2.0),
        ("messages_died", 2.0),
        ("messages_expired", 1.0),
    ];
    eventually("the expiry", || {
        count(&server, "messages_expired", "jobs") == 1.0
    });
    let check = |server: &Server| {
        for (name, count_of) in want {
            assert_eq!(count(server, name, "jobs"), count_of, "{name}");
        }
    };
    check(&server);
    server.end();
    let server = Server::start("queue-server", &args);
    check(&server);
    let page = Page::of(&server, 0, "");
    let oldest = page.get("quartet_queue_oldest_reserved_seconds{queue=\"jobs.dead\"}");
    assert_eq!(oldest, 0.0);
    ask(&server, "send --queue jobs -", b"f", 0);
    assert_eq!(count(&server, "messages_sent", "jobs"), 7.0);
}

#[test]
fn at_most_a_thousand_queues_are_told_by_name() {
    const QUEUES: usize = 1500;
    let server = Server::start("queue-server", &["0", "TCP"]);
    let names: Vec<_> = (0..QUEUES)
        .map(|number| format!("queue{number:04}"))
        .collect();
    let sends: Vec<_> = names
        .iter()
        .map(|name| Request::Send {
            queue: QueueName::new(name).unwrap(),
            properties: Properties::default(),
            body: b"x",
        })
        .collect();
    ask_frames(&server, &sends);
    let page = Page::of(&server, 0, "");
    let ready = |queue: &str| {
        page.get(&format!(
            "quartet_queue_messages{{queue=\"{queue}\",state=\"ready\"}}"
        ))
    };
    assert_eq!(page.get("quartet_queues"), QUEUES as f64);
    assert_eq!(page.count("quartet_queue_waiters{"), 1001);
    assert_eq!(ready("queue0999"), 1.0);
    assert_eq!(ready("queue1000"), 0.0);
    assert_eq!(ready("(other)"), 500.0);
    let sent = |queue: &str| {
        page.get(&format!(
            "quartet_queue_messages_sent_total{{queue=\"{queue}\"}}"
        ))
    };
    assert_eq!((sent("queue0999"), sent("(other)")), (1.0, 500.0));
    assert_eq!(page.count("quartet_queue_messages_sent_total{"), 1001);
    assert_eq!(page.requests("Send", "ok"), QUEUES as f64);
}

#[test]
fn who_is_turned_away_and_who_is_evicted_is_counted() {
    let started = start("file-server", &["--max-connections", "1"]);
    let mut first = started.server.connect();
    first
        .write_all(&signed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
        .unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // It is idle, so it makes room.
    let says_one = |counter: &str| {
        let reply = get(&started.server, 0, "/.quartet/metrics");
        reply.starts_with("HTTP/1.1 200") && Page::parse(&reply).get(counter) >= 1.0
    };
    eventually("the idle one is evicted", || {
        says_one("quartet_connections_evicted_total")
    });
    // One that has just come does not.
    eventually("one is turned away", || {
        let _new = started.server.connect();
        get(&started.server, 0, "/.quartet/healthz").contains(" 503 ")
    });
    eventually("there is room again", || {
        get(&started.server, 0, "/.quartet/healthz").contains(" 200 ")
    });
    // The connection before may still be there, and leave no room for the one that asks.
    eventually("that is counted", || {
        says_one("quartet_connections_refused_total")
    });
}

#[test]
fn a_probe_does_not_keep_a_server_from_ending() {
    let started = start("file-server", &["--idle-exit", "2"]);
    let server = &started.server;
    let probing = server.connect();
    let probe = b"GET /.quartet/healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    eventually("probes are not answered any more", || {
        let asked = (&probing).write_all(probe);
        asked.is_err() || !matches!((&probing).read(&mut [0; 4096]), Ok(1..))
    });
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("No request for 2 s"), "{log}");
}

/// The reply to a GET by somebody, or by `USER:PASSWORD` in base64.
#[track_caller]
fn get_as(server: &Server, login: Option<&str>, path: &str) -> String {
    let login = login.map_or(String::new(), |login| {
        format!("Authorization: Basic {login}\r\n")
    });
    let request = format!("GET {path} HTTP/1.0\r\n{login}\r\n");
    String::from_utf8(exchange(server.addr(), request.as_bytes())).unwrap()
}

#[test]
fn metrics_are_behind_the_accounts_and_health_is_not() {
    if !has_door(Needs::NoAccounts, "the accounts are those of this test") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let accounts = dir.path().join("accounts");
    fs::write(&accounts, "ann:secret\n").unwrap();
    fs::set_permissions(&accounts, fs::Permissions::from_mode(0o600)).unwrap();
    let auth = ["--auth-file", accounts.to_str().unwrap()];
    let (right, wrong) = (Some("YW5uOnNlY3JldA=="), Some("YW5uOndyb25n"));
    let status = |reply: &str| reply[9..12].to_owned();
    for (name, options) in [
        ("code-server", &[][..]),
        ("file-server", &[]),
        ("file-server", &["--auth-read-free"]),
        ("history-server", &[]),
        ("queue-server", &[]),
        ("queue-server", &["--auth-read-free"]),
    ] {
        let Started { server, pages, .. } = &start(name, &[&auth, options].concat());
        let (_, prefix) = pages[0];
        let (metrics, health) = (format!("{prefix}/metrics"), format!("{prefix}/healthz"));
        let refused = get_as(server, None, &metrics);
        assert_eq!(status(&refused), "401", "{name} {options:?}: {refused}");
        assert!(
            refused.contains("\r\nWWW-Authenticate: Basic "),
            "{refused}"
        );
        assert_eq!(status(&get_as(server, wrong, &metrics)), "401");
        for login in [None, right, wrong] {
            let health = get_as(server, login, &health);
            assert!(health.ends_with("\r\n\r\nok\n"), "{name}: {health}");
        }
        let page = Page::parse(&get_as(server, right, &metrics));
        assert_eq!(page.get("quartet_logins_failed_total"), 1.0);
        assert_eq!(page.requests("GET", "4xx"), 2.0);
        let free = start(name, &[&auth, options, &["--metrics-free"]].concat());
        Page::of(&free.server, 0, prefix);
    }
}
