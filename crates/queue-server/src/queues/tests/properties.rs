//! What few messages have: a priority, an expiry, a limit of their own, a reason.

use proto::queue::Priority;

use super::*;

const HOUR_MILLIS: u32 = 3_600_000;

fn dead() -> QueueName<'static> {
    name("default.dead")
}

#[track_caller]
fn send_with(queues: &Queues, properties: &Properties, body: &str) -> MessageId {
    let sent = queues.send(&Sender::default(), Q, properties, body.as_bytes(), None);
    finish(queues, sent.unwrap())
}

fn of_priority(priority: u8) -> Properties<'static> {
    Properties {
        priority: Priority::new(priority).unwrap(),
        ..Properties::default()
    }
}

fn expiring(expiry_millis: u32) -> Properties<'static> {
    Properties {
        expiry_millis,
        ..Properties::default()
    }
}

/// Does all that is due in this long.
fn pass(queues: &Queues, time: Duration) {
    let now = queues.shared.clock.after(time);
    loop {
        let was_due = queues.do_due(now, 10);
        if was_due.promoted + was_due.leased.len() + was_due.expired.len() == 0 {
            break;
        }
        for leased in was_due.leased {
            queues.requeue(leased, requeue::LEASE_EXPIRED);
        }
        for expired in was_due.expired {
            queues.expire(expired);
        }
    }
}

/// The first message of a queue as a peer sees it: its attempts, and why the last one ended.
fn peeked(queues: &Queues, queue: QueueName) -> Option<(u32, String)> {
    match queues.peek(queue, MessageState::Ready, Position::FRONT) {
        Outcome::Peeked(peeked) => {
            let message = &peeked.message;
            Some((message.attempts, message.reason().to_owned()))
        }
        _ => None,
    }
}

#[track_caller]
fn check_nothing_is_left(queues: &Queues) {
    stats_of(queues, |totals, queues| {
        assert_eq!((queues.len(), totals.memory_bytes), (0, 0), "{queues:?}");
    });
    assert_eq!(queues.shared.lock().common.schedule.len(), 0);
}

#[test]
fn a_higher_priority_is_received_first_also_after_a_restart_and_among_the_dead() {
    for disk in Disk::each(&["0a", "0b"]) {
        let queues = disk.open().unwrap();
        for (priority, body) in [(5, "5a"), (9, "9a"), (5, "5b"), (9, "9b"), (0, "0c")] {
            send_with(&queues, &of_priority(priority), body);
        }
        let first = queues.reserve(Q).unwrap();
        assert_eq!(body(&first), "9a");
        // It goes behind the other of its priority.
        finish(&queues, queues.give_back(first, Duration::ZERO));
        let delayed = Properties {
            delay_millis: 1000,
            ..of_priority(9)
        };
        send_with(&queues, &delayed, "9c");
        drop(queues);
        let queues = disk.open().unwrap();
        pass(&queues, Duration::from_secs(2));
        let order = ["9b", "9a", "9c", "5a", "5b", "0a", "0b", "0c"];
        while let Some(reserved) = queues.reserve(Q) {
            queues.lose(reserved);
        }
        assert_eq!(queues.count_of(queues.kick(Q)), Ok(8));
        assert_eq!(all(&queues, Q), order);
        check_nothing_is_left(&queues);
    }
}

#[test]
fn a_message_may_have_attempts_of_its_own() {
    for disk in Disk::each(&[]) {
        let queues = disk.open().unwrap();
        for attempts_max in [1, 3] {
            let properties = Properties {
                attempts_max,
                ..Properties::default()
            };
            send_with(&queues, &properties, &attempts_max.to_string());
        }
        drop(queues);
        let queues = disk.open().unwrap();
        queues.lose(queues.reserve(Q).unwrap());
        assert_eq!(peeked(&queues, Q), Some((0, String::new())));
        for _ in 0..limits().attempts_max {
            queues.lose(queues.reserve(Q).unwrap());
        }
        assert_eq!(all(&queues, dead()), ["1"]);
        assert_eq!(all(&queues, Q), ["3"], "others have two attempts");
        check_nothing_is_left(&queues);
    }
}

