//! Following a history: each line once and in order, what is deleted, and nobody waits for a slow one.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufReader, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use history_client::Client;
use proto::ErrorCode;
use proto::frame::{self, Message as _};
use proto::history::{Operation, Reply, Request, TEXT_BYTES_MAX};
use tempfile::TempDir;

use crate::harness::{Needs, Server, Stream, eventually, has_door, records};

/// Who uses the history: the door's account, where there are accounts.
const USER: &str = "alice";

struct Service {
    server: Server,
    dir: TempDir,
}

impl Service {
    fn start() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    fn over(dir: TempDir) -> Self {
        Self::with(dir, &[])
    }

    fn with(dir: TempDir, options: &[&str]) -> Self {
        let line = ["0", "--data-dir", dir.path().to_str().unwrap()];
        let line = [&line, options].concat();
        let server = Server::start("history-server", &line);
        Self { server, dir }
    }

    fn client(&self) -> Client {
        Client::connect(&self.server.endpoint()).unwrap()
    }

    fn follow(&self, last: u64, behind: u64) -> Tail {
        let mut stream = self.server.connect();
        let request = Request {
            user: USER,
            operation: Operation::Follow { last, behind },
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        stream.write_all(&bytes).unwrap();
        let mut tail = Tail {
            stream: BufReader::with_capacity(TEXT_BYTES_MAX, stream),
            payload: Vec::new(),
        };
        assert!(matches!(tail.reply(), Reply::About(_)));
        tail
    }
}

/// One that follows.
struct Tail {
    stream: BufReader<Stream>,
    payload: Vec<u8>,
}

/// What one that follows is shown.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// A line, with its sequence number, without its time and peer.
    Line(u64, String),
    Deleted(u64, u64),
    Refused(ErrorCode),
}

impl Tail {
    #[track_caller]
    fn reply(&mut self) -> Reply<'_> {
        let kind = frame::read(&mut self.stream, TEXT_BYTES_MAX, &mut self.payload).unwrap();
        Reply::decode(kind.expect("it ends"), &self.payload).unwrap()
    }

    #[track_caller]
    fn next(&mut self) -> Shown {
        loop {
            return match self.reply() {
                Reply::Text(b"") => continue,
                Reply::Line { sequence, text } => {
                    let text = std::str::from_utf8(text).unwrap();
                    let record = text.splitn(3, ' ').nth(2).unwrap();
                    Shown::Line(sequence, record.to_owned())
                }
                Reply::Deleted { first, last } => Shown::Deleted(first, last),
                Reply::Error(error) => Shown::Refused(error.code),
                other => panic!("{other:?}"),
            };
        }
    }

    /// The next line; what is deleted before is passed over.
    #[track_caller]
    fn line(&mut self) -> (u64, String) {
        loop {
            match self.next() {
                Shown::Line(sequence, record) => return (sequence, record),
                Shown::Deleted(..) => {}
                Shown::Refused(code) => panic!("{code:?}"),
            }
        }
    }

    /// Reads up to a line that contains this; the lines before it.
    #[track_caller]
    fn up_to(&mut self, end: &str) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if line.1.contains(end) {
                return lines;
            }
            lines.push(line);
        }
    }
}

fn note(client: &mut Client, text: &str) {
    let operation = Operation::Note(text);
    let user = USER;
    client
        .ask(&Request { user, operation }, |_| Ok(()))
        .unwrap();
}

fn line(sequence: u64, record: &str) -> Shown {
    Shown::Line(sequence, format!("{USER} {record}"))
}

