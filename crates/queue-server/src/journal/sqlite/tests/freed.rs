//! Keys that are free are removed a few at once, so that no commit takes long because of them.

use super::*;

#[test]
fn keys_that_are_free_are_removed_a_thousand_in_a_commit() {
    let disk = Disk::new();
    let queues = disk.open();
    // Free since long ago, in another order than that of their ids; and one that is held.
    disk.sql()
        .execute_batch(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 2500)
             INSERT INTO keys SELECT 100000 - n, 'q', NULL, 'k' || n, x'00', n, 0 FROM n;
             INSERT INTO keys VALUES (1000000, 'q', NULL, 'held', x'00', 9223372036854775807, 0)",
        )
        .unwrap();
    let ack_one = |key: &str| {
        let properties = Properties {
            key: proto::queue::Key::new(key),
            ..Properties::default()
        };
        let sent = queues.send(&Sender::default(), Q, &properties, b"own", None);
        finish(&queues, sent.unwrap());
        finish(&queues, queues.ack(queues.reserve(Q).unwrap()));
    };
    let count =
        |key: &str| disk.number(&format!("SELECT count(*) FROM keys WHERE key LIKE '{key}'"));
    // As many as it adds, and a thousand more; the first first.
    ack_one("own1");
    assert_eq!(
        (count("k%"), count("own%"), count("held")),
        (2500 - 1001, 1, 1)
    );
    assert_eq!(disk.number("SELECT min(until) FROM keys"), 1002);
    ack_one("own2");
    assert_eq!(
        (count("k%"), count("own%"), count("held")),
        (2500 - 2002, 2, 1)
    );
}
