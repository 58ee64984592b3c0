//! A queue whose disk is full can be emptied, no matter which client filled it.

use std::time::Duration;

use super::full_disk::SmallDisk;
use super::*;

/// Sends until the server refuses; how many messages were stored.
#[track_caller]
fn fill_up(client: &mut QueueClient, bytes: usize) -> usize {
    let mut stored = 0;
    // A message may have to be refused a few times before even the shortest is.
    for bytes in [bytes, 1000, 10] {
        let mut refused = 0;
        while refused < 3 {
            match of_queue(client.send(format!("{stored:.<bytes$}").as_bytes())) {
                Ok(_) => stored += 1,
                Err(outcome) => {
                    assert_eq!(outcome, Refused);
                    refused += 1;
                }
            }
        }
    }
    stored
}

/// Empties a full queue in all the ways there are, while somebody tries to send.
#[track_caller]
fn check_drained(size: &str, bytes: usize, by_another: bool, restarts: bool) {
    let Some(disk) = SmallDisk::mount(size) else {
        crate::harness::skipped("no file system may be mounted here");
        return;
    };
    let what = format!("{size}, by another: {by_another}, restarted: {restarts}");
    let start = || Server::spawn(Queue.command(disk.path()));
    let connect = |server: &Server| QueueClient::connect(&server.endpoint(), Transport::Tcp);
    let mut server = start();
    let mut client = connect(&server).unwrap();
    let mut stored = 0;
    if by_another {
        while stored < 60 {
            client
                .send(format!("{stored:.<bytes$}").as_bytes())
                .unwrap();
            stored += 1;
        }
        disk.fill();
    }
    stored += fill_up(&mut client, bytes);
    assert!(stored >= 40, "{what}: {stored}");
    for is_kill in [true, false] {
        if restarts {
            drop(client);
            match is_kill {
                true => server.kill(),
                false => {
                    server.signal("TERM");
                    server.wait();
                }
            }
            server = start();
            client = connect(&server).unwrap();
        }
    }
    let mut stored_beside = 0;
    let number = |body: &[u8]| -> usize { short(body).parse().unwrap() };
    for n in 0..stored / 3 {
        let message = client.receive().unwrap().unwrap();
        assert_eq!(number(&message.body), n, "{what}");
        let acked = of_queue(client.ack(&message));
        assert_eq!(acked, Ok(()), "{what}, {n}\n{}", server.log());
        if n < 20 {
            // What is refused beside it does not keep it.
            let beside = connect(&server).unwrap().send(&[b'x'; 150_000]);
            stored_beside += usize::from(beside.is_ok());
        }
    }
    for n in stored / 3..2 * (stored / 3) {
        let message = of_queue(client.receive_at_most_once());
        let message = message
            .unwrap_or_else(|e| panic!("{what}, {n}: {e:?}"))
            .unwrap();
        assert_eq!(number(&message.body), n, "{what}");
    }
    let left = stored_beside + stored - 2 * (stored / 3);
    let purged = of_queue(client.purge());
    assert_eq!(purged, Ok(left as u64), "{what}\n{}", server.log());
    drop(client);
    server.kill();
    assert_eq!(drain(start().addr()), [b""; 0], "{what}: came back");
}

#[test]
fn a_queue_that_has_filled_its_disk_is_emptied() {
    check_drained("24m", 3000, false, false);
    check_drained("2m", 3000, false, false);
    check_drained("2m", 3000, false, true);
    check_drained("2m", 20_000, false, true);
}

#[test]
fn a_queue_whose_disk_another_has_filled_is_emptied() {
    check_drained("24m", 3000, true, true);
    check_drained("2m", 3000, true, false);
    check_drained("2m", 3000, true, true);
}

#[test]
fn a_purged_database_gets_small_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    let body = vec![b'x'; 90_000];
    for _ in 0..200 {
        client.send(&body).unwrap();
    }
    client.send(b"stays").unwrap();
    let database = dir.path().join("queue.db");
    let length = || fs::metadata(&database).unwrap().len();
    let before = length();
    assert!(before > 17_000_000, "{before}");
    let kept = client.lease(Duration::from_secs(60), Duration::ZERO);
    assert_eq!(kept.unwrap().unwrap().body, body);
    assert_eq!(client.purge().unwrap(), 200);
    eventually("the database gets smaller", || length() < before / 20);
    // 1024 pages, and what the last commit and the last step add to them.
    let log = fs::metadata(dir.path().join("queue.db-wal")).unwrap().len();
    assert!(log < 6_000_000, "{log}");
    client.send(b"more").unwrap();
    drop(client);
    server.kill();
    assert_eq!(
        drain(Server::spawn(Queue.command(dir.path())).addr()),
        [b"more"]
    );
}
