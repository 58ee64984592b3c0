//! A commit of which nobody knows whether it has happened.

use std::sync::Arc;

use super::super::super::testing::Running;
use super::*;

/// Does this to a session whose COMMIT waits for a replica that does not come.
#[track_caller]
fn check_waiting_for_a_replica(server: &Arc<Running>, act: &str) {
    let database = Database::of(server);
    let term = Term::on(&database);
    let queues = &term.queues;
    let send_all = || {
        let mut stored = Vec::new();
        loop {
            let body = stored.len().to_string();
            match try_send(queues, &body) {
                Ok(_) => stored.push(body),
                Err(error) => return (stored, error),
            }
        }
    };
    let (stored, error) = thread::scope(|scope| {
        let sends = scope.spawn(send_all);
        database.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        database.sql("SELECT pg_reload_conf()");
        let waiting = "FROM pg_stat_activity
                       WHERE wait_event = 'SyncRep' AND datname = current_database()";
        wait_until(&database, &format!("SELECT count(*) {waiting}"), "1");
        database.sql(&format!("SELECT {act}(pid) {waiting}"));
        sends.join().unwrap()
    });
    unknown(Err::<(), _>(error));
    term.lost.recv().unwrap();
    unknown(term.try_send("later"));
    database.sql("ALTER SYSTEM RESET synchronous_standby_names");
    database.sql("SELECT pg_reload_conf()");
    drop(term);
    let found = Term::instead_of_another(&database).all();
    // PostgreSQL commits first, and waits then. Nobody was told that the last one is stored.
    assert_eq!(found[..stored.len()], stored, "{act}");
    assert_eq!(found.len(), stored.len() + 1, "{act}");
}

#[test]
fn a_commit_that_ends_while_it_waits_for_a_replica_is_neither_stored_nor_refused() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let server = Arc::new(cluster.start(&[]));
    for act in ["pg_terminate_backend", "pg_cancel_backend"] {
        check_waiting_for_a_replica(&server, act);
    }
}

#[test]
fn a_commit_without_an_answer_or_with_a_warning_is_not_known() {
    for (statement, is_there) in [
        ("PERFORM pg_terminate_backend(pg_backend_pid())", false),
        ("RAISE WARNING 'a replica may not have it'", true),
        ("RAISE 'refused'", false),
    ] {
        let Some(database) = Database::new() else {
            return;
        };
        let term = Term::on(&database);
        term.send("a");
        // It acts when the transaction is committed.
        database.sql(&format!(
            "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             AS $$BEGIN {statement}; RETURN NULL; END$$;
             CREATE CONSTRAINT TRIGGER act AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION act()"
        ));
        unknown(term.try_send("b"));
        // Another server may lead by now, though this one does not stand by yet.
        let received = (term.queues).receive(&Q.into(), Delivery::AtLeastOnce, usize::MAX);
        assert_eq!(received.err(), Some(QueueError::Standby), "{statement}");
        term.lost.recv().unwrap();
        drop(term);
        let found = Term::instead_of_another(&database).all();
        let want: &[&str] = if is_there { &["a", "b"] } else { &["a"] };
        assert_eq!(found, want, "{statement}");
    }
}
