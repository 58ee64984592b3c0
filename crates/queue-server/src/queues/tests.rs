use std::path::PathBuf;
use std::time::Instant;

use proto::queue::{MessageId, MessageState, Reason, Retry, Totals};

use super::*;
use crate::clock::Micros;
use crate::error::QUEUES_MAX;
use crate::message::Holder;
use crate::position::Position;
use crate::timer::Timer;

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
        key_window: Duration::from_secs(600),
    }
}

fn name(name: &str) -> QueueName<'_> {
    QueueName::new(name).unwrap()
}

impl Queues {
    /// Reserves the oldest message; `None` also if the queue is paused.
    pub(crate) fn reserve(&self, queue: QueueName) -> Option<Reserved> {
        match self.receive(&queue.into(), Delivery::AtLeastOnce, usize::MAX) {
            Ok(Prepared::Done(Outcome::Reserved(reserved))) => Some(reserved),
            _ => None,
        }
    }

    /// Sends a message without room.
    pub(crate) fn submit_body(
        &self,
        queue: QueueName,
        delay: Duration,
        body: &[u8],
    ) -> Result<Prepared, QueueError> {
        let operation =
            match self.send_operation(&Sender::default(), body, &Properties::default())? {
                Operation::Send(message, _) => Operation::Send(message, delay),
                other @ Operation::Receive(_) => other,
            };
        self.act(queue, operation)
    }

    /// Requeues a message, as when its receiver is gone.
    pub(crate) fn lose(&self, reserved: Reserved) {
        self.requeue(reserved, CONNECTION_ENDED);
    }

    /// Releases a message for no reason.
    fn give_back(&self, reserved: Reserved, delay: Duration) -> Prepared {
        let delay_millis = delay.as_millis() as u32;
        self.release(reserved, Retry::Counted { delay_millis }, Reason::default())
    }

    /// Does at most this much of what is due by then.
    fn do_due(&self, now: Micros, count_max: usize) -> due::WasDue {
        self.shared
            .lock()
            .pop_due(now, &self.shared.clock, count_max)
    }

    /// Undoes a reservation.
    pub(crate) fn reinsert(&self, reserved: Reserved) {
        self.shared.lock().unreserve(reserved);
    }

    /// Leases the oldest message.
    #[track_caller]
    pub(crate) fn lease(&self, queue: QueueName, lease: Duration) -> Token {
        let lease_millis = lease.as_millis() as u32;
        let pending = self.receive(&queue.into(), Delivery::Lease { lease_millis }, usize::MAX);
        match self.carry_out(pending.unwrap()) {
            Ok(Outcome::Reserved(leased)) => {
                let token = leased.lease.unwrap().token;
                self.start_lease(leased);
                token
            }
            other => panic!("{other:?}"),
        }
    }

    /// When the lease with this token expires.
    pub(crate) fn expires_at(&self, token: Token) -> Micros {
        let state = self.shared.lock();
        let leases_of = |queue: &queue::Queue| {
            let leases = queue.reserved.values().filter_map(|one| match one.holder {
                Holder::Lease(lease) => Some(lease),
                Holder::Connection(_) => None,
            });
            leases.into_iter().find(|lease| lease.token == token)
        };
        let lease = state.queues.values().find_map(leases_of);
        lease.expect("it is leased").expires_at
    }
}

#[track_caller]
fn finish(queues: &Queues, pending: Prepared) -> MessageId {
    match queues.carry_out(pending).unwrap() {
        Outcome::Stored(id) => id,
        _ => 0,
    }
}

#[track_caller]
fn send(queues: &Queues, queue: QueueName, body: &str) -> Result<MessageId, QueueError> {
    let pending = queues.submit_body(queue, Duration::ZERO, body.as_bytes())?;
    Ok(finish(queues, pending))
}

fn queues_of(bodies: &[&str]) -> Queues {
    let queues = Queues::in_memory(limits());
    for body in bodies {
        send(&queues, Q, body).unwrap();
    }
    queues
}

fn body(reserved: &Reserved) -> String {
    String::from_utf8(reserved.message.body.to_vec()).unwrap()
}

/// Receives and acknowledges everything.
fn all(queues: &Queues, queue: QueueName) -> Vec<String> {
    let next = || {
        let reserved = queues.reserve(queue)?;
        let body = body(&reserved);
        finish(queues, queues.ack(reserved));
        Some(body)
    };
    std::iter::from_fn(next).collect()
}

