use std::path::PathBuf;
use std::time::Instant;

use daemon::Wakeup;
use proto::queue::{MessageId, QueueStats, Totals};

use super::*;
use crate::alarm::Alarm;
use crate::{QUEUES_MAX, Step, Stepped};

const Q: QueueName = QueueName::DEFAULT;

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);

fn limits() -> Limits {
    Limits {
        body_bytes_max: 10,
        messages_max: usize::MAX,
        queue_bytes_max: usize::MAX,
        memory_bytes_max: 1 << 20,
        attempts_max: 2,
    }
}

fn name(name: &str) -> QueueName<'_> {
    QueueName::new(name).unwrap()
}

impl Queues {
    /// What is handed out next, also if that is nothing because of a pause.
    pub(crate) fn take(&self, queue: QueueName) -> Option<Taken> {
        self.reserve(queue).ok().flatten()
    }
}

#[track_caller]
fn finish(queues: &Queues, begun: Begun) -> MessageId {
    let id = queues.finish(begun, |reply| match reply {
        Reply::Stored { id } => id,
        _ => 0,
    });
    id.unwrap()
}

#[track_caller]
fn send(queues: &Queues, queue: QueueName, body: &str) -> Result<MessageId, QueueError> {
    let begun = queues.send(queue, Duration::ZERO, body.as_bytes())?;
    Ok(finish(queues, begun))
}

fn queues_of(bodies: &[&str]) -> Queues {
    let queues = Queues::in_memory(limits());
    for body in bodies {
        send(&queues, Q, body).unwrap();
    }
    queues
}

fn body(taken: &Taken) -> String {
    String::from_utf8(taken.message.body.to_vec()).unwrap()
}

/// Takes and forgets everything.
fn all(queues: &Queues, queue: QueueName) -> Vec<String> {
    let next = || {
        let taken = queues.take(queue)?;
        let body = body(&taken);
        finish(queues, queues.forget(taken));
        Some(body)
    };
    std::iter::from_fn(next).collect()
}

#[track_caller]
fn lease(queues: &Queues, lease: Duration) -> Token {
    let begun = queues.lease(queues.take(Q).unwrap(), lease);
    let token = queues.finish(begun, |reply| match reply {
        Reply::Leased { token, .. } => token,
        other => panic!("{other:?}"),
    });
    token.unwrap()
}

fn stats_of<R>(queues: &Queues, look: impl FnOnce(Totals, Vec<QueueStats>) -> R) -> R {
    queues.stats(|reply| match reply {
        Reply::Stats { totals, queues } => look(totals, queues),
        other => panic!("{other:?}"),
    })
}

#[test]
fn first_in_first_out() {
    assert_eq!(all(&queues_of(&["a", "", "c"]), Q), ["a", "", "c"]);
}

/// Acts on requests under one lock: a body to send, or nothing to receive. Tells what came of each.
fn run(queues: &Queues, queue: QueueName, requests: &[&str]) -> Vec<String> {
    let step = |request: &&str| match *request {
        "" => Step::Receive,
        body => Step::Send(Message::new(body.as_bytes())),
    };
    let mut steps = requests.iter().map(step).collect();
    let mut done = Vec::new();
    queues.run(queue, &mut steps, &mut done, usize::MAX);
    assert!(steps.is_empty());
    let shown = |stepped: Stepped| match stepped {
        Stepped::Stored(id) => id.to_string(),
        Stepped::Refused(error) => format!("{error:?}"),
        Stepped::Received(message) => String::from_utf8(message.body.to_vec()).unwrap(),
        Stepped::Empty => "-".to_owned(),
    };
    done.into_iter().map(shown).collect()
}

#[test]
fn a_run_ends_when_what_is_received_is_enough() {
    let queues = queues_of(&["abc", "def", "ghi"]);
    let mut steps = (0..3).map(|_| Step::Receive).collect();
    for (bytes_max, want, left) in [(4, 2, 1), (3, 1, 0)] {
        let mut done = Vec::new();
        queues.run(Q, &mut steps, &mut done, bytes_max);
        assert_eq!((done.len(), steps.len()), (want, left));
    }
}

