//! Databases of each version of the server: the earlier ones are converted, a later one is refused.

use super::*;

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
        assert_eq!(
            {
                let queues = disk.open();
                queues.count_of(queues.purge(QueueName::new("other").unwrap()))
            },
            Ok(1)
        );
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
    finish(&queues, send_with(&queues, &urgent, b"urgent"));
    send(&queues, b"last");
    let bodies: Vec<_> = all(&queues).into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, ["urgent", "two", "three", "four", "last"]);
}

#[test]
fn what_a_later_version_has_made_is_left_as_it_is() {
    let disk = Disk::of_schema(3);
    disk.sql().execute_batch("PRAGMA user_version = 5").unwrap();
    let before = fs::read(disk.path()).unwrap();
    let error = OpenedFile::open(&disk.path(), Fsync::Always).err().unwrap();
    assert!(error.to_string().ends_with("knows 1 to 4"), "{error}");
    assert_eq!(fs::read(disk.path()).unwrap(), before);
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 1);
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