#[track_caller]
fn lease(queues: &Queues, lease: Duration) -> Token {
    queues.lease(Q, lease)
}

fn stats_of<R>(queues: &Queues, look: impl FnOnce(Totals, Vec<Figures>) -> R) -> R {
    let stats = queues.stats();
    look(stats.totals, stats.queues)
}

struct Waiting(std::sync::mpsc::SyncSender<()>);

impl Wake for Waiting {
    fn wake(&self) {
        let _ = self.0.try_send(());
    }
}

fn waiting() -> (Arc<dyn Wake>, std::sync::mpsc::Receiver<()>) {
    let (wake, woken) = std::sync::mpsc::sync_channel(1);
    (Arc::new(Waiting(wake)), woken)
}

#[test]
fn first_in_first_out() {
    assert_eq!(all(&queues_of(&["a", "", "c"]), Q), ["a", "", "c"]);
}

fn receive() -> Operation {
    Operation::Receive(Receive::any(Handout::AtMostOnce))
}

/// Acts on a batch: a body to send, or nothing to receive. Tells the outcome of each.
fn run(queues: &Queues, queue: QueueName, requests: &[&str]) -> Vec<String> {
    let operation = |request: &&str| match *request {
        "" => receive(),
        body => Operation::Send(Message::plain(body.as_bytes()), Duration::ZERO),
    };
    let mut batch = requests.iter().map(operation).collect();
    let mut done = Vec::new();
    queues.run(queue, &mut batch, &mut done, usize::MAX);
    assert!(batch.is_empty());
    let shown = |outcome: Result<Outcome, QueueError>| match outcome {
        Ok(Outcome::Stored(id)) => id.to_string(),
        Ok(Outcome::Delivered(message, _)) => String::from_utf8(message.body.to_vec()).unwrap(),
        Ok(Outcome::Empty) => "-".to_owned(),
        Ok(other) => panic!("{other:?}"),
        Err(error) => format!("{error:?}"),
    };
    done.into_iter().map(shown).collect()
}

#[test]
fn a_batch_ends_when_what_is_received_is_enough() {
    let queues = queues_of(&["abc", "def", "ghi"]);
    let mut batch = (0..3).map(|_| receive()).collect();
    for (bytes_max, want, left) in [(4, 2, 1), (3, 1, 0)] {
        let mut done = Vec::new();
        queues.run(Q, &mut batch, &mut done, bytes_max);
        assert_eq!((done.len(), batch.len()), (want, left));
    }
}

#[test]
fn a_batch_is_acted_on_in_order() {
    let queues = queues_of(&["a"]);
    let other = queues.reserve(Q).unwrap();
    assert_eq!(
        run(&queues, Q, &["b", "", "", "c", "d"]),
        ["2", "b", "-", "3", "4"]
    );
    // What is reserved counts, and comes back to its position.
    queues.lose(other);
    assert_eq!(run(&queues, Q, &["e", "", ""]), ["5", "a", "c"]);
    assert_eq!(all(&queues, Q), ["d", "e"]);
    assert_eq!(run(&queues, name("jobs"), &["", "f", ""]), ["-", "6", "f"]);
    stats_of(&queues, |totals, left| {
        assert_eq!((totals.sent, totals.received, totals.acked), (6, 7, 6));
        assert_eq!((totals.memory_bytes, left.len()), (0, 0));
    });
}

