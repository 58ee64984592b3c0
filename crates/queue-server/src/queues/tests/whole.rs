//! Queues as a whole: when there is one, what limits it, and what an operator does to it.

use super::*;

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
    assert_eq!(queues.count_of(queues.purge(name("7"))), Ok(1));
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
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(3));
    queues.lose(reserved);
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn a_pause_holds_messages_back() {
    let queues = queues_of(&["a"]);
    queues.count_of(queues.pause(Q, true)).unwrap();
    send(&queues, Q, "b").unwrap();
    let paused = queues.receive(&Q.into(), Delivery::AtLeastOnce, usize::MAX);
    let paused = paused.err().unwrap();
    assert_eq!(paused.to_string(), "the queue 'default' is paused");
    queues.count_of(queues.pause(Q, false)).unwrap();
    assert_eq!(all(&queues, Q), ["a", "b"]);
}

#[test]
fn a_queue_exists_while_something_would_be_lost_without_it() {
    #[track_caller]
    fn check(queues: &Queues, is_there: bool) {
        let refused = || QueueError::NoQueue("default".to_owned());
        let want = |messages| is_there.then_some(messages).ok_or_else(refused);
        // A pause and a kick concern no message here; a purge leaves what is reserved.
        assert_eq!(queues.count_of(queues.pause(Q, true)), want(0));
        assert_eq!(queues.count_of(queues.pause(Q, false)), want(0));
        assert_eq!(queues.count_of(queues.kick(Q)).is_ok(), is_there);
        assert_eq!(queues.count_of(queues.purge(Q)).is_ok(), is_there);
    }
    let queues = queues_of(&[]);
    check(&queues, false);
    assert_eq!(queues.reserve(Q), None);
    run(&queues, Q, &[""]);
    stats_of(&queues, |_, queues| assert!(queues.is_empty()));
    assert_eq!(
        queues.count_of(queues.kick(Q)).unwrap_err().to_string(),
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
    queues.count_of(queues.pause(Q, true)).unwrap();
    let last = queues.shared.lock().reserve_some("default", false, 1);
    for last in last {
        finish(&queues, queues.ack(last));
    }
    assert_eq!(
        (
            queues.count_of(queues.purge(Q)),
            queues.count_of(queues.kick(Q))
        ),
        (Ok(0), Ok(0))
    );
    assert_eq!(queues.count_of(queues.pause(Q, false)), Ok(0));
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
    stats_of(&queues, |_, queues| {
        let told = queues
            .iter()
            .map(|one| (&*one.name, one.ready, one.dead_letters));
        let told: Vec<_> = told.collect();
        assert_eq!(told, [("default", 0, 1), ("default.dead", 1, 0)]);
    });
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(0));
    assert_eq!(queues.count_of(queues.kick(Q)), Ok(1));
    assert_eq!(all(&queues, Q), ["a"]);
    check(&queues, false);
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
