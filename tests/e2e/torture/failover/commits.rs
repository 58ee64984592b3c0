//! What was committed, and by whom, as the database itself has seen it: triggers of the test's own write it
//! down in the same transactions.
//!
//! A writer is a connection, because a server that has lost its own is not the leader any more. Each epoch
//! has one writer, and each writer one epoch; and epochs follow each other.

use std::collections::{HashMap, HashSet};

/// Makes the table and its triggers in a database that has the tables of a queue server. A change of the row of
/// the leader is written down as well as one of the messages, because a server without the fence would do without
/// the former.
pub const AUDIT: &str = "
CREATE TABLE audit (number BIGSERIAL PRIMARY KEY, epoch BIGINT NOT NULL, writer TEXT NOT NULL);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit (epoch, writer) SELECT epoch,
        (SELECT concat_ws(' ', pid, client_addr, client_port, backend_start)
         FROM pg_stat_get_activity(pg_backend_pid()))
    FROM leader;
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER UPDATE ON leader FOR EACH STATEMENT EXECUTE FUNCTION audit();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON messages
    FOR EACH STATEMENT EXECUTE FUNCTION audit();";

/// Asks for what was written down, a line each; neighbours that are the same are one.
pub const WRITTEN: &str = "
SELECT epoch, writer FROM (
    SELECT *, lag((epoch, writer)) OVER (ORDER BY number) AS before FROM audit
) AS audit WHERE before IS DISTINCT FROM (epoch, writer) ORDER BY number";

/// What must not have been committed, by the answer to [`WRITTEN`].
///
/// # Panics
/// If that is not what the answer is.
pub fn check(written: &str) -> Vec<String> {
    let mut violations = Vec::new();
    // Once each.
    let mut said = HashSet::new();
    let mut newest = i64::MIN;
    let (mut writers, mut epochs) = (HashMap::new(), HashMap::new());
    for line in written.lines() {
        let (epoch, writer) = line.split_once('|').unwrap();
        let epoch: i64 = epoch.parse().unwrap();
        if epoch < newest {
            violations.push(format!("epoch {epoch} after epoch {newest}, by {writer}"));
        }
        newest = newest.max(epoch);
        let first = *writers.entry(epoch).or_insert(writer);
        if first != writer && said.insert((epoch, writer)) {
            violations.push(format!("two commit in epoch {epoch}: {first}, {writer}"));
        }
        let own = *epochs.entry(writer).or_insert(epoch);
        if own != epoch && said.insert((epoch, writer)) {
            violations.push(format!("{writer} commits in epochs {own} and {epoch}"));
        }
    }
    violations
}

#[test]
fn an_epoch_has_one_writer_and_a_writer_one_epoch() {
    assert_eq!(check("1|a\n2|b\n4|c"), [""; 0]);
    // The former leader commits without looking.
    assert_eq!(
        check("1|a\n2|b\n2|a\n2|b\n2|a"),
        ["two commit in epoch 2: b, a"]
    );
    // Nobody else commits in it.
    assert_eq!(check("1|a\n2|a"), ["a commits in epochs 1 and 2"]);
    // What it sees of the row is old.
    assert_eq!(check("1|a\n2|b\n1|a"), ["epoch 1 after epoch 2, by a"]);
}
