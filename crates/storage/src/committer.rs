//! The writer thread of a store, and the way to it.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

use crate::group_commit::{self, Job};
use crate::measured::{CommitFigures, Measured};
use crate::{Pending, StorageError, Store, lock};

/// A writer thread that owns a [`Store`]. Any number of threads may submit changes at once. Dropping
/// it commits what is submitted and joins the thread.
pub struct Committer<S: Store> {
    jobs: Option<Sender<Job<Measured<S>>>>,
    figures: CommitFigures,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl<S: Store> Committer<S> {
    /// Starts the writer thread. If a commit is lost, that thread calls `on_failure` once, which
    /// should stop the server. [`Committer::failure`] then has the cause.
    ///
    /// # Errors
    /// [`StorageError::Thread`].
    pub fn start(
        name: &str,
        store: S,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let (sender, jobs) = group_commit::channel();
        let figures = CommitFigures::new();
        let mut store = Measured::new(store, figures.clone());
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let run = move || {
            let write = || group_commit::write_all(&mut store, &jobs);
            // A panic leaves the store in an unknown state, as a lost commit does.
            let written = panic::catch_unwind(AssertUnwindSafe(write));
            let written = written.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
            if let Err(cause) = written {
                log::error!("Unanswered changes are not known to be stored: {cause}");
                *lock(&failed) = Some(cause);
                // Who waits already is told before others hear of it, who may end connections.
                group_commit::drop_waiting(&jobs);
                on_failure();
                group_commit::drop_all(&jobs);
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        Ok(Self {
            jobs: Some(sender),
            figures,
            thread: Some(thread.map_err(StorageError::Thread)?),
            failure,
        })
    }

    /// Submits a change. Waits while the queue to the writer thread is full, but not for the commit.
    /// Changes that one thread submits are applied in that order.
    pub fn submit(&self, change: S::Change) -> Pending<S::Outcome> {
        group_commit::submit(self.jobs(), change)
    }

    /// Has the writer thread call [`Store::commit`] once more, though there may be no change. Does
    /// not wait.
    pub fn wake(&self) {
        // If the queue is full, the writer thread is awake.
        let _ = self.jobs().try_send(Job::Wake);
    }

    /// What was measured of its commits so far.
    pub fn figures(&self) -> &CommitFigures {
        &self.figures
    }

    fn jobs(&self) -> &Sender<Job<Measured<S>>> {
        self.jobs.as_ref().expect("only drop takes it")
    }

    /// [`StorageError::Lost`] if a commit was lost. It is returned once.
    pub fn failure(&self) -> Option<StorageError> {
        lock(&self.failure).take().map(StorageError::Lost)
    }
}

impl<S: Store> Drop for Committer<S> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A callback can be the last that has this. It runs in that thread, which ends by itself then.
        let other = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(Err(_)) = self.thread.take().filter(other).map(JoinHandle::join) {
            log::error!("the writer thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommitError, NotStored};
    use crossbeam_channel::{Receiver, bounded};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number that the store has no space for.
    const NO_SPACE: u32 = u32::MAX;

    /// A store of numbers, whose commits fail as `fails` says.
    struct Numbers {
        committed: Arc<Mutex<Vec<u32>>>,
        applied: Vec<u32>,
        commits: u32,
        fails: fn(u32) -> Option<CommitError>,
    }

    impl Store for Numbers {
        type Change = u32;
        type Outcome = u32;

        fn apply(&mut self, number: u32) -> Result<u32, NotStored> {
            if number == NO_SPACE {
                return Err(NotStored::Refused("no space".to_owned()));
            }
            self.applied.push(number);
            Ok(number * 2)
        }

        fn commit(&mut self) -> Result<(), CommitError> {
            self.commits += 1;
            if let Some(error) = (self.fails)(self.commits) {
                self.applied.clear();
                return Err(error);
            }
            self.committed.lock().unwrap().append(&mut self.applied);
            Ok(())
        }
    }

    type Started = (Committer<Numbers>, Arc<Mutex<Vec<u32>>>, Arc<AtomicUsize>);

    fn start(fails: fn(u32) -> Option<CommitError>) -> Started {
        let committed = Arc::default();
        let failures = Arc::new(AtomicUsize::new(0));
        let store = Numbers {
            committed: Arc::clone(&committed),
            applied: Vec::new(),
            commits: 0,
            fails,
        };
        let counted = Arc::clone(&failures);
        let on_failure = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let committer = Committer::start("writer", store, on_failure).unwrap();
        (committer, committed, failures)
    }

    #[test]
    fn every_acknowledged_change_is_committed_in_order() {
        let (committer, committed, _) = start(|_| None);
        thread::scope(|scope| {
            for thread in 0..8 {
                let committer = &committer;
                scope.spawn(move || {
                    for n in 0..1000 {
                        let number = thread * 1000 + n;
                        assert_eq!(committer.submit(number).wait(), Ok(number * 2));
                    }
                });
            }
        });
        let committed = committed.lock().unwrap();
        assert_eq!(committed.len(), 8000);
        for thread in 0..8 {
            let own = committed.iter().filter(|n| *n / 1000 == thread);
            assert!(own.copied().eq(thread * 1000..(thread + 1) * 1000));
        }
    }

    #[test]
    fn a_pending_change_can_be_waited_for_later_and_elsewhere() {
        let (committer, _, _) = start(|_| None);
        let pending: Vec<_> = (0..100).map(|n| committer.submit(n)).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                for (n, pending) in (0..).zip(pending) {
                    assert_eq!(pending.wait(), Ok(n * 2));
                }
            });
        });
    }

