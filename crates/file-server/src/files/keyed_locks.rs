//! Locks by key: a key has one holder at a time, and holders of different keys do not wait for each
//! other. An upload is such a key, and so is the destination of a file.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage::lock;

use crate::error::FilesError;

/// How long to wait for a holder that was aborted. It may be syncing a large file.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// Ends the request that holds a lock, as soon as that waits for its client.
pub(crate) type Abort = Box<dyn Fn() + Send>;

/// The locks that are held, with what aborts their holders.
#[derive(Default)]
pub(super) struct KeyedLocks<K> {
    held: Mutex<HashMap<K, Option<Abort>>>,
    released: Condvar,
}

impl<K: Clone + Eq + Hash> KeyedLocks<K> {
    /// Waits for the lock of a key. A holder that may wait for its client is aborted, if it can be;
    /// one without `abort` works on the disk alone, and ends by itself.
    ///
    /// # Errors
    /// [`FilesError::InUse`] if an aborted holder does not release the lock in time.
    pub(super) fn lock(
        &self,
        key: K,
        abort: Option<Abort>,
    ) -> Result<KeyedLock<'_, K>, FilesError> {
        let deadline = Instant::now() + LOCK_WAIT;
        let mut held = lock(&self.held);
        while let Some(holder) = held.get(&key) {
            let Some(abort) = holder else {
                let waited = self.released.wait(held);
                held = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            abort();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FilesError::InUse);
            }
            let waited = self.released.wait_timeout(held, left);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        held.insert(key.clone(), abort);
        Ok(KeyedLock { locks: self, key })
    }
}

/// A lock that is held. Dropping it releases the lock.
#[must_use = "dropping it releases the lock"]
pub(super) struct KeyedLock<'l, K: Clone + Eq + Hash> {
    locks: &'l KeyedLocks<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Drop for KeyedLock<'_, K> {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.key);
        self.locks.released.notify_all();
    }
}
