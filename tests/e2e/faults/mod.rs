//! Disks that are full, disks that fail, files that are damaged, and processes that stop at the
//! worst moment: an OK is never given for what is not there, and what was acknowledged is there
//! when the server is started again.
//!
//! Where there is a disk to fail, `strace` fails it: it makes a system call of the real server
//! return an error, or kills the server at it. Without `strace`, or without the right to mount a
//! small file system, those tests say so and pass.

mod converted;
mod damage;
mod drained;
mod failing_disk;
mod full_disk;
mod holders;
mod managed;
mod moved;
mod outside;
mod reader;
mod room;
mod rotation;
mod standby;
mod starts;
mod unsynced;
mod uploads;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use history_client::Client as HistoryClient;
use proto::ErrorCode;
use queue_client::{Client as QueueClient, Transport};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use uuid::Uuid;

use crate::harness::{
    Address, Noise, Opened, Running, Server, addresses, door, eventually, program, run_command,
};

/// A service that keeps things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Queue,
    History,
}

use Kind::{Code, History, Queue};

const KINDS: [Kind; 3] = [Code, Queue, History];

/// The longest message of the queues in here: more than a pipe takes.
const BODY_BYTES_MAX: usize = 200_000;

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Code => "code-server",
            Queue => "queue-server",
            History => "history-server",
        }
    }

    /// The server's arguments, for a data folder.
    fn args(self, dir: &Path) -> Vec<OsString> {
        match self {
            Code => vec!["0".into(), "0".into(), "--data-dir".into(), dir.into()],
            History => vec!["0".into(), "--data-dir".into(), dir.into()],
            Queue => vec![
                "0".into(),
                "--max-message".into(),
                BODY_BYTES_MAX.to_string().into(),
                "--data".into(),
                dir.join("queue.db").into(),
            ],
        }
    }

    fn command(self, dir: &Path) -> Command {
        let mut command = Command::new(program(self.name()));
        command.args(self.args(dir));
        command
    }

    /// The server, run by `sh` after this piece of script.
    fn command_after(self, script: &str, dir: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{script} && exec \"$0\" \"$@\"")]);
        command.arg(program(self.name())).args(self.args(dir));
        command
    }

    /// The files that what was acknowledged is in.
    fn files(self) -> &'static [&'static str] {
        match self {
            Code => &["codes.txt", "messages.log"],
            Queue => &["queue.db", "queue.db-wal"],
            History => &["history.txt", ".history.txt.new"],
        }
    }

    /// What is sent for a record: the record, made longer so that a disk is full soon.
    fn long(self, record: &str) -> String {
        let bytes = match self {
            Code | History => 60,
            Queue => 1500,
        };
        format!("{record:.<bytes$}")
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It was not done, says the server.
    Refused,
    /// It is not known to be done, says the server.
    Unknown,
    /// There is no answer.
    Lost,
}

use Outcome::{Done, Lost, Refused, Unknown};

/// What a server that could not store something says about it.
#[track_caller]
fn not_stored(is_storage_error: bool, sentence: &str) -> Outcome {
    assert!(
        is_storage_error && sentence.contains(" not stored: "),
        "{sentence}"
    );
    Refused
}

/// What one says that does not know whether it has.
#[track_caller]
fn not_known(sentence: &str) -> Outcome {
    assert!(sentence.contains(" not known to be stored: "), "{sentence}");
    Unknown
}

#[track_caller]
fn of_queue<T>(asked: Result<T, queue_client::Error>) -> Result<T, Outcome> {
    asked.map_err(|error| match error {
        queue_client::Error::Refused {
            code: ErrorCode::ShuttingDown,
            ..
        } => Lost,
        queue_client::Error::Refused { code, sentence } => {
            not_stored(code == ErrorCode::Storage, &sentence)
        }
        queue_client::Error::InDoubt(sentence) => not_known(&sentence),
        _ => Lost,
    })
}

#[track_caller]
fn of_history<T>(asked: Result<T, history_client::Error>) -> Result<T, Outcome> {
    asked.map_err(|error| match error {
        history_client::Error::Refused { code, sentence } => {
            not_stored(code == ErrorCode::Storage, &sentence)
        }
        history_client::Error::InDoubt(sentence) => not_known(&sentence),
        _ => Lost,
    })
}

fn outcome<T>(asked: Result<T, Outcome>) -> Outcome {
    asked.map_or_else(|outcome| outcome, |_| Done)
}

