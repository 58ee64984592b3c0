//! A change that is submitted and not yet committed.
//!
//! The submitter keeps a [`Pending`], the writer thread the [`Completer`] of the same slot. The
//! submitter either waits for the outcome, or leaves a callback that the writer thread calls with
//! it. A completer that is dropped, because the writer thread has panicked or ended, completes the
//! change as [`NotStored::Unknown`], so no submitter waits for ever.
//!
//! This file names its mutex and its threads through `crate::sync`, so that `tests/model.rs` can
//! include it and let loom try every order in which the threads can meet.

use std::panic::{self, AssertUnwindSafe};

use crate::error::NotStored;
use crate::sync::{Arc, Mutex, Thread, current, park};

/// A change that is submitted and not yet committed.
#[must_use = "the outcome of a change is lost unless it is waited for or handed to a callback"]
pub struct Pending<O>(Shared<O>);

type Shared<O> = Arc<Mutex<Slot<O>>>;

type Callback<O> = Box<dyn FnOnce(Result<O, NotStored>) + Send>;

enum Slot<O> {
    Empty,
    Waiting(Thread),
    Callback(Callback<O>),
    Completed(Result<O, NotStored>),
}

impl<O> Pending<O> {
    /// Waits until the change is committed or refused.
    ///
    /// # Errors
    /// If the change is not stored, or not known to be.
    pub fn wait(self) -> Result<O, NotStored> {
        loop {
            let mut slot = lock(&self.0);
            match std::mem::replace(&mut *slot, Slot::Waiting(current())) {
                Slot::Completed(outcome) => return outcome,
                Slot::Empty | Slot::Waiting(_) | Slot::Callback(_) => drop(slot),
            }
            // An unpark between here and the drop is remembered. After an unpark for another reason
            // the loop looks again.
            park();
        }
    }

    /// Has `callback` called with the outcome. The writer thread calls it, so it must not block. If
    /// the change is completed already, it is called here and now.
    pub fn on_complete(self, callback: impl FnOnce(Result<O, NotStored>) + Send + 'static) {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Completed(outcome) => {
                drop(slot);
                callback(outcome);
            }
            Slot::Empty | Slot::Waiting(_) | Slot::Callback(_) => {
                *slot = Slot::Callback(Box::new(callback));
            }
        }
    }
}

/// The writer thread's end of a [`Pending`]. Dropping it completes the change as
/// [`NotStored::Unknown`].
#[must_use = "dropping it says that the change is not known to be stored"]
pub(crate) struct Completer<O>(Option<Shared<O>>);

/// A pending change and its completer.
pub(crate) fn pending<O>() -> (Pending<O>, Completer<O>) {
    let slot = Arc::new(Mutex::new(Slot::Empty));
    (Pending(Arc::clone(&slot)), Completer(Some(slot)))
}

impl<O> Completer<O> {
    /// Hands over the outcome.
    pub(crate) fn complete(mut self, outcome: Result<O, NotStored>) {
        self.fill(outcome);
    }

    fn fill(&mut self, outcome: Result<O, NotStored>) {
        let Some(shared) = self.0.take() else {
            return;
        };
        let mut slot = lock(&shared);
        match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Callback(callback) => {
                drop(slot);
                // A panic here concerns one change and must not end the others. The panic hook has
                // logged it.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| callback(outcome)));
            }
            before => {
                *slot = Slot::Completed(outcome);
                drop(slot);
                if let Slot::Waiting(thread) = before {
                    thread.unpark();
                }
            }
        }
    }
}

impl<O> Drop for Completer<O> {
    fn drop(&mut self) {
        self.fill(Err(NotStored::Unknown));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> {
    // Nothing here panics while it holds the lock.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
