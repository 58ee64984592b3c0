//! Disks that fail: full, broken in a write or in a sync. Whatever happens, a server never says OK
//! to what is not on the disk, and keeps what it has acknowledged.
//!
//! Syscalls are made to fail with `strace`; without it, those tests say so and prove nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use queue_client::{Client as QueueClient, Transport};
use uuid::Uuid;

use crate::harness::{Server, eventually, program, run};

/// The servers that keep things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    History,
    Queue,
}

const KINDS: [Kind; 3] = [Kind::Code, Kind::History, Kind::Queue];

/// Sends one record; the error is what the server or the client said.
type Sender = Box<dyn FnMut(&str) -> Result<(), String>>;

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Code => "code-server",
            Self::History => "history-server",
            Self::Queue => "queue-server",
        }
    }

    fn args(self, dir: &Path) -> Vec<String> {
        let dir = dir.to_str().unwrap();
        let words = match self {
            Self::Code => vec!["0", "0", "--data-dir", dir],
            Self::History => vec!["0", "--data-dir", dir],
            Self::Queue => vec!["0", "--data"],
        };
        let mut words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        if self == Self::Queue {
            words.push(format!("{dir}/queue.db"));
        }
        words
    }

    /// The file that grows with each record.
    fn file(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Self::Code => "messages.log",
            Self::History => "history.txt",
            Self::Queue => "queue.db-wal",
        })
    }

    fn start(self, dir: &Path) -> Server {
        Server::start(self.name(), &self.args(dir))
    }

    fn sender(self, server: &Server) -> Sender {
        let say = |error: &dyn std::fmt::Display| error.to_string();
        match self {
            Self::Code => {
                let codes = server.endpoint();
                let messages = codes.with_port(server.addrs[1].port());
                let mut client = code_client::Client::new(codes, messages);
                let uuid = Uuid::new_v4();
                let code = client.request(uuid).unwrap().to_string();
                Box::new(move |record| {
                    let sent = client.send(uuid, &code, record);
                    sent.map_err(|error| say(&error))
                })
            }
            Self::History => {
                let mut client = history_client::Client::connect(&server.endpoint()).unwrap();
                Box::new(move |record| {
                    let sent = client.hello(record);
                    sent.map(drop).map_err(|error| say(&error))
                })
            }
            Self::Queue => {
                let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
                Box::new(move |record| {
                    let sent = client.send(record.as_bytes());
                    sent.map(drop).map_err(|error| say(&error))
                })
            }
        }
    }

    /// The records that a fresh server finds.
    fn records(self, dir: &Path) -> Vec<String> {
        let server = self.start(dir);
        let mut records = Vec::new();
        if self == Self::Queue {
            let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
            while let Some(message) = client.receive_and_forget().unwrap() {
                records.push(String::from_utf8(message.body).unwrap());
            }
            return records;
        }
        drop(server);
        let text = fs::read_to_string(self.file(dir)).unwrap();
        let word = |line: &str| line.split(' ').nth(2).unwrap().to_owned();
        records.extend(text.lines().map(word));
        records
    }
}

/// Sends records until one is refused. Returns those that were acknowledged, and the refusal.
#[track_caller]
fn send_until_refused(send: &mut Sender) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    for number in 0..5000 {
        let record = format!("record.{number}");
        match send(&record) {
            Ok(()) => acknowledged.push(record),
            Err(refusal) => return (acknowledged, refusal),
        }
    }
    panic!("nothing was refused");
}

/// What is there must be what was acknowledged; and the one in flight, which may be there or not.
#[track_caller]
fn check_kept(kind: Kind, dir: &Path, acknowledged: &[String]) {
    let there = kind.records(dir);
    assert!(
        there.starts_with(acknowledged) && there.len() <= acknowledged.len() + 1,
        "{kind:?}: {} acknowledged, there are {there:?}",
        acknowledged.len()
    );
}

/// The command that runs a server while `strace` injects a fault into these calls; with a file, only
/// where they concern it. `None` without `strace`.
fn under_strace(
    kind: Kind,
    dir: &Path,
    calls: &str,
    fault: &str,
    file: Option<&Path>,
) -> Option<Command> {
    let mut version = Command::new("strace");
    version.arg("-V").stdout(Stdio::null());
    if !version
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("skipped: strace is not installed");
        return None;
    }
    let mut command = Command::new("strace");
    // With -D the server is our child, not strace.
    command
        .args(["-D", "-f", "-q", "-o"])
        .arg(dir.join("trace"));
    if let Some(file) = file {
        command.arg("-P").arg(file);
    }
    command.args(["-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:{fault}")]);
    command.arg(program(kind.name())).args(kind.args(dir));
    Some(command)
}

