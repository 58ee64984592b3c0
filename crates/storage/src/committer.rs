//! The writer thread and the way to it.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;

use crate::StorageError;
use crate::handover::{self, Job, Store, Ticket};

/// Whether a commit waits for the disk (`--fsync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// It does: what was acknowledged survives a power cut.
    Always,
    /// It does not: what was acknowledged survives the death of the server, but the newest of it
    /// not that of the machine.
    Never,
}

impl Fsync {
    /// Tells whoever starts a server what he gives up, if he does.
    pub fn warn(self) {
        if self == Self::Never {
            log::warn!("With --fsync never, a power cut loses what was acknowledged last");
        }
    }
}

impl FromStr for Fsync {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(()),
        }
    }
}

/// A writer thread that owns a [`Store`]. Any number of threads may submit changes at once.
/// Dropping it ends the thread when everything submitted is committed.
pub struct Committer<S: Store> {
    writer: Option<Sender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl<S: Store> Committer<S> {
    /// Starts the writer thread. If a commit is lost, `on_failure` is called once, from that
    /// thread: it should make the server end, and [`Committer::failure`] then says why.
    ///
    /// # Errors
    /// [`StorageError::Thread`].
    pub fn start(
        name: &str,
        mut store: S,
        on_failure: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StorageError> {
        let (writer, jobs) = handover::queue();
        let failure = Arc::new(Mutex::new(None));
        let failed = Arc::clone(&failure);
        let run = move || {
            let write = || handover::write_all(&mut store, &jobs);
            // A panic leaves the store in an unknown state, as a lost commit does.
            let written = panic::catch_unwind(AssertUnwindSafe(write));
            let written = written.unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
            if let Err(cause) = written {
                log::error!("What was not answered is not known to be stored: {cause}");
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                on_failure();
                handover::refuse_all(&jobs);
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        Ok(Self {
            writer: Some(writer),
            thread: Some(thread.map_err(StorageError::Thread)?),
            failure,
        })
    }

    /// Hands a change to the writer. The ticket tells what became of it; changes submitted one
    /// after the other by one thread are applied in that order.
    pub fn submit(&self, change: S::Change) -> Ticket<S::Outcome> {
        let writer = self.writer.as_ref().expect("it is taken only by drop");
        handover::submit(writer, change)
    }

    /// Has the writer commit once more, though there may be nothing to commit: for what a store
    /// does beside that, when it has been told to. Does not wait.
    pub fn wake(&self) {
        let writer = self.writer.as_ref().expect("it is taken only by drop");
        // Without room there is enough that the writer wakes for.
        let _ = writer.try_send(Job::empty());
    }

    /// [`StorageError::Lost`] if a commit was lost. It is returned once.
    pub fn failure(&self) -> Option<StorageError> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map(StorageError::Lost)
    }
}

impl<S: Store> Drop for Committer<S> {
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::error!("the writer thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommitError, NotStored};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The number that a store has no room for.
    const NO_ROOM: u32 = u32::MAX;

    /// A store of numbers, whose commits fail as told.
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
            if number == NO_ROOM {
                return Err(NotStored::Refused("no room".to_owned()));
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
    fn tickets_can_be_waited_for_later_and_elsewhere() {
        let (committer, _, _) = start(|_| None);
        let tickets: Vec<_> = (0..100).map(|n| committer.submit(n)).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                for (n, ticket) in (0..).zip(tickets) {
                    assert_eq!(ticket.wait(), Ok(n * 2));
                }
            });
        });
    }

    #[test]
    fn whoever_goes_on_is_told_what_became_of_his_change() {
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
        committer.submit(1).then(tell("first"));
        assert_eq!(outcomes.recv().unwrap(), ("first", Ok(2), vec![1]));
        // A panic there does not end the writer.
        committer.submit(2).then(|_| panic!("a bug"));
        let ticket = committer.submit(3);
        drop(committer);
        ticket.then(tell("late"));
        assert_eq!(outcomes.recv().unwrap(), ("late", Err(full()), vec![1]));
    }

    fn full() -> NotStored {
        NotStored::Refused(io::Error::from(io::ErrorKind::StorageFull).to_string())
    }

    #[test]
    fn a_change_without_room_is_refused_alone() {
        let (committer, committed, _) = start(|_| None);
        let tickets = [1, NO_ROOM, 3].map(|n| committer.submit(n));
        let outcomes = tickets.map(Ticket::wait);
        let refused = Err(NotStored::Refused("no room".to_owned()));
        assert_eq!(outcomes, [Ok(2), refused, Ok(6)]);
        assert_eq!(*committed.lock().unwrap(), [1, 3]);
    }

    #[test]
    fn a_writer_that_is_woken_commits_though_nothing_changes() {
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
    fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
        let (committer, committed, failures) =
            start(|commit| (commit == 2).then(|| CommitError::Lost(io::ErrorKind::Other.into())));
        assert_eq!(committer.submit(1).wait(), Ok(2));
        let waiting: Vec<_> = (2..50).map(|n| committer.submit(n)).collect();
        for ticket in waiting {
            assert_eq!(ticket.wait(), Err(NotStored::Unknown));
        }
        assert_eq!(committer.submit(50).wait(), Err(NotStored::Unknown));
        assert_eq!(*committed.lock().unwrap(), [1]);
        drop(committer);
        assert_eq!(failures.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_in_the_store_leaves_nobody_waiting() {
        let (committer, _, _) = start(|_| panic!("a bug"));
        let waiting: Vec<_> = (0..50).map(|n| committer.submit(n)).collect();
        for ticket in waiting {
            assert_eq!(ticket.wait(), Err(NotStored::Unknown));
        }
    }

    #[test]
    fn dropping_commits_what_waits() {
        let (committer, committed, _) = start(|_| None);
        let waiting: Vec<_> = (0..500).map(|n| committer.submit(n)).collect();
        drop(committer);
        assert_eq!(committed.lock().unwrap().len(), 500);
        for ticket in waiting {
            ticket.wait().unwrap();
        }
    }
}
