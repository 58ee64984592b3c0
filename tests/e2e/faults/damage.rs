//! Damaged databases: what is delivered was sent.

use super::*;

/// The files of a queue that was ended with this signal, and the messages it holds.
#[track_caller]
fn queue_ended_by(signal: &str) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    const MESSAGES: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::spawn(Queue.command(dir.path()));
    let mut client = QueueClient::connect(&server.endpoint(), Transport::Tcp).unwrap();
    let mut noise = Noise::new(7);
    let bodies: Vec<_> = (0..MESSAGES)
        .map(|n| {
            // Some fill pages of their own.
            let bytes = noise.below(if n % 10 == 9 { 10_000 } else { 1000 });
            [format!("{n} ").into_bytes(), noise.bytes(bytes)].concat()
        })
        .collect();
    for body in &bodies {
        client.send(body).unwrap();
    }
    drop(client);
    server.signal(signal);
    server.wait();
    let database = fs::read(dir.path().join("queue.db")).unwrap();
    let log = fs::read(dir.path().join("queue.db-wal")).unwrap_or_default();
    (database, log, bodies)
}

/// Starts a server over damaged files. It refuses, or what it delivers was sent, unaltered and in
/// order; returns how many messages it delivered and how many it reported.
#[track_caller]
fn check_damaged(
    what: &str,
    database: &[u8],
    log: &[u8],
    sent: &[Vec<u8>],
) -> Option<(usize, usize)> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("queue.db"), database).unwrap();
    if !log.is_empty() {
        fs::write(dir.path().join("queue.db-wal"), log).unwrap();
    }
    let process = Process::start(Queue.command(dir.path()));
    if !process.serves() {
        process.check_gave_up(Queue);
        return None;
    }
    let mut client = QueueClient::connect(&process.addrs[0].endpoint(), Transport::Tcp).unwrap();
    let mut there = Vec::new();
    loop {
        match of_queue(client.receive_at_most_once()) {
            Ok(Some(message)) => there.push(message.body),
            Ok(None) => break,
            Err(Refused) => return None,
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
    let mut left = sent.iter();
    for body in &there {
        let is_next = left.any(|sent| sent == body);
        let start = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
        assert!(is_next, "{what}: altered, doubled or late: {start:?}");
    }
    let log = process.log();
    assert!(!log.contains("panicked"), "{what}: {log}");
    Some((
        there.len(),
        log.matches("is damaged; it was set aside").count(),
    ))
}

/// Places all over a file, its first bytes among them.
fn places(bytes: usize) -> impl Iterator<Item = usize> {
    let all_over = (0..60).map(move |n| (n * bytes / 60 + n * 97) % bytes);
    [0, 1, 16, 18, 19, 24, 28, 40, 60, 68, 100, 105, bytes - 1]
        .into_iter()
        .chain(all_over)
}

#[test]
fn a_flipped_bit_in_the_database_is_refused_or_reported() {
    let (database, _, sent) = queue_ended_by("TERM");
    let (mut refused, mut reported) = (0, 0);
    for at in places(database.len()) {
        for bit in [0, 6] {
            let mut flipped = database.clone();
            flipped[at] ^= 1 << bit;
            let what = format!("byte {at} bit {bit}");
            match check_damaged(&what, &flipped, b"", &sent) {
                None => refused += 1,
                Some((there, damaged)) => {
                    assert_eq!(there + damaged, sent.len(), "{what}: lost without a word");
                    reported += damaged;
                }
            }
        }
    }
    println!("{refused} times refused, {reported} messages set aside");
    assert!(refused > 0 && reported > 0);
}

#[test]
fn a_database_cut_anywhere_is_refused_or_delivers_nothing_false() {
    let (database, _, sent) = queue_ended_by("TERM");
    for at in places(database.len()) {
        check_damaged(&format!("cut at {at}"), &database[..at], b"", &sent);
    }
}

#[test]
fn a_write_ahead_log_cut_or_flipped_anywhere_delivers_what_came_before() {
    let (database, log, sent) = queue_ended_by("KILL");
    assert!(log.len() > 50_000, "{}", log.len());
    let check = |what: String, log: &[u8]| {
        let before = |sent: &[Vec<u8>]| check_damaged(&what, &database, log, sent);
        let Some((there, _)) = before(&sent) else {
            return;
        };
        assert_eq!(before(&sent[..there]), Some((there, 0)), "{what}: a gap");
    };
    for at in places(log.len()) {
        check(format!("cut at {at}"), &log[..at]);
        let mut flipped = log.clone();
        flipped[at] ^= 1;
        check(format!("flipped at {at}"), &flipped);
    }
}
