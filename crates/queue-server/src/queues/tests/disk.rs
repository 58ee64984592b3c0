//! With a database: what a restart finds, and what is refused when the disk fails.

use super::*;

#[test]
fn a_database_keeps_what_is_not_acknowledged_in_its_old_position() {
    for disk in Disk::each(&["a", "b", "", "d"]) {
        let queues = disk.open().unwrap();
        let first = queues.reserve(Q).unwrap();
        let second = queues.reserve(Q).unwrap();
        finish(&queues, queues.ack(second));
        assert!(disk.open().is_err(), "two servers on one file");
        queues.lose(first);
        drop(queues);
        let queues = disk.open().unwrap();
        let first = queues.reserve(Q).unwrap();
        assert_eq!((body(&first).as_str(), first.message.attempts), ("a", 2));
        queues.lose(first);
        send(&queues, Q, "e").unwrap();
        drop(queues);
        let queues = disk.open().unwrap();
        assert_eq!(all(&queues, name("default.dead")), ["a"]);
        assert_eq!(all(&queues, Q), ["", "d", "e"]);
    }
}

#[test]
fn a_database_keeps_positions_leases_delays_and_pauses() {
    for disk in Disk::each(&["a", "b", "c"]) {
        let queues = disk.open().unwrap();
        let token = lease(&queues, LONG);
        let short = lease(&queues, LONG);
        finish(&queues, queues.extend(short, Duration::ZERO).unwrap());
        finish(&queues, queues.give_back(queues.reserve(Q).unwrap(), LONG));
        send(&queues, Q, "d").unwrap();
        let soon = queues
            .submit_body(Q, Duration::from_micros(1), b"e")
            .unwrap();
        finish(&queues, soon);
        send(&queues, name("p"), "p").unwrap();
        queues.count_of(queues.pause(name("p"), true)).unwrap();
        assert_eq!(queues.count_of(queues.purge(name("p"))), Ok(1));
        drop(queues);
        let queues = Arc::new(disk.open().unwrap());
        queues.wait_until_due(|| true);
        stats_of(&queues, |_, queues| {
            let default = &queues[0];
            let counts = (default.ready, default.reserved, default.delayed);
            assert_eq!(counts, (3, 1, 1), "b, d and e; a is leased, c delayed");
            assert_eq!((&*queues[1].name, queues[1].is_paused), ("p", true));
        });
        assert_eq!(all(&queues, Q), ["b", "d", "e"]);
        let reserved = queues.claim(token).unwrap();
        assert_eq!(body(&reserved), "a");
        finish(&queues, queues.ack(reserved));
        assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
        queues.count_of(queues.pause(name("p"), false)).unwrap();
        drop(queues);
        let queues = disk.open().unwrap();
        stats_of(&queues, |_, queues| {
            assert!(queues.is_empty(), "{queues:?}")
        });
    }
}

#[test]
fn a_kick_and_a_purge_are_kept() {
    for disk in Disk::each(&["a", "b", "c"]) {
        let queues = disk.open().unwrap();
        for _ in 0..4 {
            queues.lose(queues.reserve(Q).unwrap());
        }
        assert_eq!(queues.count_of(queues.kick(Q)), Ok(2));
        drop(queues);
        let queues = disk.open().unwrap();
        assert_eq!(all(&queues, Q), ["c", "a", "b"]);
    }
}

#[track_caller]
fn check_refused_at_start(sql: &str, want: &str) {
    let disk = Disk::with(&["a"]);
    disk.sql(sql);
    let error = disk.open().err().unwrap().to_string();
    assert!(error.contains(want), "{error}");
}

#[test]
fn what_is_not_our_database_is_refused() {
    check_refused_at_start("PRAGMA user_version = 5", "schema version 5");
    check_refused_at_start("PRAGMA application_id = 7", "is not a queue's database");
    for no_file in ["", "/", "/no/such/folder/queue.db"] {
        let open = Queues::open(Path::new(no_file), limits(), Fsync::Always, || {});
        assert!(open.is_err(), "{no_file}");
    }
    let disk = Disk::new();
    let text = "a text of no more than four thousand bytes".repeat(50);
    std::fs::write(disk.path(), text).unwrap();
    let error = disk.open().err().unwrap();
    assert!(error.to_string().starts_with("cannot open"), "{error}");
    // The name by which SQLite means memory is that of a file here.
    let path = disk.path().with_file_name(":memory:");
    let queues = Queues::open(&path, limits(), Fsync::Always, || {}).unwrap();
    send(&queues, Q, "x").unwrap();
    assert!(std::fs::metadata(path).unwrap().is_file());
}

#[track_caller]
fn check_set_aside(sql: &str, damaged: i64, left: &[&str]) {
    let disk = Disk::with(&["a", "b", "c"]);
    disk.sql(sql);
    assert_eq!(all(&disk.open().unwrap(), Q), left, "{sql}");
    let db = rusqlite::Connection::open(disk.path()).unwrap();
    let count = "SELECT count(*) FROM damaged";
    let found: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(found, damaged, "{sql}");
}

