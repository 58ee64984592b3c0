//! The three services that keep things: how to start them, to put load on them, and to look at what
//! they have kept.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use history_client::Client as HistoryClient;
use queue_client::{Client as QueueClient, Transport};
use tempfile::TempDir;
use uuid::Uuid;

use super::Ledger;
use crate::harness::Server;

/// A service that keeps things, in a folder of its own.
pub trait Service: Sync {
    /// The program.
    const PROGRAM: &'static str;

    /// Its folder.
    fn dir(&self) -> &Path;

    /// Starts the server.
    fn start(&self) -> Server;

    /// Sends records until the server is gone; `life` tells this load's from those of another.
    fn load(&self, server: &Server, life: usize, ledger: &Ledger);

    /// Starts the server, and checks what is there.
    fn check(&self, what: &str, ledger: &Ledger);
}

/// The queue server with a database.
#[derive(Default)]
pub struct Queue {
    dir: Folder,
    /// Acknowledged to the server, and the server has answered.
    gone: Mutex<HashSet<String>>,
    /// Acknowledged to the server just when it ended: may be there or not.
    unsure: Mutex<HashSet<String>>,
}

/// A folder in a temporary one, so that it can be moved.
pub struct Folder {
    data: PathBuf,
    _top: TempDir,
}

impl Default for Folder {
    fn default() -> Self {
        let top = tempfile::tempdir().unwrap();
        let data = top.path().join("data");
        fs::create_dir(&data).unwrap();
        Self { data, _top: top }
    }
}

impl Queue {
    /// The database.
    pub fn path(&self) -> PathBuf {
        self.dir().join("queue.db")
    }
}

fn connect(server: &Server) -> Result<QueueClient, queue_client::Error> {
    QueueClient::connect(&server.endpoint(), Transport::Tcp)
}

impl Service for Queue {
    const PROGRAM: &'static str = "queue-server";

    fn dir(&self) -> &Path {
        &self.dir.data
    }

    fn start(&self) -> Server {
        let path = self.path();
        Server::start(Self::PROGRAM, &["0", "--data", path.to_str().unwrap()])
    }

    fn load(&self, server: &Server, life: usize, ledger: &Ledger) {
        const SENDERS: usize = 4;
        const TAKERS: usize = 2;
        thread::scope(|scope| {
            for sender in 0..SENDERS {
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
                        let is_new = !self.gone.lock().unwrap().contains(&record);
                        assert!(is_new, "{record} came again");
                        match client.ack(&message) {
                            Ok(()) => self.gone.lock().unwrap().insert(record),
                            Err(_) => self.unsure.lock().unwrap().insert(record),
                        };
                    }
                });
            }
        });
    }

    fn check(&self, what: &str, ledger: &Ledger) {
        let server = self.start();
        let mut client = connect(&server).unwrap();
        let mut there = Vec::new();
        let mut newest_id = 0;
        while let Some(message) = client.receive_at_most_once().unwrap() {
            assert!(
                message.id > newest_id,
                "over all lives, the first in is first out"
            );
            newest_id = message.id;
            there.push(String::from_utf8(message.body).unwrap());
        }
        let mut gone = std::mem::take(&mut *self.gone.lock().unwrap());
        let unsure = std::mem::take(&mut *self.unsure.lock().unwrap());
        gone.extend(unsure.into_iter().filter(|record| !there.contains(record)));
        ledger.check_all_there(what, &there, &gone);
    }
}

/// The code server: every record is a message, left with a code of its own.
#[derive(Default)]
pub struct Codes {
    dir: Folder,
    codes: Mutex<HashMap<Uuid, Uuid>>,
}

fn code_client(server: &Server) -> code_client::Client {
    let codes = server.endpoint();
    let messages = server.addrs[1].endpoint();
    code_client::Client::new(codes, messages)
}

impl Service for Codes {
    const PROGRAM: &'static str = "code-server";

    fn dir(&self) -> &Path {
        &self.dir.data
    }

    fn start(&self) -> Server {
        let dir = self.dir().to_str().unwrap();
        Server::start(Self::PROGRAM, &["0", "0", "--data-dir", dir])
    }

    fn load(&self, server: &Server, life: usize, ledger: &Ledger) {
        const CLIENTS: usize = 6;
        thread::scope(|scope| {
            for sender in 0..CLIENTS {
                scope.spawn(move || {
                    let mut client = code_client(server);
                    for number in 0.. {
                        let uuid = Uuid::new_v4();
                        let Ok(code) = client.request(uuid) else {
                            return;
                        };
                        self.codes.lock().unwrap().insert(uuid, code);
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
    }

    fn check(&self, what: &str, ledger: &Ledger) {
        let server = self.start();
        let mut client = code_client(&server);
        for (uuid, code) in std::mem::take(&mut *self.codes.lock().unwrap()) {
            assert_eq!(
                client.request(uuid).unwrap(),
                code,
                "another code for {uuid}"
            );
        }
        let there = words(&self.dir.data, "messages.log", 2);
        ledger.check_all_there(what, &there, &HashSet::new());
    }
}

/// The history server: every record is a user's name.
#[derive(Default)]
pub struct History {
    dir: Folder,
}

impl Service for History {
    const PROGRAM: &'static str = "history-server";

    fn dir(&self) -> &Path {
        &self.dir.data
    }

    fn start(&self) -> Server {
        let dir = self.dir().to_str().unwrap();
        Server::start(Self::PROGRAM, &["0", "--data-dir", dir])
    }

    fn load(&self, server: &Server, life: usize, ledger: &Ledger) {
        const CLIENTS: usize = 6;
        thread::scope(|scope| {
            for sender in 0..CLIENTS {
                scope.spawn(move || {
                    let Ok(mut client) = HistoryClient::connect(&server.endpoint()) else {
                        return;
                    };
                    for number in 0.. {
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
    }

    fn check(&self, what: &str, ledger: &Ledger) {
        drop(self.start());
        let there = words(self.dir(), "history.txt", 3);
        ledger.check_all_there(what, &there, &HashSet::new());
    }
}

/// The path of a log that was moved away as number `piece`.
pub fn piece(dir: &Path, log: &str, piece: usize) -> PathBuf {
    dir.join(format!("{log}.{piece}"))
}

/// The words at one place of each line of a log, with those of its older pieces before them.
#[track_caller]
fn words(dir: &Path, log: &str, at: usize) -> Vec<String> {
    let older = (0..).map(|number| piece(dir, log, number));
    let mut paths: Vec<_> = older.take_while(|path| path.exists()).collect();
    paths.push(dir.join(log));
    let mut words = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).unwrap();
        let word = |line: &str| line.split(' ').nth(at).unwrap().to_owned();
        words.extend(text.lines().map(word));
    }
    words
}
