//! Servers that lead, one after the other: the fence, ids, and when one takes over.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use proto::queue::{Delivery, MessageId, QueueName, Token};
use storage::NotStored;

use super::super::testing::{Cluster, Database, SERVER_USER, eventually};
use crate::error::QueueError;
use crate::journal::Candidate;
use crate::queues::{Limits, Outcome, Prepared, Queues};

mod damage;
mod durability;
mod lost;
mod refused;
mod start;
mod time;

const Q: QueueName = QueueName::DEFAULT;

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);

/// The queues of a server that leads.
struct Term {
    queues: Queues,
    /// Has a word when a commit is lost.
    lost: Receiver<()>,
}

impl Term {
    /// Takes over, which it has to do at once.
    #[track_caller]
    fn begin(candidate: &mut Candidate) -> Self {
        let opened = candidate.compete().unwrap().expect("it takes over");
        let (loses, lost) = channel();
        let lose = move || loses.send(()).unwrap();
        let queues = Queues::load(opened, Limits::roomy(), lose).unwrap();
        Self { queues, lost }
    }

    /// One on this database, whose leader has ended.
    #[track_caller]
    fn on(database: &Database) -> Self {
        Self::begin(&mut candidate(database, LONG))
    }

    /// One that takes over from a leader that does not know.
    #[track_caller]
    fn instead_of_another(database: &Database) -> Self {
        database.sql("UPDATE leader SET is_released = TRUE");
        Self::on(database)
    }

    fn try_send(&self, body: &str) -> Result<MessageId, QueueError> {
        try_send(&self.queues, body)
    }

    #[track_caller]
    fn send(&self, body: &str) -> MessageId {
        let sent = self.try_send(body);
        sent.unwrap_or_else(|error| panic!("{error}: {:?}", self.queues.failure()))
    }

    /// Receives the oldest message without acknowledging it.
    #[track_caller]
    fn ack(&self) -> Prepared {
        self.queues.ack(self.queues.reserve(Q).unwrap())
    }

    /// Receives and acknowledges everything.
    fn all(&self) -> Vec<String> {
        let next = || {
            let reserved = self.queues.reserve(Q)?;
            let body = String::from_utf8(reserved.message.body.to_vec()).unwrap();
            self.queues.carry_out(self.queues.ack(reserved)).unwrap();
            Some(body)
        };
        std::iter::from_fn(next).collect()
    }

    /// Ends as if it was killed, and has its connections ended.
    fn kill(self, database: &Database) {
        end_sessions(database);
        // A commit of it is lost by that, so it hands nothing over.
        unknown(self.try_send("never"));
        self.lost.recv().unwrap();
    }
}

fn prepare(queues: &Queues, body: &str) -> Prepared {
    let sent = queues.submit_body(Q, Duration::ZERO, body.as_bytes());
    sent.unwrap()
}

fn try_send(queues: &Queues, body: &str) -> Result<MessageId, QueueError> {
    match queues.carry_out(prepare(queues, body))? {
        Outcome::Stored(id) => Ok(id),
        other => panic!("{other:?}"),
    }
}

fn candidate(database: &Database, takeover_after: Duration) -> Candidate {
    Candidate::new(&database.url(), takeover_after).unwrap()
}

/// Ends all connections of our servers.
fn end_sessions(database: &Database) {
    database.sql(&format!(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
         WHERE usename = '{SERVER_USER}' AND datname = current_database()"
    ));
}

/// That it is not known whether something is stored.
#[track_caller]
fn unknown(result: Result<impl Debug, QueueError>) {
    let error = result.unwrap_err();
    assert_eq!(error, QueueError::NotStored(NotStored::Unknown));
}

/// That something is not stored, because of this.
#[track_caller]
fn refused(result: Result<impl Debug, QueueError>, why: &str) {
    match result.unwrap_err() {
        QueueError::NotStored(NotStored::Refused(cause)) if cause.contains(why) => {}
        error => panic!("{error}"),
    }
}

/// Asks the database until it says this.
#[track_caller]
fn wait_until(database: &Database, sql: &str, want: &str) {
    let is_there = || (database.sql(sql) == want).then_some(());
    eventually(&format!("{sql} is {want}"), is_there);
}

#[test]
fn who_was_replaced_commits_nothing_and_knows_nothing() {
    let Some(database) = Database::new() else {
        return;
    };
    let former = Term::on(&database);
    let id = former.send("a");
    // As a server does that takes over, but for the locks: only the epoch is left.
    database.sql("UPDATE leader SET epoch = epoch + 1");
    let state = database.sql("SELECT * FROM leader");
    unknown(former.try_send("b"));
    former.lost.recv().unwrap();
    unknown(former.try_send("c"));
    assert_eq!(database.sql("SELECT id FROM messages"), id.to_string());
    drop(former);
    assert_eq!(database.sql("SELECT * FROM leader"), state);
}

