//! Keys: which message holds one, and for how long.

use std::thread;

use super::*;

fn with_key(key: &str) -> Properties<'_> {
    Properties {
        key: proto::queue::Key::new(key),
        ..Properties::default()
    }
}

#[track_caller]
fn send_key(queues: &Queues, key: &str, body: &str) -> Result<Outcome, QueueError> {
    let sent = queues.send(&Sender::default(), Q, &with_key(key), body.as_bytes(), None);
    sent.and_then(|pending| queues.carry_out(pending))
}

fn new(id: MessageId) -> Result<Outcome, QueueError> {
    Ok(Outcome::Stored(id))
}

fn before(id: MessageId) -> Result<Outcome, QueueError> {
    Ok(Outcome::StoredBefore(id))
}

#[track_caller]
fn check_keys(open: impl Fn() -> Queues) {
    let queues = open();
    assert_eq!(send_key(&queues, "k", "a"), new(1));
    // Ready, reserved, delayed, and lately acknowledged.
    assert_eq!(send_key(&queues, "k", "a"), before(1));
    let taken = send_key(&queues, "k", "other").unwrap_err();
    assert!(matches!(taken, QueueError::KeyTaken { id: 1, .. }));
    assert_eq!(queues.stats().totals.sent, 1);
    let reserved = queues.reserve(Q).unwrap();
    assert_eq!(send_key(&queues, "k", "a"), before(1));
    finish(&queues, queues.give_back(reserved, LONG));
    assert_eq!(send_key(&queues, "k", "a"), before(1));
    // What was purged or deleted holds nothing.
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
    assert_eq!(send_key(&queues, "k", "b"), new(2));
    let deleted = queues.delete(Q, 2).unwrap();
    finish(&queues, deleted);
    assert_eq!(send_key(&queues, "k", "c"), new(3));
    // Neither does a dead letter, so that a corrected one is stored.
    let reserved = queues.reserve(Q).unwrap();
    let buried = queues.release(reserved, Retry::Never, Reason::default());
    finish(&queues, buried);
    assert_eq!(send_key(&queues, "k", "d"), new(4));
    // The dead letter that is kicked does not take the key away.
    assert_eq!(queues.count_of(queues.kick(Q)), Ok(1));
    assert_eq!(send_key(&queues, "k", "d"), before(4));
    assert_eq!(all(&queues, Q), ["d", "c"]);
    assert_eq!(send_key(&queues, "k", "d"), before(4));
    // Of another queue, it is another one; and a message takes it along.
    assert_eq!(send_key(&queues, "moves", "m"), new(5));
    let moved = queues.move_one(Q, 5, name("other")).unwrap();
    finish(&queues, moved);
    assert_eq!(send_key(&queues, "moves", "n"), new(6));
    let sent = queues.send(
        &Sender::default(),
        name("other"),
        &with_key("moves"),
        b"m",
        None,
    );
    let sent = sent.and_then(|pending| queues.carry_out(pending));
    assert_eq!(sent, before(5));
    // One that was refused holds nothing, and one that is held needs no room.
    queues.drain(true);
    assert_eq!(send_key(&queues, "x", "x"), Err(QueueError::Draining));
    assert_eq!(send_key(&queues, "moves", "n"), before(6));
    queues.drain(false);
    assert_eq!(send_key(&queues, "x", "y"), new(7));
    // A queue of dead letters keeps no keys, and says so.
    let dead = queues.send(
        &Sender::default(),
        name("q.dead"),
        &with_key("x"),
        b"",
        None,
    );
    let dead = dead.and_then(|pending| queues.carry_out(pending));
    assert_eq!(dead, Err(QueueError::NoKeys("q.dead".to_owned())));
    drop(queues);
}

