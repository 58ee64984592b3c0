//! Programs that are not ours and look at the database, copy it, vacuum it or lock it while the server
//! runs: nothing is lost, and nothing comes back.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;
use crate::harness::has_program;

/// How often the server is killed.
const ROUNDS: usize = 4;

/// A server is killed after at most this many acknowledgements.
const ACKS_MAX: usize = 400;

/// What outsiders do that writes to the database; what only reads is in `torture/onlookers.rs`.
const WRITES: [&str; 3] = [
    "VACUUM",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "BEGIN IMMEDIATE; UPDATE messages SET queue = 'x'; ROLLBACK",
];

/// Runs `sqlite3` on a database.
fn sqlite3(database: &Path, commands: &[String]) -> crate::harness::Ran {
    let mut sqlite3 = Command::new("sqlite3");
    sqlite3.arg("-cmd").arg(".timeout 20000");
    sqlite3.arg(database).args(commands);
    run_command(sqlite3, b"")
}

/// Who has said what of the messages.
#[derive(Default)]
struct Books {
    sent: Mutex<HashSet<String>>,
    acked: Mutex<HashSet<String>>,
    unsure: Mutex<HashSet<String>>,
}

/// Sends and takes until the server is gone.
fn load(addr: Address, round: usize, books: &Books, acks: &AtomicUsize) {
    let connect = || QueueClient::connect(&addr.endpoint(), Transport::Tcp);
    thread::scope(|scope| {
        for sender in 0..3 {
            scope.spawn(move || {
                let Ok(mut client) = connect() else { return };
                for number in 0.. {
                    let record = format!("{round}-{sender}.{number}");
                    let body = format!("{record:.<700}");
                    match client.send(body.as_bytes()) {
                        Ok(_) => books.sent.lock().unwrap().insert(record),
                        Err(_) => {
                            books.unsure.lock().unwrap().insert(record);
                            return;
                        }
                    };
                    acks.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let Ok(mut client) = connect() else { return };
            while let Ok(received) = client.receive() {
                let Some(message) = received else { continue };
                let record = short(&message.body);
                let is_new = !books.acked.lock().unwrap().contains(&record);
                assert!(is_new, "{record} came back");
                match client.ack(&message) {
                    Ok(()) => books.acked.lock().unwrap().insert(record),
                    Err(_) => books.unsure.lock().unwrap().insert(record),
                };
            }
        });
    });
}

#[test]
fn outsiders_that_write_cost_nothing() {
    if !has_program("sqlite3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("queue.db");
    let (books, looks) = (Books::default(), AtomicUsize::new(0));
    let mut noise = Noise::new(u64::from(std::process::id()));
    for round in 0..ROUNDS {
        let server = Server::spawn(Queue.command(dir.path()));
        let acks = AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        let target = 1 + noise.below(ACKS_MAX);
        let looks_before = looks.load(Ordering::SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| load(server.addr(), round, &books, &acks));
            for outsider in 0..2 {
                let (looks, is_over, database) = (&looks, &is_over, &database);
                scope.spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        let number = looks.fetch_add(1, Ordering::SeqCst) + outsider;
                        let write = WRITES[number % WRITES.len()].to_owned();
                        // It may be too late, or another one faster.
                        let stderr = sqlite3(database, &[write]).stderr;
                        assert!(!stderr.contains("malformed"), "{stderr}");
                    }
                });
            }
            eventually("there is load, and somebody looks", || {
                acks.load(Ordering::SeqCst) >= target
                    && looks.load(Ordering::SeqCst) >= looks_before + 6
            });
            server.signal("KILL");
            is_over.store(true, Ordering::SeqCst);
        });
    }
    let server = Server::spawn(Queue.command(dir.path()));
    let there: Vec<_> = drain(server.addr())
        .iter()
        .map(|body| short(body))
        .collect();
    let there: HashSet<_> = there.into_iter().collect();
    let [sent, acked, unsure] =
        [books.sent, books.acked, books.unsure].map(|b| b.into_inner().unwrap());
    let lost = sent.iter().filter(|record| {
        !there.contains(*record) && !acked.contains(*record) && !unsure.contains(*record)
    });
    let back = there.iter().filter(|record| acked.contains(*record));
    let figures = (lost.count(), back.count());
    println!(
        "torture: queue with outsiders: {ROUNDS} crashes, {} acknowledged, {} looks, {} lost, {} doubled",
        sent.len() + acked.len(),
        looks.into_inner(),
        figures.0,
        figures.1
    );
    assert_eq!(figures, (0, 0));
}

/// The locks of another kind than ours that the server has on a file: those of SQLite.
fn sqlite_locks(server: &Server, file: &Path) -> usize {
    let inode = fs::metadata(file).unwrap().ino();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let of_file = locks.lines().filter(|line| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next();
        let pid = words.nth(2).and_then(|pid| pid.parse().ok());
        let place = words.next().and_then(|place| place.rsplit(':').next());
        kind == Some("POSIX")
            && pid == Some(server.pid())
            && place.and_then(|inode| inode.parse().ok()) == Some(inode)
    });
    of_file.count()
}

