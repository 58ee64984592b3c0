//! Who puts a file where: one upload at a time for each place. Others, in other places, do not wait.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The places that a file is being put in. For each, one upload comes after the other.
#[derive(Default)]
pub(super) struct Claims {
    claimed: Mutex<HashSet<PathBuf>>,
    changed: Condvar,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else puts a file there.
    pub(super) fn claim<'c>(&'c self, path: &Path) -> Claim<'c> {
        let claimed = self
            .changed
            .wait_while(self.lock(), |claimed| claimed.contains(path));
        claimed
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.to_owned());
        Claim {
            claims: self,
            path: path.to_owned(),
        }
    }
}

/// The right to put a file in one place. Dropping it gives it to the next.
#[must_use = "the claim is over when this is dropped"]
pub(super) struct Claim<'c> {
    claims: &'c Claims,
    path: PathBuf,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.path);
        self.claims.changed.notify_all();
    }
}
