//! The history with everything at once: notes, searches, deletions, the pruner and those who follow, while
//! the server is killed again and again. Every acknowledged note is there once, unless it was deleted or
//! is older than all that stays; and nobody was shown a line that is not.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use history_client::{Begin, Client, Error, Event};
use proto::history::{Filter, Operation, Request};
use proto::{ErrorCode, Name};

use super::services::{History, Service};
use super::{Ledger, crash_and_crash};
use crate::harness::{Needs, Noise, Server, has_door};

const CRASHES: usize = 12;
const WRITERS: usize = 4;
const FOLLOWERS: usize = 3;
const KEEP_LINES: usize = 1000;

/// What one has seen that follows over all lives of the server.
#[derive(Default)]
struct Tail(Mutex<Vec<(u64, String)>>);

#[derive(Default)]
struct Everything {
    history: History,
    tails: [Tail; FOLLOWERS],
    /// Notes that were deleted, and the server has answered.
    gone: Mutex<HashSet<String>>,
    /// Notes whose deletion was not answered: they may be there or not.
    unsure: Mutex<HashSet<String>>,
}

/// The note in a record; `None` in that of another request.
fn note(record: &str) -> Option<&str> {
    let what = record.splitn(4, ' ').nth(3)?;
    Some(what.strip_prefix("note ")?.trim_end_matches(';'))
}

/// The last notes that contain a text, with their line numbers.
fn find(client: &mut Client, last: u64, contains: &str) -> Result<Vec<(u64, String)>, Error> {
    let filter = Filter {
        last,
        contains,
        by: Name("writer"),
        ..Filter::ALL
    };
    let mut found = Vec::new();
    client.find("finder", filter, &mut found)?;
    let found = String::from_utf8(found).unwrap();
    let numbered = |line: &str| {
        let (number, record) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), note(record).unwrap().to_owned())
    };
    Ok(found.lines().map(numbered).collect())
}

impl Tail {
    /// Follows until the server is gone, or a record ends like this.
    fn follow(&self, server: &Server, end: &str) {
        let Ok(mut client) = Client::connect(&server.endpoint()) else {
            return;
        };
        let mut lines = self.0.lock().unwrap();
        let begin = match lines.last() {
            Some((last, _)) => Begin::Behind(*last),
            None => Begin::Last(u64::MAX),
        };
        if client.follow("tail", begin).is_err() {
            return;
        }
        loop {
            match client.next_event() {
                Ok(Event::Line { sequence, text }) => {
                    let record = String::from_utf8(text.to_vec()).unwrap();
                    let is_end = record.ends_with(end);
                    lines.push((sequence, record));
                    if is_end {
                        return;
                    }
                }
                Ok(Event::About(_) | Event::Nothing | Event::Deleted { .. }) => {}
                Err(_) => return,
            }
        }
    }
}

impl Everything {
    fn write(server: &Server, sender: &str, ledger: &Ledger) {
        let Ok(mut client) = Client::connect(&server.endpoint()) else {
            return;
        };
        for number in 0.. {
            let record = format!("{sender}.{number}");
            ledger.sending(&record);
            if client.note("writer", &format!("{record};")).is_err() {
                return;
            }
            ledger.acknowledged(&record);
        }
    }

    /// Finds the newest notes, and deletes one of them, until the server is gone.
    fn find_and_delete(&self, server: &Server, life: usize, ledger: &Ledger) {
        let Ok(mut client) = Client::connect(&server.endpoint()) else {
            return;
        };
        let mut noise = Noise::new(life as u64);
        loop {
            let Ok(found) = find(&mut client, 100, ";") else {
                return;
            };
            {
                let sent = ledger.sent.lock().unwrap();
                assert!(found.iter().all(|(_, note)| sent.contains_key(note)));
            }
            if found.is_empty() {
                continue;
            }
            let (line, note) = &found[noise.below(found.len())];
            self.unsure.lock().unwrap().insert(note.clone());
            let operation = Operation::Delete {
                first: *line,
                last: *line,
                contains: &format!(" note {note};"),
            };
            let user = "deleter";
            match client.ask(&Request { user, operation }, |_| Ok(())) {
                // Numbers have shifted, and it was the record of the deletion, if the note is there.
                Ok(_) => match find(&mut client, 1, &format!("note {note};")) {
                    Ok(left) if left.is_empty() => {
                        self.unsure.lock().unwrap().remove(note);
                        self.gone.lock().unwrap().insert(note.clone());
                    }
                    Ok(_) => {}
                    Err(_) => return,
                },
                // It is another line by now.
                Err(Error::Refused {
                    code: ErrorCode::NotFound,
                    ..
                }) => {
                    self.unsure.lock().unwrap().remove(note);
                }
                Err(Error::Refused { .. }) => {}
                Err(_) => return,
            }
        }
    }
}