#[test]
fn lines_are_shown_as_they_come_and_what_is_deleted() {
    let service = Service::start();
    let mut client = service.client();
    for text in ["one", "two", "three"] {
        note(&mut client, text);
    }
    let mut tail = service.follow(2, 0);
    assert_eq!(tail.next(), line(2, "note two"));
    assert_eq!(tail.next(), line(3, "note three"));
    assert_eq!(tail.next(), line(4, "follow last 2"));
    note(&mut client, "two\nlines");
    assert_eq!(tail.next(), line(5, "note two\\nlines"));
    client.delete(USER, 3).unwrap();
    assert_eq!(tail.next(), line(6, "1 3"));
    assert_eq!(tail.next(), Shown::Deleted(3, 3));
    let operation = Operation::Delete {
        first: 1,
        last: 2,
        contains: "note",
    };
    let user = USER;
    let deleted = client.ask(&Request { user, operation }, |_| Ok(()));
    assert_eq!(deleted.unwrap(), "Lines 1 to 2 deleted.");
    assert_eq!(tail.next(), line(7, "1 1-2 if note"));
    assert_eq!(tail.next(), Shown::Deleted(1, 2));
    client.clear(USER).unwrap();
    assert_eq!(tail.next(), line(8, "3"));
    assert_eq!(tail.next(), Shown::Deleted(1, 8));
    assert_eq!(tail.next(), line(9, "deleted the history"));
    // One that comes later is not told what it has not seen.
    let mut later = service.follow(0, 0);
    assert_eq!(later.next(), line(10, "follow last 0"));
    let mut again = service.follow(0, 9);
    assert_eq!(again.next(), line(10, "follow last 0"));
    assert_eq!(again.next(), line(11, "follow behind 9"));
    assert_eq!(tail.next(), line(10, "follow last 0"));
    assert_eq!(records(service.dir.path()).lines().count(), 3);
}

