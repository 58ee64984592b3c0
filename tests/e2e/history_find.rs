//! Finding lines of a history: what each filter shows, against grep, and in how much memory.

use std::fs;
use std::process::Command;

use proto::Name;
use proto::frame::{self, Message as _};
use proto::history::{Filter, Operation, Reply, Request, TEXT_BYTES_MAX};
use tempfile::TempDir;

use crate::harness::{Server, exchange, has_program, records, run_command};

/// Who uses the history: the door's account, where there are accounts.
const USER: &str = "alice";

struct Service {
    server: Server,
    dir: TempDir,
    /// How many lines there were at the start.
    lines: usize,
}

impl Service {
    /// A server whose history is this text.
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("history.txt"), text).unwrap();
        let line = ["0", "--data-dir", dir.path().to_str().unwrap()];
        let server = Server::start("history-server", &line);
        let lines = text.lines().count();
        Self { server, dir, lines }
    }

    /// The lines that meet a filter, with those of the requests.
    #[track_caller]
    fn get_all(&self, filter: Filter) -> String {
        let operation = Operation::Get(filter);
        let mut request = Vec::new();
        Request {
            user: USER,
            operation,
        }
        .encode(&mut request);
        let reply = exchange(self.server.addr(), &request);
        let (mut frames, mut payload, mut text) = (&reply[..], Vec::new(), Vec::new());
        loop {
            let kind = frame::read(&mut frames, TEXT_BYTES_MAX, &mut payload).unwrap();
            match Reply::decode(kind.expect("the reply ends"), &payload).unwrap() {
                Reply::About(_) => {}
                Reply::Text(bytes) => text.extend_from_slice(bytes),
                Reply::Done("") => return String::from_utf8(text).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The lines that meet a filter, of those that were there at the start.
    #[track_caller]
    fn get(&self, filter: Filter) -> String {
        let is_old = |line: &&str| {
            let (number, _) = line.split_once(' ').unwrap();
            number.parse::<usize>().unwrap() <= self.lines
        };
        self.get_all(filter)
            .split_inclusive('\n')
            .filter(is_old)
            .collect()
    }
}

/// 2026-01-01T00:00:00Z in milliseconds since 1970.
const NEW_YEAR: u64 = 1_767_225_600_000;

const LAB_BOOK: &str = "\
2025-12-31T23:59:59.999Z 10.0.0.1:1 bob note the pump is off
2026-01-01T00:00:00.000Z 10.0.0.2:2 alice note the pump is on
2026-01-01T00:00:01.500Z 10.0.0.2:2 bobby note 6 bar, said bob
of old, without a time or a pump
2026-01-01T00:00:02.000Z 10.0.0.1:1 bob hello
";

#[test]
fn a_filter_shows_the_lines_that_meet_all_of_it() {
    let service = Service::start(LAB_BOOK);
    let all = Filter::ALL;
    let in_2026 = Filter {
        since: NEW_YEAR,
        ..all
    };
    let by_bob = Filter {
        by: Name("bob"),
        ..all
    };
    let pump = Filter {
        contains: "pump",
        ..all
    };
    for (filter, want) in [
        (all, &[1, 2, 3, 4, 5][..]),
        (in_2026, &[2, 3, 5]),
        (
            Filter {
                since: NEW_YEAR + 1,
                ..all
            },
            &[3, 5],
        ),
        (
            Filter {
                until: NEW_YEAR,
                ..all
            },
            &[1],
        ),
        (
            Filter {
                until: NEW_YEAR + 1501,
                ..in_2026
            },
            &[2, 3],
        ),
        (
            Filter {
                until: NEW_YEAR,
                ..in_2026
            },
            &[],
        ),
        (by_bob, &[1, 5]),
        (
            Filter {
                by: Name("nobody"),
                ..all
            },
            &[],
        ),
        (pump, &[1, 2, 4]),
        (
            Filter {
                contains: "Pump",
                ..all
            },
            &[],
        ),
        // The sequence number, and two lines, are not the text of a line.
        (
            Filter {
                contains: "#",
                ..all
            },
            &[],
        ),
        (
            Filter {
                contains: "off\n#2",
                ..all
            },
            &[],
        ),
        (
            Filter {
                by: Name("bob"),
                ..pump
            },
            &[1],
        ),
        (
            Filter {
                since: NEW_YEAR,
                ..by_bob
            },
            &[5],
        ),
    ] {
        let numbered = (1..)
            .zip(LAB_BOOK.lines())
            .filter(|(n, _)| want.contains(n));
        let want: String = numbered.map(|(n, line)| format!("{n} {line}\n")).collect();
        assert_eq!(service.get(filter), want, "{filter:?}");
    }
}

#[test]
fn the_last_lines_are_the_last_of_those_that_meet_the_rest() {
    let service = Service::start(LAB_BOOK);
    let numbers = |filter| -> Vec<usize> {
        let text = service.get_all(filter);
        let numbers = text.lines().map(|line| line.split_once(' ').unwrap().0);
        numbers.map(|number| number.parse().unwrap()).collect()
    };
    let all = Filter::ALL;
    // A request for a number of lines is the last line of its own reply.
    assert_eq!(numbers(Filter { last: 1, ..all }), [6]);
    assert_eq!(numbers(Filter { last: 4, ..all }), [4, 5, 6, 7]);
    assert_eq!(
        numbers(Filter { last: 99, ..all }),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(
        numbers(Filter {
            last: u64::MAX,
            ..all
        })
        .len(),
        9
    );
    let by_bob = Filter {
        by: Name("bob"),
        ..all
    };
    assert_eq!(numbers(Filter { last: 1, ..by_bob }), [5]);
    assert_eq!(numbers(Filter { last: 2, ..by_bob }), [1, 5]);
    assert_eq!(numbers(Filter { last: 3, ..by_bob }), [1, 5]);
    let pump = Filter {
        contains: "pump",
        ..all
    };
    // A search finds those before it, and not itself.
    assert_eq!(numbers(Filter { last: 2, ..pump }), [2, 4]);
    assert_eq!(numbers(Filter { last: 3, ..pump }), [2, 4, 13]);
}

#[test]
fn a_search_is_on_record() {
    let service = Service::start("");
    let filter = Filter {
        last: 3,
        since: 1,
        until: NEW_YEAR,
        by: Name("bob"),
        contains: "two\nlines",
    };
    assert_eq!(service.get_all(filter), "");
    let record = records(service.dir.path());
    let request = format!(" alice 2 last 3 since 1 until {NEW_YEAR} by bob match two\\nlines\n");
    assert!(record.ends_with(&request), "{record}");
}

/// A long lab book, of about as many bytes.
fn long_book(bytes: usize) -> String {
    let mut text = String::new();
    for n in 0.. {
        if text.len() > bytes {
            break;
        }
        let (user, port) = (["alice", "bob", "carol"][n % 3], n % 50_000);
        let line = format!("2026-01-01T00:00:00.000Z 10.0.0.1:{port} {user} note run {n}\n");
        text.push_str(&line);
    }
    text
}

#[test]
fn what_is_found_is_what_grep_finds() {
    if !has_program("grep") {
        return;
    }
    let text = long_book(2_000_000);
    let service = Service::start(&text);
    let file = service.dir.path().join("book");
    fs::write(&file, text).unwrap();
    for contains in ["run 7777", "9", "alice note", "10.0.0.1:31", "no such run"] {
        let mut grep = Command::new("grep");
        grep.args(["-nF", contains]).arg(&file).env("LC_ALL", "C");
        let found = run_command(grep, b"").out();
        let numbered = |line: &str| line.replacen(':', " ", 1);
        let want: Vec<_> = found.lines().map(numbered).collect();
        let filter = Filter {
            contains,
            ..Filter::ALL
        };
        let got = service.get(filter);
        assert!(got.lines().eq(&want), "{contains}: {} lines", want.len());
        let all = service.get_all(filter);
        let last = service.get_all(Filter { last: 10, ..filter });
        // Each search finds the one before it, and not itself.
        let before: Vec<_> = all.lines().rev().take(9).collect();
        assert!(last.lines().rev().skip(1).eq(before), "{contains}: {last}");
    }
}

#[test]
fn a_long_history_is_searched_in_little_memory() {
    const MEMORY_BYTES: usize = 2 << 20;
    let text = long_book(40_000_000);
    let service = Service::start(&text);
    let some = Filter {
        last: 1,
        ..Filter::ALL
    };
    service.get(some);
    let before = service.server.peak_bytes();
    assert!(before < 32 << 20, "{before} bytes at the start");
    for filter in [
        Filter {
            contains: "run 7777",
            ..Filter::ALL
        },
        Filter {
            contains: "no such run",
            ..some
        },
        Filter {
            last: 400_000,
            by: Name("bob"),
            ..Filter::ALL
        },
        Filter {
            since: NEW_YEAR + 1,
            ..Filter::ALL
        },
    ] {
        service.get_all(filter);
        let taken = service.server.peak_bytes() - before;
        assert!(taken < MEMORY_BYTES, "{filter:?}: {taken} bytes");
    }
}
