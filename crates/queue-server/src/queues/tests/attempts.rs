//! How an attempt ends: by an ack, a release, the end of its holder or of a lease; and what is due.

use super::*;

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
    for disk in Disk::each(&["a", "b"]) {
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
}

#[test]
fn a_restart_is_an_attempt_that_makes_no_dead_letter() {
    for disk in Disk::each(&["a"]) {
        for attempt in 1..=2 * limits().attempts_max {
            let queues = disk.open().unwrap();
            let reserved = queues.reserve(Q).unwrap();
            assert_eq!(reserved.message.attempts, attempt);
            queues.requeue_at_stop(reserved);
        }
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
        assert_eq!((&*queues[1].name, queues[1].ready), ("default.dead", 1));
        assert_eq!(
            (totals.dead_lettered, totals.released, totals.requeued),
            (1, 1, 6)
        );
    });
    assert_eq!(queues.count_of(queues.kick(Q)), Ok(1));
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
fn what_is_due_is_done_a_thousand_at_a_time_in_order_over_all_queues() {
    let limits = Limits {
        attempts_max: 1000,
        memory_bytes_max: 1 << 24,
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
    assert_eq!(queues.count_of(queues.purge(name("long"))), Ok(1));
    assert_eq!(due(), 0);
}

#[test]
fn a_full_server_can_be_emptied_under_leases_and_they_are_bounded() {
    let queues = Queues::in_memory(limits());
    while send(&queues, Q, "").is_ok() {}
    let full = queues.stats().totals.memory_bytes;
    let lease = || {
        let delivery = Delivery::Lease {
            lease_millis: 60_000,
        };
        queues.receive(&Q.into(), delivery, usize::MAX)
    };
    let mut leased = Vec::new();
    let refused = loop {
        match lease() {
            Ok(Prepared::Done(Outcome::Reserved(reserved))) => {
                leased.push(reserved.lease.unwrap().token);
                queues.start_lease(reserved);
            }
            Ok(_) => panic!("the queue is not empty"),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, QueueError::NoMemory(_)), "{refused}");
    assert!(queues.stats().totals.memory_bytes <= full * 5 / 4 + 400);
    assert!(leased.len() > 700, "{}", leased.len());
    for token in leased {
        assert_eq!(
            queues.count_of(queues.claim(token).map(|one| queues.ack(one))),
            Ok(1)
        );
    }
    queues.count_of(queues.purge(Q)).unwrap();
    assert_eq!(queues.stats().totals.memory_bytes, 0);
}
