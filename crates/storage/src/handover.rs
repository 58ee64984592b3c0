//! The hand-over: how a change gets from a connection's thread to the writer, and its outcome
//! back.
//!
//! This file names its mutex, its channel and its threads through `crate::sync` alone, so that
//! `tests/model.rs` can include it and let loom try every interleaving.

use std::io;
use std::panic::{self, AssertUnwindSafe};

use crate::error::{CommitError, NotStored};
use crate::sync::{Arc, Mutex, Receiver, Sender, Thread, TryRecvError, bounded, current, park};

/// How many changes may wait for the writer; whoever brings one more waits for room.
pub(crate) const WAITING_MAX: usize = 1024;

/// How many changes one commit takes at the most.
pub(crate) const BATCH_MAX: usize = 1024;

/// What the writer thread owns: a file, a database, and what is known of their contents.
pub trait Store: Send + 'static {
    /// What connections ask to be changed.
    type Change: Send + 'static;
    /// What becomes of a change, as far as the store's own rules go; whether it is on the disk
    /// is for the committer to say.
    type Outcome: Send + 'static;

    /// Applies one change, so that the ones behind it see it. Nobody else may see it before
    /// [`Store::commit`] has succeeded.
    ///
    /// # Errors
    /// [`NotStored::Refused`] if there is no room for it: then nothing was changed. The others of
    /// its batch are committed.
    fn apply(&mut self, change: Self::Change) -> Result<Self::Outcome, NotStored>;

    /// Whether what was applied since the last commit is so much that it should be committed now.
    fn is_batch_full(&self) -> bool {
        false
    }

    /// Makes everything durable that was applied since the last commit; that may be nothing. When
    /// this fails with [`CommitError::Refused`], the store is as it was before that.
    ///
    /// # Errors
    /// See [`CommitError`].
    fn commit(&mut self) -> Result<(), CommitError>;

    /// What whoever waits for a change of the last batch is told, when [`Store::commit`] has
    /// succeeded.
    ///
    /// # Errors
    /// [`NotStored::Refused`] if there was no room for this change, but for others of the batch.
    fn committed(&self, outcome: Self::Outcome) -> Result<Self::Outcome, NotStored> {
        Ok(outcome)
    }

    /// Whether there is something that can be done while nobody waits.
    fn is_untidy(&self) -> bool {
        false
    }

    /// Does a little of that.
    ///
    /// # Errors
    /// If it is not known any more what is on the disk, as with [`CommitError::Lost`].
    fn tidy(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome of a change, when it is committed.
#[must_use = "the outcome of a change is known only to whoever waits for it, or has it told"]
pub struct Ticket<O>(Arc<Mutex<Slot<O>>>);

/// What a store made of a change.
type Applied<S> = Result<<S as Store>::Outcome, NotStored>;

/// What is done about an outcome.
type Then<O> = Box<dyn FnOnce(Result<O, NotStored>) + Send>;

enum Slot<O> {
    Empty,
    Waiting(Thread),
    Then(Then<O>),
    Filled(Result<O, NotStored>),
}

impl<O> Ticket<O> {
    /// Waits until the change is committed or refused.
    ///
    /// # Errors
    /// If it is not stored, or not known to be.
    pub fn wait(self) -> Result<O, NotStored> {
        loop {
            let mut slot = lock(&self.0);
            if let Slot::Filled(_) = *slot {
                match std::mem::replace(&mut *slot, Slot::Empty) {
                    Slot::Filled(outcome) => return outcome,
                    _ => unreachable!("it was filled under the lock"),
                }
            }
            *slot = Slot::Waiting(current());
            drop(slot);
            // An unpark between the drop and here is remembered; one for another reason is
            // answered by the loop.
            park();
        }
    }

    /// Has `act` called with the outcome when there is one, instead of waiting for it: by the writer
    /// thread, which nothing in it may hold up, or here and now if there is one already.
    pub fn then(self, act: impl FnOnce(Result<O, NotStored>) + Send + 'static) {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Filled(outcome) => {
                drop(slot);
                act(outcome);
            }
            _ => *slot = Slot::Then(Box::new(act)),
        }
    }
}

