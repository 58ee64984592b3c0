//! A reader of a big history while others write to it.

use super::*;

/// The old lines of a big history.
const OLD: usize = 1_000_000;

/// Checks that a history existed: its lines are numbered and whole, the old ones that are not there
/// are the first few of `deleted`, and of every writer there is all up to some record.
#[track_caller]
fn check_existed(text: &str, deleted: &[usize], writers: usize) {
    assert!(text.ends_with('\n'));
    let mut next_old = 0;
    let mut missing = Vec::new();
    let mut next = vec![0; writers];
    let mut requests = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split(' ');
        assert_eq!(words.next().unwrap().parse(), Ok(number), "{line}");
        let first = words.next().unwrap();
        if first == "old" {
            let old: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next().map(str::len), Some(90), "{line}");
            missing.extend(next_old..old);
            next_old = old + 1;
            continue;
        }
        let user = words.nth(1).unwrap();
        let Some((writer, record)) = user.split_once('.') else {
            requests += usize::from(user == "deleter");
            continue;
        };
        let writer: usize = writer.parse().unwrap();
        assert_eq!(record.parse(), Ok(next[writer]), "a gap: {line}");
        next[writer] += 1;
    }
    assert_eq!(next_old, OLD);
    let mut first_deleted = deleted[..missing.len()].to_vec();
    first_deleted.sort_unstable();
    assert_eq!(missing, first_deleted);
    // A request is on record before anything is done about it.
    let done = missing.len();
    assert!(
        requests == done || requests == done + 1,
        "{requests} {done}"
    );
}

#[test]
fn every_snapshot_of_a_big_history_existed() {
    const WRITERS: usize = 8;
    const DELETES: usize = 5;
    const SNAPSHOTS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let padding = "x".repeat(90);
    let old: String = (0..OLD).map(|n| format!("old {n} {padding}\n")).collect();
    fs::write(dir.path().join("history.txt"), old).unwrap();
    // From both ends and the middle, each by the number it has then.
    let mut left: Vec<usize> = (0..OLD).collect();
    let mut noise = Noise::new(3);
    let lines: Vec<usize> = (0..DELETES).map(|_| noise.below(OLD - DELETES)).collect();
    let deleted: Vec<usize> = lines.iter().map(|line| left.remove(*line)).collect();
    let server = Server::spawn(History.command(dir.path()));
    let connect = || HistoryClient::connect(&server.endpoint()).unwrap();
    let snapshot = || {
        let mut text = Vec::new();
        connect().get("reader", &mut text).unwrap();
        check_existed(std::str::from_utf8(&text).unwrap(), &deleted, WRITERS);
    };
    let running = AtomicUsize::new(2);
    thread::scope(|scope| {
        let running = &running;
        for writer in 0..WRITERS {
            let mut client = connect();
            scope.spawn(move || {
                let mut record = 0;
                while running.load(Ordering::SeqCst) > 0 {
                    client.hello(&format!("{writer}.{record}")).unwrap();
                    record += 1;
                }
            });
        }
        let (lines, mut client) = (&lines, connect());
        scope.spawn(move || {
            for line in lines {
                client.delete("deleter", *line as u64 + 1).unwrap();
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
        scope.spawn(move || {
            for _ in 0..SNAPSHOTS {
                snapshot();
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
    });
    let mut text = Vec::new();
    connect().get("reader", &mut text).unwrap();
    check_existed(std::str::from_utf8(&text).unwrap(), &deleted, WRITERS);
}
