use std::net::SocketAddr;
use std::thread;

use daemon::Peer;

use super::*;

const SECOND: Micros = 1_000_000;

fn from(ip: u8) -> Option<Source> {
    Some(Source::from(Peer::Ip(SocketAddr::from((
        [192, 0, 2, ip],
        1,
    )))))
}

fn here() -> Option<Source> {
    Some(Source::from(Peer::Ip(SocketAddr::from((
        [127, 0, 0, 1],
        1,
    )))))
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

impl Begun {
    #[track_caller]
    fn stamp(self) -> Stamp {
        match self {
            Self::New(stamp) => stamp,
            Self::Known(answer) => panic!("it was answered: {answer:?}"),
            Self::Pending => panic!("it is pending"),
            Self::Refused => panic!("it was refused"),
        }
    }

    fn answer(self) -> Option<Answer> {
        match self {
            Self::Known(answer) => Some(answer),
            Self::New(_) | Self::Pending | Self::Refused => None,
        }
    }
}

/// Carries out a request that has not come before.
#[track_caller]
fn act(session: &Arc<Session>, number: u64) {
    let mut stamp = session.begin(number, 0).unwrap().stamp();
    stamp.remember(std::iter::once(Some(Answer::Stored(number))));
}

fn known(session: &Arc<Session>, number: u64) -> Option<Answer> {
    session.begin(number, 0).unwrap().answer()
}

impl Sessions {
    fn bytes(&self) -> usize {
        lock(&self.quota).bytes()
    }
}

#[test]
fn a_request_that_comes_again_has_its_answer_and_a_refused_one_is_tried_again() {
    let sessions = Sessions::new();
    let session = sessions.get(id(1), here(), 0).unwrap();
    act(&session, 5);
    assert_eq!(known(&session, 5), Some(Answer::Stored(5)));
    let refused = session.begin(6, 0).unwrap().stamp();
    assert!(matches!(session.begin(6, 0).unwrap(), Begun::Pending));
    drop(refused);
    act(&session, 6);
    // One that has not come in its turn.
    act(&session, 9);
    act(&session, 8);
    // Of a datagram it is known that it was refused.
    drop(session.begin(10, 0).unwrap().stamp());
    session.refuse(10, b"no");
    assert!(matches!(session.begin(10, 0).unwrap(), Begun::Refused));
    assert_eq!(session.kept(10).as_deref(), Some(&b"no"[..]));
    // The same number of another session is another request.
    act(&sessions.get(id(2), here(), 0).unwrap(), 5);
}

#[test]
fn the_last_256_are_remembered_and_an_older_one_is_refused() {
    let sessions = Sessions::new();
    let session = sessions.get(id(1), here(), 0).unwrap();
    (0..1000).for_each(|number| act(&session, number));
    for number in 744..1000 {
        assert_eq!(known(&session, number), Some(Answer::Stored(number)));
    }
    let too_old = session.begin(743, 0).err().unwrap();
    assert_eq!(too_old, QueueError::TooOld(743));
    let sentence = "request 743 of this session is older than the 256 that are remembered, so it is \
                    not known whether it was carried out";
    assert_eq!(too_old.to_string(), sentence);
    act(&session, u64::MAX - 1);
    assert!(session.begin(999, 0).is_err());
    let table = lock(&session.state).window.slots.len();
    assert_eq!(table, 1);
}

#[test]
fn a_session_is_forgotten_ten_minutes_after_its_last_request() {
    let sessions = Sessions::new();
    let ten_minutes = micros(KEPT);
    let begin = |now| {
        let session = sessions.get(id(1), here(), now).unwrap();
        drop(session.begin(1, now));
    };
    begin(0);
    begin(5 * SECOND);
    let other = |now| drop(sessions.get(id(2), here(), now));
    let is_known = || lock(&sessions.table).sessions.contains_key(&id(1));
    other(ten_minutes);
    assert!(is_known());
    lock(&sessions.table).forget(ten_minutes + 5 * SECOND - 1);
    assert!(is_known());
    lock(&sessions.table).forget(ten_minutes + 5 * SECOND);
    assert!(!is_known());
    // Not while a connection has it.
    let attached = sessions.attach(id(1), 0, here(), 0).unwrap();
    lock(&sessions.table).forget(10 * ten_minutes);
    assert!(is_known());
    drop(attached);
    lock(&sessions.table).forget(20 * ten_minutes);
    let table = lock(&sessions.table);
    assert!(table.sessions.is_empty() && table.due.is_empty());
    assert_eq!(sessions.bytes(), 0);
}

#[test]
fn a_full_table_refuses_new_sessions_each_source_at_its_share_and_forgets_none() {
    let sessions = Sessions::new();
    let honest = sessions.get(id(1), from(1), 0).unwrap();
    act(&honest, 1);
    let mut next = 1000;
    let mut flood = |from| {
        let mut count = 0;
        while sessions.get(id(next), from, 0).is_ok() {
            next += 1;
            count += 1;
        }
        count
    };
    let one_cost = SESSION_BYTES + ANSWERS_MIN * ANSWER_BYTES;
    assert_eq!(flood(from(2)), BYTES_MAX / 8 / one_cost);
    // Others have their own, and programs of this machine may ask once each.
    assert!(sessions.get(id(2), from(3), 0).is_ok());
    assert!(flood(here()) >= 100_000);
    let flooded: usize = (4..8).map(|ip| flood(from(ip))).sum();
    assert!(flooded > 0);
    let refused = sessions.get(id(3), from(9), 0).err().unwrap();
    assert_eq!(refused, QueueError::TooManySessions);
    assert_eq!(known(&honest, 1), Some(Answer::Stored(1)));
    assert!(sessions.bytes() <= BYTES_MAX);
    // There is room when the others are forgotten.
    drop(honest);
    assert!(sessions.get(id(3), from(9), micros(KEPT)).is_ok());
}

#[test]
fn what_a_connection_may_need_is_charged_when_it_begins() {
    let sessions = Sessions::new();
    let mut attached = sessions.attach(id(1), 7, here(), 0).unwrap();
    let whole = SESSION_BYTES + REMEMBERED_MAX * ANSWER_BYTES;
    assert_eq!(sessions.bytes(), whole);
    for want in 7..300 {
        let number = attached.take_number();
        assert_eq!(number, want);
        let mut stamp = attached.begin(number, 0).unwrap().stamp();
        stamp.remember(std::iter::once(Some(Answer::Done(1))));
    }
    assert_eq!(sessions.bytes(), whole);
    drop(attached);
    assert_eq!(sessions.bytes(), whole, "all of it is used");
    let other = sessions.attach(id(2), 7, here(), 0).unwrap();
    let mut stamp = other.begin_new(7, 3, 0).unwrap();
    stamp.remember([Some(Answer::Done(1)), None].into_iter());
    drop(stamp);
    assert!(!other.is_new(6) && other.is_new(7));
    drop(other);
    assert_eq!(
        sessions.bytes() - whole,
        SESSION_BYTES + ANSWERS_MIN * ANSWER_BYTES
    );
    let session = sessions.get(id(2), here(), 0).unwrap();
    assert_eq!(known(&session, 7), Some(Answer::Done(1)));
    assert_eq!((known(&session, 8), known(&session, 9)), (None, None));
}

#[test]
fn a_session_is_taken_over_when_what_was_begun_is_done() {
    let sessions = Sessions::new();
    let first = sessions.attach(id(1), 0, here(), 0).unwrap();
    let mut stamp = first.begin(0, 0).unwrap().stamp();
    thread::scope(|scope| {
        let taking = scope.spawn(|| sessions.attach(id(1), 0, here(), 0).unwrap());
        // It waits until the first connection may begin nothing more.
        while lock(&first.session.state).takeovers < 2 {
            thread::yield_now();
        }
        let late = first.begin(1, 0).err();
        assert_eq!(late, Some(QueueError::TakenOver));
        assert_eq!(first.begin_new(1, 3, 0).err(), Some(QueueError::TakenOver));
        stamp.remember(std::iter::once(Some(Answer::Stored(7))));
        let second = taking.join().unwrap();
        let again = second.begin(0, 0).unwrap().answer();
        assert_eq!(again, Some(Answer::Stored(7)));
        assert!(!second.is_new(0) && second.is_new(1));
    });
}

#[test]
fn a_reply_of_which_nothing_else_is_left_is_kept_until_the_next_one() {
    let sessions = Sessions::new();
    let session = sessions.get(id(1), from(1), 0).unwrap();
    let before = sessions.bytes();
    session.keep(1, b"one");
    assert_eq!(session.kept(1).as_deref(), Some(&b"one"[..]));
    session.keep(2, b"second");
    assert_eq!((session.kept(1), sessions.bytes() - before), (None, 6));
    session.keep(3, &vec![0; BYTES_MAX / 8]);
    assert_eq!((session.kept(3), sessions.bytes()), (None, before));
}

#[test]
fn what_was_found_at_the_start_comes_in_any_order() {
    let sessions = Sessions::new();
    for number in [900, 700, 1, 899, 650, 901] {
        let found = Answered {
            session: id(1),
            number,
            answer: Answer::Stored(number),
        };
        sessions.restore(&found, 0);
    }
    let session = sessions.get(id(1), here(), 0).unwrap();
    for number in [900, 700, 899, 650, 901] {
        assert_eq!(known(&session, number), Some(Answer::Stored(number)));
    }
    assert!(session.begin(1, 0).is_err());
    assert!(sessions.may_repeat(id(1), 650) && !sessions.may_repeat(id(1), 1));
    assert!(!sessions.may_repeat(id(2), 650));
}

#[test]
fn an_answer_is_small() {
    assert_eq!(ANSWER_BYTES, 24);
}
