//! What is due: delays that are over, and leases that expire.

use std::time::Duration;

use super::Queues;

/// How many messages are promoted, and how many leases are ended, under one lock. Others wait no longer
/// than that takes.
const DUE_MAX: usize = 1000;

impl Queues {
    /// Promotes the messages whose delay is over, and requeues those whose lease has expired. Then waits
    /// until something more is due, or `is_stopped` after [`Queues::wake_timer`].
    pub(crate) fn wait_until_due(&self, is_stopped: impl Fn() -> bool) {
        let mut expired = 0;
        while let done = self.do_what_is_due(&mut expired)
            && done > 0
            && !is_stopped()
        {}
        if expired > 0 {
            log::info!("Expired leases: {expired}");
        }
        let mut state = self.shared.lock();
        let due = state.first_due();
        state.common.next_due = due;
        let now = self.shared.clock.now();
        let wait = due.map(|due| Duration::from_micros(due.saturating_sub(now)));
        if !is_stopped() && wait != Some(Duration::ZERO) {
            state.wait_until_due(wait);
        }
    }

    /// Does some of what is due, and counts the leases that have expired. Returns how much there was.
    fn do_what_is_due(&self, expired_count: &mut usize) -> usize {
        let (promoted, expired) = {
            let mut state = self.shared.lock();
            let clock = &self.shared.clock;
            let now = clock.now();
            let promoted = state.promote(now, clock, DUE_MAX);
            (promoted, state.expire(now, DUE_MAX))
        };
        let due = promoted + expired.len();
        *expired_count += expired.len();
        expired.into_iter().for_each(|leased| self.requeue(leased));
        due
    }

    /// Ends the present [`Queues::wait_until_due`].
    pub(crate) fn wake_timer(&self) {
        // Under the lock, because the timer would miss it between its check and its wait.
        self.shared.lock().common.is_due_earlier = true;
    }
}
