//! The request to reopen a file, on its way from SIGHUP to the writer thread.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock;

/// Asks the writer thread to reopen a file by its name, because a program that rotates logs has
/// renamed the open one. Any thread may raise it. The writer thread acts on it between two commits.
#[derive(Debug, Clone, Default)]
pub struct ReopenSignal(Arc<(Mutex<bool>, Condvar)>);

impl ReopenSignal {
    /// Asks for it. An idle writer thread has to be woken as well.
    pub fn raise(&self) {
        let (raised, changed) = &*self.0;
        *lock(raised) = true;
        changed.notify_all();
    }

    /// Waits for the signal for at most this long and clears it; returns whether it was raised.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let (raised, changed) = &*self.0;
        let waited = changed.wait_timeout_while(lock(raised), timeout, |raised| !*raised);
        let (mut raised, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *raised)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_signal_is_received_once() {
        let signal = ReopenSignal::default();
        assert!(!signal.wait(Duration::ZERO));
        signal.raise();
        signal.raise();
        assert!(signal.wait(Duration::ZERO));
        assert!(!signal.wait(Duration::from_millis(1)));
        thread::scope(|scope| {
            scope.spawn(|| signal.raise());
            assert!(signal.wait(Duration::from_secs(30)));
        });
    }
}
