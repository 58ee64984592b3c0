use std::fs;
use std::path::PathBuf;
use std::thread;

use proto::queue::{Delivery, Priority, Properties, QueueName, Reason, Retry, Token};
use storage::Fsync;

use super::schema::{SCHEMA_VERSION, State};
use super::timeline::Note;
use super::*;
use crate::error::QueueError;
use crate::keys::Sender;
use crate::queues::{Limits, Outcome, Prepared, Queues};
use crate::sessions::Seen;

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
        let limits = Limits {
            body_bytes_max: 1 << 20,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: 1 << 30,
            attempts_max: 5,
            key_window: Duration::from_secs(600),
        };
        let lost = || panic!("the disk failed");
        Queues::open(&self.path(), limits, Fsync::Always, lost).unwrap()
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
    finish(queues, queues.submit_body(Q, Duration::ZERO, body).unwrap())
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

/// How many messages there are in all queues, in any state.
fn count(disk: &Disk) -> i64 {
    disk.number("SELECT count(*) FROM messages")
}

#[test]
fn every_earlier_schema_is_converted() {
    let version = |disk: &Disk| disk.number("PRAGMA user_version");
    let disk = Disk::of_schema(1);
    let queues = disk.open();
    assert_eq!(version(&disk), SCHEMA_VERSION);
    let found = ["one", "two", "three"].map(str::to_owned);
    assert_eq!(
        all(&queues),
        [2, 3, 5].into_iter().zip(found).collect::<Vec<_>>()
    );
    assert_eq!(disk.number("SELECT count(*) FROM damaged"), 2);
    assert_eq!(send(&queues, b"new"), 10, "9 is among the damaged");
    for earlier in [2, 3] {
        let disk = Disk::of_schema(earlier);
        let queues = disk.open();
        assert_eq!(version(&disk), SCHEMA_VERSION);
        assert_eq!(count(&disk), 6);
        // One is leased and one delayed, unless that is over by now.
        let two = queues.reserve(Q).unwrap();
        assert_eq!(&*two.message.body, b"two");
        queues.reinsert(two);
        let other = queues.reserve(QueueName::new("other").unwrap()).unwrap();
        assert_eq!(
            (&*other.message.body, other.message.attempts),
            (&b"stays"[..], 1)
        );
        assert!(queues.reserve(QueueName::new("paused").unwrap()).is_none());
        assert!(send(&queues, b"new") > 7);
        queues.reinsert(other);
        drop(queues);
        assert_eq!(disk.number("PRAGMA auto_vacuum"), 2);
        assert_eq!(disk.open().purge(QueueName::new("other").unwrap()), Ok(1));
    }
}