#[test]
fn a_batch_is_subject_to_the_limits() {
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
fn a_batch_wakes_a_waiter() {
    let queues = queues_of(&[]);
    let (wake, woken) = waiting();
    let waiter = queues.add_waiter(&Q.into(), wake).unwrap();
    let waiting = || stats_of(&queues, |_, queues| queues[0].waiters);
    assert_eq!(waiting(), 1);
    run(&queues, Q, &["a"]);
    assert_eq!(waiting(), 0);
    woken.try_recv().unwrap();
    drop(waiter);
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn queues_are_made_on_first_use_and_gone_when_unused() {
    let queues = queues_of(&["a"]);
    send(&queues, name("jobs"), "b").unwrap();
    assert_eq!(queues.reserve(name("other")), None);
    let names = |queues: &Queues| {
        stats_of(queues, |_, queues| {
            queues
                .iter()
                .map(|q| q.name.to_string())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(names(&queues), ["default", "jobs"]);
    let reserved = queues.reserve(name("jobs")).unwrap();
    assert_eq!(
        names(&queues),
        ["default", "jobs"],
        "somebody has one reserved"
    );
    finish(&queues, queues.ack(reserved));
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
fn what_is_requeued_goes_to_its_old_position_and_what_is_released_to_the_end() {
    let queues = queues_of(&["a", "b", "c"]);
    let (first, second) = (queues.reserve(Q).unwrap(), queues.reserve(Q).unwrap());
    assert_eq!(first.message.attempts, 1);
    queues.lose(second);
    finish(&queues, queues.give_back(first, Duration::ZERO));
    assert_eq!(all(&queues, Q), ["b", "c", "a"]);
}

#[test]
fn what_is_unreserved_was_no_attempt() {
    let disk = Disk::with(&["a", "b"]);
    let queues = disk.open().unwrap();
    for _ in 0..2 * limits().attempts_max {
        let reserved = queues.reserve(Q).unwrap();
        assert_eq!(
            (body(&reserved).as_str(), reserved.message.attempts),
            ("a", 1)
        );
        finish(&queues, queues.unreserve(reserved));
        let token = lease(&queues, LONG);
        finish(&queues, queues.unreserve(queues.claim(token).unwrap()));
    }
    drop(queues);
    let queues = disk.open().unwrap();
    let reserved = queues.reserve(Q).unwrap();
    assert_eq!(
        (body(&reserved).as_str(), reserved.message.attempts),
        ("a", 1)
    );
}

#[test]
fn a_restart_is_an_attempt_that_makes_no_dead_letter() {
    let disk = Disk::with(&["a"]);
    for attempt in 1..=2 * limits().attempts_max {
        let queues = disk.open().unwrap();
        let reserved = queues.reserve(Q).unwrap();
        assert_eq!(reserved.message.attempts, attempt);
        queues.requeue_at_stop(reserved);
    }
}

#[test]
fn a_release_tells_whether_the_message_is_a_dead_letter() {
    let queues = queues_of(&["a"]);
    let release = |queue| {
        let pending = queues.give_back(queues.reserve(queue).unwrap(), Duration::ZERO);
        queues
            .carry_out(pending)
            .map(|outcome| outcome == Outcome::Done(1))
    };
    assert!(release(Q).unwrap());
    assert!(!release(Q).unwrap());
    // A dead letter stays where it is.
    assert!(release(name("default.dead")).unwrap());
}

#[test]
fn what_was_handed_out_too_often_is_a_dead_letter_until_it_is_kicked() {
    let queues = queues_of(&["bad", "good"]);
    queues.lose(queues.reserve(Q).unwrap());
    finish(&queues, queues.give_back(queues.reserve(Q).unwrap(), LONG));
    assert_eq!(all(&queues, Q), ["good"]);
    let dead = name("default.dead");
    // There it can be received any number of times.
    for _ in 0..5 {
        queues.lose(queues.reserve(dead).unwrap());
    }
    stats_of(&queues, |totals, queues| {
        assert_eq!((&*queues[0].name, queues[0].ready), ("default.dead", 1));
        assert_eq!(
            (totals.dead_lettered, totals.released, totals.requeued),
            (1, 1, 6)
        );
    });
    assert_eq!(queues.kick(Q), Ok(1));
    let reserved = queues.reserve(Q).unwrap();
    assert_eq!(
        (body(&reserved).as_str(), reserved.message.attempts),
        ("bad", 1)
    );
    queues.lose(reserved);
    assert_eq!(queues.reserve(dead), None);
}

#[test]
fn a_lease_is_ended_by_its_token_alone() {
    let queues = queues_of(&["a", "b"]);
    let token = lease(&queues, LONG);
    assert_eq!(queues.claim(Token::new_v4()), Err(QueueError::NoLease));
    let reserved = queues.claim(token).unwrap();
    finish(&queues, queues.ack(reserved));
    assert_eq!(queues.claim(token), Err(QueueError::NoLease));
    assert_eq!(queues.extend(token, LONG).err(), Some(QueueError::NoLease));
    assert_eq!(all(&queues, Q), ["b"]);
}

#[test]
fn the_timer_ends_leases_and_delays() {
    let queues = Arc::new(queues_of(&["a", "b"]));
    let _timer = Timer::start(&queues).unwrap();
    let kept = lease(&queues, Duration::from_millis(5));
    finish(&queues, queues.extend(kept, LONG).unwrap());
    lease(&queues, Duration::from_millis(400));
    let delayed = queues
        .submit_body(Q, Duration::from_millis(10), b"c")
        .unwrap();
    finish(&queues, delayed);
    let next = || {
        let (wake, woken) = waiting();
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            if let Some(reserved) = queues.reserve(Q) {
                let body = body(&reserved);
                finish(&queues, queues.ack(reserved));
                return body;
            }
            let waiter = queues.add_waiter(&Q.into(), Arc::clone(&wake)).unwrap();
            if waiter.is_some() {
                woken.recv_timeout(LONG).unwrap();
            }
        }
        panic!("no message");
    };
    assert_eq!([next(), next()], ["c", "b"]);
    assert!(
        queues
            .claim(kept)
            .is_ok_and(|reserved| body(&reserved) == "a")
    );
}

#[test]
fn there_is_no_waiter_for_what_is_ready() {
    let queues = queues_of(&["a"]);
    let (wake, _woken) = waiting();
    assert!(
        queues
            .add_waiter(&Q.into(), Arc::clone(&wake))
            .unwrap()
            .is_none()
    );
    assert_eq!(all(&queues, Q), ["a"]);
    drop(queues.add_waiter(&Q.into(), wake).unwrap().unwrap());
    stats_of(&queues, |_, queues| assert!(queues.is_empty()));
}

#[test]
fn limits_are_named_in_refusals() {
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
        "a message of 4 bytes exceeds the limit of 3 bytes",
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
fn there_is_a_limit_on_queues() {
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
fn a_purge_leaves_what_is_reserved() {
    let queues = queues_of(&["a", "b", "c"]);
    finish(&queues, queues.submit_body(Q, LONG, b"d").unwrap());
    let reserved = queues.reserve(Q).unwrap();
    assert_eq!(queues.purge(Q), Ok(3));
    queues.lose(reserved);
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn a_pause_holds_messages_back() {
    let queues = queues_of(&["a"]);
    queues.pause(Q, true).unwrap();
    send(&queues, Q, "b").unwrap();
    let paused = queues.receive(&Q.into(), Delivery::AtLeastOnce, usize::MAX);
    let paused = paused.err().unwrap();
    assert_eq!(paused.to_string(), "the queue 'default' is paused");
    queues.pause(Q, false).unwrap();
    assert_eq!(all(&queues, Q), ["a", "b"]);
}

#[test]
fn a_queue_exists_while_something_would_be_lost_without_it() {
    #[track_caller]
    fn check(queues: &Queues, is_there: bool) {
        let refused = || QueueError::NoQueue("default".to_owned());
        let want = |messages| is_there.then_some(messages).ok_or_else(refused);
        // A pause and a kick concern no message here; a purge leaves what is reserved.
        assert_eq!(queues.pause(Q, true), want(0));
        assert_eq!(queues.pause(Q, false), want(0));
        assert_eq!(queues.kick(Q).is_ok(), is_there);
        assert_eq!(queues.purge(Q).is_ok(), is_there);
    }
    let queues = queues_of(&[]);
    check(&queues, false);
    assert_eq!(queues.reserve(Q), None);
    run(&queues, Q, &[""]);
    stats_of(&queues, |_, queues| assert!(queues.is_empty()));
    assert_eq!(
        queues.kick(Q).unwrap_err().to_string(),
        "there is no queue 'default'"
    );
    // Reserved, leased, delayed.
    send(&queues, Q, "a").unwrap();
    let reserved = queues.reserve(Q).unwrap();
    check(&queues, true);
    finish(&queues, queues.ack(reserved));
    check(&queues, false);
    send(&queues, Q, "a").unwrap();
    let token = lease(&queues, LONG);
    check(&queues, true);
    finish(
        &queues,
        queues.give_back(queues.claim(token).unwrap(), LONG),
    );
    check(&queues, true);
    check(&queues, false);
    // Paused.
    send(&queues, Q, "a").unwrap();
    queues.pause(Q, true).unwrap();
    let last = queues.shared.lock().reserve_some("default", false, 1);
    for last in last {
        finish(&queues, queues.ack(last));
    }
    assert_eq!((queues.purge(Q), queues.kick(Q)), (Ok(0), Ok(0)));
    assert_eq!(queues.pause(Q, false), Ok(0));
    check(&queues, false);
    // A waiter.
    let (wake, _woken) = waiting();
    let waiter = queues.add_waiter(&Q.into(), wake).unwrap();
    check(&queues, true);
    drop(waiter);
    check(&queues, false);
    // Nothing but dead letters.
    send(&queues, Q, "a").unwrap();
    for _ in 0..limits().attempts_max {
        queues.lose(queues.reserve(Q).unwrap());
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
        finish(&queues, queues.submit_body(queue, delay, b"x").unwrap());
        send(&queues, Q, "y").unwrap();
        lease(&queues, Duration::ZERO);
    }
    let long = queues.submit_body(name("long"), LONG, b"z").unwrap();
    finish(&queues, long);
    let shared = &queues.shared;
    let now = shared.clock.after(Duration::from_secs(1));
    let due = || shared.lock().common.schedule.len();
    assert_eq!(due(), 5001);
    let (mut promoted, mut expired) = (0, 0);
    while promoted + expired < 3000 {
        let was_due = queues.do_due(now, 1000);
        assert_eq!(was_due.promoted + was_due.leased.len(), 1000);
        promoted += was_due.promoted;
        expired += was_due.leased.len();
        assert_eq!(due(), 5001 - promoted - expired);
        let (least, most) = (promoted / 50 - 2, promoted / 50 + 3);
        let state = shared.lock();
        let ready: Vec<_> = names
            .iter()
            .map(|name| state.queues[name.as_str()].ready())
            .collect();
        assert!(
            ready.iter().all(|ready| (least..=most).contains(ready)),
            "{ready:?}"
        );
        drop(state);
        for leased in was_due.leased {
            queues.lose(leased);
        }
    }
    // The rest.
    for _ in 0..2 {
        queues.wait_until_due(|| true);
    }
    assert_eq!(all(&queues, Q).len(), 2500);
    // A purged message is not due.
    assert_eq!(queues.purge(name("long")), Ok(1));
    assert_eq!(due(), 0);
}

mod one;
mod properties;

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
fn a_database_keeps_what_is_not_acknowledged_in_its_old_position() {
    let disk = Disk::with(&["a", "b", "", "d"]);
    let queues = disk.open().unwrap();
    let first = queues.reserve(Q).unwrap();
    let second = queues.reserve(Q).unwrap();
    finish(&queues, queues.ack(second));
    assert!(disk.open().is_err(), "two servers on one file");
    queues.lose(first);
    drop(queues);
    let queues = disk.open().unwrap();
    let first = queues.reserve(Q).unwrap();
    assert_eq!((body(&first).as_str(), first.message.attempts), ("a", 2));
    queues.lose(first);
    send(&queues, Q, "e").unwrap();
    drop(queues);
    let queues = disk.open().unwrap();
    assert_eq!(all(&queues, name("default.dead")), ["a"]);
    assert_eq!(all(&queues, Q), ["", "d", "e"]);
}

#[test]
fn a_database_keeps_positions_leases_delays_and_pauses() {
    let disk = Disk::with(&["a", "b", "c"]);
    let queues = disk.open().unwrap();
    let token = lease(&queues, LONG);
    let short = lease(&queues, LONG);
    finish(&queues, queues.extend(short, Duration::ZERO).unwrap());
    finish(&queues, queues.give_back(queues.reserve(Q).unwrap(), LONG));
    send(&queues, Q, "d").unwrap();
    let soon = queues
        .submit_body(Q, Duration::from_micros(1), b"e")
        .unwrap();
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
    let reserved = queues.claim(token).unwrap();
    assert_eq!(body(&reserved), "a");
    finish(&queues, queues.ack(reserved));
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
        queues.lose(queues.reserve(Q).unwrap());
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
    check_refused_at_start("PRAGMA user_version = 5", "schema version 5");
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
    // The name by which SQLite means memory is that of a file here.
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

/// Makes the database refuse a kind of change.
fn refuse(disk: &Disk, change: &str) {
    disk.sql(&format!(
        "DROP TRIGGER IF EXISTS refuse;
         CREATE TRIGGER refuse BEFORE {change} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    ));
}

#[test]
fn what_is_not_stored_is_not_done() {
    #[track_caller]
    fn check(queues: &Queues, pending: Prepared) {
        let refused = queues.carry_out(pending).unwrap_err();
        assert!(matches!(refused, QueueError::NotStored(_)), "{refused}");
    }
    let disk = Disk::with(&["a", "b", "c"]);
    let queues = disk.open().unwrap();
    let token = lease(&queues, LONG);
    refuse(&disk, "UPDATE ON messages");
    check(&queues, queues.extend(token, Duration::ZERO).unwrap());
    queues.wait_until_due(|| true);
    let leased = queues.claim(token).unwrap();
    check(&queues, queues.give_back(leased, Duration::ZERO));
    let receive = |delivery| queues.receive(&Q.into(), delivery, usize::MAX).unwrap();
    check(
        &queues,
        receive(Delivery::Lease {
            lease_millis: 3_600_000,
        }),
    );
    let reserved = queues.reserve(Q).unwrap();
    check(&queues, queues.give_back(reserved, Duration::ZERO));
    let reserved = queues.reserve(Q).unwrap();
    let buried = queues.release(reserved, Retry::Never, Reason::default());
    check(&queues, buried);
    let totals = queues.stats().totals;
    assert_eq!((totals.released, totals.dead_lettered), (0, 0));
    assert_eq!(queues.counts().get("default").died, 0);
    refuse(&disk, "DELETE ON messages");
    check(&queues, receive(Delivery::AtMostOnce));
    let leased = queues.claim(token).unwrap();
    check(&queues, queues.ack(leased));
    disk.sql("DROP TRIGGER refuse");
    let reserved = queues.reserve(Q).unwrap();
    assert_eq!(
        (body(&reserved).as_str(), reserved.message.attempts),
        ("b", 3)
    );
    queues.reinsert(reserved);
    assert_eq!(all(&queues, Q), ["b", "c"]);
    let leased = queues.claim(token).unwrap();
    assert_eq!(body(&leased), "a");
    finish(&queues, queues.ack(leased));
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
        .map(|body| queues.submit_body(Q, delay, *body).unwrap())
        .collect();
    for pending in delayed {
        finish(&queues, pending);
    }
    queues.wait_until_due(|| true);
    send(&queues, Q, "c").unwrap();
    drop(queues);
    let queues = disk.open().unwrap();
    let next = |after: &Position| match queues.peek(Q, MessageState::Ready, *after) {
        Outcome::Peeked(peeked) => Some(peeked.message.position),
        _ => None,
    };
    let seen = std::iter::successors(Some(Position::FRONT), next).count() - 1;
    assert_eq!(seen, 3, "each has a position of its own");
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
    let stats = Outcome::Stats(Box::new(queues.stats()));
    crate::replies::put_reply(Ok(&stats), &mut Vec::new());
    stats_of(&queues, |_, queues| {
        let names: Vec<_> = queues.iter().map(|queue| &*queue.name).collect();
        assert_eq!(names, ["default", "p"]);
    });
}

#[test]
fn a_frame_is_on_the_account_until_its_message_is() {
    let queues = Queues::in_memory(Limits {
        body_bytes_max: 70_000,
        queue_bytes_max: 65_000,
        memory_bytes_max: 100_000,
        ..limits()
    });
    let memory = &queues.shared.memory;
    let mut room = Room::new(memory);
    // There is no room for both at once.
    assert!(room.grow_to(60_000));
    let send = |body: &[u8], room: &mut Room| {
        queues.send(
            &Sender::default(),
            Q,
            &Properties::default(),
            body,
            Some(room),
        )
    };
    let sent = send(&[b'x'; 60_000], &mut room);
    finish(&queues, sent.unwrap());
    assert_eq!(memory.allocated(), 60_064);
    assert!(room.grow_to(50_000));
    let taken = memory.allocated();
    // A message that is refused for its length leaves the frame on the account.
    let too_large = send(&[b'x'; 70_001], &mut room);
    assert!(matches!(too_large, Err(QueueError::TooLarge { .. })));
    assert_eq!(memory.allocated(), taken);
    let full = send(&[b'x'; 50_000], &mut room);
    assert_eq!(full.err(), Some(QueueError::TooManyBytes(65_000)));
    assert_eq!(memory.allocated(), 60_064);
}