/// A dead letter that was kicked, beside the corrected message with its key.
fn kicked_beside_its_correction(path: &std::path::Path) -> Queues {
    let queues = Queues::open(path, limits(), Fsync::Never, || {}).unwrap();
    assert_eq!(send_key(&queues, "k", "wrong"), new(1));
    let reserved = queues.reserve(Q).unwrap();
    let buried = queues.release(reserved, Retry::Never, Reason::default());
    finish(&queues, buried);
    assert_eq!(send_key(&queues, "k", "right"), new(2));
    assert_eq!(queues.count_of(queues.kick(Q)), Ok(1));
    drop(queues);
    Queues::open(path, limits(), Fsync::Never, || {}).unwrap()
}

#[test]
fn the_same_message_holds_a_key_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let queues = kicked_beside_its_correction(&path);
    assert_eq!(send_key(&queues, "k", "right"), before(2));
    // An acknowledgement of the other one is not remembered in its place.
    assert_eq!(all(&queues, Q), ["right", "wrong"]);
    drop(queues);
    let db = rusqlite::Connection::open(&path).unwrap();
    let rows = db.prepare("SELECT id FROM keys").unwrap();
    let ids: Vec<i64> = { rows }
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(ids, [2]);
    let queues = Queues::open(&path, limits(), Fsync::Never, || {}).unwrap();
    assert_eq!(send_key(&queues, "k", "right"), before(2));
}

#[test]
fn a_message_that_is_sent_again_with_its_key_is_not_stored_again() {
    check_keys(|| queues_of(&[]));
    let dir = tempfile::tempdir().unwrap();
    check_keys(|| {
        Queues::open(&dir.path().join("queue.db"), limits(), Fsync::Never, || {}).unwrap()
    });
}

#[test]
fn a_key_is_held_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let open = || Queues::open(&path, limits(), Fsync::Never, || {}).unwrap();
    let queues = open();
    let of_alice = Sender {
        user: Some("alice".into()),
        from: None,
    };
    let send_as_alice = |queues: &Queues| {
        let sent = queues.send(&of_alice, Q, &with_key("k"), b"alice", None);
        sent.and_then(|pending| queues.carry_out(pending))
    };
    assert_eq!(send_key(&queues, "acked", "a"), new(1));
    assert_eq!(all(&queues, Q), ["a"]);
    assert_eq!(send_key(&queues, "k", "b"), new(2));
    assert_eq!(send_as_alice(&queues), new(3));
    drop(queues);
    for _ in 0..2 {
        drop(open());
    }
    let queues = open();
    assert_eq!(send_key(&queues, "acked", "a"), before(1));
    assert_eq!(send_key(&queues, "k", "b"), before(2));
    assert_eq!(send_as_alice(&queues), before(3));
    assert!(send_key(&queues, "acked", "other").is_err());
    drop(queues);
    // With no window, it is free at once.
    let limits = Limits {
        key_window: Duration::ZERO,
        ..limits()
    };
    let queues = Queues::open(&path, limits, Fsync::Never, || {}).unwrap();
    assert!(matches!(
        send_key(&queues, "acked", "other"),
        Ok(Outcome::Stored(_))
    ));
    assert_eq!(send_key(&queues, "k", "b"), before(2));
}

#[test]
fn of_two_that_are_sent_at_once_with_one_key_one_is_stored_and_both_are_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    let open = || Queues::open(&path, limits(), Fsync::Always, || {}).unwrap();
    let queues = open();
    for round in 0..50 {
        let key = format!("k{round}");
        let sent: Vec<_> = thread::scope(|scope| {
            let send = |_| scope.spawn(|| send_key(&queues, &key, "same").unwrap());
            let threads: Vec<_> = (0..4).map(send).collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let id = |outcome: &Outcome| match outcome {
            Outcome::Stored(id) | Outcome::StoredBefore(id) => *id,
            other => panic!("{other:?}"),
        };
        let is_new = |outcome: &&Outcome| matches!(outcome, Outcome::Stored(_));
        assert_eq!(sent.iter().filter(is_new).count(), 1, "{sent:?}");
        assert!(sent.iter().all(|one| id(one) == id(&sent[0])), "{sent:?}");
    }
    drop(queues);
    assert_eq!(all(&open(), Q).len(), 50);
}
