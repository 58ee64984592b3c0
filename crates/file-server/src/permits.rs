//! Permits for what takes much work or memory, and is limited to a number at once: archives, and files that
//! are compressed while they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The permits of one kind of work.
#[derive(Clone, Default)]
pub(crate) struct Permits(Arc<AtomicUsize>);

impl Permits {
    /// Permits one more, unless there are this many.
    pub(crate) fn permit(&self, most: usize) -> Option<Permit> {
        let one_more = |open| (open < most).then_some(open + 1);
        let begun = (self.0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        begun.is_ok().then(|| Permit(self.clone()))
    }

    /// How many are in use.
    pub(crate) fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The right to do one piece of the work.
#[must_use = "dropping it returns the permit"]
pub(crate) struct Permit(Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_comes_back() {
        let all = Permits::default();
        let permits = [(); 2].map(|()| all.permit(2).unwrap());
        assert!(all.permit(2).is_none());
        assert_eq!(all.open(), 2);
        drop(permits);
        assert!(all.permit(1).is_some());
    }
}