#[test]
fn a_damaged_message_is_set_aside_and_not_delivered() {
    for (column, values) in [
        ("body", ["x'78'", "7"]),
        ("queue", ["'other'", "''"]),
        ("place", ["1", "'x'"]),
        ("delayed", ["1", "2"]),
        ("attempts", ["1", "-1"]),
        ("token", ["x'00'", "x'000102030405060708090a0b0c0d0e0f'"]),
        ("until", ["1", "'x'"]),
        ("crc", ["1", "'x'"]),
    ] {
        for value in values {
            let sql = format!("UPDATE messages SET {column} = {value} WHERE id = 2");
            check_set_aside(&sql, 1, &["a", "c"]);
        }
    }
    check_set_aside("SELECT 1", 0, &["a", "b", "c"]);
    for id in [i64::MIN, -1, 0, i64::MAX] {
        let sql = format!("UPDATE messages SET id = {id} WHERE id = 2");
        check_set_aside(&sql, 1, &["a", "c"]);
    }
}

#[test]
fn what_is_not_stored_is_not_done() {
    #[track_caller]
    fn check(queues: &Queues, pending: Prepared) {
        let refused = queues.carry_out(pending).unwrap_err();
        assert!(matches!(refused, QueueError::NotStored(_)), "{refused}");
    }
    for disk in Disk::each(&["a", "b", "c"]) {
        let queues = disk.open().unwrap();
        let token = lease(&queues, LONG);
        disk.refuse(&["UPDATE ON messages"]);
        check(&queues, queues.extend(token, Duration::ZERO).unwrap());
        queues.wait_until_due(|| true);
        let leased = queues.claim(token).unwrap();
        check(&queues, queues.give_back(leased, Duration::ZERO));
        let receive = |delivery| queues.receive(&Q.into(), delivery, usize::MAX).unwrap();
        check(
            &queues,
            receive(Delivery::Lease {
                lease_millis: 3_600_000,
            }),
        );
        let reserved = queues.reserve(Q).unwrap();
        check(&queues, queues.give_back(reserved, Duration::ZERO));
        let reserved = queues.reserve(Q).unwrap();
        let buried = queues.release(reserved, Retry::Never, Reason::default());
        check(&queues, buried);
        let totals = queues.stats().totals;
        assert_eq!((totals.released, totals.dead_lettered), (0, 0));
        assert_eq!(queues.counts().get("default").died, 0);
        disk.refuse(&["DELETE ON messages"]);
        check(&queues, receive(Delivery::AtMostOnce));
        let leased = queues.claim(token).unwrap();
        check(&queues, queues.ack(leased));
        disk.refuse(&[]);
        let reserved = queues.reserve(Q).unwrap();
        assert_eq!(
            (body(&reserved).as_str(), reserved.message.attempts),
            ("b", 3)
        );
        queues.reinsert(reserved);
        assert_eq!(all(&queues, Q), ["b", "c"]);
        let leased = queues.claim(token).unwrap();
        assert_eq!(body(&leased), "a");
        finish(&queues, queues.ack(leased));
        stats_of(&queues, |totals, queues| {
            assert!(queues.is_empty() && totals.memory_bytes == 0, "{queues:?}");
        });
    }
}

#[test]
fn a_restart_keeps_what_was_delayed_before_what_came_after_it() {
    for disk in Disk::each(&[]) {
        let queues = disk.open().unwrap();
        let delay = Duration::from_micros(1);
        let delayed: Vec<_> = [b"a", b"b"]
            .iter()
            .map(|body| queues.submit_body(Q, delay, *body).unwrap())
            .collect();
        for pending in delayed {
            finish(&queues, pending);
        }
        queues.wait_until_due(|| true);
        send(&queues, Q, "c").unwrap();
        drop(queues);
        let queues = disk.open().unwrap();
        let next = |after: &Position| match queues.peek(Q, MessageState::Ready, *after) {
            Outcome::Peeked(peeked) => Some(peeked.message.position),
            _ => None,
        };
        let seen = std::iter::successors(Some(Position::FRONT), next).count() - 1;
        assert_eq!(seen, 3, "each has a position of its own");
        assert_eq!(all(&queues, Q), ["a", "b", "c"]);
    }
}

#[test]
fn a_pause_that_is_not_stored_is_none() {
    for disk in Disk::each(&["a"]) {
        let queues = disk.open().unwrap();
        disk.refuse(&["INSERT ON paused"]);
        assert!(matches!(
            queues.count_of(queues.pause(Q, true)),
            Err(QueueError::NotStored(_))
        ));
        assert_eq!(all(&queues, Q), ["a"]);
    }
}

#[test]
fn a_paused_queue_without_a_name_is_passed_over() {
    let disk = Disk::with(&["a"]);
    let long = "x".repeat(300);
    disk.sql(&format!(
        "INSERT INTO paused VALUES ('{long}'), (x'00'), ('p')"
    ));
    let queues = disk.open().unwrap();
    let stats = Outcome::Stats(Box::new(queues.stats()));
    crate::replies::put_reply(Ok(&stats), &mut Vec::new());
    stats_of(&queues, |_, queues| {
        let names: Vec<_> = queues.iter().map(|queue| &*queue.name).collect();
        assert_eq!(names, ["default", "p"]);
    });
}
