//! Model-checks the eviction and the pending replies: loom runs them in every order in which a
//! connection's thread, one that looks for room or stops the server, and one that completes a reply
//! can meet. It finds a request that is acted on though its connection was ended, and a reply that nobody sends.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

#[path = "../src/eviction.rs"]
mod eviction;
#[path = "../src/pending_reply/slots.rs"]
mod slots;

/// loom's twins of what the eviction is built on.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

use eviction::{Eviction, State};
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use slots::{Completed, Duty, Owner, Pending, Slots};

/// A connection, and whether its next request is in the socket.
struct Connection {
    eviction: Eviction,
    has_input: AtomicBool,
}

/// Claims, looks, and ends or lets go; returns whether it has ended the connection.
fn evict(connection: &Connection) -> bool {
    let seen = connection.eviction.state();
    if seen.ease(0).is_none() {
        return false;
    }
    let Some(claim) = connection.eviction.claim(seen) else {
        return false;
    };
    if connection.has_input.load(Ordering::SeqCst) {
        claim.release();
        return false;
    }
    claim.end()
}

/// One request arrives at a resting connection, of which somebody else wants the place; `requests` of
/// them one after another.
fn model(requests: usize) {
    loom::model(move || {
        let connection = Arc::new(Connection {
            eviction: Eviction::new(),
            has_input: AtomicBool::new(false),
        });
        let seen = Arc::clone(&connection);
        let evictor = thread::spawn(move || evict(&seen));
        let mut is_ended = false;
        for _ in 0..requests {
            connection.eviction.set(State::Resting(0));
            connection.has_input.store(true, Ordering::SeqCst);
            // The thread wakes and reads.
            connection.has_input.store(false, Ordering::SeqCst);
            if !connection.eviction.resume() {
                is_ended = true;
                break;
            }
            // It acts. Nobody can end it now.
            assert_eq!(connection.eviction.state(), State::Busy);
        }
        assert_eq!(evictor.join().unwrap(), is_ended || has_ended(&connection));
    });
}

fn has_ended(connection: &Connection) -> bool {
    connection.eviction.state() == State::Ended
}

#[test]
fn who_has_resumed_is_not_ended_and_who_was_ended_does_not_act() {
    model(1);
    model(2);
}

#[test]
fn who_has_input_is_release() {
    loom::model(|| {
        let connection = Arc::new(Connection {
            eviction: Eviction::new(),
            has_input: AtomicBool::new(true),
        });
        connection.eviction.set(State::Resting(0));
        let seen = Arc::clone(&connection);
        let evictor = thread::spawn(move || evict(&seen));
        // The input stays where it is until the connection has resumed.
        assert!(connection.eviction.resume());
        assert!(!evictor.join().unwrap());
        assert_eq!(connection.eviction.state(), State::Busy);
    });
}

/// What is different from one model to the other.
#[derive(Clone, Copy, Default)]
struct Case {
    /// Whether the completing thread can send one reply only.
    has_little_room: bool,
    /// Whether the server stops. If not, a next request ends the owner's wait.
    stops: bool,
    /// Whether only the owner may send.
    is_encrypted: bool,
}

/// A connection with pending replies.
struct Replying {
    eviction: Eviction,
    slots: Mutex<Slots>,
    /// The eventfd: whether the owner was woken.
    is_woken: Mutex<bool>,
    woken: Condvar,
    /// How many replies the peer has.
    sent: AtomicUsize,
    case: Case,
    is_stopping: AtomicBool,
}

impl Replying {
    /// What `Replies::complete` does: completes a reply, and then sends all of them, or wakes the owner.
    fn complete(&self, slot: u64) {
        let reply = Completed {
            bytes: vec![0],
            body: None,
        };
        let mut slots = self.slots.lock().unwrap();
        match slots.complete(slot, reply) {
            Duty::None => {}
            Duty::Wake => self.wake(),
            Duty::Send { is_evictable } => {
                assert!(!self.case.is_encrypted);
                let mut gathered = slots.gather();
                let sent = match self.case.has_little_room {
                    true => 1,
                    false => gathered.len(),
                };
                self.sent.fetch_add(sent, Ordering::SeqCst);
                if sent < gathered.len() {
                    gathered.drain(..sent);
                    slots.put_back(gathered);
                    return self.wake();
                }
                self.eviction.set(State::resting(is_evictable, 0));
                // As in the program, where the accesses themselves are sequentially consistent, which
                // loom does not model.
                fence(Ordering::SeqCst);
                if !self.case.stops {
                    self.wake();
                } else if self.is_stopping.load(Ordering::SeqCst) {
                    self.end_wait();
                }
            }
        }
    }