/// Posts a body; the JSON in the reply.
#[track_caller]
fn post(addr: Address, body: &str) -> Result<String, Outcome> {
    let ask = || -> io::Result<String> {
        let mut stream = door().connect(addr)?;
        let length = body.len();
        let head = format!("POST / HTTP/1.0\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes())?;
        io::read_to_string(stream)
    };
    let reply = ask().map_err(|_| Lost)?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or(Lost)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some("507") => Err(not_stored(true, body)),
        Some("500") => Err(not_known(body)),
        other => panic!("{other:?}: {body}"),
    }
}

/// Somebody with a connection to a server.
enum Client {
    Code(Vec<Address>),
    Queue(QueueClient),
    History(HistoryClient),
    /// There is no server any more.
    Nobody,
}

impl Client {
    fn connect(kind: Kind, addrs: &[Address]) -> Self {
        let server = addrs[0].endpoint();
        match kind {
            Code => Self::Code(addrs.to_owned()),
            Queue => {
                let client = QueueClient::connect(&server, Transport::Tcp);
                client.map_or(Self::Nobody, Self::Queue)
            }
            History => HistoryClient::connect(&server).map_or(Self::Nobody, Self::History),
        }
    }
}

/// Whether a record is there when the server is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Must,
    May,
    MustNot,
}

use Fate::{May, Must, MustNot};

/// What was sent, in order, and what was answered.
struct Ledger {
    kind: Kind,
    records: Vec<(String, Fate)>,
    codes: HashMap<Uuid, String>,
}

impl Ledger {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            records: Vec::new(),
            codes: HashMap::new(),
        }
    }

    /// Sends one more record.
    #[track_caller]
    fn put(&mut self, client: &mut Client) -> Outcome {
        let number = self.records.len();
        let record = format!("r{number}");
        let long = self.kind.long(&record);
        let asked = match client {
            Client::Queue(client) => outcome(of_queue(client.send(long.as_bytes()))),
            Client::History(client) => outcome(of_history(client.hello(&long))),
            Client::Code(addrs) => outcome(self.leave_message(addrs, number, &long)),
            Client::Nobody => Lost,
        };
        let fate = match asked {
            Done => Must,
            Refused => MustNot,
            Unknown | Lost => May,
        };
        self.records.push((record, fate));
        asked
    }

    #[track_caller]
    fn leave_message(
        &mut self,
        addrs: &[Address],
        number: usize,
        text: &str,
    ) -> Result<(), Outcome> {
        let uuid = Uuid::from_u128(number as u128);
        let code = code_of(addrs[0], uuid)?;
        self.codes.insert(uuid, code.clone());
        let body = format!(r#"{{"uuid": "{uuid}", "unique": "{code}", "text": "{text}"}}"#);
        post(addrs[1], &body).map(drop)
    }

    /// Takes out the oldest record that is there; `Done` if nothing ever is.
    #[track_caller]
    fn take(&mut self, client: &mut Client) -> Outcome {
        let first = self.records.iter().find(|(_, fate)| *fate == Must);
        let mut record = first.unwrap().0.clone();
        let asked = match client {
            Client::Code(_) => return Done,
            Client::Nobody => return Lost,
            // The first line is the oldest record.
            Client::History(client) => outcome(of_history(client.delete("d", 1))),
            Client::Queue(client) => match of_queue(client.receive()) {
                Err(_) | Ok(None) => return Lost,
                Ok(Some(message)) => {
                    record = short(&message.body);
                    outcome(of_queue(client.ack(&message)))
                }
            },
        };
        let taken = self.records.iter_mut().find(|(sent, _)| *sent == record);
        let (_, fate) = taken.expect("what is delivered was sent");
        assert_ne!(*fate, MustNot, "{record} came again, or was refused");
        match asked {
            Done => *fate = MustNot,
            Refused => {}
            Unknown | Lost => *fate = May,
        }
        asked
    }

    /// Starts the server and checks that all that was acknowledged is there, once and in order,
    /// and nothing that was refused.
    #[track_caller]
    fn check(&self, dir: &Path) {
        let there = self.contents(dir);
        let mut left = there.iter().peekable();
        for (record, fate) in &self.records {
            let is_there = left.next_if_eq(&record).is_some();
            let is_right = match fate {
                Must => is_there,
                May => true,
                MustNot => !is_there,
            };
            let kind = self.kind;
            assert!(is_right, "{kind:?}: {record}: {fate:?}, in {there:?}");
        }
        assert_eq!(left.next(), None, "doubled or out of order, in {there:?}");
    }

    /// Starts the server without any fault; all that is there.
    #[track_caller]
    fn contents(&self, dir: &Path) -> Vec<String> {
        let server = Server::spawn(self.kind.command(dir));
        for (uuid, code) in &self.codes {
            assert_eq!(&code_of(server.addrs[0], *uuid).unwrap(), code, "{uuid}");
        }
        let words = |file: &str, at: usize| -> Vec<String> {
            let text = fs::read(dir.join(file)).unwrap();
            assert!(text.is_empty() || text.ends_with(b"\n"));
            let text = String::from_utf8(text).unwrap();
            let words = text.lines().map(|line| line.split(' ').nth(at).unwrap());
            let records = words.filter(|word| word.starts_with('r'));
            records.map(|record| short(record.as_bytes())).collect()
        };
        match self.kind {
            Code => words("messages.log", 2),
            History => words("history.txt", 3),
            Queue => drain(server.addr())
                .iter()
                .map(|body| short(body))
                .collect(),
        }
    }
}