#[test]
fn a_release_says_what_becomes_of_a_message() {
    #[track_caller]
    fn check(retry: Retry, rounds: u32, is_dead: bool, attempts: u32) {
        let queues = queues_of(&["a"]);
        for _ in 0..rounds {
            let reserved = queues.reserve(Q).unwrap();
            let pending = queues.release(reserved, retry, Reason::new("why"));
            queues.carry_out(pending).unwrap();
        }
        let (there, other) = if is_dead { (dead(), Q) } else { (Q, dead()) };
        assert_eq!(peeked(&queues, there), Some((attempts, "why".to_owned())));
        assert_eq!(peeked(&queues, other), None);
        // Dead letters stay where they are.
        if is_dead {
            let reserved = queues.reserve(dead()).unwrap();
            let pending = queues.release(reserved, retry, Reason::default());
            assert_eq!(queues.carry_out(pending), Ok(Outcome::Done(1)));
        }
        assert_eq!(all(&queues, there), ["a"]);
        check_nothing_is_left(&queues);
    }
    let delay_millis = 0;
    check(Retry::Counted { delay_millis }, 1, false, 1);
    check(Retry::Counted { delay_millis }, 2, true, 2);
    check(Retry::Uncounted { delay_millis }, 9, false, 0);
    check(Retry::Never, 1, true, 1);
}

#[test]
fn why_an_attempt_ended_is_kept_until_the_next_one_ends() {
    for disk in Disk::each(&["a"]) {
        let queues = disk.open().unwrap();
        let why = |queues: &Queues| peeked(queues, Q).or(peeked(queues, dead())).unwrap().1;
        let again = Retry::Uncounted { delay_millis: 0 };
        let long = "x".repeat(2048);
        for reason in ["exit status: 1: no such file\n", &long, "", "short"] {
            let reserved = queues.reserve(Q).unwrap();
            finish(
                &queues,
                queues.release(reserved, again, Reason::new(reason)),
            );
            assert_eq!(why(&queues), reason);
        }
        drop(queues);
        let queues = disk.open().unwrap();
        assert_eq!(why(&queues), "short");
        lease(&queues, Duration::ZERO);
        pass(&queues, LONG);
        assert!(why(&queues).starts_with("the lease expired"));
        // Only looked at.
        finish(&queues, queues.unreserve(queues.reserve(Q).unwrap()));
        queues.requeue_at_stop(queues.reserve(Q).unwrap());
        assert!(why(&queues).starts_with("the server stopped"));
        queues.lose(queues.reserve(Q).unwrap());
        assert_eq!(peeked(&queues, dead()).unwrap().0, 3);
        drop(queues);
        let queues = disk.open().unwrap();
        assert!(why(&queues).starts_with("the connection ended"));
        assert_eq!(queues.count_of(queues.kick(Q)), Ok(1));
        finish(&queues, queues.ack(queues.reserve(Q).unwrap()));
        check_nothing_is_left(&queues);
    }
}

#[test]
fn a_reason_is_left_out_when_the_server_is_full() {
    let queues = queues_of(&["a"]);
    let memory = &queues.shared.memory;
    let room = limits().memory_bytes_max - memory.allocated() - 200;
    memory.allocate(room).unwrap();
    let again = Retry::Uncounted { delay_millis: 0 };
    for (reason, want) in [
        ("short", "short"),
        (&*"x".repeat(300), ""),
        ("short", "short"),
    ] {
        let reserved = queues.reserve(Q).unwrap();
        finish(
            &queues,
            queues.release(reserved, again, Reason::new(reason)),
        );
        assert_eq!(peeked(&queues, Q).unwrap().1, want);
    }
    assert_eq!(all(&queues, Q), ["a"]);
    memory.free(room);
    check_nothing_is_left(&queues);
}

#[test]
fn what_expires_undelivered_is_a_dead_letter_with_its_reason() {
    let queues = queues_of(&["stays"]);
    send_with(&queues, &expiring(1000), "a");
    send_with(&queues, &expiring(HOUR_MILLIS), "later");
    let delayed = Properties {
        delay_millis: HOUR_MILLIS,
        ..expiring(1000)
    };
    send_with(&queues, &delayed, "delayed");
    send_with(&queues, &expiring(1000), "acked");
    send_with(&queues, &expiring(1000), "reserved");
    let purged = name("purged");
    finish(
        &queues,
        queues
            .send(&Sender::default(), purged, &delayed, b"", None)
            .unwrap(),
    );
    assert_eq!(queues.count_of(queues.purge(purged)), Ok(1));
    let mut received: Vec<_> = (0..5).map_while(|_| queues.reserve(Q)).collect();
    let due = queues.shared.lock().common.schedule.len();
    assert_eq!(due, 2, "the delay and the expiry of what is not reserved");
    let reserved = received.pop().unwrap();
    finish(&queues, queues.ack(received.pop().unwrap()));
    received.into_iter().for_each(|one| queues.reinsert(one));
    pass(&queues, Duration::from_secs(2));
    // Nobody has given it up yet.
    assert_eq!(body(&reserved), "reserved");
    assert_eq!(all(&queues, Q), ["stays", "later"]);
    let why = peeked(&queues, dead()).unwrap();
    assert_eq!(why, (0, "expired after 0 s in the queue".to_owned()));
    // What was delivered in time and given up too late is tried no more, and has both reasons.
    let again = Retry::Counted { delay_millis: 0 };
    finish(
        &queues,
        queues.release(reserved, again, Reason::new("it failed")),
    );
    assert_eq!(all(&queues, dead()), ["a", "delayed"]);
    pass(&queues, Duration::from_secs(2));
    let why = peeked(&queues, dead()).unwrap();
    let want = "expired after 0 s in the queue; before that: it failed";
    assert_eq!(why, (1, want.to_owned()));
    assert_eq!(queues.count_of(queues.kick(Q)), Ok(1));
    pass(&queues, LONG);
    assert_eq!(all(&queues, Q), ["reserved"]);
    check_nothing_is_left(&queues);
}