    #[test]
    fn a_callback_is_called_with_the_outcome_of_its_change() {
        let (committer, committed, _) = start(|commit| {
            (commit > 1).then(|| CommitError::Refused(io::ErrorKind::StorageFull.into()))
        });
        let (told, outcomes) = std::sync::mpsc::channel();
        let tell = |name: &'static str| {
            let (told, committed) = (told.clone(), Arc::clone(&committed));
            move |outcome| {
                let committed = committed.lock().unwrap().clone();
                told.send((name, outcome, committed)).unwrap();
            }
        };
        committer.submit(1).on_complete(tell("first"));
        assert_eq!(outcomes.recv().unwrap(), ("first", Ok(2), vec![1]));
        // A panic in a callback does not end the writer thread.
        committer.submit(2).on_complete(|_| panic!("a bug"));
        let pending = committer.submit(3);
        drop(committer);
        pending.on_complete(tell("late"));
        assert_eq!(outcomes.recv().unwrap(), ("late", Err(full()), vec![1]));
    }

    fn full() -> NotStored {
        NotStored::Refused(io::Error::from(io::ErrorKind::StorageFull).to_string())
    }

    #[test]
    fn a_change_without_space_is_refused_alone() {
        let (committer, committed, _) = start(|_| None);
        let pending = [1, NO_SPACE, 3].map(|n| committer.submit(n));
        let outcomes = pending.map(Pending::wait);
        let refused = Err(NotStored::Refused("no space".to_owned()));
        assert_eq!(outcomes, [Ok(2), refused, Ok(6)]);
        assert_eq!(*committed.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn a_writer_that_is_woken_commits_though_there_is_no_change() {
        let (committer, _, _) =
            start(|commit| (commit == 2).then(|| CommitError::Lost(io::ErrorKind::Other.into())));
        assert_eq!(committer.submit(1).wait(), Ok(2));
        committer.wake();
        assert_eq!(committer.submit(2).wait(), Err(NotStored::Unknown));
    }

    #[test]
    fn a_failed_write_refuses_its_batch_and_no_other() {
        let (committer, committed, failures) = start(|commit| {
            (commit == 2).then(|| CommitError::Refused(io::ErrorKind::StorageFull.into()))
        });
        assert_eq!(committer.submit(1).wait(), Ok(2));
        assert_eq!(committer.submit(2).wait(), Err(full()));
        assert_eq!(committer.submit(3).wait(), Ok(6));
        assert_eq!(*committed.lock().unwrap(), [1, 3]);
        assert_eq!(failures.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_acknowledged() {
        let (committer, committed, failures) =
            start(|commit| (commit == 2).then(|| CommitError::Lost(io::ErrorKind::Other.into())));
        assert_eq!(committer.submit(1).wait(), Ok(2));
        let waiting: Vec<_> = (2..50).map(|n| committer.submit(n)).collect();
        for pending in waiting {
            assert_eq!(pending.wait(), Err(NotStored::Unknown));
        }
        assert_eq!(committer.submit(50).wait(), Err(NotStored::Unknown));
        assert_eq!(*committed.lock().unwrap(), [1]);
        drop(committer);
        assert_eq!(failures.load(Ordering::SeqCst), 1);
    }

    /// A store that is told when its only commit is lost.
    struct Loses {
        begins: Sender<()>,
        ends: Receiver<()>,
    }

    impl Store for Loses {
        type Change = ();
        type Outcome = ();

        fn apply(&mut self, (): ()) -> Result<(), NotStored> {
            Ok(())
        }

        fn commit(&mut self) -> Result<(), CommitError> {
            self.begins.send(()).unwrap();
            self.ends.recv().unwrap();
            Err(CommitError::Lost(io::ErrorKind::Other.into()))
        }
    }

    #[test]
    fn all_who_wait_are_told_of_a_lost_commit_before_others_hear_of_it() {
        let (begins, begun) = bounded(1);
        let (end, ends) = bounded(1);
        let told = Arc::new(AtomicUsize::new(0));
        let (failed, failure) = bounded(1);
        let counted = Arc::clone(&told);
        let on_failure = move || failed.send(counted.load(Ordering::SeqCst)).unwrap();
        let store = Loses { begins, ends };
        let committer = Committer::start("writer", store, on_failure).unwrap();
        let submit = || {
            let told = Arc::clone(&told);
            committer.submit(()).on_complete(move |outcome| {
                assert_eq!(outcome, Err(NotStored::Unknown));
                told.fetch_add(1, Ordering::SeqCst);
            });
        };
        submit();
        begun.recv().unwrap();
        (0..9).for_each(|_| submit());
        end.send(()).unwrap();
        assert_eq!(failure.recv(), Ok(10));
    }

    #[test]
    fn a_panic_in_the_store_leaves_no_submitter_waiting() {
        let (committer, _, _) = start(|_| panic!("a bug"));
        let waiting: Vec<_> = (0..50).map(|n| committer.submit(n)).collect();
        for pending in waiting {
            assert_eq!(pending.wait(), Err(NotStored::Unknown));
        }
    }

    #[test]
    fn a_callback_may_be_the_last_that_has_it() {
        let (committer, committed, _) = start(|_| None);
        let committer = Arc::new(committer);
        let last = Arc::clone(&committer);
        let (tell, told) = std::sync::mpsc::channel();
        // Nothing is committed meanwhile.
        let held = committed.lock().unwrap();
        committer.submit(1).on_complete(move |outcome| {
            drop(last);
            tell.send(outcome).unwrap();
        });
        let late = committer.submit(2);
        drop(committer);
        drop(held);
        assert_eq!(told.recv(), Ok(Ok(2)));
        assert_eq!(late.wait(), Ok(4));
        assert_eq!(*committed.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn dropping_commits_what_is_pending() {
        let (committer, committed, _) = start(|_| None);
        let waiting: Vec<_> = (0..500).map(|n| committer.submit(n)).collect();
        drop(committer);
        assert_eq!(committed.lock().unwrap().len(), 500);
        for pending in waiting {
            pending.wait().unwrap();
        }
    }
}