const SYNCS: &str = "fsync,fdatasync";
const WRITES: &str = "write,pwrite64";

/// The main thread syncs no more often than this at the start. strace counts each thread's calls
/// by themselves, so a higher number is a call of a writer thread.
const SYNCS_AT_START: usize = 20;

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_server_ends() {
    for kind in KINDS {
        for number in SYNCS_AT_START + 1..SYNCS_AT_START + 4 {
            let dir = tempfile::tempdir().unwrap();
            let fault = format!("error=EIO:when={number}");
            let Some(command) = under_strace(kind, dir.path(), SYNCS, &fault, None) else {
                return;
            };
            let server = Server::spawn(command);
            let mut send = kind.sender(&server);
            let (acknowledged, refusal) = send_until_refused(&mut send);
            assert!(
                refusal.contains("not known to be stored"),
                "{kind:?}: {refusal}"
            );
            assert!(acknowledged.len() > 10, "{kind:?}: {acknowledged:?}");
            send("late").unwrap_err();
            let (code, log) = server.wait();
            assert_eq!(code, Some(2), "{kind:?}: {log}");
            assert!(log.contains("[ERROR]"), "{kind:?}: {log}");
            // The thread whose sync failed has not synced again.
            let trace = || fs::read_to_string(dir.path().join("trace")).unwrap();
            eventually("strace has ended", || trace().contains("exited with 2"));
            let trace = trace();
            let (before, after) = trace.split_once("(INJECTED)").unwrap();
            let thread = before.lines().last().unwrap().split(' ').next().unwrap();
            let is_sync = |line: &str| line.starts_with(thread) && line.contains("sync(");
            // SQLite's goodbye, when the database is closed, is not ours to keep from it.
            let again = after.lines().any(is_sync) && kind != Kind::Queue;
            assert!(!again, "{kind:?}: {trace}");
            check_kept(kind, dir.path(), &acknowledged);
        }
    }
}

#[test]
fn a_server_killed_in_a_sync_or_a_write_keeps_what_it_acknowledged() {
    for kind in KINDS {
        for (calls, first) in [(SYNCS, SYNCS_AT_START), (WRITES, 0)] {
            for number in [1, 2, 5] {
                let dir = tempfile::tempdir().unwrap();
                // A first life makes the files, so that the writer alone meets the fault.
                let server = kind.start(dir.path());
                kind.sender(&server)("first.0").unwrap();
                server.kill();
                let fault = format!("signal=KILL:when={}", first + number);
                let file = kind.file(dir.path());
                let command = under_strace(kind, dir.path(), calls, &fault, Some(&file));
                let Some(command) = command else { return };
                let server = Server::spawn(command);
                let mut send = kind.sender(&server);
                let (mut acknowledged, _) = send_until_refused(&mut send);
                acknowledged.insert(0, "first.0".to_owned());
                server.wait();
                check_kept(kind, dir.path(), &acknowledged);
            }
        }
    }
}

#[test]
fn a_write_that_fails_is_refused_and_the_next_one_succeeds() {
    for kind in KINDS {
        for number in 3..6 {
            let dir = tempfile::tempdir().unwrap();
            drop(kind.start(dir.path()));
            let fault = format!("error=ENOSPC:when={number}");
            let file = kind.file(dir.path());
            let command = under_strace(kind, dir.path(), WRITES, &fault, Some(&file));
            let Some(command) = command else { return };
            let server = Server::spawn(command);
            let mut send = kind.sender(&server);
            let (mut acknowledged, refusal) = send_until_refused(&mut send);
            assert!(refusal.contains("not stored"), "{kind:?}: {refusal}");
            for number in 0..3 {
                let record = format!("later.{number}");
                send(&record).unwrap();
                acknowledged.push(record);
            }
            server.kill();
            assert_eq!(kind.records(dir.path()), acknowledged, "{kind:?} {number}");
        }
    }
}

#[test]
fn a_full_disk_is_refused_and_loses_nothing() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // In blocks of 512 bytes; SQLite needs some to begin with.
        command.args(["-c", "ulimit -f 256; exec \"$0\" \"$@\""]);
        command
            .arg(program(kind.name()))
            .args(kind.args(dir.path()));
        let server = Server::spawn(command);
        let mut send = kind.sender(&server);
        let (acknowledged, refusal) = send_until_refused(&mut send);
        assert!(refusal.contains("not stored"), "{kind:?}: {refusal}");
        assert!(acknowledged.len() > 10);
        server.kill();
        assert_eq!(kind.records(dir.path()), acknowledged, "{kind:?}");
    }
}

