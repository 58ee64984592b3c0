//! What an operator does to one message.

use super::*;

/// Searches more than one slice for a message in each state, and does this to it.
#[track_caller]
fn of_each_state(act: impl Fn(&Queues, MessageId) -> Result<Prepared, QueueError>) -> Vec<String> {
    let queues = Queues::in_memory(Limits {
        attempts_max: 1,
        ..limits()
    });
    let delayed = queues.submit_body(Q, LONG, b"delayed").unwrap();
    let delayed = finish(&queues, delayed);
    let dead = send(&queues, Q, "dead").unwrap();
    let reserved = queues.reserve(Q).unwrap();
    finish(&queues, queues.give_back(reserved, Duration::ZERO));
    let reserved = send(&queues, Q, "reserved").unwrap();
    let mut reservations = Reservations::new(&queues, "me");
    reservations.add(queues.reserve(Q).unwrap());
    let leased = send(&queues, Q, "leased").unwrap();
    queues.lease(Q, LONG);
    let ready = send(&queues, Q, "ready").unwrap();
    let outcomes = [ready, delayed, dead, reserved, leased].map(|id| match act(&queues, id) {
        Ok(pending) => {
            queues.carry_out(pending).unwrap();
            let at = queues.peek_one(Q, id);
            at.map_or("gone".to_owned(), |peeked| {
                let attempts = peeked.message.attempts;
                format!("{} in {}, attempts: {attempts}", peeked.state, peeked.queue)
            })
        }
        Err(error) => error.to_string(),
    });
    assert_eq!(
        act(&queues, 99).err(),
        Some(QueueError::NoMessage {
            id: 99,
            queue: Q.as_str().to_owned()
        })
    );
    assert!(act(&queues, 0).is_err());
    outcomes.to_vec()
}

#[test]
fn a_message_is_found_in_every_state() {
    let look = |queues: &Queues, id| {
        let peeked = queues.peek_one(Q, id)?;
        assert_eq!(peeked.message.id, id);
        Ok(Prepared::Done(Outcome::Peeked(Box::new(peeked))))
    };
    let want = [
        "ready in default, attempts: 0",
        "delayed in default, attempts: 0",
        "ready in default.dead, attempts: 1",
        "reserved in default, attempts: 1",
        "reserved in default, attempts: 1",
    ];
    assert_eq!(of_each_state(look), want);
}

#[test]
fn a_message_is_deleted_in_every_state() {
    let deleted = of_each_state(|queues, id| queues.delete(Q, id));
    assert_eq!(deleted, ["gone"; 5]);
}

#[test]
fn what_is_delayed_or_dead_is_kicked() {
    let want = [
        "message 5 is ready, and only a delayed or a dead message can be kicked",
        "ready in default, attempts: 0",
        "ready in default, attempts: 0",
        "message 3 is reserved, and only a delayed or a dead message can be kicked",
        "message 4 is reserved, and only a delayed or a dead message can be kicked",
    ];
    assert_eq!(of_each_state(|queues, id| queues.kick_one(Q, id)), want);
}

#[test]
fn what_is_reserved_is_released() {
    let want = [
        "nobody has reserved message 5",
        "nobody has reserved message 1",
        "nobody has reserved message 2",
        // They have been handed out as often as they may be.
        "ready in default.dead, attempts: 1",
        "ready in default.dead, attempts: 1",
    ];
    assert_eq!(of_each_state(|queues, id| queues.release_one(Q, id)), want);
}

#[test]
fn a_message_is_moved_in_every_state() {
    let to = name("other");
    let moved = of_each_state(|queues, id| {
        let moved = queues.move_one(Q, id, to)?;
        assert!(matches!(moved, Prepared::Done(Outcome::Done(1))));
        let peeked = queues.peek_one(to, id)?;
        let is_new = peeked.message.attempts == 0 && peeked.state == MessageState::Ready;
        assert!(is_new, "{peeked:?}");
        Ok(moved)
    });
    assert_eq!(moved, ["gone"; 5]);
}

#[test]
fn no_queue_gets_more_than_it_may_have() {
    let queues = Queues::in_memory(Limits {
        messages_max: 1,
        ..limits()
    });
    let one = send(&queues, Q, "one").unwrap();
    let other = send(&queues, name("other"), "other").unwrap();
    let refused = queues.move_one(Q, one, name("other")).err();
    assert_eq!(refused, Some(QueueError::TooManyMessages(1)));
    assert_eq!(
        queues.peek_one(name("other"), other).unwrap().message.id,
        other
    );
    assert_eq!(all(&queues, Q), ["one"]);
}

