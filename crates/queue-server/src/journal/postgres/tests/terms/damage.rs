//! Rows that were changed by somebody else.

use super::*;

#[test]
fn a_message_that_is_damaged_is_set_aside_and_not_delivered() {
    let Some(database) = Database::new() else {
        return;
    };
    let mut damaged = 0;
    for change in [
        "body = 'x'",
        "queue = 'other'",
        "queue = ''",
        "place = place + 1",
        "place = '-9223372036854775808'",
        "delayed = TRUE",
        "attempts = 1",
        "attempts = -1",
        "token = '\\x00'",
        "token = '\\x000102030405060708090a0b0c0d0e0f'",
        "until = 1",
        "remaining = 1",
        "crc = crc + 1",
        "crc = -1",
        "key = 'k'",
        "account = 'a', key = 'k'",
        "attempts_max = 3",
        "attempts_max = -1",
        "expires = 1",
        "reason = '\\xff'",
        "reason = 'because'",
        "id = '-9223372036854775808'",
        "id = -1",
        "id = 0",
        "id = 9223372036854775807",
    ] {
        println!("{change}");
        let term = Term::on(&database);
        let ids = ["a", "b", "c"].map(|body| term.send(body));
        drop(term);
        let change = format!("UPDATE messages SET {change} WHERE id = {}", ids[1]);
        database.sql(&change);
        assert_eq!(Term::on(&database).all(), ["a", "c"]);
        damaged += 1;
        let found = database.sql("SELECT count(*), count(found) FROM damaged");
        assert_eq!(found, format!("{damaged}|{damaged}"));
        assert_eq!(database.sql("SELECT count(*) FROM messages"), "0");
    }
}

#[test]
fn what_is_damaged_beside_the_messages_costs_no_message() {
    let Some(database) = Database::new() else {
        return;
    };
    for change in [
        "SELECT 1",
        "UPDATE totals SET sent = sent + 1",
        "INSERT INTO totals VALUES ('', -1, -1, -1, -1, -1, 7)",
        "INSERT INTO answers VALUES (7, 7, 'x'), (-7, 0, '')",
        "INSERT INTO keys VALUES (7, 'q', NULL, 'k', 'd', 7, 7), (-7, '', '', '', '', -1, -1)",
        "INSERT INTO paused VALUES (''), (repeat('x', 300))",
        "UPDATE leader SET clock = -1",
        "UPDATE leader SET clock = 9223372036854775807",
        "UPDATE leader SET heartbeat = '4000-01-01 BC'",
        "UPDATE leader SET heartbeat = '290000-01-01'",
    ] {
        println!("{change}");
        let term = Term::on(&database);
        term.send("a");
        drop(term);
        database.sql(change);
        let term = Term::on(&database);
        term.send("b");
        drop(term);
        assert_eq!(Term::on(&database).all(), ["a", "b"]);
        assert_eq!(database.sql("SELECT count(*) FROM damaged"), "0");
    }
    assert_eq!(database.sql("SELECT count(*) FROM keys"), "0");
    assert_eq!(database.sql("SELECT count(*) FROM answers"), "0");
}