impl Service for Everything {
    const PROGRAM: &'static str = "history-server";

    fn dir(&self) -> &Path {
        self.history.dir()
    }

    fn start(&self) -> Server {
        let dir = self.dir().to_str().unwrap();
        let keep = KEEP_LINES.to_string();
        let line = ["0", "--data-dir", dir, "--keep-lines", &keep];
        Server::start(Self::PROGRAM, &line)
    }

    fn load(&self, server: &Server, life: usize, ledger: &Ledger) {
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let sender = format!("{life}-{writer}");
                scope.spawn(move || Self::write(server, &sender, ledger));
            }
            for tail in &self.tails {
                scope.spawn(|| tail.follow(server, "\n"));
            }
            scope.spawn(|| self.find_and_delete(server, life, ledger));
        });
    }

    fn check(&self, what: &str, ledger: &Ledger) {
        let server = self.start();
        let mut client = Client::connect(&server.endpoint()).unwrap();
        client.note("writer", "the end").unwrap();
        for tail in &self.tails {
            tail.follow(&server, "the end");
        }
        server.end();
        let text = fs::read_to_string(self.dir().join("history.txt")).unwrap();
        let numbered = |line: &str| {
            let (number, record) = line.split_once(' ').unwrap();
            (number[1..].parse::<u64>().unwrap(), record.to_owned())
        };
        let there: HashMap<u64, String> = text.lines().map(numbered).collect();
        let first = *there.keys().min().unwrap();
        let gone = self.gone.lock().unwrap();
        let unsure = self.unsure.lock().unwrap();
        assert!(there.len() >= KEEP_LINES, "only {} lines", there.len());
        let sent = ledger.sent.lock().unwrap();
        let mut seen = HashMap::new();
        for tail in &self.tails {
            let tail = tail.0.lock().unwrap();
            assert!(tail.is_sorted_by(|a, b| a.0 < b.0), "not in order");
            let mut notes = HashSet::new();
            for (sequence, record) in tail.iter() {
                let same = seen.entry(*sequence).or_insert_with(|| record.clone());
                assert_eq!(same, record, "#{sequence}");
                let note = note(record).filter(|note| *note != "the end");
                if let Some(note) = note {
                    assert!(sent.contains_key(note), "invented: {record}");
                    assert!(notes.insert(note), "doubled: {record}");
                }
                let may_be_gone = note.is_some_and(|n| gone.contains(n) || unsure.contains(n));
                if *sequence >= first && !may_be_gone {
                    assert_eq!(there.get(sequence), Some(record), "#{sequence}");
                }
            }
            let is_missed = |(note, acked): &(&String, &bool)| {
                let may_be_gone = gone.contains(*note) || unsure.contains(*note);
                **acked && !may_be_gone && !notes.contains(note.as_str())
            };
            let missed: Vec<_> = sent.iter().filter(is_missed).take(5).collect();
            assert!(missed.is_empty(), "missed: {missed:?}");
        }
        // Followers have seen all, so they know the number of what is not there any more.
        let numbers: HashMap<_, _> = seen
            .iter()
            .filter_map(|(sequence, record)| Some((note(record)?, *sequence)))
            .collect();
        let mut pruned: HashSet<_> = sent
            .keys()
            .filter(|note| numbers.get(note.as_str()).is_some_and(|at| *at < first))
            .cloned()
            .collect();
        let mut notes: Vec<_> = there.iter().collect();
        notes.sort_unstable();
        let notes: Vec<_> = notes
            .iter()
            .filter_map(|(_, record)| note(record).map(str::to_owned))
            .filter(|note| note != "the end")
            .collect();
        println!(
            "torture: {what}: {} deleted, {} pruned",
            gone.len(),
            pruned.len()
        );
        let maybe = unsure.iter().filter(|note| !notes.contains(note));
        pruned.extend(gone.iter().chain(maybe).cloned());
        drop(sent);
        ledger.check_all_there(what, &notes, &pruned);
    }
}

#[test]
fn a_history_that_everybody_uses_at_once_is_right_for_all() {
    if has_door(Needs::NoAccounts, "many users ask, and one has an account") {
        let everything = Everything::default();
        let what = "history, all at once";
        crash_and_crash(what, CRASHES, &everything, |_, _, _| {});
    }
}
