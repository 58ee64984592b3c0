//! Everything that queues have is there after a restart, whatever the database.

use std::collections::BTreeSet;

use proto::queue::Priority;
use uuid::Uuid;

use super::*;
use crate::sessions::Seen;

/// What a peer can see of all messages, but for times.
fn seen(queues: &Queues) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for figures in queues.stats().queues {
        let queue = name(&figures.name);
        for state in [
            MessageState::Ready,
            MessageState::Delayed,
            MessageState::Reserved,
        ] {
            let next = |after: &Position| match queues.peek(queue, state, *after) {
                Outcome::Peeked(peeked) => {
                    all.insert(shown(&peeked));
                    Some(peeked.message.position)
                }
                _ => None,
            };
            std::iter::successors(Some(Position::FRONT), next).count();
        }
        all.insert(format!("{queue}: paused {}", figures.is_paused));
    }
    all
}

fn shown(peeked: &Peeked) -> String {
    let message = &peeked.message;
    let extras = message.extras.clone().unwrap_or_default();
    let token = peeked.holder.as_ref().map(|holder| match holder {
        Holder::Lease(lease) => lease.token,
        Holder::Connection(_) => panic!("no connection has any"),
    });
    let keyed = extras.keyed.as_deref();
    format!(
        "{}: {} {:?} {:?} of priority {}, {} of {} attempts, {token:?} {:?} {:?} expires {}",
        peeked.queue,
        message.id,
        peeked.state,
        &*message.body,
        message.position.priority().get(),
        message.attempts,
        extras.attempts_max,
        keyed.map(|keyed| (&keyed.key, &keyed.account, keyed.digest)),
        extras.reason,
        extras.expires_at.is_some(),
    )
}

/// Carries out a request of a session, whose answer is remembered.
#[track_caller]
fn ask(queues: &Queues, number: u64, act: impl FnOnce() -> Prepared) -> Outcome {
    let (session, from) = (Uuid::from_u128(7), Some(daemon::Source::User(7)));
    let attached = queues
        .sessions()
        .attach(session, number, from, queues.now())
        .unwrap();
    let outcome = match attached.begin(number, queues.now()).unwrap() {
        Seen::New(stamp) => queues.wait(queues.submit(act(), Some(stamp))),
        Seen::Known(answer) => queues.outcome_of(answer),
        Seen::Pending | Seen::Refused(_) => panic!("it is neither"),
    };
    outcome.unwrap()
}

#[test]
fn everything_that_queues_have_survives_a_restart() {
    for disk in Disk::each(&["plain", "tried", "leased", "acked"]) {
        let queues = disk.open().unwrap();
        let user = Sender {
            user: Some("Zoë".into()),
            from: None,
        };
        let everything = Properties {
            delay_millis: 3_600_000,
            priority: Priority::new(9).unwrap(),
            key: proto::queue::Key::new("Rechnung Ä"),
            expiry_millis: 7_200_000,
            attempts_max: 3,
        };
        let send_all = |queue, body: &[u8], properties: &Properties| {
            queues.send(&user, queue, properties, body, None)
        };
        let bytes = [0, b'\'', b'\\', 0xff];
        finish(
            &queues,
            send_all(name("other"), &bytes, &everything).unwrap(),
        );
        let now = Properties {
            delay_millis: 0,
            ..everything
        };
        finish(&queues, send_all(Q, b"first", &now).unwrap());
        // It has been given up for a reason that no text of PostgreSQL can have.
        let reserved = queues.reserve(Q).unwrap();
        assert_eq!(body(&reserved), "first");
        let again = Retry::Counted { delay_millis: 0 };
        finish(
            &queues,
            queues.release(reserved, again, Reason::new("a\0b 'ü'\n")),
        );
        lease(&queues, LONG);
        let token = lease(&queues, LONG);
        finish(&queues, queues.extend(token, 2 * LONG).unwrap());
        finish(&queues, queues.give_back(queues.reserve(Q).unwrap(), LONG));
        let buried = queues.reserve(Q).unwrap();
        finish(
            &queues,
            queues.release(buried, Retry::Never, Reason::new("never")),
        );
        // One that is acknowledged holds its key on.
        let keyed = Properties {
            key: everything.key,
            ..Properties::default()
        };
        finish(&queues, send_all(name("keys"), b"k", &keyed).unwrap());
        let reserved = queues.reserve(name("keys")).unwrap();
        finish(&queues, queues.ack(reserved));
        queues.count_of(queues.pause(name("other"), true)).unwrap();
        let sent = ask(&queues, 1, || queues.submit_body(Q, LONG, b"once").unwrap());
        let acked = ask(&queues, 2, || queues.ack(queues.reserve(Q).unwrap()));
        assert_eq!(acked, Outcome::Done(1));

        let before = (seen(&queues), queues.counts());
        assert_eq!(before.0.len(), 6 + 3, "{:#?}", before.0);
        drop(queues);
        for _ in 0..2 {
            let queues = disk.open().unwrap();
            assert_eq!(seen(&queues), before.0);
            assert_eq!(queues.counts(), before.1);
            let none = || panic!("it is known");
            assert_eq!(ask(&queues, 1, none), sent);
            assert_eq!(ask(&queues, 2, none), acked);
            let again = |body: &[u8]| {
                let sent = queues.send(&user, name("keys"), &keyed, body, None);
                sent.and_then(|prepared| queues.carry_out(prepared))
            };
            assert!(matches!(again(b"k"), Ok(Outcome::StoredBefore(_))));
            assert!(matches!(again(b"x"), Err(QueueError::KeyTaken { .. })));
        }
    }
}