    /// What `Entry::end_wait` does.
    fn end_wait(&self) {
        let seen = self.eviction.state();
        if let State::Resting(_) | State::Kept = seen
            && self.eviction.claim(seen).is_some_and(|claim| claim.end())
        {
            self.wake();
        }
    }

    fn wake(&self) {
        *self.is_woken.lock().unwrap() = true;
        self.woken.notify_one();
    }

    fn wait(&self) {
        let mut is_woken = self.is_woken.lock().unwrap();
        while !*is_woken {
            is_woken = self.woken.wait(is_woken).unwrap();
        }
        *is_woken = false;
    }

    /// What the owner does until all replies are sent; returns whether it was ended then.
    fn wait_for_all(&self, mut owner: Owner) -> bool {
        loop {
            if self.is_stopping.load(Ordering::SeqCst) {
                owner = Owner::WaitsForReplies;
            }
            let pending = self.slots.lock().unwrap().begin_wait(owner);
            match pending {
                Pending::None => return false,
                Pending::Completed => {
                    let completed = self.slots.lock().unwrap().take_completed().len();
                    self.sent.fetch_add(completed, Ordering::SeqCst);
                }
                Pending::Full => panic!("two replies are few"),
                Pending::Open => {
                    self.wait();
                    self.slots.lock().unwrap().end_wait();
                    if !self.eviction.resume() {
                        return true;
                    }
                }
            }
        }
    }
}

/// Two replies are completed by other threads while the owner waits, and somebody wants its place or
/// stops the server.
fn model_replies(owner: Owner, case: Case) {
    let mut model = loom::model::Builder::new();
    // More changes of the running thread than this find nothing new, and take minutes.
    model.preemption_bound = Some(3);
    model.check(move || {
        let mut slots = Slots::new(case.is_encrypted);
        let [first, second] = [(); 2].map(|()| slots.open(&mut Vec::new(), 0).unwrap());
        let replying = Arc::new(Replying {
            eviction: Eviction::new(),
            slots: Mutex::new(slots),
            is_woken: Mutex::new(false),
            woken: Condvar::new(),
            sent: AtomicUsize::new(0),
            case,
            is_stopping: AtomicBool::new(false),
        });
        assert!(replying.eviction.resume());
        let completing = Arc::clone(&replying);
        let completes = thread::spawn(move || {
            completing.complete(first);
            completing.complete(second);
        });
        let seen = Arc::clone(&replying);
        let ender = thread::spawn(move || {
            if case.stops {
                seen.is_stopping.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                seen.end_wait();
                return true;
            }
            let state = seen.eviction.state();
            let may_be = state.ease(0).is_some();
            let ended = may_be && seen.eviction.claim(state).is_some_and(|claim| claim.end());
            // A connection is evicted only when its peer has all replies.
            assert!(!ended || seen.sent.load(Ordering::SeqCst) == 2);
            ended
        });
        let was_ended = replying.wait_for_all(owner);
        completes.join().unwrap();
        assert_eq!(replying.sent.load(Ordering::SeqCst), 2);
        assert!(ender.join().unwrap() || !was_ended);
    });
}

#[test]
fn every_reply_is_sent_once_whatever_the_owner_waits_for() {
    let cases = [
        Case::default(),
        Case {
            has_little_room: true,
            ..Case::default()
        },
        Case {
            is_encrypted: true,
            ..Case::default()
        },
    ];
    for case in cases {
        for is_evictable in [true, false] {
            model_replies(Owner::WaitsForRequest { is_evictable }, case);
        }
    }
    model_replies(Owner::WaitsForReplies, Case::default());
}

#[test]
fn a_stop_ends_the_wait_when_all_replies_are_sent() {
    for (is_encrypted, is_evictable) in [(false, true), (false, false), (true, true)] {
        let case = Case {
            stops: true,
            is_encrypted,
            ..Case::default()
        };
        model_replies(Owner::WaitsForRequest { is_evictable }, case);
    }
}
