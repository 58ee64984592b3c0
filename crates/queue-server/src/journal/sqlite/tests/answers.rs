//! What was answered to the requests of a session, over a restart.

use super::*;

/// Carries out a request of a session, as a connection does that names it.
#[track_caller]
fn ask(
    queues: &Queues,
    session: uuid::Uuid,
    number: u64,
    act: impl FnOnce() -> Prepared,
) -> Result<Outcome, QueueError> {
    let from = Some(daemon::Source::User(7));
    let attached = queues
        .sessions()
        .attach(session, number, from, queues.now());
    match attached.unwrap().begin(number, queues.now())? {
        Seen::New(stamp) => queues.wait(queues.submit(act(), Some(stamp))),
        Seen::Known(answer) => queues.outcome_of(answer),
        Seen::Pending | Seen::Refused(_) => panic!("it is neither"),
    }
}

#[test]
fn a_request_that_comes_again_after_a_restart_is_answered_as_before() {
    let disk = Disk::new();
    let session = uuid::Uuid::from_u128(7);
    let sent = |queues: &Queues| {
        ask(queues, session, 1, || {
            send_with(queues, &Properties::default(), b"once")
        })
    };
    let leased = |queues: &Queues| {
        let delivery = Delivery::Lease {
            lease_millis: 3_600_000,
        };
        let asked = ask(queues, session, 2, || {
            queues.receive(&Q.into(), delivery, usize::MAX).unwrap()
        });
        match asked {
            Ok(Outcome::LeasedBefore(reserved)) => {
                assert_eq!(&*reserved.message.body, b"once");
                reserved.lease.unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    let queues = disk.open();
    let first = sent(&queues);
    let lease = leased(&queues);
    assert_eq!((&sent(&queues), leased(&queues)), (&first, lease));
    let purged = |queues: &Queues| ask(queues, session, 3, || queues.purge(Q).unwrap());
    send(&queues, b"other");
    assert_eq!(purged(&queues), Ok(Outcome::Done(1)));
    send(&queues, b"after the purge");
    drop(queues);
    for _ in 0..2 {
        drop(disk.open());
    }
    let queues = disk.open();
    assert_eq!((sent(&queues), leased(&queues)), (first, lease));
    assert_eq!(purged(&queues), Ok(Outcome::Done(1)));
    assert_eq!(count(&disk), 2);
    let acked = |queues: &Queues| {
        ask(queues, session, 4, || {
            queues.ack(queues.claim(lease.token).unwrap())
        })
    };
    assert_eq!(acked(&queues), Ok(Outcome::Done(1)));
    drop(queues);
    assert_eq!(acked(&disk.open()), Ok(Outcome::Done(1)));
}

#[test]
fn the_answers_of_many_requests_do_not_grow_for_ever_and_none_is_lost() {
    let disk = Disk::new();
    let sessions = [1, 2].map(uuid::Uuid::from_u128);
    let queues = disk.open();
    let ask_once = |queues: &Queues, session, number| {
        ask(queues, session, number, || {
            send_with(queues, &Properties::default(), b"x")
        })
    };
    let first = ask_once(&queues, sessions[0], 0);
    let mut last = None;
    // More than the table holds, in few commits.
    let from = Some(daemon::Source::User(7));
    for round in 0..40 {
        let attached = queues.sessions().attach(sessions[1], 0, from, 0).unwrap();
        let pending: Vec<_> = (0..250)
            .map(|at| {
                let Ok(Seen::New(stamp)) = attached.begin(1000 * round + at, 0) else {
                    panic!("it is new")
                };
                let sent = queues.send(&Sender::default(), Q, &Properties::default(), b"x", None);
                queues.submit(sent.unwrap(), Some(stamp))
            })
            .collect();
        for one in pending {
            last = Some(queues.wait(one));
        }
    }
    let answers = disk.number("SELECT sum(length(answers)) FROM answers");
    assert!(answers < 10_000 * 4, "{answers} bytes");
    drop(queues);
    let queues = disk.open();
    assert_eq!(ask_once(&queues, sessions[0], 0), first);
    assert_eq!(ask_once(&queues, sessions[1], 39_249), last.unwrap());
}

#[test]
fn damaged_answers_are_removed_and_the_others_stay() {
    let disk = Disk::new();
    let queues = disk.open();
    let [one, two] = [1, 2].map(uuid::Uuid::from_u128);
    let ask_once = |queues: &Queues, session| {
        ask(queues, session, 1, || {
            send_with(queues, &Properties::default(), b"x")
        })
    };
    let answers = [one, two].map(|session| ask_once(&queues, session));
    drop(queues);
    let damage = "UPDATE answers SET answers = x'00' WHERE row = 1";
    disk.sql().execute_batch(damage).unwrap();
    let queues = disk.open();
    assert_eq!(disk.number("SELECT count(*) FROM answers"), 1);
    assert_ne!(ask_once(&queues, one), answers[0]);
    assert_eq!(ask_once(&queues, two), answers[1]);
}

#[test]
fn what_touches_many_messages_is_not_done_before_its_answer_is_written() {
    let disk = Disk::new();
    let queues = disk.open();
    for body in [b"1", b"2", b"3"] {
        send(&queues, body);
    }
    // The server ends before it gives the last of them to the journal.
    drop(queues.purge(Q).unwrap());
    drop(queues);
    let queues = disk.open();
    assert_eq!(queues.count_of(queues.purge(Q)), Ok(1));
}
