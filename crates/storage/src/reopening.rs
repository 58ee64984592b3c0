//! SIGHUP, on its way to the thread that writes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A request to open a file again by its name, which another program has moved away. Any thread may
/// ask; the one that writes the file does it, between two commits.
#[derive(Debug, Clone, Default)]
pub struct Reopening(Arc<(Mutex<bool>, Condvar)>);

impl Reopening {
    /// Asks for it. An idle writer has to be woken for it.
    pub fn ask(&self) {
        let (asked, changed) = &*self.0;
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Whether somebody has asked since the last time; waits for it this long at most.
    pub(crate) fn take(&self, patience: Duration) -> bool {
        let (asked, changed) = &*self.0;
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(asked, patience, |asked| !*asked);
        let (mut asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn it_is_asked_for_once() {
        let reopening = Reopening::default();
        assert!(!reopening.take(Duration::ZERO));
        reopening.ask();
        reopening.ask();
        assert!(reopening.take(Duration::ZERO));
        assert!(!reopening.take(Duration::from_millis(1)));
        thread::scope(|scope| {
            scope.spawn(|| reopening.ask());
            assert!(reopening.take(Duration::from_secs(30)));
        });
    }
}