/// Has one server take over from another, again and again, where this is how transactions are kept apart.
#[track_caller]
fn check_takeovers(isolation: &str) {
    let Some(database) = Database::new() else {
        return;
    };
    let name = database.sql("SELECT current_database()");
    database.sql(&format!(
        "ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
    ));
    let mut former = Term::on(&database);
    let epoch = || {
        database
            .sql("SELECT epoch FROM leader")
            .parse::<i64>()
            .unwrap()
    };
    let first = epoch();
    for round in 0..5 {
        let stored: Vec<_> = (0..9).map(|n| format!("{round}.{n}")).collect();
        for body in &stored {
            former.send(body);
        }
        let next = Term::instead_of_another(&database);
        unknown(former.try_send("late"));
        drop(former);
        assert_eq!(next.all(), stored, "{isolation}");
        former = next;
    }
    assert_eq!(epoch(), first + 5, "{isolation}");
}

#[test]
fn who_takes_over_from_a_leader_that_lives_has_all_that_it_has_committed() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        check_takeovers(isolation);
    }
}

#[test]
fn tables_that_are_made_anew_are_not_written_by_who_led_with_the_former() {
    let Some(database) = Database::new() else {
        return;
    };
    let former = Term::on(&database);
    former.send("a");
    database.sql("DROP TABLE messages, damaged, paused, answers, totals, keys, leader");
    let next = Term::on(&database);
    next.send("b");
    unknown(former.try_send("c"));
    drop(former);
    assert_eq!(next.all(), ["b"]);
}

#[test]
fn an_id_is_never_given_twice_however_a_server_ends() {
    let Some(database) = Database::new() else {
        return;
    };
    let mut given = BTreeSet::new();
    for round in 0..6 {
        let term = Term::on(&database);
        for _ in 0..3 {
            assert!(given.insert(term.send("x")), "{given:?}");
        }
        // No message is left that shows which ids were given.
        assert_eq!(term.all().len(), 3);
        if round % 2 == 0 {
            term.kill(&database);
        }
    }
    // A damaged message had an id too.
    let term = Term::on(&database);
    let last = term.send("x");
    drop(term);
    for _ in 0..2 {
        database.sql("UPDATE messages SET crc = 1; UPDATE leader SET last_id = 0");
        drop(Term::on(&database));
    }
    assert!(Term::on(&database).send("x") > last);
}

#[test]
fn a_last_id_that_cannot_have_been_given_is_not_continued_from() {
    let Some(database) = Database::new() else {
        return;
    };
    drop(Term::on(&database));
    for last_id in [i64::MIN, -1, i64::MAX, i64::MAX / 2 + 2] {
        // A number with its sign is read as an expression, and the lowest is none.
        database.sql(&format!("UPDATE leader SET last_id = '{last_id}'"));
        let term = Term::on(&database);
        term.send("stays");
        drop(term);
        let term = Term::on(&database);
        assert_eq!(term.all(), ["stays"], "{last_id}");
    }
}

#[test]
fn without_a_lock_that_excludes_others_a_server_takes_over_when_the_leader_is_silent_for_long() {
    let Some(database) = Database::new() else {
        return;
    };
    // As on an engine whose advisory locks exclude nobody.
    let forget = "UPDATE leader SET has_lock = FALSE";
    let term = Term::on(&database);
    term.send("a");
    database.sql(forget);
    let (wait, begun) = (Duration::from_secs(1), Instant::now());
    let mut next = candidate(&database, wait);
    assert!(next.compete().unwrap().is_none());
    // Each commit is a sign of life.
    while begun.elapsed() < 2 * wait {
        term.send("b");
        assert!(next.compete().unwrap().is_none());
    }
    term.send("last");
    let silent = Instant::now();
    term.kill(&database);
    // Its own connection has ended as well.
    next.compete().err().unwrap();
    let opened = eventually("it takes over", || next.compete().unwrap());
    assert!(silent.elapsed() >= wait, "{:?}", silent.elapsed());
    drop(opened);
    // With the lock it need not wait.
    let term = Term::on(&database);
    assert_eq!(database.sql("SELECT has_lock FROM leader"), "t");
    let mut next = candidate(&database, LONG);
    assert!(next.compete().unwrap().is_none());
    term.kill(&database);
    // Its own connection has ended as well.
    next.compete().err().unwrap();
    assert_eq!(Term::begin(&mut next).all().last().unwrap(), "last");
}

#[test]
fn an_engine_without_advisory_locks_is_led_and_taken_over_by_the_row() {
    let Some(database) = Database::new() else {
        return;
    };
    for function in ["pg_advisory_lock", "pg_try_advisory_lock"] {
        database.sql(&format!(
            "ALTER FUNCTION {function}(integer, integer) RENAME TO {function}_of_others"
        ));
    }
    let former = Term::on(&database);
    former.send("a");
    assert_eq!(database.sql("SELECT has_lock FROM leader"), "f");
    let mut next = candidate(&database, LONG);
    assert!(next.compete().unwrap().is_none());
    // Another server may have noted it that knows such a lock.
    database.sql("UPDATE leader SET has_lock = TRUE");
    assert!(next.compete().unwrap().is_none());
    drop(former);
    assert_eq!(Term::begin(&mut next).all(), ["a"]);
}
