//! The database under the queues.

use std::fs;
use std::path::PathBuf;
use std::thread;

use proto::queue::{Delivery, Priority, Properties, QueueName, Reason, Retry, Token};
use storage::Fsync;

use super::schema::SCHEMA_VERSION;
use super::*;
use crate::error::QueueError;
use crate::journal::timeline::Note;
use crate::keys::Sender;
use crate::queues::{Limits, Outcome, Prepared, Queues};
use crate::sessions::Seen;

mod answers;
mod clock;
mod freed;
mod schemas;

const Q: QueueName = QueueName::DEFAULT;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A database of an earlier version of the server.
    fn of_schema(version: u32) -> Self {
        let disk = Self::new();
        let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        fs::copy(data.join(format!("schema-{version}.db")), disk.path()).unwrap();
        disk
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("queue.db")
    }

    #[track_caller]
    fn open(&self) -> Queues {
        let lost = || panic!("the disk failed");
        Queues::open(&self.path(), Limits::roomy(), Fsync::Always, lost).unwrap()
    }

    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    #[track_caller]
    fn number(&self, sql: &str) -> i64 {
        self.sql().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Makes the database say that it was left that much earlier, before a restart of the machine.
    fn age(&self, by: Duration) {
        note(self, |state| {
            state.note.moment.boot = "another".to_owned();
            state.note.moment.wall -= crate::clock::micros(by);
        });
    }
}

#[track_caller]
fn finish(queues: &Queues, pending: Prepared) -> MessageId {
    match queues.carry_out(pending).unwrap() {
        Outcome::Stored(id) => id,
        _ => 0,
    }
}

#[track_caller]
fn send(queues: &Queues, body: &[u8]) -> MessageId {
    finish(queues, send_with(queues, &Properties::default(), body))
}

/// A message for the queue, which is not submitted yet.
#[track_caller]
fn send_with(queues: &Queues, properties: &Properties, body: &[u8]) -> Prepared {
    let sent = queues.send(&Sender::default(), Q, properties, body, None);
    sent.unwrap()
}

#[track_caller]
fn lease(queues: &Queues, lease: Duration) -> Token {
    queues.lease(Q, lease)
}

/// Receives and acknowledges everything; the ids and what was in them.
fn all(queues: &Queues) -> Vec<(MessageId, String)> {
    let next = || {
        let reserved = queues.reserve(Q)?;
        let body = String::from_utf8(reserved.message.body.to_vec()).unwrap();
        let id = reserved.message.id;
        finish(queues, queues.ack(reserved));
        Some((id, body))
    };
    std::iter::from_fn(next).collect()
}

fn drop_used(disk: &Disk) {
    send(&disk.open(), b"x");
}

/// How many messages there are in all queues, in any state.
fn count(disk: &Disk) -> i64 {
    disk.number("SELECT count(*) FROM messages")
}

#[test]
fn what_few_messages_have_is_covered_by_the_checksum() {
    for change in [
        "attempts_max = 4",
        "attempts_max = NULL",
        "attempts_max = -1",
        "expires = expires + 1",
        "expires = NULL",
        "expires_left = expires_left + 1",
        "reason = 'because'",
        "reason = NULL",
        "reason = x'00'",
        "key = 'k'",
        // None passes for another.
        "key = reason, reason = NULL",
    ] {
        let disk = Disk::new();
        let queues = disk.open();
        let properties = Properties {
            expiry_millis: 3_600_000,
            attempts_max: 3,
            ..Properties::default()
        };
        finish(&queues, send_with(&queues, &properties, b"x"));
        let reserved = queues.reserve(Q).unwrap();
        let again = Retry::Uncounted { delay_millis: 0 };
        finish(&queues, queues.release(reserved, again, Reason::new("why")));
        drop(queues);
        let found = |disk: &Disk| (count(disk), disk.number("SELECT count(*) FROM damaged"));
        drop(disk.open());
        assert_eq!(found(&disk), (1, 0));
        let change = format!("UPDATE messages SET {change}");
        disk.sql().execute_batch(&change).unwrap();
        drop(disk.open());
        assert_eq!(found(&disk), (0, 1), "{change}");
    }
}

