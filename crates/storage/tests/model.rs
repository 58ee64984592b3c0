//! Model-checks the group commit: loom runs it in every order in which two connections, the writer
//! thread and a failing disk can meet. It finds a lost wake-up, a change completed before its commit,
//! or one that is never completed.

#![allow(dead_code, missing_docs, clippy::unwrap_used)]

#[path = "../src/error.rs"]
mod error;
#[path = "../src/group_commit.rs"]
mod group_commit;
#[path = "../src/pending.rs"]
mod pending;
#[path = "../src/store.rs"]
mod store;

/// loom's versions of what the group commit is built on. loom has no bounded channel that can be closed,
/// so one is built here from its mutex and condition variable, with crossbeam's contract.
mod sync {
    use std::collections::VecDeque;

    pub(crate) use loom::sync::{Arc, Mutex};
    pub(crate) use loom::thread::{Thread, current, park};

    use loom::sync::Condvar;

    struct Channel<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    struct State<T> {
        waiting: VecDeque<T>,
        room: usize,
        senders: usize,
        has_receiver: bool,
    }

    pub(crate) enum TryRecvError {
        Empty,
        Disconnected,
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    /// Room for one: the least there can be, and the most that happens in few steps.
    pub(crate) fn bounded<T>(_room: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                room: 1,
                senders: 1,
                has_receiver: true,
            }),
            changed: Condvar::new(),
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, value: T) -> Result<(), T> {
            let mut state = self.0.state.lock().unwrap();
            while state.has_receiver && state.waiting.len() == state.room {
                state = self.0.changed.wait(state).unwrap();
            }
            if !state.has_receiver {
                return Err(value);
            }
            state.waiting.push_back(value);
            self.0.changed.notify_all();
            Ok(())
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.state.lock().unwrap().senders += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().senders -= 1;
            self.0.changed.notify_all();
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, ()> {
            let mut state = self.0.state.lock().unwrap();
            loop {
                if let Some(value) = state.waiting.pop_front() {
                    self.0.changed.notify_all();
                    return Ok(value);
                }
                if state.senders == 0 {
                    return Err(());
                }
                state = self.0.changed.wait(state).unwrap();
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut state = self.0.state.lock().unwrap();
            let value = state.waiting.pop_front();
            self.0.changed.notify_all();
            value.ok_or(match state.senders {
                0 => TryRecvError::Disconnected,
                _ => TryRecvError::Empty,
            })
        }
    }

    /// What still waits stays in the channel, as long as there is a sender.
    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().has_receiver = false;
            self.0.changed.notify_all();
        }
    }
}

use error::{CommitError, NotStored};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use store::Store;
use sync::Arc;

/// Counts what is committed; the commit with the number `fails_at` is lost.
struct Counter {
    applied: usize,
    committed: Arc<AtomicUsize>,
    commits: usize,
    fails_at: usize,
}

impl Store for Counter {
    type Change = ();
    /// Which change it was, from 1.
    type Outcome = usize;

    fn apply(&mut self, (): ()) -> Result<usize, NotStored> {
        self.applied += 1;
        Ok(self.applied)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        self.commits += 1;
        if self.commits == self.fails_at {
            return Err(CommitError::Lost(std::io::ErrorKind::Other.into()));
        }
        self.committed.store(self.applied, Ordering::SeqCst);
        Ok(())
    }
}

/// The most involuntary switches between threads in one run. Nearly all faults of this kind show
/// with two; without a bound the orders are too many to try.
const PREEMPTIONS_MAX: usize = 2;

/// What a connection does with a pending change.
#[derive(Clone, Copy)]
enum Kind {
    Wait,
    Callback,
}

/// Two connections submit one change each. One of them waits for it, the other does as `kind` says.
fn model(fails_at: usize, kind: Kind) {
    let mut orders = loom::model::Builder::new();
    orders.preemption_bound = Some(PREEMPTIONS_MAX);
    orders.check(move || {
        let committed = Arc::new(AtomicUsize::new(0));
        let completed = Arc::new(AtomicUsize::new(0));
        let mut store = Counter {
            applied: 0,
            committed: Arc::clone(&committed),
            commits: 0,
            fails_at,
        };
        let (sender, jobs) = group_commit::channel();
        let run = thread::spawn(move || {
            let lost = group_commit::write_all(&mut store, &jobs).is_err();
            assert!(!lost || fails_at > 0);
            if lost {
                group_commit::drop_waiting(&jobs);
                group_commit::drop_all(&jobs);
            }
        });
        let connection = |kind| {
            let (sender, committed) = (sender.clone(), Arc::clone(&committed));
            let completed = Arc::clone(&completed);
            move || {
                let check = move |outcome| {
                    completed.fetch_add(1, Ordering::SeqCst);
                    match outcome {
                        // Acknowledged means committed.
                        Ok(number) => assert!(committed.load(Ordering::SeqCst) >= number),
                        Err(error) => {
                            assert_eq!(error, NotStored::Unknown);
                            assert!(fails_at > 0);
                        }
                    }
                };
                let pending = group_commit::submit::<Counter>(&sender, ());
                match kind {
                    Kind::Wait => check(pending.wait()),
                    Kind::Callback => pending.on_complete(check),
                }
            }
        };
        let other = thread::spawn(connection(kind));
        connection(Kind::Wait)();
        drop(sender);
        // That both end is half of the proof: neither waits for ever.
        other.join().unwrap();
        run.join().unwrap();
        assert_eq!(completed.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn every_change_is_completed_after_the_commit() {
    model(0, Kind::Wait);
    model(0, Kind::Callback);
}

#[test]
fn every_change_is_completed_when_the_first_commit_is_lost() {
    model(1, Kind::Wait);
    model(1, Kind::Callback);
}

#[test]
fn every_change_is_completed_when_the_second_commit_is_lost() {
    model(2, Kind::Wait);
    model(2, Kind::Callback);
}