#[test]
fn rows_of_schema_3_are_messages_without_a_priority_and_stay_as_they_are() {
    let disk = Disk::of_schema(3);
    let plain = || {
        let plain = "SELECT group_concat(id || ':' || place || ':' || crc) FROM messages
                     WHERE token IS NULL AND delayed = 0 AND queue = 'default'";
        let sql = disk.sql();
        sql.query_row(plain, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    let before = plain();
    drop(disk.open());
    assert_eq!(plain(), before);
    let queues = disk.open();
    let urgent = Properties {
        priority: Priority::new(1).unwrap(),
        ..Properties::default()
    };
    finish(
        &queues,
        queues
            .send(&Sender::default(), Q, &urgent, b"urgent", None)
            .unwrap(),
    );
    send(&queues, b"last");
    let bodies: Vec<_> = all(&queues).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["urgent", "two", "three", "four", "last"]);
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
        finish(
            &queues,
            queues
                .send(&Sender::default(), Q, &properties, b"x", None)
                .unwrap(),
        );
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
fn an_expiry_goes_on_while_the_machine_is_off_and_is_bounded_however_far_ahead_the_clock_was() {
    let with_expiry = || {
        let disk = Disk::new();
        let queues = disk.open();
        let properties = Properties {
            expiry_millis: 7_200_000,
            ..Properties::default()
        };
        finish(
            &queues,
            queues
                .send(&Sender::default(), Q, &properties, b"x", None)
                .unwrap(),
        );
        drop(queues);
        disk
    };
    let disk = with_expiry();
    disk.age(HOUR);
    drop(disk.open());
    let left_then = left(&disk, "expires");
    assert!(left_then <= HOUR && left_then > HOUR / 2, "{left_then:?}");
    let disk = with_expiry();
    note(&disk, |state| {
        state.note.clock -= crate::clock::micros(3650 * DAY);
    });
    for _ in 0..2 {
        drop(disk.open());
        let left = left(&disk, "expires");
        assert!(left <= 2 * HOUR && left > HOUR, "{left:?}");
    }
}

#[test]
fn what_a_later_version_has_made_is_left_as_it_is() {
    let disk = Disk::of_schema(3);
    disk.sql().execute_batch("PRAGMA user_version = 5").unwrap();
    let before = fs::read(disk.path()).unwrap();
    let error = Opened::open(&disk.path(), Fsync::Always).err().unwrap();
    assert!(error.to_string().ends_with("knows 1 to 4"), "{error}");
    assert_eq!(fs::read(disk.path()).unwrap(), before);
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 1);
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
    let mut state = State::read(&db).unwrap().unwrap();
    change(&mut state);
    let transaction = db.transaction().unwrap();
    state.write(&transaction).unwrap();
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

/// How much of the only lease or delay in a database is left, by the clock of its last run.
#[track_caller]
fn left(disk: &Disk, due: &str) -> Duration {
    let left = format!("SELECT {due} - clock FROM messages, state");
    Duration::from_micros(disk.number(&left).cast_unsigned())
}

#[test]
fn after_a_restart_of_the_machine_a_lease_lasts_as_long_as_was_left_of_it() {
    for by in [Duration::ZERO, HOUR, DAY, 400 * DAY] {
        let disk = Disk::new();
        let queues = disk.open();
        send(&queues, b"x");
        lease(&queues, 2 * HOUR);
        drop(queues);
        disk.age(by);
        drop(disk.open());
        let left = left(&disk, "until");
        assert!(
            left <= 2 * HOUR && left > HOUR + HOUR / 2,
            "{by:?}: {left:?}"
        );
    }
}

#[test]
fn after_a_restart_of_the_machine_a_delay_has_continued() {
    let disk = Disk::new();
    let queues = disk.open();
    finish(&queues, queues.submit_body(Q, 2 * HOUR, b"x").unwrap());
    drop(queues);
    disk.age(HOUR);
    drop(disk.open());
    let now = left(&disk, "place");
    assert!(now <= HOUR && now > HOUR / 2, "{now:?}");
}

#[test]
fn what_is_left_is_bounded_however_far_ahead_the_clock_was() {
    let disk = Disk::new();
    let queues = disk.open();
    finish(&queues, queues.submit_body(Q, 2 * HOUR, b"x").unwrap());
    drop(queues);
    // The queues' clock ran ten years ahead, and what was noted of that is lost.
    note(&disk, |state| {
        state.note.clock -= crate::clock::micros(3650 * DAY);
    });
    for _ in 0..2 {
        drop(disk.open());
        let left = left(&disk, "place");
        assert!(left <= 2 * HOUR && left > HOUR, "{left:?}");
    }
}

#[test]
fn the_clock_does_not_follow_the_systems() {
    let disk = Disk::new();
    drop_used(&disk);
    let before = State::read(&disk.sql()).unwrap().unwrap().note;
    // It was set back ten years, or forward, while the server did not run.
    for wall in [0, u64::MAX / 4] {
        note(&disk, |state| state.note.moment.wall = wall);
        drop_used(&disk);
        let Note { clock, .. } = State::read(&disk.sql()).unwrap().unwrap().note;
        let passed = Duration::from_micros(clock - before.clock);
        assert!(passed < Duration::from_secs(60), "{passed:?}");
    }
}

fn drop_used(disk: &Disk) {
    send(&disk.open(), b"x");
}

/// Carries out a request of a session, as a connection does that names it.
#[track_caller]
fn ask(
    queues: &Queues,
    session: uuid::Uuid,
    number: u64,
    act: impl FnOnce() -> Prepared,
) -> Result<Outcome, QueueError> {
    let from = Some(daemon::Source::User(7));
    let attached = queues
        .sessions()
        .attach(session, number, from, queues.now());
    match attached.unwrap().begin(number, queues.now())? {
        Seen::New(stamp) => queues.wait(queues.submit(act(), Some(stamp))),
        Seen::Known(answer) => queues.outcome_of(answer),
        Seen::Pending | Seen::Refused(_) => panic!("it is neither"),
    }
}

#[test]
fn a_request_that_comes_again_after_a_restart_is_answered_as_before() {
    let disk = Disk::new();
    let session = uuid::Uuid::from_u128(7);
    let sent = |queues: &Queues| {
        ask(queues, session, 1, || {
            queues
                .send(&Sender::default(), Q, &Properties::default(), b"once", None)
                .unwrap()
        })
    };
    let leased = |queues: &Queues| {
        let delivery = Delivery::Lease {
            lease_millis: 3_600_000,
        };
        let asked = ask(queues, session, 2, || {
            queues.receive(&Q.into(), delivery, usize::MAX).unwrap()
        });
        match asked {
            Ok(Outcome::LeasedBefore(reserved)) => {
                assert_eq!(&*reserved.message.body, b"once");
                reserved.lease.unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    let queues = disk.open();
    let first = sent(&queues);
    let lease = leased(&queues);
    assert_eq!((&sent(&queues), leased(&queues)), (&first, lease));
    let purged = |queues: &Queues| {
        ask(queues, session, 3, || {
            Prepared::Done(Outcome::Done(queues.purge(Q).unwrap()))
        })
    };
    send(&queues, b"other");
    assert_eq!(purged(&queues), Ok(Outcome::Done(1)));
    send(&queues, b"after the purge");
    drop(queues);
    for _ in 0..2 {
        drop(disk.open());
    }
    let queues = disk.open();
    assert_eq!((sent(&queues), leased(&queues)), (first, lease));
    assert_eq!(purged(&queues), Ok(Outcome::Done(1)));
    assert_eq!(count(&disk), 2);
    let acked = |queues: &Queues| {
        ask(queues, session, 4, || {
            queues.ack(queues.claim(lease.token).unwrap())
        })
    };
    assert_eq!(acked(&queues), Ok(Outcome::Done(1)));
    drop(queues);
    assert_eq!(acked(&disk.open()), Ok(Outcome::Done(1)));
}

#[test]
fn the_answers_of_many_requests_do_not_grow_for_ever_and_none_is_lost() {
    let disk = Disk::new();
    let sessions = [1, 2].map(uuid::Uuid::from_u128);
    let queues = disk.open();
    let ask_once = |queues: &Queues, session, number| {
        ask(queues, session, number, || {
            queues
                .send(&Sender::default(), Q, &Properties::default(), b"x", None)
                .unwrap()
        })
    };
    let first = ask_once(&queues, sessions[0], 0);
    let mut last = None;
    // More than the table holds, in few commits.
    let from = Some(daemon::Source::User(7));
    for round in 0..40 {
        let attached = queues.sessions().attach(sessions[1], 0, from, 0).unwrap();
        let pending: Vec<_> = (0..250)
            .map(|at| {
                let Ok(Seen::New(stamp)) = attached.begin(1000 * round + at, 0) else {
                    panic!("it is new")
                };
                let sent = queues.send(&Sender::default(), Q, &Properties::default(), b"x", None);
                queues.submit(sent.unwrap(), Some(stamp))
            })
            .collect();
        for one in pending {
            last = Some(queues.wait(one));
        }
    }
    let answers = disk.number("SELECT sum(length(answers)) FROM answers");
    assert!(answers < 10_000 * 4, "{answers} bytes");
    drop(queues);
    let queues = disk.open();
    assert_eq!(ask_once(&queues, sessions[0], 0), first);
    assert_eq!(ask_once(&queues, sessions[1], 39_249), last.unwrap());
}

#[test]
fn damaged_answers_are_removed_and_the_others_stay() {
    let disk = Disk::new();
    let queues = disk.open();
    let [one, two] = [1, 2].map(uuid::Uuid::from_u128);
    let ask_once = |queues: &Queues, session| {
        ask(queues, session, 1, || {
            queues
                .send(&Sender::default(), Q, &Properties::default(), b"x", None)
                .unwrap()
        })
    };
    let answers = [one, two].map(|session| ask_once(&queues, session));
    drop(queues);
    let damage = "UPDATE answers SET answers = x'00' WHERE row = 1";
    disk.sql().execute_batch(damage).unwrap();
    let queues = disk.open();
    assert_eq!(disk.number("SELECT count(*) FROM answers"), 1);
    assert_ne!(ask_once(&queues, one), answers[0]);
    assert_eq!(ask_once(&queues, two), answers[1]);
}

/// `schema-4.db` was made by a server with `--key-window 49d`, and stopped: `one`; `two` with a key and the
/// highest priority, leased; `three` with a limit and an expiry; `four` over UDP; `later`, delayed; `failed` in
/// the queue `other`, released for a reason; and one with a key that was acknowledged.
#[test]
fn the_present_schema_is_read_with_all_that_it_has() {
    let disk = Disk::of_schema(4);
    let queues = disk.open();
    assert_eq!(count(&disk), 6);
    assert_eq!(disk.number("SELECT count(*) FROM damaged"), 0);
    assert_eq!(disk.number("SELECT count(*) FROM answers"), 1);
    assert_eq!(queues.sessions().answers_max(), 1);
    let two = Properties {
        key: proto::queue::Key::new("k2"),
        ..Properties::default()
    };
    let again = queues.send(&Sender::default(), Q, &two, b"two", None);
    let again = again.and_then(|pending| queues.carry_out(pending));
    assert_eq!(again, Ok(Outcome::StoredBefore(2)));
    let failed = queues.reserve(QueueName::new("other").unwrap()).unwrap();
    assert_eq!(failed.message.reason(), "no such file");
    queues.reinsert(failed);
}
