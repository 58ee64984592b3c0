//! What the database refuses is not done, and the leader leads on.

use super::*;

/// Makes the database say that there is no room for a kind of change.
fn fill(database: &Database, change: &str) {
    database.sql(&format!(
        "CREATE OR REPLACE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql
         AS $$BEGIN RAISE 'no room' USING ERRCODE = 'disk_full'; END$$;
         CREATE TRIGGER no_room_{change} BEFORE {change} ON messages FOR EACH ROW EXECUTE FUNCTION no_room()"
    ));
}

#[test]
fn without_room_messages_are_refused_and_a_full_queue_can_be_emptied() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    for n in 0..40 {
        term.send(&n.to_string());
    }
    let queues = &term.queues;
    fill(&database, "INSERT");
    refused(term.try_send("x"), "no room");
    // They share commits, as soon as the first is under way.
    let both = |_| [prepare(queues, "x"), term.ack()].map(|one| queues.submit(one, None));
    let pending: Vec<_> = (0..20).map(both).collect();
    for [sent, acked] in pending {
        refused(queues.wait(sent), "no room");
        assert_eq!(queues.wait(acked), Ok(Outcome::Done(1)));
    }
    // Neither for a lease.
    fill(&database, "UPDATE");
    let lease = Delivery::Lease { lease_millis: 9000 };
    let lease = || queues.receive(&Q.into(), lease, usize::MAX).unwrap();
    let both = |_| [lease(), term.ack()].map(|one| queues.submit(one, None));
    let pending: Vec<_> = (0..10).map(both).collect();
    for [leased, acked] in pending {
        refused(queues.wait(leased), "no room");
        assert_eq!(queues.wait(acked), Ok(Outcome::Done(1)));
    }
    assert_eq!(database.sql("SELECT count(*) FROM messages"), "10");
    database.sql("DROP FUNCTION no_room CASCADE");
    term.send("y");
    assert!(term.lost.try_recv().is_err());
    drop(term);
    let left = Term::on(&database).all();
    assert_eq!((left.len(), left.last().unwrap().as_str()), (11, "y"));
}

#[test]
fn a_row_of_the_leader_that_somebody_else_has_locked_costs_no_message() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    term.send("a");
    let held = database.hold("BEGIN; SELECT * FROM leader FOR UPDATE");
    refused(term.try_send("b"), "lock timeout");
    // Who stands by does not wait without an end either.
    let mut next = candidate(&database, Duration::ZERO);
    assert!(next.compete().unwrap().is_none());
    drop(held);
    term.send("c");
    assert_eq!(Term::instead_of_another(&database).all(), ["a", "c"]);
}

#[test]
fn a_change_that_is_refused_alone_leaves_the_others_of_its_batch_done() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    let ids: Vec<_> = (0..20).map(|n| term.send(&n.to_string())).collect();
    // There is room for one at a time, and one must stay.
    database.sql(&format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
         IF (SELECT count(*) FROM gone) > 1 THEN RAISE 'no room' USING ERRCODE = 'disk_full'; END IF;
         IF EXISTS (SELECT FROM gone WHERE id = {}) THEN RAISE 'this one stays'; END IF;
         RETURN NULL; END$$;
         CREATE TRIGGER refuse AFTER DELETE ON messages REFERENCING OLD TABLE AS gone
         FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        ids[13]
    ));
    // All but the first share a commit.
    let held = database.hold("BEGIN; SELECT * FROM leader FOR UPDATE");
    let queues = &term.queues;
    let pending: Vec<_> = ids
        .iter()
        .map(|_| queues.submit(term.ack(), None))
        .collect();
    drop(held);
    for (pending, id) in pending.into_iter().zip(&ids) {
        let acked = queues.wait(pending);
        if *id == ids[13] {
            refused(acked, "this one stays");
        } else {
            assert_eq!(acked, Ok(Outcome::Done(1)));
        }
    }
    assert_eq!(database.sql("SELECT id FROM messages"), ids[13].to_string());
    database.sql("DROP FUNCTION refuse CASCADE");
    assert_eq!(term.all(), ["13"]);
}