/// With many that follow, many that write, and deletions in between.
#[test]
fn each_line_comes_once_and_in_order() {
    if !has_door(Needs::NoAccounts, "many connections ask at once") {
        return;
    }
    const FOLLOWERS: usize = 100;
    const WRITERS: usize = 4;
    const NOTES: usize = 200;
    const MEMORY_BYTES: usize = 64 << 10;
    let service = Service::start();
    drop(service.follow(0, 0));
    let before = service.server.peak_bytes();
    thread::scope(|scope| {
        let tails: Vec<_> = (0..FOLLOWERS).map(|_| service.follow(0, 0)).collect();
        let readers: Vec<_> = tails
            .into_iter()
            .map(|mut tail| scope.spawn(move || tail.up_to("the end")))
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let mut client = service.client();
                scope.spawn(move || {
                    for n in 0..NOTES {
                        note(&mut client, &format!("w{writer} {n}"));
                    }
                })
            })
            .collect();
        let mut client = service.client();
        for _ in 0..5 {
            client.delete(USER, 1).unwrap();
        }
        for writer in writers {
            writer.join().unwrap();
        }
        note(&mut client, "the end");
        let each = (service.server.peak_bytes() - before) / FOLLOWERS;
        assert!(each < MEMORY_BYTES, "{each} bytes for each that follows");
        for reader in readers {
            let lines = reader.join().unwrap();
            assert!(lines.is_sorted_by(|a, b| a.0 < b.0), "not in order");
            for writer in 0..WRITERS {
                let prefix = format!("{USER} note w{writer} ");
                let numbers = lines
                    .iter()
                    .filter_map(|(_, record)| record.strip_prefix(&prefix));
                let numbers: Vec<usize> = numbers.map(|n| n.parse().unwrap()).collect();
                assert_eq!(numbers, (0..NOTES).collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn one_that_does_not_read_delays_nobody_and_misses_nothing() {
    const WRITERS: usize = 8;
    const NOTES: usize = 250;
    let service = Service::start();
    let mut slow = service.follow(0, 0);
    let mut client = service.client();
    let long = "x".repeat(8000);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (mut client, long) = (service.client(), &long);
            scope.spawn(move || {
                for n in 0..NOTES {
                    note(&mut client, &format!("{writer} {n} {long}"));
                }
            });
        }
    });
    client.delete(USER, 1).unwrap();
    note(&mut client, "the end");
    let lines = slow.up_to("the end");
    let notes = lines.iter().filter(|(_, record)| record.contains(&long));
    assert_eq!(notes.count(), WRITERS * NOTES);
    assert!(lines.is_sorted_by(|a, b| a.0 < b.0), "not in order");
}

#[test]
fn a_stop_ends_those_who_follow_at_once() {
    let service = Service::start();
    let mut tail = service.follow(0, 0);
    assert_eq!(tail.next(), line(1, "follow last 0"));
    service.server.signal("TERM");
    assert_eq!(tail.next(), Shown::Refused(ErrorCode::ShuttingDown));
    let (code, log) = service.server.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_stop_does_not_wait_for_one_that_does_not_read() {
    // More than the buffers of a connection hold.
    const LINES: usize = 4000;
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(8000);
    let line = |number: usize| format!("#{number} {long}\n");
    let text: String = (1..=LINES).map(line).collect();
    fs::write(dir.path().join("history.txt"), text).unwrap();
    let service = Service::over(dir);
    let _slow = service.follow(LINES as u64, 0);
    sends_no_more(&service.server);
    let begun = Instant::now();
    service.server.signal("TERM");
    let (code, log) = service.server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("were not finished"), "{log}");
    // Requests have 10 s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}

/// Waits until the server reads no more of its files, because what it has read cannot be sent.
#[track_caller]
fn sends_no_more(server: &Server) {
    const LOOKS: u32 = 100;
    let read = || {
        let figures = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
        figures.lines().next().unwrap().to_owned()
    };
    let (last, same) = (RefCell::new(read()), Cell::new(0));
    eventually("its buffers are full", || {
        let now = read();
        same.set(if *last.borrow() == now {
            same.get() + 1
        } else {
            0
        });
        *last.borrow_mut() = now;
        same.get() == LOOKS
    });
}

#[test]
fn one_too_many_is_refused_and_not_recorded() {
    // A quarter of the connections, if they are of one source.
    const FOLLOWERS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::with(dir, &["--max-connections", "16"]);
    let mut tails: Vec<_> = (0..FOLLOWERS).map(|_| service.follow(0, 0)).collect();
    for tail in &mut tails {
        assert!(matches!(tail.next(), Shown::Line(..)));
    }
    for _ in 0..3 {
        let mut refused = service.follow(0, 0);
        assert_eq!(refused.next(), Shown::Refused(ErrorCode::Busy));
    }
    let text = records(service.dir.path());
    assert_eq!(text.matches("follow").count(), FOLLOWERS, "{text}");
    drop(tails);
    eventually("there is room again", || {
        matches!(service.follow(0, 0).next(), Shown::Line(..))
    });
}

#[test]
fn one_goes_on_where_it_was_after_a_crash() {
    let mut service = Service::start();
    let mut seen = vec![(0, String::new())];
    for round in 0..3 {
        let mut client = service.client();
        let mut tail = service.follow(0, seen.last().unwrap().0);
        for n in 0..20 {
            note(&mut client, &format!("r{round} {n}"));
        }
        seen.extend(tail.up_to(&format!("r{round} 10")));
        // The line itself, which ended that, is shown again.
        service.server.kill();
        service = Service::over(service.dir);
    }
    let mut tail = service.follow(0, seen.last().unwrap().0);
    note(&mut service.client(), "the end");
    seen.extend(tail.up_to("the end"));
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "not in order");
    for round in 0..3 {
        for n in 0..20 {
            let record = format!("{USER} note r{round} {n}");
            let times = seen.iter().filter(|(_, seen)| *seen == record).count();
            assert_eq!(times, 1, "{record}");
        }
    }
}

#[test]
fn a_file_that_is_rotated_away_is_read_to_its_end() {
    let service = Service::start();
    let mut client = service.client();
    let mut tail = service.follow(0, 0);
    let path = service.dir.path().join("history.txt");
    for rotation in 0..3 {
        for n in 0..50 {
            note(&mut client, &format!("{rotation} {n}"));
        }
        fs::rename(&path, rotated(&service.dir, rotation)).unwrap();
        service.server.signal("HUP");
        eventually("it is made anew", || path.exists());
    }
    note(&mut client, "the end");
    let lines = tail.up_to("the end");
    assert!(lines.is_sorted_by(|a, b| a.0 < b.0), "not in order");
    assert_eq!(lines.len(), 1 + 3 * 50);
}

fn rotated(dir: &TempDir, number: usize) -> impl AsRef<Path> {
    dir.path().join(format!("history.txt.{number}"))
}
