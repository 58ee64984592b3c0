//! Group commit: one commit for all changes that wait.
//!
//! Connections put their changes into a bounded channel. The writer thread takes all that are in it,
//! applies them in order, commits once, and completes each. The more changes wait, the more of them
//! share one sync. When the channel is full, submitting waits: that is the backpressure.
//!
//! This file names its channel through `crate::sync`, so that `tests/model.rs` can include it and
//! let loom try every order in which the threads can meet.

use std::io;

use crate::error::{CommitError, NotStored};
use crate::pending::{Completer, Pending, pending};
use crate::store::Store;
use crate::sync::{Receiver, Sender, TryRecvError, bounded};

/// The most changes that wait for the writer thread.
pub(crate) const WAITING_MAX: usize = 1024;

/// The most changes in one batch.
pub(crate) const BATCH_MAX: usize = 1024;

/// What the writer thread is sent.
pub(crate) enum Job<S: Store> {
    /// A change to apply, and what completes it.
    Change(S::Change, Completer<S::Outcome>),
    /// A commit, though there may be no change.
    Wake,
}

/// A change of the batch: what completes it, and what [`Store::apply`] made of it.
type Applied<O> = (Completer<O>, Result<O, NotStored>);

/// The channel to the writer thread.
pub(crate) fn channel<S: Store>() -> (Sender<Job<S>>, Receiver<Job<S>>) {
    bounded(WAITING_MAX)
}

/// Submits a change; waits while the channel is full.
pub(crate) fn submit<S: Store>(jobs: &Sender<Job<S>>, change: S::Change) -> Pending<S::Outcome> {
    let (pending, completer) = pending();
    // If the writer thread has ended, the channel returns the job. Dropping the job completes its change
    // as not known to be stored.
    drop(jobs.send(Job::Change(change, completer)));
    pending
}

/// The life of the writer thread. It ends when nobody can submit any more, or when a commit is lost.
///
/// # Errors
/// Why the commit is lost.
pub(crate) fn write_all<S: Store>(store: &mut S, jobs: &Receiver<Job<S>>) -> io::Result<()> {
    let mut batch: Vec<Applied<S::Outcome>> = Vec::new();
    while let Some(first) = first_job(store, jobs)? {
        let mut next = Some(first);
        while let Some(job) = next.take() {
            if let Job::Change(change, completer) = job {
                batch.push((completer, store.apply(change)));
            }
            if batch.len() < BATCH_MAX && !store.is_batch_full() {
                next = jobs.try_recv().ok();
            }
        }
        match store.commit() {
            Ok(()) => {
                for (completer, outcome) in batch.drain(..) {
                    completer.complete(outcome.and_then(|outcome| store.confirm(outcome)));
                }
            }
            Err(CommitError::Refused(cause)) => {
                log::error!("{} changes refused: cannot write: {cause}", batch.len());
                for (completer, _) in batch.drain(..) {
                    completer.complete(Err(NotStored::Refused(cause.to_string())));
                }
            }
            // Dropping the batch completes its changes.
            Err(CommitError::Lost(cause)) => return Err(cause),
        }
    }
    Ok(())
}

/// Waits for the next job, and does maintenance as long as there is none. `None` if nobody can submit
/// any more.
fn first_job<S: Store>(store: &mut S, jobs: &Receiver<Job<S>>) -> io::Result<Option<Job<S>>> {
    while store.needs_maintenance() {
        match jobs.try_recv() {
            Ok(job) => return Ok(Some(job)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => store.maintain()?,
        }
    }
    Ok(jobs.recv().ok())
}

/// Drops the jobs that wait, which completes each as not known to be stored.
pub(crate) fn drop_waiting<S: Store>(jobs: &Receiver<Job<S>>) {
    for _ in 0..WAITING_MAX {
        if jobs.try_recv().is_err() {
            return;
        }
    }
}

/// The life of the writer thread after a lost commit: it drops every job, which completes it as not
/// known to be stored, until nobody can submit any more. A channel keeps its contents when its
/// receiver is dropped, so without this the submitters would wait for ever.
pub(crate) fn drop_all<S: Store>(jobs: &Receiver<Job<S>>) {
    while let Ok(job) = jobs.recv() {
        drop(job);
    }
}