#[test]
fn a_run_of_requests_is_acted_on_in_order() {
    let queues = queues_of(&["a"]);
    let other = queues.take(Q).unwrap();
    assert_eq!(
        run(&queues, Q, &["b", "", "", "c", "d"]),
        ["2", "b", "-", "3", "4"]
    );
    // What is held counts, and comes back to its place.
    queues.give_back(other);
    assert_eq!(run(&queues, Q, &["e", "", ""]), ["5", "a", "c"]);
    assert_eq!(all(&queues, Q), ["d", "e"]);
    assert_eq!(run(&queues, name("jobs"), &["", "f", ""]), ["-", "6", "f"]);
    stats_of(&queues, |totals, left| {
        assert_eq!((totals.sent, totals.received, totals.acked), (6, 7, 6));
        assert_eq!((totals.memory_bytes, left.len()), (0, 0));
    });
}

#[test]
fn a_run_is_held_to_the_limits() {
    let limits = Limits {
        messages_max: 2,
        ..limits()
    };
    let queues = Queues::in_memory(limits);
    let full = "TooManyMessages(2)";
    let done = run(&queues, Q, &["a", "b", "c", "", "d"]);
    assert_eq!(done, ["1", "2", full, "a", "3"]);
    queues.drain(true);
    assert_eq!(run(&queues, Q, &["", "e", ""]), ["b", "Draining", "d"]);
    queues.drain(false);
    run(&queues, Q, &["f"]);
    queues.pause(Q, true).unwrap();
    assert_eq!(run(&queues, Q, &["g", ""]), ["5", "Paused(\"default\")"]);
}