/// The record in what was sent for it.
fn short(long: &[u8]) -> String {
    let long = std::str::from_utf8(long).unwrap();
    long.trim_end_matches('.').to_owned()
}

#[track_caller]
fn code_of(addr: Address, uuid: Uuid) -> Result<String, Outcome> {
    let reply = post(addr, &format!(r#"{{"uuid": "{uuid}"}}"#))?;
    let reply = proto::code::Reply::decode(reply.as_bytes()).unwrap();
    match reply {
        proto::code::Reply::Code(code) => Ok(code.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Takes everything out of a queue.
#[track_caller]
fn drain(addr: Address) -> Vec<Vec<u8>> {
    let mut client = QueueClient::connect(&addr.endpoint(), Transport::Tcp).unwrap();
    let next = || client.receive_at_most_once().unwrap();
    std::iter::from_fn(next)
        .map(|message| message.body)
        .collect()
}

/// A server that may end before it serves, or at any moment after. Dropping it ends it.
struct Process {
    running: Running,
    addrs: Vec<Address>,
    opened: Opened,
}

impl Process {
    /// Starts a server, and waits until it listens or has ended.
    #[track_caller]
    fn start(mut command: Command) -> Self {
        let opened = door().open(&mut command);
        let running = Running::start(command);
        eventually("the server listens or has ended", || {
            opened.is_ready(&running.stderr.text()) || running.ended().is_some()
        });
        let addrs = addresses(&running.stderr.text());
        Self {
            running,
            addrs,
            opened,
        }
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn log(&self) -> String {
        self.running.stderr.text()
    }

    fn serves(&self) -> bool {
        !self.addrs.is_empty() && self.running.ended().is_none()
    }

    /// Waits until it ends by itself; its exit code.
    #[track_caller]
    fn wait(&self) -> Option<i32> {
        self.running.wait()
    }

    /// Checks that it ends, or has ended, with a sentence about a local file or disk.
    #[track_caller]
    fn check_gave_up(&self, kind: Kind) {
        let code = self.wait();
        let log = self.log();
        assert_eq!(code, Some(2), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("{}: ", kind.name())), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Sends records, and takes some, until the server answers no more; the answers. Beyond the first
/// that was not `Done` it asks a few more times.
#[track_caller]
fn load(ledger: &mut Ledger, addrs: &[Address]) -> Vec<Outcome> {
    const ROUNDS: usize = 4;
    let mut client = Client::connect(ledger.kind, addrs);
    let mut outcomes = Vec::new();
    for _ in 0..ROUNDS {
        outcomes.push(ledger.put(&mut client));
        outcomes.push(ledger.put(&mut client));
        if ledger.kind != Code {
            outcomes.push(ledger.take(&mut client));
        }
    }
    outcomes
}

/// A data folder with a few records in it, as a server leaves it that was killed.
#[track_caller]
fn some_records(kind: Kind) -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(kind);
    let server = Server::spawn(kind.command(dir.path()));
    let mut client = Client::connect(kind, &server.addrs);
    for _ in 0..6 {
        assert_eq!(ledger.put(&mut client), Done);
    }
    server.kill();
    (dir, ledger)
}