#[test]
fn a_holder_is_told_that_its_message_was_taken() {
    let queues = queues_of(&["a", "b", "c"]);
    let mut reservations = Reservations::new(&queues, "me");
    for _ in 0..3 {
        reservations.add(queues.reserve(Q).unwrap());
    }
    let done = [queues.delete(Q, 1), queues.release_one(Q, 2)];
    for one in done {
        finish(&queues, one.unwrap());
    }
    assert_eq!(
        reservations.claim(1).err(),
        Some(QueueError::NoLongerReserved(1))
    );
    assert_eq!(
        reservations.claim(2).err(),
        Some(QueueError::NoLongerReserved(2))
    );
    assert_eq!(
        reservations.claim(2).err(),
        Some(QueueError::NotReservedHere(2))
    );
    assert_eq!(reservations.len(), 1);
    drop(reservations);
    assert_eq!(all(&queues, Q), ["b", "c"]);
    assert_eq!(queues.shared.lock().queues.len(), 0);
    assert_eq!(queues.shared.memory.allocated(), 0);
}

#[test]
fn a_leases_token_is_good_for_nothing_when_its_message_was_taken() {
    let queues = queues_of(&["a"]);
    let token = queues.lease(Q, LONG);
    let released = queues.release_one(Q, 1).unwrap();
    finish(&queues, released);
    assert_eq!(queues.claim(token).err(), Some(QueueError::NoLease));
    assert_eq!(queues.shared.lock().common.schedule.len(), 0);
    assert_eq!(all(&queues, Q), ["a"]);
}

#[test]
fn all_that_a_stopped_holder_keeps_is_released() {
    let queues = queues_of(&["a", "b"]);
    send(&queues, name("other"), "c").unwrap();
    let mut stopped = Reservations::new(&queues, "stopped");
    let mut other = Reservations::new(&queues, "other");
    stopped.add(queues.reserve(Q).unwrap());
    other.add(queues.reserve(Q).unwrap());
    stopped.add(queues.reserve(name("other")).unwrap());
    let holder = match queues.peek_one(Q, 1).unwrap().holder {
        Some(Holder::Connection(connected)) => {
            assert_eq!(&*connected.peer, "stopped");
            connected.id
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(queues.count_of(queues.release_holder(holder)), Ok(2));
    assert_eq!(
        queues.count_of(queues.release_holder(holder)),
        Err(QueueError::NoHolder(holder))
    );
    assert_eq!(all(&queues, Q), ["a"]);
    assert_eq!(all(&queues, name("other")), ["c"]);
    assert_eq!(stopped.claim_all(), []);
    assert_eq!(other.claim_all().len(), 1);
}

#[test]
fn a_gap_in_the_middle_is_no_message() {
    let mut queues = queues_of(&[]);
    let count = 3 * 16;
    for number in 0..count {
        send(&queues, Q, &number.to_string()).unwrap();
    }
    // More than may be gaps, so some of them are closed.
    let gone: Vec<_> = (2..count).step_by(2).collect();
    for id in &gone {
        let deleted = queues.delete(Q, *id).unwrap();
        finish(&queues, deleted);
    }
    let left: Vec<_> = (1..=count).filter(|id| !gone.contains(id)).collect();
    let ready = queues.stats().queues[0].ready;
    assert_eq!(ready, left.len());
    let mut seen = Vec::new();
    let mut after = Position::FRONT;
    while let Outcome::Peeked(peeked) = queues.peek(Q, MessageState::Ready, after) {
        after = peeked.message.position;
        seen.push(peeked.message.id);
    }
    assert_eq!(seen, left);
    for id in &gone {
        assert!(queues.peek_one(Q, *id).is_err());
    }
    let bodies: Vec<_> = left.iter().map(|id| (id - 1).to_string()).collect();
    assert_eq!(all(&queues, Q), bodies);
    assert_eq!(queues.shared.lock().queues.len(), 0);
    queues = queues_of(&["x"]);
    assert_eq!(all(&queues, Q), ["x"]);
}

/// Prints how long a search takes, and how long it keeps the lock.
#[test]
#[ignore = "a measurement"]
fn how_long_a_search_takes() {
    let queues = Queues::in_memory(Limits {
        memory_bytes_max: usize::MAX,
        ..limits()
    });
    let count = 1_000_000;
    for _ in 0..count {
        send(&queues, Q, "x").unwrap();
    }
    for id in [1, count / 2, count, count + 1] {
        let start = Instant::now();
        let found = queues.peek_one(Q, id).is_ok();
        println!("{id}: {found}, {:?}", start.elapsed());
    }
    std::thread::scope(|scope| {
        let search = scope.spawn(|| {
            let start = Instant::now();
            for _ in 0..50 {
                let _ = queues.peek_one(Q, count + 1);
            }
            start.elapsed() / 50
        });
        let mut longest = Duration::ZERO;
        let mut all = Vec::new();
        while !search.is_finished() {
            let start = Instant::now();
            drop(queues.shared.lock());
            longest = longest.max(start.elapsed());
            all.push(start.elapsed());
        }
        all.sort();
        let p99 = all[all.len() * 99 / 100];
        println!(
            "a search: {:?}, waits for the lock: {} of them, p99 {p99:?}, longest {longest:?}",
            search.join(),
            all.len()
        );
    });
}
