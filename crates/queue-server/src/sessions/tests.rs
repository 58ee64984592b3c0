use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::Peer;
use proto::ErrorCode;
use proto::queue::REMEMBERED_MAX;

use super::session::{ANSWER_BYTES, ANSWERS_MIN, SESSION_BYTES};
use super::window::NUMBER_MAX;
use super::*;
use crate::queues::Wake;

const SECOND: Micros = 1_000_000;

/// What all sessions may take in these tests.
const BYTES_MAX: usize = 128 << 20;

fn sessions() -> Sessions {
    Sessions::new(&Memory::new(BYTES_MAX * MEMORY_PART))
}

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

impl Seen {
    #[track_caller]
    fn stamp(self) -> Stamp {
        match self {
            Self::New(stamp) => stamp,
            Self::Known(answer) => panic!("it was answered: {answer:?}"),
            Self::Pending => panic!("it is pending"),
            Self::Refused(code) => panic!("it was refused: {code:?}"),
        }
    }

    fn answer(self) -> Option<Answer> {
        match self {
            Self::Known(answer) => Some(answer),
            Self::New(_) | Self::Pending | Self::Refused(_) => None,
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
        lock(&self.account.quota).bytes()
    }
}

#[test]
fn a_request_that_comes_again_has_its_answer_and_a_refused_one_is_tried_again() {
    let sessions = sessions();
    let session = sessions.get(id(1), here(), 0).unwrap();
    act(&session, 5);
    assert_eq!(known(&session, 5), Some(Answer::Stored(5)));
    let refused = session.begin(6, 0).unwrap().stamp();
    assert!(matches!(session.begin(6, 0).unwrap(), Seen::Pending));
    drop(refused);
    act(&session, 6);
    // One that has not come in its turn.
    act(&session, 9);
    act(&session, 8);
    // Of a datagram it is known that it was refused.
    for (number, code) in [(10, Some(ErrorCode::NotFound)), (11, None)] {
        drop(session.begin(number, 0).unwrap().stamp());
        session.refuse(number, code);
    }
    let refused = |number| match session.begin(number, 0).unwrap() {
        Seen::Refused(code) => Some(code),
        Seen::New(_) | Seen::Known(_) | Seen::Pending => None,
    };
    // Also when another one was refused since.
    assert_eq!(refused(10), Some(Some(ErrorCode::NotFound)));
    assert_eq!(refused(11), Some(None));
    // The same number of another session is another request.
    act(&sessions.get(id(2), here(), 0).unwrap(), 5);
}

#[test]
fn the_last_256_are_remembered_and_an_older_one_is_refused() {
    let sessions = sessions();
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
    act(&session, NUMBER_MAX);
    assert!(session.begin(999, 0).is_err());
    let table = lock(&session.state).window.slots.len();
    assert_eq!((table, sessions.answers_max()), (1, 1));
}

#[test]
fn a_number_that_has_none_behind_it_is_refused() {
    let sessions = sessions();
    let session = sessions.get(id(1), here(), 0).unwrap();
    for number in [NUMBER_MAX + 1, u64::MAX - 1, u64::MAX] {
        let refused = Some(QueueError::NumberTooHigh(number));
        assert_eq!(session.begin(number, 0).err(), refused);
        assert_eq!(sessions.attach(id(1), number, here(), 0).err(), refused);
        let answer = Answer::Done(1);
        let found = Answered {
            session: id(1),
            number,
            answer,
        };
        sessions.restore(&found, 0);
    }
    assert_eq!(sessions.answers_max(), 0);
    // The last one has room for those that follow it.
    let mut attached = sessions.attach(id(1), NUMBER_MAX, here(), 0).unwrap();
    assert_eq!(attached.is_idle(None), Ok(true));
    let stamp = attached.begin_new(NUMBER_MAX, REMEMBERED_MAX, 0);
    drop(stamp.unwrap());
    assert_eq!(sessions.answers_max(), REMEMBERED_MAX);
}

#[test]
fn how_many_answers_there_are_is_counted_and_not_searched_for() {
    let sessions = sessions();
    let one = sessions.get(id(1), here(), 0).unwrap();
    (0..300).for_each(|number| act(&one, number));
    assert_eq!(sessions.answers_max(), REMEMBERED_MAX);
    let two = sessions.get(id(2), here(), 0).unwrap();
    act(&two, 7);
    act(&two, 5);
    assert_eq!(sessions.answers_max(), REMEMBERED_MAX + 3);
    drop((one, two));
    lock(&sessions.table).forget(2 * micros(KEPT));
    assert_eq!(sessions.answers_max(), 0);
}

#[test]
fn a_session_in_use_is_not_looked_at_each_time() {
    let sessions = sessions();
    let attached: Vec<_> = (0..3)
        .map(|number| sessions.attach(id(number), 0, here(), 0).unwrap())
        .collect();
    let looked_at = |now| {
        let mut table = lock(&sessions.table);
        table.forget(now);
        table
            .due
            .iter()
            .filter(|(at, _)| *at <= now + SECOND)
            .count()
    };
    assert_eq!(looked_at(2 * micros(KEPT)), 0);
    drop(attached);
    looked_at(3 * micros(KEPT));
    assert!(lock(&sessions.table).sessions.is_empty());
}

#[test]
fn sessions_are_a_part_of_the_memory_and_have_some_if_there_is_little() {
    let memory = Memory::new(1000);
    let sessions = Sessions::new(&memory);
    memory.allocate(1000).unwrap();
    let attached = sessions.attach(id(1), 0, here(), 0).unwrap();
    assert_eq!(memory.allocated(), 1000 + sessions.bytes());
    drop(attached);
    drop(sessions);
    assert_eq!(memory.allocated(), 1000);
}

#[test]
fn a_session_is_forgotten_ten_minutes_after_its_last_request() {
    let sessions = sessions();
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
fn many_sessions_are_forgotten_some_at_once_and_more_if_there_is_no_room() {
    const MANY: usize = 3 * FORGOTTEN_MAX;
    let all = sessions();
    for one in 0..MANY {
        all.get(id(one as u128), from(1), 0).unwrap();
    }
    let over = micros(KEPT);
    all.get(id(1000), from(2), over).unwrap();
    assert_eq!(lock(&all.table).sessions.len(), MANY - FORGOTTEN_MAX + 1);
    // Those of another source are over first.
    let all = sessions();
    for one in 0..MANY {
        all.get(id(one as u128), from(1), 0).unwrap();
    }
    let mut last = 1000;
    while all.get(id(last), from(2), 1).is_ok() {
        last += 1;
    }
    all.get(id(last), from(2), over + 1).unwrap();
}

#[test]
fn a_full_table_refuses_new_sessions_each_source_at_its_share_and_forgets_none() {
    let sessions = sessions();
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
    let sessions = sessions();
    let mut attached = sessions.attach(id(1), 7, here(), 0).unwrap();
    assert_eq!(attached.is_idle(None), Ok(true));
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
    let mut other = sessions.attach(id(2), 7, here(), 0).unwrap();
    assert_eq!(other.is_idle(None), Ok(true));
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

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_session_is_taken_over_when_what_was_begun_is_done() {
    let sessions = sessions();
    let first = sessions.attach(id(1), 0, here(), 0).unwrap();
    let mut stamp = first.begin(0, 0).unwrap().stamp();
    let mut second = sessions.attach(id(1), 0, here(), 0).unwrap();
    let late = first.begin(1, 0).err();
    assert_eq!(late, Some(QueueError::TakenOver));
    assert_eq!(first.begin_new(1, 3, 0).err(), Some(QueueError::TakenOver));
    let woken = [(); 2].map(|()| Arc::new(Woken::default()));
    let count = |at: usize| woken[at].0.load(Ordering::Relaxed);
    let waiting = |at: usize| Some(Arc::clone(&woken[at]) as _);
    assert_eq!(second.is_idle(waiting(0)), Ok(false));
    // Another one: the second is told at once, and need not wait to the end.
    let mut third = sessions.attach(id(1), 0, here(), 0).unwrap();
    assert_eq!(count(0), 1);
    assert_eq!(second.is_idle(waiting(0)), Err(QueueError::TakenOver));
    assert_eq!(third.is_idle(waiting(1)), Ok(false));
    stamp.remember(std::iter::once(Some(Answer::Stored(7))));
    assert_eq!((count(0), count(1)), (1, 1));
    assert_eq!(third.is_idle(waiting(1)), Ok(true));
    let again = third.begin(0, 0).unwrap().answer();
    assert_eq!(again, Some(Answer::Stored(7)));
    assert!(!third.is_new(0) && third.is_new(1));
}

#[test]
fn a_reply_of_which_nothing_else_is_left_is_kept_until_the_next_one() {
    let sessions = sessions();
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
    let sessions = sessions();
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