#[test]
fn what_is_promoted_still_expires() {
    let queues = queues_of(&[]);
    let delayed = Properties {
        delay_millis: 1000,
        ..expiring(3000)
    };
    send_with(&queues, &delayed, "a");
    pass(&queues, Duration::from_secs(2));
    assert_eq!(peeked(&queues, Q), Some((0, String::new())));
    pass(&queues, Duration::from_secs(4));
    assert_eq!(all(&queues, Q), [""; 0]);
    assert_eq!(all(&queues, dead()), ["a"]);
    check_nothing_is_left(&queues);
}

#[test]
fn a_message_expires_over_a_restart_too() {
    for disk in Disk::each(&["stays"]) {
        let queues = disk.open().unwrap();
        send_with(&queues, &expiring(1), "over");
        send_with(&queues, &expiring(HOUR_MILLIS), "later");
        drop(queues);
        let queues = disk.open().unwrap();
        pass(&queues, Duration::from_secs(1));
        assert_eq!(all(&queues, dead()), ["over"]);
        drop(queues);
        let queues = disk.open().unwrap();
        assert_eq!(queues.shared.lock().common.schedule.len(), 1);
        pass(&queues, 2 * LONG);
        drop(queues);
        let queues = disk.open().unwrap();
        assert!(peeked(&queues, dead()).unwrap().1.starts_with("expired"));
        assert_eq!(all(&queues, dead()), ["later"]);
        assert_eq!(all(&queues, Q), ["stays"]);
        check_nothing_is_left(&queues);
    }
}

#[test]
fn the_timer_moves_what_has_expired() {
    let queues = Arc::new(queues_of(&[]));
    let _timer = Timer::start(&queues).unwrap();
    let (wake, woken) = waiting();
    let waiter = queues.add_waiter(&dead().into(), wake).unwrap();
    send_with(&queues, &expiring(1), "a");
    woken.recv_timeout(LONG).unwrap();
    assert_eq!(all(&queues, dead()), ["a"]);
    drop(waiter);
}

/// What the messages of all queues cost, as the account has it and as their queues have it.
fn cost(queues: &Queues) -> usize {
    let state = queues.shared.lock();
    let sum = state.queues.values().map(|queue| queue.bytes).sum();
    assert_eq!(queues.memory().allocated(), sum);
    sum
}

/// A delay costs memory while it lasts, however it ends.
#[track_caller]
fn check_delay_cost(open: impl Fn(Limits) -> Queues) {
    let queues = open(limits());
    let plain = || Message::plain(b"a").cost();
    let delayed = || Message::plain(b"a").cost_while(true);
    let later = Properties {
        delay_millis: HOUR_MILLIS,
        ..Properties::default()
    };
    let send_later = || send_with(&queues, &later, "a");
    send_later();
    assert_eq!(cost(&queues), delayed());
    pass(&queues, 2 * LONG);
    assert_eq!(cost(&queues), plain(), "it is promoted");
    let reserved = queues.reserve(Q).unwrap();
    assert_eq!(cost(&queues), plain());
    finish(&queues, queues.give_back(reserved, LONG));
    assert_eq!(cost(&queues), delayed(), "it is released with a delay");
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
    let id = send_later();
    let kicked = queues.kick_one(Q, id).unwrap();
    finish(&queues, kicked);
    assert_eq!(cost(&queues), plain(), "it is kicked");
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
    let id = send_later();
    let deleted = queues.delete(Q, id).unwrap();
    finish(&queues, deleted);
    send_later();
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
    assert_eq!(cost(&queues), 0, "it is deleted, and purged");
    let both = Properties {
        expiry_millis: 1000,
        ..later
    };
    send_with(&queues, &both, "a");
    pass(&queues, Duration::from_secs(2));
    assert_eq!(queues.count_of(queues.purge(dead())), Ok(1));
    assert_eq!(cost(&queues), 0, "it expires");
    // It is counted before it is sent, and not kept of one that is refused.
    drop(queues);
    let queues = open(Limits {
        memory_bytes_max: delayed() - 1,
        ..limits()
    });
    let refused = queues.send(&Sender::default(), Q, &later, b"a", None);
    assert!(refused.is_err());
    assert_eq!(cost(&queues), 0);
    send(&queues, Q, "a").unwrap();
    assert_eq!(cost(&queues), plain());
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
}