#[test]
fn no_id_is_given_twice() {
    let disk = Disk::new();
    let mut last = 0;
    for round in 0..4 {
        let queues = disk.open();
        for _ in 0..3 {
            let id = send(&queues, b"x");
            assert!(id > last, "{round}: {id} after {last}");
            last = id;
        }
        assert_eq!(all(&queues).len(), 3);
    }
    assert_eq!(last, 12, "none was left out either");
    // One that was killed leaves out some.
    let queues = disk.open();
    last = send(&queues, b"x");
    let copy = Disk::new();
    for suffix in ["", "-wal"] {
        let name = |disk: &Disk| format!("{}{suffix}", disk.path().display());
        fs::copy(name(&disk), name(&copy)).unwrap();
    }
    let queues = copy.open();
    all(&queues);
    drop(queues);
    assert!(send(&copy.open(), b"x") > last);
    // A damaged message had an id too.
    let queues = copy.open();
    last = send(&queues, b"x");
    drop(queues);
    copy.sql()
        .execute_batch("UPDATE messages SET crc = 1")
        .unwrap();
    assert!(send(&copy.open(), b"x") > last);
}

/// Changes what is noted beside the messages.
#[track_caller]
fn note(disk: &Disk, change: impl FnOnce(&mut State)) {
    let mut db = disk.sql();
    let mut state = tables::read_state(&db).unwrap().unwrap();
    change(&mut state);
    let transaction = db.transaction().unwrap();
    tables::write_state(&transaction, &state).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn an_id_that_is_there_is_not_given_again_when_the_last_one_is_not_known() {
    for forget in [
        "UPDATE state SET crc = 1; UPDATE messages SET crc = 1 WHERE id > 1",
        "DELETE FROM state; INSERT INTO damaged (id) SELECT max(id) FROM messages;
         DELETE FROM messages WHERE id > 1",
        "UPDATE state SET last_id = 'one'",
    ] {
        let disk = Disk::new();
        let queues = disk.open();
        let last = (0..5).map(|_| send(&queues, b"x")).max().unwrap();
        drop(queues);
        disk.sql().execute_batch(forget).unwrap();
        assert!(send(&disk.open(), b"x") > last, "{forget}");
    }
}

#[test]
fn an_id_that_cannot_have_been_given_is_not_continued_from() {
    for last_id in [u64::MAX, u64::MAX >> 1, u64::MAX >> 2] {
        let disk = Disk::new();
        drop_used(&disk);
        note(&disk, |state| state.last_id = last_id);
        let queues = disk.open();
        let id = send(&queues, b"stays");
        drop(queues);
        let bodies = all(&disk.open());
        assert!(bodies.contains(&(id, "stays".to_owned())), "{bodies:?}");
    }
}

#[test]
fn the_reserved_room_follows_the_size_of_a_page() {
    for page_bytes in [512, 65536] {
        let disk = Disk::new();
        drop_used(&disk);
        // As another program does that vacuums a database at rest.
        let vacuum =
            format!("PRAGMA journal_mode = DELETE; PRAGMA page_size = {page_bytes}; VACUUM");
        disk.sql().execute_batch(&vacuum).unwrap();
        let queues = disk.open();
        let body = vec![b'x'; 100_000];
        for _ in 0..20 {
            send(&queues, &body);
        }
        assert_eq!(disk.number("PRAGMA page_size"), page_bytes);
        let needed = (disk.number("PRAGMA page_count") * page_bytes).cast_unsigned();
        let bytes = fs::metadata(disk.path()).unwrap().len();
        // It grows by a mebibyte.
        let most = needed + (2 << 20);
        assert!(
            (needed..most).contains(&bytes),
            "{page_bytes}: {bytes} for {needed}"
        );
    }
}

#[test]
fn two_extensions_at_once_have_one_order() {
    const PAIRS: u64 = 200;
    let disk = Disk::new();
    let queues = disk.open();
    send(&queues, b"x");
    let token = lease(&queues, HOUR);
    for pair in 1..=PAIRS {
        thread::scope(|scope| {
            for more in [2 * pair, 2 * pair + 1] {
                let queues = &queues;
                scope.spawn(move || {
                    let lease = HOUR + Duration::from_secs(more);
                    finish(queues, queues.extend(token, lease).unwrap());
                });
            }
        });
        let in_memory = queues.expires_at(token);
        let on_disk = disk.number("SELECT until FROM messages");
        assert_eq!(in_memory, on_disk.cast_unsigned(), "pair {pair}");
    }
    // A lease that has ended cannot be extended.
    finish(&queues, queues.ack(queues.claim(token).unwrap()));
    let late = queues.extend(token, HOUR).unwrap();
    assert_eq!(queues.carry_out(late), Err(QueueError::NoLease));
}
