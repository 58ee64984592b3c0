//! Files that may not grow beyond a limit, and batches that may not either.

use std::time::Duration;

use super::*;

fn start(kind: Kind, dir: &Path, options: &[&str]) -> Server {
    let mut command = kind.command(dir);
    command.args(options);
    Server::spawn(command)
}

/// Puts records until one is refused.
#[track_caller]
fn fill(ledger: &mut Ledger, client: &mut Client) {
    const PUTS_MAX: usize = 200;
    let full = (0..PUTS_MAX).find(|_| ledger.put(client) != Done);
    assert!(full.is_some(), "it is never full");
    assert_eq!(ledger.records.last().unwrap().1, MustNot);
}

#[test]
fn a_log_of_messages_that_is_full_refuses_until_it_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(Code, dir.path(), &["--max-file", "1K"]);
    let mut ledger = Ledger::new(Code);
    let mut client = Client::connect(Code, &server.addrs);
    fill(&mut ledger, &mut client);
    let path = dir.path().join("messages.log");
    assert!(fs::metadata(&path).unwrap().len() <= 1024);
    let sentence = "messages.log is full: its limit is 1024 bytes";
    server.wait_for_log(|log| log.contains("[ERROR]") && log.contains(sentence));
    // One line in the log, and the cause in each reply.
    assert_eq!(ledger.put(&mut client), Refused);
    assert_eq!(server.log().matches("is full").count(), 1);
    let (uuid, code) = ledger.codes.iter().next().unwrap();
    let body = format!(r#"{{"uuid": "{uuid}", "unique": "{code}", "text": "x"}}"#);
    let reply = raw_post(server.addrs[1], &body);
    assert!(reply.starts_with("HTTP/1.1 507 "), "{reply}");
    assert!(
        reply.contains("not stored: ") && reply.contains(sentence),
        "{reply}"
    );
    // Where the file is, peers are not told.
    assert!(!reply.contains(dir.path().to_str().unwrap()), "{reply}");
    assert!(server.log().contains(path.to_str().unwrap()));
    fs::rename(&path, dir.path().join("messages.log.1")).unwrap();
    server.signal("HUP");
    server.wait_for_log(|log| log.contains(" was reopened"));
    assert_eq!(ledger.put(&mut client), Done);
}

fn raw_post(addr: Address, body: &str) -> String {
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let reply = crate::harness::exchange(addr, format!("{head}{body}").as_bytes());
    String::from_utf8(reply).unwrap()
}

#[test]
fn a_history_that_is_full_can_be_read_and_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.txt");
    let server = start(History, dir.path(), &["--max-file", "1K"]);
    let mut ledger = Ledger::new(History);
    let mut client = Client::connect(History, &server.addrs);
    fill(&mut ledger, &mut client);
    let full = fs::read_to_string(&path).unwrap();
    assert!(full.len() <= 1024);
    // A reader is answered, and that is not on record.
    let mut line = server.host_and_ports();
    line.extend(["get".to_owned(), "u".repeat(64)]);
    let shown = crate::harness::run("history-client", &line, b"").expect(0);
    assert_eq!(shown.out().lines().count(), full.lines().count());
    assert_eq!(fs::read_to_string(&path).unwrap(), full);
    // A deletion is on record, beyond the limit.
    assert_eq!(ledger.take(&mut client), Done);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().last().unwrap().contains(" d "), "{text}");
    assert_eq!(text.lines().count(), full.lines().count());
    let Client::History(history) = &mut client else {
        unreachable!("it is one of a history")
    };
    assert_eq!(history.clear("u").unwrap(), "History deleted.");
    history.hello("there is room again").unwrap_err();
    history.hello("u").unwrap();
}

#[test]
fn what_is_kept_free_of_the_disk_is_not_used() {
    for kind in [Code, History] {
        let dir = tempfile::tempdir().unwrap();
        let server = start(kind, dir.path(), &["--keep-free", "1000G"]);
        let mut ledger = Ledger::new(kind);
        let mut client = Client::connect(kind, &server.addrs);
        assert_eq!(ledger.put(&mut client), Refused);
        let sentence = " is full: the rest is kept free";
        server.wait_for_log(|log| log.contains(sentence));
        drop(server);
        // Nothing was added, so there is nothing.
        ledger.check(dir.path());
    }
}

#[test]
fn a_file_that_is_too_long_already_is_warned_of() {
    for (kind, file) in [(Code, "messages.log"), (History, "history.txt")] {
        let (dir, mut ledger) = some_records(kind);
        let server = start(kind, dir.path(), &["--max-file", "100"]);
        let log = server.log();
        assert!(log.contains("[WARN]") && log.contains(file), "{log}");
        assert!(log.contains("exceeds its limit of 100"), "{log}");
        let mut client = Client::connect(kind, &server.addrs);
        assert_eq!(ledger.put(&mut client), Refused);
        // What makes room has some.
        assert_eq!(ledger.take(&mut client), Done);
        drop(server);
        ledger.check(dir.path());
    }
}

#[test]
fn messages_that_grow_when_they_are_escaped_take_little_memory() {
    const CONNECTIONS: usize = 300;
    const TEXT_BYTES: usize = 60_000;
    const MEMORY_MAX: u64 = 100 << 20;
    let dir = tempfile::tempdir().unwrap();
    let server = start(Code, dir.path(), &[]);
    let uuid = Uuid::from_u128(1);
    let code = code_of(server.addrs[0], uuid).unwrap();
    let text = "\u{1}".repeat(TEXT_BYTES);
    let body = format!("{{'uuid': '{uuid}', 'unique': '{code}', 'text': '{text}'}}");
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
    // All but the last byte, so that all are ready at once.
    let (last, first) = request.as_bytes().split_last().unwrap();
    let mut streams: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = crate::harness::connect(server.addrs[1]);
            stream.write_all(first).unwrap();
            stream
        })
        .collect();
    server.signal("STOP");
    for stream in &mut streams {
        stream.write_all(&[*last]).unwrap();
    }
    server.signal("CONT");
    for mut stream in streams {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut reply = [0; 15];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"HTTP/1.1 200 OK");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|peak| peak.trim().strip_suffix(" kB"))
        .unwrap();
    let peak = peak.parse::<u64>().unwrap() << 10;
    assert!(peak < MEMORY_MAX, "{peak} bytes");
    let log = fs::read(dir.path().join("messages.log")).unwrap();
    assert_eq!(log.iter().filter(|b| **b == b'\n').count(), CONNECTIONS);
}