#[test]
fn a_delay_costs_memory_while_it_lasts() {
    check_delay_cost(Queues::in_memory);
    let disk = Disk::new();
    check_delay_cost(|limits| Queues::open(&disk.path(), limits, Fsync::Never, || {}).unwrap());
    let later = Properties {
        delay_millis: HOUR_MILLIS,
        ..Properties::default()
    };
    let queues = disk.open().unwrap();
    send_with(&queues, &later, "a");
    let before = cost(&queues);
    drop(queues);
    assert_eq!(cost(&disk.open().unwrap()), before, "over a restart");
}

fn of_both(queues: &Queues) -> Result<Option<(String, u8)>, QueueError> {
    let both = QueueNames::new([name("urgent"), Q]).unwrap();
    match queues.receive(&both, Delivery::AtLeastOnce, usize::MAX)? {
        Prepared::Done(Outcome::Reserved(reserved)) => {
            let found = (body(&reserved), reserved.queue_index);
            finish(queues, queues.ack(reserved));
            Ok(Some(found))
        }
        _ => Ok(None),
    }
}

#[test]
fn of_several_queues_the_first_that_has_something_is_taken_from() {
    let queues = queues_of(&["a", "b"]);
    let urgent = name("urgent");
    let found = |body: &str, queue_index| Ok(Some((body.to_owned(), queue_index)));
    assert_eq!(of_both(&queues), found("a", 1));
    send(&queues, urgent, "now").unwrap();
    assert_eq!(of_both(&queues), found("now", 0));
    // A paused one is passed over, and told when there is nothing else.
    send(&queues, urgent, "later").unwrap();
    queues.count_of(queues.pause(urgent, true)).unwrap();
    assert_eq!(of_both(&queues), found("b", 1));
    let paused = QueueError::Paused("urgent".to_owned());
    assert_eq!(of_both(&queues), Err(paused));
    queues.count_of(queues.pause(urgent, false)).unwrap();
    assert_eq!(of_both(&queues), found("later", 0));
    assert_eq!(of_both(&queues), Ok(None));
    check_nothing_is_left(&queues);
}

#[test]
fn a_waiter_waits_in_all_its_queues_at_once() {
    let queues = queues_of(&[]);
    let both = QueueNames::new([name("urgent"), Q]).unwrap();
    let waiting_in = || {
        stats_of(&queues, |_, queues| {
            queues.iter().map(|q| q.waiters).sum::<usize>()
        })
    };
    let (first, first_woken) = waiting();
    let (second, second_woken) = waiting();
    let first = queues.add_waiter(&both, first).unwrap().unwrap();
    let second = queues.add_waiter(&both, second).unwrap().unwrap();
    assert_eq!(waiting_in(), 4);
    send(&queues, Q, "a").unwrap();
    first_woken.try_recv().unwrap();
    second_woken.try_recv().unwrap_err();
    // A message comes to the other queue before the first has received its own: nobody else needs it.
    send(&queues, name("urgent"), "b").unwrap();
    assert_eq!(of_both(&queues), Ok(Some(("b".to_owned(), 0))));
    second_woken.try_recv().unwrap_err();
    // What it was woken for is still there, so the next one is woken.
    drop(first);
    second_woken.try_recv().unwrap();
    assert_eq!(of_both(&queues), Ok(Some(("a".to_owned(), 1))));
    drop(second);
    check_nothing_is_left(&queues);
    // There is no waiter when one of them has something, and no queue is left behind.
    send(&queues, Q, "a").unwrap();
    let (wake, _woken) = waiting();
    assert!(queues.add_waiter(&both, wake).unwrap().is_none());
    stats_of(&queues, |_, queues| assert_eq!(queues.len(), 1));
}