#[test]
fn a_run_wakes_whoever_waits() {
    let queues = queues_of(&[]);
    let wakeup = Arc::new(Wakeup::new().unwrap());
    let in_line = queues.get_in_line(Q, &wakeup).unwrap();
    let waiting = || stats_of(&queues, |_, queues| queues[0].waiters);
    assert_eq!(waiting(), 1);
    run(&queues, Q, &["a"]);
    assert_eq!(waiting(), 0);
    drop(in_line);
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn queues_are_made_on_first_use_and_gone_when_unused() {
    let queues = queues_of(&["a"]);
    send(&queues, name("jobs"), "b").unwrap();
    assert_eq!(queues.take(name("other")), None);
    let names = |queues: &Queues| {
        stats_of(queues, |_, queues| {
            queues
                .iter()
                .map(|q| q.name.to_string())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(names(&queues), ["default", "jobs"]);
    let taken = queues.take(name("jobs")).unwrap();
    assert_eq!(names(&queues), ["default", "jobs"], "somebody holds one");
    finish(&queues, queues.forget(taken));
    assert_eq!(names(&queues), ["default"]);
    assert_eq!(all(&queues, Q), ["a"]);
    assert_eq!(names(&queues), [""; 0]);
    stats_of(&queues, |totals, _| {
        assert_eq!(
            (
                totals.sent,
                totals.received,
                totals.acked,
                totals.memory_bytes
            ),
            (2, 2, 2, 0)
        );
    });
}

#[test]
fn what_is_given_back_goes_to_its_old_place_and_what_is_released_to_the_end() {
    let queues = queues_of(&["a", "b", "c"]);
    let (first, second) = (queues.take(Q).unwrap(), queues.take(Q).unwrap());
    assert_eq!(first.message.attempts, 1);
    queues.give_back(second);
    finish(&queues, queues.release(first, Duration::ZERO));
    assert_eq!(all(&queues, Q), ["b", "c", "a"]);
}

#[test]
fn what_could_not_be_begun_with_is_no_attempt() {
    let disk = Disk::with(&["a", "b"]);
    let queues = disk.open().unwrap();
    for _ in 0..2 * limits().attempts_max {
        let held = queues.take(Q).unwrap();
        assert_eq!((body(&held).as_str(), held.message.attempts), ("a", 1));
        finish(&queues, queues.unreserve(held));
        let token = lease(&queues, LONG);
        finish(&queues, queues.unreserve(queues.claim(token).unwrap()));
    }
    drop(queues);
    let queues = disk.open().unwrap();
    let held = queues.take(Q).unwrap();
    assert_eq!((body(&held).as_str(), held.message.attempts), ("a", 1));
}

#[test]
fn a_restart_is_an_attempt_that_nothing_dies_of() {
    let disk = Disk::with(&["a"]);
    for attempt in 1..=2 * limits().attempts_max {
        let queues = disk.open().unwrap();
        let held = queues.take(Q).unwrap();
        assert_eq!(held.message.attempts, attempt);
        queues.give_back_at_stop(held);
    }
}

#[test]
fn a_release_tells_what_has_died_of_it() {
    let queues = queues_of(&["a"]);
    let release = |queue| {
        let begun = queues.release(queues.take(queue).unwrap(), Duration::ZERO);
        queues.finish(begun, |reply| reply == Reply::Done { messages: 1 })
    };
    assert!(release(Q).unwrap());
    assert!(!release(Q).unwrap());
    // What is dead already stays there.
    assert!(release(name("default.dead")).unwrap());
}

#[test]
fn what_was_handed_out_too_often_goes_to_the_dead_until_it_is_kicked() {
    let queues = queues_of(&["bad", "good"]);
    queues.give_back(queues.take(Q).unwrap());
    finish(&queues, queues.release(queues.take(Q).unwrap(), LONG));
    assert_eq!(all(&queues, Q), ["good"]);
    let dead = name("default.dead");
    // There it can be looked at as often as one likes.
    for _ in 0..5 {
        queues.give_back(queues.take(dead).unwrap());
    }
    stats_of(&queues, |totals, queues| {
        assert_eq!((&*queues[0].name, queues[0].ready), ("default.dead", 1));
        assert_eq!(
            (totals.dead_lettered, totals.released, totals.requeued),
            (1, 1, 6)
        );
    });
    assert_eq!(queues.kick(Q), Ok(1));
    let taken = queues.take(Q).unwrap();
    assert_eq!((body(&taken).as_str(), taken.message.attempts), ("bad", 1));
    queues.give_back(taken);
    assert_eq!(queues.take(dead), None);
}

#[test]
fn a_lease_is_ended_by_its_token_alone() {
    let queues = queues_of(&["a", "b"]);
    let token = lease(&queues, LONG);
    assert_eq!(queues.claim(Token::new_v4()), Err(QueueError::NoLease));
    let taken = queues.claim(token).unwrap();
    finish(&queues, queues.forget(taken));
    assert_eq!(queues.claim(token), Err(QueueError::NoLease));
    assert_eq!(queues.extend(token, LONG).err(), Some(QueueError::NoLease));
    assert_eq!(all(&queues, Q), ["b"]);
}

#[test]
fn the_alarm_ends_leases_and_delays() {
    let queues = Arc::new(queues_of(&["a", "b"]));
    let _alarm = Alarm::start(&queues).unwrap();
    let kept = lease(&queues, Duration::from_millis(5));
    finish(&queues, queues.extend(kept, LONG).unwrap());
    lease(&queues, Duration::from_millis(400));
    let delayed = queues.send(Q, Duration::from_millis(10), b"c").unwrap();
    finish(&queues, delayed);
    let next = || {
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let (_peer, connection) = connected();
        loop {
            if let Some(taken) = queues.take(Q) {
                let body = body(&taken);
                finish(&queues, queues.forget(taken));
                return body;
            }
            let in_line = queues.get_in_line(Q, &wakeup).unwrap();
            if in_line.is_some() {
                wakeup.wait(&connection, Instant::now() + LONG).unwrap();
            }
        }
    };
    assert_eq!([next(), next()], ["c", "b"]);
    assert!(queues.claim(kept).is_ok_and(|taken| body(&taken) == "a"));
}

fn connected() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

#[test]
fn nobody_waits_for_what_is_there() {
    let queues = queues_of(&["a"]);
    let wakeup = Arc::new(Wakeup::new().unwrap());
    assert!(queues.get_in_line(Q, &wakeup).unwrap().is_none());
    assert_eq!(all(&queues, Q), ["a"]);
    drop(queues.get_in_line(Q, &wakeup).unwrap().unwrap());
    stats_of(&queues, |_, queues| assert!(queues.is_empty()));
}

#[test]
fn limits_are_said() {
    #[track_caller]
    fn check(limits: Limits, want: &str) {
        let queues = Queues::in_memory(limits);
        send(&queues, Q, "one").unwrap();
        let refused = send(&queues, Q, "four").unwrap_err();
        assert_eq!(refused.to_string(), want);
        assert_eq!(all(&queues, Q), ["one"]);
        send(&queues, Q, "").unwrap();
    }
    check(
        Limits {
            body_bytes_max: 3,
            ..limits()
        },
        "a message of 4 bytes is over the limit of 3 bytes",
    );
    check(
        Limits {
            messages_max: 1,
            ..limits()
        },
        "the queue is full: --max-messages is 1",
    );
    check(
        Limits {
            queue_bytes_max: 67,
            ..limits()
        },
        "the queue is full: --max-bytes is 67",
    );
    check(
        Limits {
            memory_bytes_max: 67,
            ..limits()
        },
        "the server is full: --max-memory is 67",
    );
}

#[test]
fn there_are_only_so_many_queues() {
    let queues = Queues::in_memory(limits());
    for n in 0..QUEUES_MAX {
        send(&queues, name(&n.to_string()), "x").unwrap();
    }
    let refused = send(&queues, Q, "x");
    assert_eq!(refused, Err(QueueError::TooManyQueues));
    assert_eq!(queues.purge(name("7")), Ok(1));
    send(&queues, Q, "x").unwrap();
}

#[test]
fn a_drain_refuses_what_is_new_and_hands_out_the_rest() {
    let queues = queues_of(&["a"]);
    queues.drain(true);
    assert_eq!(send(&queues, Q, "b"), Err(QueueError::Draining));
    assert_eq!(all(&queues, Q), ["a"]);
    queues.drain(false);
    send(&queues, Q, "b").unwrap();
}

#[test]
fn purging_leaves_what_is_held() {
    let queues = queues_of(&["a", "b", "c"]);
    finish(&queues, queues.send(Q, LONG, b"d").unwrap());
    let held = queues.take(Q).unwrap();
    assert_eq!(queues.purge(Q), Ok(3));
    queues.give_back(held);
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn a_pause_holds_messages_back() {
    let queues = queues_of(&["a"]);
    queues.pause(Q, true).unwrap();
    send(&queues, Q, "b").unwrap();
    let paused = queues.reserve(Q).unwrap_err();
    assert_eq!(paused.to_string(), "the queue 'default' is paused");
    queues.pause(Q, false).unwrap();
    assert_eq!(all(&queues, Q), ["a", "b"]);
}

#[test]
fn there_is_a_queue_while_something_would_be_missed_without_it() {
    #[track_caller]
    fn check(queues: &Queues, is_there: bool) {
        let refused = || QueueError::NoQueue("default".to_owned());
        let want = |messages| is_there.then_some(messages).ok_or_else(refused);
        // Whatever is ready stays: these tell how many there are to be had by somebody else.
        assert_eq!(queues.pause(Q, true), want(0));
        assert_eq!(queues.pause(Q, false), want(0));
        assert_eq!(queues.kick(Q).is_ok(), is_there);
        assert_eq!(queues.purge(Q).is_ok(), is_there);
    }
    let queues = queues_of(&[]);
    check(&queues, false);
    assert_eq!(queues.take(Q), None);
    run(&queues, Q, &[""]);
    stats_of(&queues, |_, queues| assert!(queues.is_empty()));
    assert_eq!(
        queues.kick(Q).unwrap_err().to_string(),
        "there is no queue 'default'"
    );
    // Reserved, leased, delayed.
    send(&queues, Q, "a").unwrap();
    let held = queues.take(Q).unwrap();
    check(&queues, true);
    finish(&queues, queues.forget(held));
    check(&queues, false);
    send(&queues, Q, "a").unwrap();
    let token = lease(&queues, LONG);
    check(&queues, true);
    finish(&queues, queues.release(queues.claim(token).unwrap(), LONG));
    check(&queues, true);
    check(&queues, false);
    // Paused.
    send(&queues, Q, "a").unwrap();
    queues.pause(Q, true).unwrap();
    let last = lock(&queues.shared.state).take_some("default", false, 1);
    for last in last {
        finish(&queues, queues.forget(last));
    }
    assert_eq!((queues.purge(Q), queues.kick(Q)), (Ok(0), Ok(0)));
    assert_eq!(queues.pause(Q, false), Ok(0));
    check(&queues, false);
    // Somebody waits.
    let wakeup = Arc::new(Wakeup::new().unwrap());
    let in_line = queues.get_in_line(Q, &wakeup).unwrap();
    check(&queues, true);
    drop(in_line);
    check(&queues, false);
    // Nothing but dead letters.
    send(&queues, Q, "a").unwrap();
    for _ in 0..limits().attempts_max {
        queues.give_back(queues.take(Q).unwrap());
    }
    stats_of(&queues, |_, queues| assert_eq!(queues.len(), 1));
    assert_eq!(queues.purge(Q), Ok(0));
    assert_eq!(queues.kick(Q), Ok(1));
    assert_eq!(all(&queues, Q), ["a"]);
    check(&queues, false);
}

#[test]
fn what_is_due_is_done_a_thousand_at_a_time_in_order_over_all_queues() {
    let limits = Limits {
        attempts_max: 1000,
        ..limits()
    };
    let queues = Queues::in_memory(limits);
    let names: Vec<_> = (0..50).map(|n| format!("q{n}")).collect();
    for n in 0..2500 {
        let delay = Duration::from_micros(1 + n);
        let queue = name(&names[n as usize % 50]);
        finish(&queues, queues.send(queue, delay, b"x").unwrap());
        send(&queues, Q, "y").unwrap();
        lease(&queues, Duration::ZERO);
    }
    let long = queues.send(name("long"), LONG, b"z").unwrap();
    finish(&queues, long);
    let shared = &queues.shared;
    let now = shared.clock.after(Duration::from_secs(1));
    {
        let mut state = lock(&shared.state);
        assert_eq!(
            state.first_due(),
            state
                .due
                .first()
                .map(|due| due.0)
                .min(state.expiries.first().map(|e| e.0))
        );
        let (promoted, _) = state.promote(now, &shared.clock, 1000);
        assert_eq!((promoted, state.due.len()), (1000, 1501));
        let ready: Vec<_> = names
            .iter()
            .map(|n| state.queues[n.as_str()].ready())
            .collect();
        assert!(
            ready.iter().all(|ready| (18..=22).contains(ready)),
            "{ready:?}"
        );
    }
    let expired = lock(&shared.state).expire(now, 1000);
    assert_eq!(expired.len(), 1000);
    expired
        .into_iter()
        .for_each(|taken| queues.give_back(taken));
    // The rest.
    for _ in 0..2 {
        queues.wait_until_due(|| true);
    }
    assert_eq!(all(&queues, Q).len(), 2500);
    // What is purged is not due any more.
    assert_eq!(queues.purge(name("long")), Ok(1));
    assert_eq!(lock(&shared.state).first_due(), None);
}

// ---- With a database.

struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("queue.db")
    }

    fn open(&self) -> Result<Queues, Error> {
        Queues::open(&self.path(), limits(), Fsync::Always, || {
            panic!("the disk failed")
        })
    }

    fn with(bodies: &[&str]) -> Self {
        let disk = Self::new();
        let queues = disk.open().unwrap();
        for body in bodies {
            send(&queues, Q, body).unwrap();
        }
        disk
    }

    fn sql(&self, sql: &str) {
        let db = rusqlite::Connection::open(self.path()).unwrap();
        db.execute_batch(sql).unwrap();
    }
}

#[test]
fn a_database_keeps_what_is_not_acknowledged_in_its_old_place() {
    let disk = Disk::with(&["a", "b", "", "d"]);
    let queues = disk.open().unwrap();
    let first = queues.take(Q).unwrap();
    let second = queues.take(Q).unwrap();
    finish(&queues, queues.forget(second));
    assert!(disk.open().is_err(), "two servers on one file");
    queues.give_back(first);
    drop(queues);
    let queues = disk.open().unwrap();
    let first = queues.take(Q).unwrap();
    assert_eq!((body(&first).as_str(), first.message.attempts), ("a", 2));
    queues.give_back(first);
    send(&queues, Q, "e").unwrap();
    drop(queues);
    let queues = disk.open().unwrap();
    assert_eq!(all(&queues, name("default.dead")), ["a"]);
    assert_eq!(all(&queues, Q), ["", "d", "e"]);
}

#[test]
fn a_database_keeps_places_leases_delays_and_pauses() {
    let disk = Disk::with(&["a", "b", "c"]);
    let queues = disk.open().unwrap();
    let token = lease(&queues, LONG);
    let short = lease(&queues, LONG);
    finish(&queues, queues.extend(short, Duration::ZERO).unwrap());
    finish(&queues, queues.release(queues.take(Q).unwrap(), LONG));
    send(&queues, Q, "d").unwrap();
    let soon = queues.send(Q, Duration::from_micros(1), b"e").unwrap();
    finish(&queues, soon);
    send(&queues, name("p"), "p").unwrap();
    queues.pause(name("p"), true).unwrap();
    assert_eq!(queues.purge(name("p")), Ok(1));
    drop(queues);
    let queues = Arc::new(disk.open().unwrap());
    queues.wait_until_due(|| true);
    stats_of(&queues, |_, queues| {
        let default = &queues[0];
        let counts = (default.ready, default.reserved, default.delayed);
        assert_eq!(counts, (3, 1, 1), "b, d and e; a is leased, c delayed");
        assert_eq!((&*queues[1].name, queues[1].is_paused), ("p", true));
    });
    assert_eq!(all(&queues, Q), ["b", "d", "e"]);
    let taken = queues.claim(token).unwrap();
    assert_eq!(body(&taken), "a");
    finish(&queues, queues.forget(taken));
    assert_eq!(queues.purge(Q), Ok(1));
    queues.pause(name("p"), false).unwrap();
    drop(queues);
    let queues = disk.open().unwrap();
    stats_of(&queues, |_, queues| {
        assert!(queues.is_empty(), "{queues:?}")
    });
}

#[test]
fn a_kick_and_a_purge_are_kept() {
    let disk = Disk::with(&["a", "b", "c"]);
    let queues = disk.open().unwrap();
    for _ in 0..4 {
        queues.give_back(queues.take(Q).unwrap());
    }
    assert_eq!(queues.kick(Q), Ok(2));
    drop(queues);
    let queues = disk.open().unwrap();
    assert_eq!(all(&queues, Q), ["c", "a", "b"]);
}

#[track_caller]
fn check_refused_at_start(sql: &str, want: &str) {
    let disk = Disk::with(&["a"]);
    disk.sql(sql);
    let error = disk.open().err().unwrap().to_string();
    assert!(error.contains(want), "{error}");
}

#[test]
fn what_is_not_our_database_is_refused() {
    check_refused_at_start("PRAGMA user_version = 4", "schema version 4");
    check_refused_at_start("PRAGMA application_id = 7", "is not a queue's database");
    for no_file in ["", "/", "/no/such/folder/queue.db"] {
        let open = Queues::open(Path::new(no_file), limits(), Fsync::Always, || {});
        assert!(open.is_err(), "{no_file}");
    }
    let disk = Disk::new();
    let text = "a text of no more than four thousand bytes".repeat(50);
    std::fs::write(disk.path(), text).unwrap();
    let error = disk.open().err().unwrap();
    assert!(error.to_string().starts_with("cannot open"), "{error}");
    // What SQLite calls its memory is the name of a file here.
    let path = disk.dir.path().join(":memory:");
    let queues = Queues::open(&path, limits(), Fsync::Always, || {}).unwrap();
    send(&queues, Q, "x").unwrap();
    assert!(std::fs::metadata(path).unwrap().is_file());
}

#[track_caller]
fn check_set_aside(sql: &str, damaged: i64, left: &[&str]) {
    let disk = Disk::with(&["a", "b", "c"]);
    disk.sql(sql);
    assert_eq!(all(&disk.open().unwrap(), Q), left, "{sql}");
    let db = rusqlite::Connection::open(disk.path()).unwrap();
    let count = "SELECT count(*) FROM damaged";
    let found: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(found, damaged, "{sql}");
}

#[test]
fn a_damaged_message_is_set_aside_and_not_delivered() {
    for (column, values) in [
        ("body", ["x'78'", "7"]),
        ("queue", ["'other'", "''"]),
        ("place", ["1", "'x'"]),
        ("delayed", ["1", "2"]),
        ("attempts", ["1", "-1"]),
        ("token", ["x'00'", "x'000102030405060708090a0b0c0d0e0f'"]),
        ("until", ["1", "'x'"]),
        ("crc", ["1", "'x'"]),
    ] {
        for value in values {
            let sql = format!("UPDATE messages SET {column} = {value} WHERE id = 2");
            check_set_aside(&sql, 1, &["a", "c"]);
        }
    }
    check_set_aside("SELECT 1", 0, &["a", "b", "c"]);
    for id in [i64::MIN, -1, 0, i64::MAX] {
        let sql = format!("UPDATE messages SET id = {id} WHERE id = 2");
        check_set_aside(&sql, 1, &["a", "c"]);
    }
}

/// Has the database refuse a kind of change.
fn refuse(disk: &Disk, change: &str) {
    disk.sql(&format!(
        "DROP TRIGGER IF EXISTS refuse;
         CREATE TRIGGER refuse BEFORE {change} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    ));
}

#[test]
fn what_is_not_stored_is_not_done() {
    #[track_caller]
    fn check(queues: &Queues, begun: Begun) {
        let refused = queues.finish(begun, |_| {}).unwrap_err();
        assert!(matches!(refused, QueueError::NotStored(_)), "{refused}");
    }
    let disk = Disk::with(&["a", "b", "c"]);
    let queues = disk.open().unwrap();
    let token = lease(&queues, LONG);
    refuse(&disk, "UPDATE ON messages");
    check(&queues, queues.extend(token, Duration::ZERO).unwrap());
    queues.wait_until_due(|| true);
    let leased = queues.claim(token).unwrap();
    check(&queues, queues.release(leased, Duration::ZERO));
    check(&queues, queues.lease(queues.take(Q).unwrap(), LONG));
    let held = queues.take(Q).unwrap();
    check(&queues, queues.release(held, Duration::ZERO));
    refuse(&disk, "DELETE ON messages");
    check(&queues, queues.deliver(queues.take(Q).unwrap()));
    let leased = queues.claim(token).unwrap();
    check(&queues, queues.forget(leased));
    disk.sql("DROP TRIGGER refuse");
    let held = queues.take(Q).unwrap();
    assert_eq!((body(&held).as_str(), held.message.attempts), ("b", 2));
    queues.untake(held);
    assert_eq!(all(&queues, Q), ["b", "c"]);
    let leased = queues.claim(token).unwrap();
    assert_eq!(body(&leased), "a");
    finish(&queues, queues.forget(leased));
    stats_of(&queues, |totals, queues| {
        assert!(queues.is_empty() && totals.memory_bytes == 0, "{queues:?}");
    });
}

#[test]
fn a_restart_keeps_what_was_delayed_before_what_came_after_it() {
    let disk = Disk::new();
    let queues = disk.open().unwrap();
    let delay = Duration::from_micros(1);
    let delayed: Vec<_> = [b"a", b"b"]
        .iter()
        .map(|body| queues.send(Q, delay, *body).unwrap())
        .collect();
    for begun in delayed {
        finish(&queues, begun);
    }
    queues.wait_until_due(|| true);
    send(&queues, Q, "c").unwrap();
    drop(queues);
    let queues = disk.open().unwrap();
    let next = |after: &Place| {
        queues.peek(Q, *after, |reply| match reply {
            Reply::Peeked { position, .. } => Some(position),
            _ => None,
        })
    };
    let seen = std::iter::successors(Some(0), next).count() - 1;
    assert_eq!(seen, 3, "each has a place of its own");
    assert_eq!(all(&queues, Q), ["a", "b", "c"]);
}

#[test]
fn a_pause_that_is_not_stored_is_none() {
    let disk = Disk::with(&["a"]);
    let queues = disk.open().unwrap();
    refuse(&disk, "INSERT ON paused");
    assert!(matches!(
        queues.pause(Q, true),
        Err(QueueError::NotStored(_))
    ));
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn a_paused_queue_without_a_name_is_passed_over() {
    let disk = Disk::with(&["a"]);
    let long = "x".repeat(300);
    disk.sql(&format!(
        "INSERT INTO paused VALUES ('{long}'), (x'00'), ('p')"
    ));
    let queues = disk.open().unwrap();
    let mut encoded = Vec::new();
    queues.stats(|reply| proto::frame::Message::encode(&reply, &mut encoded));
    stats_of(&queues, |_, queues| {
        let names: Vec<_> = queues.iter().map(|queue| &*queue.name).collect();
        assert_eq!(names, ["default", "p"]);
    });
}

#[test]
fn what_a_message_is_read_into_has_room_until_the_message_has() {
    let queues = Queues::in_memory(Limits {
        body_bytes_max: 70_000,
        queue_bytes_max: 65_000,
        memory_bytes_max: 100_000,
        ..limits()
    });
    let memory = &queues.shared.memory;
    let mut room = Room::new(memory);
    // There is not enough for both at once.
    assert!(room.grow_to(60_000));
    let sent = queues.send_from(&mut room, Q, Duration::ZERO, &[b'x'; 60_000]);
    finish(&queues, sent.unwrap());
    assert_eq!(memory.taken(), 60_064);
    assert!(room.grow_to(50_000));
    let taken = memory.taken();
    // What is refused before it could need room leaves that to whoever has it.
    let too_large = queues.send_from(&mut room, Q, Duration::ZERO, &[b'x'; 70_001]);
    assert!(matches!(too_large, Err(QueueError::TooLarge { .. })));
    assert_eq!(memory.taken(), taken);
    let full = queues.send_from(&mut room, Q, Duration::ZERO, &[b'x'; 50_000]);
    assert_eq!(full.err(), Some(QueueError::TooManyBytes(65_000)));
    assert_eq!(memory.taken(), 60_064);
}