/// A change on its way. If it is dropped unanswered, because the writer has ended or panicked,
/// its ticket says that the change is not known to be stored.
pub(crate) struct Job<S: Store> {
    change: Option<S::Change>,
    slot: Arc<Mutex<Slot<S::Outcome>>>,
    answered: bool,
}

impl<S: Store> Job<S> {
    fn answer(mut self, outcome: Result<S::Outcome, NotStored>) {
        self.fill(outcome);
    }

    fn fill(&mut self, outcome: Result<S::Outcome, NotStored>) {
        self.answered = true;
        let mut slot = lock(&self.slot);
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Then(act) => {
                drop(slot);
                // It concerns one change, and must not be the end of the others. The panic hook has
                // logged it.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| act(outcome)));
            }
            before => {
                *slot = Slot::Filled(outcome);
                drop(slot);
                if let Slot::Waiting(thread) = before {
                    thread.unpark();
                }
            }
        }
    }
}

impl<S: Store> Drop for Job<S> {
    fn drop(&mut self) {
        if !self.answered {
            self.fill(Err(NotStored::Unknown));
        }
    }
}

impl<S: Store> Job<S> {
    /// A job that changes nothing: the writer commits once more, though there may be nothing to
    /// commit.
    pub(crate) fn empty() -> Self {
        Self {
            change: None,
            slot: Arc::new(Mutex::new(Slot::Empty)),
            answered: true,
        }
    }
}

/// The two ends between which changes wait.
pub(crate) fn queue<S: Store>() -> (Sender<Job<S>>, Receiver<Job<S>>) {
    bounded(WAITING_MAX)
}

/// Hands a change to the writer; waits while there is no room.
pub(crate) fn submit<S: Store>(writer: &Sender<Job<S>>, change: S::Change) -> Ticket<S::Outcome> {
    let slot = Arc::new(Mutex::new(Slot::Empty));
    let job = Job {
        change: Some(change),
        slot: Arc::clone(&slot),
        answered: false,
    };
    // Without a writer the job comes back, and dropping it answers.
    drop(writer.send(job));
    Ticket(slot)
}

/// The writer's life: takes what waits, commits it at once, answers. Ends when nobody can submit
/// any more, or when a commit was lost.
///
/// # Errors
/// Why the commit was lost.
pub(crate) fn write_all<S: Store>(store: &mut S, jobs: &Receiver<Job<S>>) -> Result<(), io::Error> {
    let mut batch: Vec<(Job<S>, Applied<S>)> = Vec::new();
    while let Some(first) = first_of_batch(store, jobs)? {
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            if let Some(change) = job.change.take() {
                let outcome = store.apply(change);
                batch.push((job, outcome));
            }
            if batch.len() < BATCH_MAX && !store.is_batch_full() {
                next = jobs.try_recv().ok();
            }
        }
        match store.commit() {
            Ok(()) => {
                for (job, outcome) in batch.drain(..) {
                    job.answer(outcome.and_then(|outcome| store.committed(outcome)));
                }
            }
            Err(CommitError::Refused(cause)) => {
                log::error!(
                    "{} changes were refused, cannot write: {cause}",
                    batch.len()
                );
                let cause = cause.to_string();
                for (job, _) in batch.drain(..) {
                    job.answer(Err(NotStored::Refused(cause.clone())));
                }
            }
            // The batch is answered as it is dropped.
            Err(CommitError::Lost(cause)) => return Err(cause),
        }
    }
    Ok(())
}

/// Waits for the next change, and has the store tidy up while there is none; `None` if nobody can
/// submit any more.
fn first_of_batch<S: Store>(
    store: &mut S,
    jobs: &Receiver<Job<S>>,
) -> Result<Option<Job<S>>, io::Error> {
    while store.is_untidy() {
        match jobs.try_recv() {
            Ok(job) => return Ok(Some(job)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => store.tidy()?,
        }
    }
    Ok(jobs.recv().ok())
}

/// The writer's life after a commit was lost: everything that waits or still comes is answered
/// that it is not known to be stored, until nobody can submit any more. A channel does not drop
/// what waits in it when its receiver goes, so going would leave the waiters waiting.
pub(crate) fn refuse_all<S: Store>(jobs: &Receiver<Job<S>>) {
    while let Ok(job) = jobs.recv() {
        drop(job);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> {
    // Nothing in here panics while it holds the lock.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
