//! kill -9 at random moments under load, again and again, against a checker that knows every
//! record that was acknowledged: none may be lost, none invented, none doubled.
//!
//! `scripts/torture.sh` runs the same for as long as it is told to.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use history_client::Client as HistoryClient;
use queue_client::{Client as QueueClient, Transport};
use uuid::Uuid;

use crate::harness::{Noise, Server, crowd, eventually};

/// How many times each server is killed, unless there is a time to fill.
const CRASHES: usize = 50;

/// A server is killed after so many acknowledgements at the most.
const ACKS_MAX: usize = 300;

/// How long to go on instead, in seconds.
const SECS_VARIABLE: &str = "QUARTET_TORTURE_SECS";

/// What was acknowledged, over all lives of a server.
#[derive(Default)]
struct Ledger {
    acks: AtomicUsize,
    /// Every record in the order in which its sender sent it, and whether it was acknowledged.
    sent: Mutex<HashMap<String, bool>>,
}

impl Ledger {
    /// Notes that a record is about to be sent; until it is acknowledged, it may or may not be
    /// there.
    fn sending(&self, record: &str) {
        self.sent.lock().unwrap().insert(record.to_owned(), false);
    }

    fn acknowledged(&self, record: &str) {
        self.sent.lock().unwrap().insert(record.to_owned(), true);
        self.acks.fetch_add(1, Ordering::SeqCst);
    }
}

/// Kills a server again and again while `load` runs against each of its lives, and prints what it
/// went through. `load` ends when the server is gone.
fn crash_and_crash(
    name: &str,
    start: impl Fn() -> Server,
    ledger: &Ledger,
    load: impl Fn(&Server, usize) + Sync,
) {
    let secs = std::env::var(SECS_VARIABLE)
        .ok()
        .and_then(|secs| secs.parse().ok());
    let until = secs.map(|secs| Instant::now() + Duration::from_secs(secs));
    let mut noise = Noise::new(u64::from(std::process::id()));
    let mut crashes = 0;
    while until.map_or(crashes < CRASHES, |until| Instant::now() < until) {
        let server = start();
        // Every other time.
        let _crowd = (crashes % 2 == 1).then(|| crowd(server.addrs[server.addrs.len() - 1]));
        let target = ledger.acks.load(Ordering::SeqCst) + 1 + noise.below(ACKS_MAX);
        thread::scope(|scope| {
            scope.spawn(|| load(&server, crashes));
            eventually("there are so many acknowledgements", || {
                ledger.acks.load(Ordering::SeqCst) >= target
            });
            server.signal("KILL");
        });
        crashes += 1;
    }
    let records = ledger.acks.load(Ordering::SeqCst);
    println!("torture: {name}: {crashes} crashes, {records} acknowledged");
}

/// Checks what is there in the end: every acknowledged record once, nothing that was not sent, and
/// each sender's records in the order in which they were sent. A record is `SENDER.NUMBER`.
#[track_caller]
fn check_all_there(name: &str, ledger: &Ledger, there: &[String], gone: &HashSet<String>) {
    let sent = ledger.sent.lock().unwrap();
    let mut seen = HashSet::new();
    let mut newest: HashMap<&str, u64> = HashMap::new();
    let (mut invented, mut doubled, mut late) = (0, 0, 0);
    for record in there {
        invented += usize::from(!sent.contains_key(record));
        doubled += usize::from(!seen.insert(record) || gone.contains(record));
        let (sender, number) = record.rsplit_once('.').unwrap();
        let number = number.parse().unwrap();
        let before = newest.insert(sender, number);
        late += usize::from(before.is_some_and(|before| before >= number));
    }
    let is_lost = |(record, acked): &(&String, &bool)| {
        **acked && !seen.contains(record) && !gone.contains(*record)
    };
    let lost = sent.iter().filter(is_lost).count();
    println!("torture: {name}: {lost} lost, {invented} invented, {doubled} doubled, {late} late");
    assert_eq!((lost, invented, doubled, late), (0, 0, 0, 0));
}