#[test]
fn a_full_history_can_be_cleared_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 16; exec \"$0\" \"$@\""]);
    command
        .arg(program("history-server"))
        .args(Kind::History.args(dir.path()));
    let server = Server::spawn(command);
    let mut send = Kind::History.sender(&server);
    send_until_refused(&mut send);
    let mut client = history_client::Client::connect(&server.endpoint()).unwrap();
    client.clear("alice").unwrap();
    send("afterwards.0").unwrap();
    server.kill();
    assert_eq!(Kind::History.records(dir.path()), ["alice", "afterwards.0"]);
}

#[test]
fn a_queue_whose_disk_is_full_can_be_emptied_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 256; exec \"$0\" \"$@\""]);
    command
        .arg(program("queue-server"))
        .args(Kind::Queue.args(dir.path()));
    let server = Server::spawn(command);
    let mut send = Kind::Queue.sender(&server);
    let (mut acknowledged, _) = send_until_refused(&mut send);
    let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    for record in acknowledged.drain(..5) {
        let message = client.receive().unwrap().unwrap();
        assert_eq!(message.body, record.as_bytes());
        client.ack(&message).unwrap();
    }
    send("afterwards.0").unwrap();
    acknowledged.push("afterwards.0".to_owned());
    drop(client);
    server.kill();
    assert_eq!(Kind::Queue.records(dir.path()), acknowledged);
}

#[test]
fn a_second_server_on_the_same_files_is_refused() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let first = kind.start(dir.path());
        let ran = run(kind.name(), &kind.args(dir.path()), b"").expect(2);
        let want = "another server is using these files";
        assert!(ran.stderr.contains(want), "{}", ran.stderr);
        first.kill();
        drop(kind.start(dir.path()));
    }
}

/// Starts a queue on a database that was tampered with. It refuses, or delivers nothing but what
/// was sent, in order. Returns whether it serves.
#[track_caller]
fn check_tampered(dir: &Path, what: &str, sent: &[String]) -> bool {
    let log_path = dir.join("log");
    let mut command = Command::new(program("queue-server"));
    command.args(Kind::Queue.args(dir)).stdout(Stdio::null());
    command.stderr(fs::File::create(&log_path).unwrap());
    let mut child = command.spawn().unwrap();
    let log = || fs::read_to_string(&log_path).unwrap();
    let started = || {
        let log = log();
        let (_, line) = log.split_once("Server started on ")?;
        let (addr, _) = line.split_once('\n')?;
        addr.parse::<std::net::SocketAddr>().ok()
    };
    let ended = std::cell::RefCell::new(None);
    let process = std::cell::RefCell::new(&mut child);
    eventually("it has started or refused", || {
        let status = process.borrow_mut().try_wait().unwrap();
        *ended.borrow_mut() = status;
        status.is_some() || started().is_some()
    });
    let ended = ended.into_inner();
    assert!(!log().contains("panicked"), "{what}: {}", log());
    if let Some(status) = ended {
        assert_eq!(status.code(), Some(2), "{what}: {}", log());
        return false;
    }
    let addr = started().unwrap();
    let endpoint = cli::Endpoint::new(addr.ip().to_string(), addr.port());
    let mut client = QueueClient::connect(&endpoint, Transport::Tcp).unwrap();
    let mut rest = sent.iter();
    let mut wrong = None;
    while let Ok(Some(message)) = client.receive() {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        if !rest.any(|sent| *sent == body) {
            wrong = Some(body);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(wrong, None, "{what}: {}", log());
    true
}

#[test]
fn a_tampered_database_is_refused_or_delivers_only_what_was_sent() {
    let made = tempfile::tempdir().unwrap();
    let server = Kind::Queue.start(made.path());
    let mut send = Kind::Queue.sender(&server);
    let sent: Vec<String> = (0..60)
        .map(|n| format!("{n:03} {}", "x".repeat(300)))
        .collect();
    for record in &sent {
        send(record).unwrap();
    }
    drop(send);
    server.signal("TERM");
    server.wait();
    // A second life copies the log into the database before it serves.
    Kind::Queue.start(made.path()).kill();
    let whole = fs::read(made.path().join("queue.db")).unwrap();
    assert!(whole.len() > 20_000, "{} bytes", whole.len());
    let mut noise = crate::harness::Noise::new(11);
    let mut served = 0;
    const ROUNDS: usize = 80;
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let at = noise.below(whole.len());
        let mut bytes = whole.clone();
        let what = if round % 4 == 0 {
            bytes.truncate(at);
            format!("cut at {at}")
        } else {
            bytes[at] ^= 1 << (round % 8);
            format!("flipped at {at}")
        };
        fs::write(dir.path().join("queue.db"), bytes).unwrap();
        served += usize::from(check_tampered(dir.path(), &what, &sent));
    }
    assert!((1..ROUNDS).contains(&served), "{served} of {ROUNDS} served");
}
