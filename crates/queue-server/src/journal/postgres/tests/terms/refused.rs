//! What the database refuses is not done, and the leader leads on.

use super::*;

#[test]
fn without_room_messages_are_refused_and_a_full_queue_can_be_emptied() {
    let Some(database) = Database::new() else {
        return;
    };
    let term = Term::on(&database);
    for n in 0..20 {
        term.send(&n.to_string());
    }
    database.sql(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql
         AS $$BEGIN RAISE 'no room' USING ERRCODE = 'disk_full'; END$$;
         CREATE TRIGGER no_room BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION no_room()",
    );
    refused(term.try_send("x"), "no room");
    // They share commits, as soon as the first is under way.
    let queues = &term.queues;
    let both = |_| [prepare(queues, "x"), term.ack()].map(|one| queues.submit(one, None));
    let pending: Vec<_> = (0..20).map(both).collect();
    for [sent, acked] in pending {
        refused(queues.wait(sent), "no room");
        assert_eq!(queues.wait(acked), Ok(Outcome::Done(1)));
    }
    assert_eq!(database.sql("SELECT count(*) FROM messages"), "0");
    database.sql("DROP FUNCTION no_room CASCADE");
    term.send("y");
    assert!(term.lost.try_recv().is_err());
    drop(term);
    assert_eq!(Term::on(&database).all(), ["y"]);
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