#[test]
fn sqlite_keeps_its_locks_from_the_start_on() {
    let (dir, _) = some_records(Queue);
    let server = Server::spawn(Queue.command(dir.path()));
    let mut ledger = Ledger::new(Queue);
    let mut client = Client::connect(Queue, &server.addrs);
    for _ in 0..3 {
        assert!(sqlite_locks(&server, &dir.path().join("queue.db")) > 0);
        assert!(sqlite_locks(&server, &dir.path().join("queue.db-shm")) > 0);
        assert_eq!(ledger.put(&mut client), Done);
    }
}

#[test]
fn a_look_does_not_take_the_log_away() {
    if !has_program("sqlite3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    let mut ledger = Ledger::new(Queue);
    let mut client = Client::connect(Queue, &server.addrs);
    assert_eq!(ledger.put(&mut client), Done);
    let database = dir.path().join("queue.db");
    let inode = |name| fs::metadata(dir.path().join(name)).unwrap().ino();
    let before = (inode("queue.db-wal"), inode("queue.db-shm"));
    let look = "SELECT count(*) FROM messages".to_owned();
    sqlite3(&database, &[look]).expect(0);
    assert_eq!((inode("queue.db-wal"), inode("queue.db-shm")), before);
    assert_eq!(ledger.put(&mut client), Done);
    server.kill();
    ledger.check(dir.path());
}

#[test]
fn a_change_waits_for_another_program_that_has_locked_the_database_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    let database = dir.path().join("queue.db");
    let other = rusqlite::Connection::open(&database).unwrap();
    // What is held for a moment is waited for.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let sent = scope.spawn(|| client.send(b"waits").map(drop));
        thread::park_timeout(Duration::from_millis(300));
        assert!(!sent.is_finished());
        other.execute_batch("COMMIT").unwrap();
        sent.join().unwrap().unwrap();
    });
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    let error = client.send(b"does not").unwrap_err().to_string();
    let waited = asked.elapsed().as_secs();
    let want = "not stored: the database is locked by another program";
    assert!(error.contains(want), "{error}");
    assert!((19..=25).contains(&waited), "{waited} s");
    server.wait_for_log(|log| {
        log.contains("cannot write: the database is locked by another program")
    });
    other.execute_batch("COMMIT").unwrap();
    client.send(b"again").unwrap();
    drop(client);
    server.kill();
    let bodies = drain(Server::spawn(Queue.command(dir.path())).addr());
    assert_eq!(bodies, [&b"waits"[..], b"again"]);
}

#[test]
fn a_copy_is_a_backup_that_can_be_restored() {
    if !has_program("sqlite3") {
        return;
    }
    for backup in [".backup", "VACUUM INTO"] {
        let (dir, ledger) = some_records(Queue);
        let server = Server::spawn(Queue.command(dir.path()));
        let copy = dir.path().join("backup.db");
        let database = dir.path().join("queue.db");
        let command = format!("{backup} '{}'", copy.display());
        sqlite3(&database, &[command]).expect(0);
        // What comes after it is not in it.
        let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
        client.send(b"later").unwrap();
        drop(client);
        server.kill();
        // As the README says.
        for name in ["queue.db", "queue.db-wal", "queue.db-shm"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::copy(&copy, &database).unwrap();
        ledger.check(dir.path());
    }
}

#[test]
fn a_stopped_servers_database_is_whole_alone_unless_it_says_that_it_is_not() {
    for is_read in [false, true] {
        let (dir, mut ledger) = some_records(Queue);
        let server = Server::spawn(Queue.command(dir.path()));
        let database = dir.path().join("queue.db");
        let reader = rusqlite::Connection::open(&database).unwrap();
        if is_read {
            reader
                .execute_batch("BEGIN; SELECT id FROM messages")
                .unwrap();
        }
        let mut client = Client::connect(Queue, &server.addrs);
        assert_eq!(ledger.put(&mut client), Done);
        drop(client);
        server.signal("TERM");
        server.wait();
        let is_said = server.log().contains("The database needs its log");
        assert_eq!(is_said, is_read, "{}", server.log());
        if !is_read {
            let copy = tempfile::tempdir().unwrap();
            fs::copy(&database, copy.path().join("queue.db")).unwrap();
            ledger.check(copy.path());
        }
        drop(reader);
        ledger.check(dir.path());
    }
}

#[test]
fn a_server_that_ends_does_not_wait_for_another_program_that_has_locked_the_database() {
    /// Far less than a change waits otherwise.
    const END_WAIT: Duration = Duration::from_secs(12);
    let (dir, ledger) = some_records(Queue);
    let server = Server::spawn(Queue.command(dir.path()));
    let connect = || QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    // It is given back at the end.
    let mut holder = connect();
    let held = holder.receive().unwrap();
    assert!(held.is_some());
    let other = rusqlite::Connection::open(dir.path().join("queue.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut client = connect();
    thread::scope(|scope| {
        let sent = scope.spawn(|| client.send(b"waits").map(drop));
        thread::park_timeout(Duration::from_millis(300));
        let asked = Instant::now();
        server.signal("TERM");
        let error = sent.join().unwrap().unwrap_err().to_string();
        let want = "not stored: the database is locked by another program";
        assert!(error.contains(want), "{error}");
        assert_eq!(server.wait().0, Some(0));
        assert!(asked.elapsed() < END_WAIT, "{:?}", asked.elapsed());
    });
    drop((other, holder));
    ledger.check(dir.path());
}