#[test]
fn the_queue_keeps_what_it_acknowledged() {
    const SENDERS: usize = 4;
    const TAKERS: usize = 2;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let start = || Server::start("queue-server", &["0", "--data", path.to_str().unwrap()]);
    let ledger = Ledger::default();
    // Acknowledged to the server, and the server has answered.
    let gone = Mutex::new(HashSet::new());
    // Acknowledged to the server just when it died: may be there or not.
    let unsure = Mutex::new(HashSet::new());
    let connect = |server: &Server| QueueClient::connect(&server.endpoint(), Transport::Tcp);
    let load = |server: &Server, life: usize| {
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let ledger = &ledger;
                scope.spawn(move || {
                    let Ok(mut client) = connect(server) else {
                        return;
                    };
                    for number in 0.. {
                        let record = format!("{life}-{sender}.{number}");
                        ledger.sending(&record);
                        if client.send(record.as_bytes()).is_err() {
                            return;
                        }
                        ledger.acknowledged(&record);
                    }
                });
            }
            for _ in 0..TAKERS {
                scope.spawn(|| {
                    let Ok(mut client) = connect(server) else {
                        return;
                    };
                    while let Ok(received) = client.receive() {
                        let Some(message) = received else { continue };
                        let record = String::from_utf8(message.body.clone()).unwrap();
                        let is_new = !gone.lock().unwrap().contains(&record);
                        assert!(is_new, "{record} came again");
                        match client.ack(&message) {
                            Ok(()) => gone.lock().unwrap().insert(record),
                            Err(_) => unsure.lock().unwrap().insert(record),
                        };
                    }
                });
            }
        });
    };
    crash_and_crash("queue", start, &ledger, load);
    let server = start();
    let mut client = connect(&server).unwrap();
    let mut there = Vec::new();
    let mut newest_id = 0;
    while let Some(message) = client.receive_and_forget().unwrap() {
        assert!(
            message.id > newest_id,
            "over all lives, the first in is first out"
        );
        newest_id = message.id;
        there.push(String::from_utf8(message.body).unwrap());
    }
    let mut gone = gone.into_inner().unwrap();
    let unsure = unsure.into_inner().unwrap();
    gone.extend(unsure.into_iter().filter(|record| !there.contains(record)));
    check_all_there("queue", &ledger, &there, &gone);
}

#[test]
fn the_code_server_keeps_what_it_acknowledged() {
    const CLIENTS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let dir = dir.path().to_str().unwrap();
        Server::start("code-server", &["0", "0", "--data-dir", dir])
    };
    let connect = |server: &Server| {
        let codes = server.endpoint();
        let messages = codes.with_port(server.addrs[1].port());
        code_client::Client::new(codes, messages)
    };
    let ledger = Ledger::default();
    let codes: Mutex<HashMap<Uuid, Uuid>> = Mutex::default();
    let load = |server: &Server, life: usize| {
        thread::scope(|scope| {
            for sender in 0..CLIENTS {
                let (ledger, codes) = (&ledger, &codes);
                scope.spawn(move || {
                    let mut client = connect(server);
                    for number in 0.. {
                        let uuid = Uuid::new_v4();
                        let Ok(code) = client.request(uuid) else {
                            return;
                        };
                        codes.lock().unwrap().insert(uuid, code);
                        let record = format!("{life}-{sender}.{number}");
                        ledger.sending(&record);
                        if client.send(uuid, &code.to_string(), &record).is_err() {
                            return;
                        }
                        ledger.acknowledged(&record);
                    }
                });
            }
        });
    };
    crash_and_crash("code", start, &ledger, load);
    let server = start();
    let mut client = connect(&server);
    for (uuid, code) in codes.into_inner().unwrap() {
        assert_eq!(
            client.request(uuid).unwrap(),
            code,
            "another code for {uuid}"
        );
    }
    let there = last_words(&dir.path().join("messages.log"));
    check_all_there("code", &ledger, &there, &HashSet::new());
}

#[test]
fn the_history_keeps_what_it_acknowledged() {
    const CLIENTS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let dir = dir.path().to_str().unwrap();
        Server::start("history-server", &["0", "--data-dir", dir])
    };
    let ledger = Ledger::default();
    let load = |server: &Server, life: usize| {
        thread::scope(|scope| {
            for sender in 0..CLIENTS {
                let ledger = &ledger;
                scope.spawn(move || {
                    let Ok(mut client) = HistoryClient::connect(&server.endpoint()) else {
                        return;
                    };
                    for number in 0.. {
                        // The user's name is the record.
                        let record = format!("{life}-{sender}.{number}");
                        ledger.sending(&record);
                        if client.hello(&record).is_err() {
                            return;
                        }
                        ledger.acknowledged(&record);
                    }
                });
            }
        });
    };
    crash_and_crash("history", start, &ledger, load);
    drop(start());
    let there = std::fs::read_to_string(dir.path().join("history.txt")).unwrap();
    let there: Vec<_> = there
        .lines()
        .map(|line| line.split(' ').nth(2).unwrap().to_owned())
        .collect();
    check_all_there("history", &ledger, &there, &HashSet::new());
}

fn last_words(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect()
}
