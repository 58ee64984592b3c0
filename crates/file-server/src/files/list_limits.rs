//! What all lists share: permits to read a folder, and memory for the names.
//!
//! A batch of entries is made under a permit, of which there are few, so that many lists at once do not
//! keep the disk from everything else. No permit is held while a batch is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use storage::lock;

use crate::error::FilesError;

/// The most batches that are made at once.
const PERMITS: usize = 4;
/// How long to wait for a permit.
const PERMIT_WAIT: Duration = Duration::from_secs(20);

/// The memory of all windows together, in bytes.
pub(super) const MEMORY_BYTES: usize = 64 << 20;
/// A window takes this share of the free memory: the first has room for some 50,000 names, and with
/// forty at once each still for thousands.
const MEMORY_SHARE: usize = 16;

/// The limits of all lists together.
pub(super) struct ListLimits {
    permits: (Sender<()>, Receiver<()>),
    /// The memory that is free, in bytes.
    free_bytes: Mutex<usize>,
}

impl Default for ListLimits {
    fn default() -> Self {
        Self {
            permits: crossbeam_channel::bounded(PERMITS),
            free_bytes: Mutex::new(MEMORY_BYTES),
        }
    }
}

impl ListLimits {
    /// Waits for a permit.
    ///
    /// # Errors
    /// [`FilesError::TooManyLists`] if there is none in time.
    pub(super) fn permit(&self) -> Result<Permit<'_>, FilesError> {
        let (taken, returned) = &self.permits;
        let waited = taken.send_timeout((), PERMIT_WAIT);
        waited.map_err(|_| FilesError::TooManyLists)?;
        Ok(Permit(returned))
    }

    /// Reserves memory for a window, and leaves most of it to others: a folder is read once for each
    /// of its windows, and a list in tiny windows reads it hundreds of times.
    pub(super) fn reserve(self: &Arc<Self>) -> Memory {
        let bytes = self.change_free(|free| {
            let reserved = *free / MEMORY_SHARE;
            *free -= reserved;
            reserved
        });
        Memory {
            limits: Arc::clone(self),
            bytes,
        }
    }

    pub(super) fn change_free<T>(&self, change: impl FnOnce(&mut usize) -> T) -> T {
        change(&mut lock(&self.free_bytes))
    }
}

/// The right to make one batch.
#[must_use = "dropping it returns the permit"]
pub(super) struct Permit<'l>(&'l Receiver<()>);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // The channel has this permit since it was taken.
        let _ = self.0.try_recv();
    }
}

/// Memory that is reserved for a window. Dropping it frees the memory.
pub(super) struct Memory {
    limits: Arc<ListLimits>,
    pub(super) bytes: usize,
}

impl Memory {
    /// Frees what is not needed.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        self.limits.change_free(|free| *free += rest);
        self.bytes -= rest;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_permits_is_limited() {
        let limits = ListLimits::default();
        let mut permits: Vec<_> = (0..PERMITS).map(|_| limits.permit().unwrap()).collect();
        assert!(limits.permits.0.is_full());
        permits.pop();
        permits.push(limits.permit().unwrap());
        drop(permits);
        assert!(limits.permits.0.is_empty());
    }
}
