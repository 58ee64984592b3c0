//! What is due: delays that are over, leases that expire, and messages that nobody has received in time.

use std::time::Duration;

use super::Queues;
use super::requeue::LEASE_EXPIRED;
use super::schedule::Due;
use super::state::State;
use crate::clock::{Clock, Micros};
use crate::message::Reserved;

/// How much of what is due is done under one lock. Others wait no longer than that takes.
const DUE_MAX: usize = 1000;

/// What was due.
#[derive(Default)]
pub(super) struct WasDue {
    /// How many messages were promoted.
    pub(super) promoted: usize,
    /// Those whose lease has expired.
    pub(super) leased: Vec<Reserved>,
    /// Those that have expired.
    pub(super) expired: Vec<Reserved>,
}

impl WasDue {
    fn count(&self) -> usize {
        self.promoted + self.leased.len() + self.expired.len()
    }
}

impl State {
    /// Does at most `count_max` of what is due: promotes messages, each to the end of its queue, and ends
    /// leases.
    pub(super) fn pop_due(&mut self, now: Micros, clock: &Clock, count_max: usize) -> WasDue {
        let mut was_due = WasDue::default();
        for _ in 0..count_max {
            let Some((at, due)) = self.common.schedule.pop(now) else {
                break;
            };
            match due {
                Due::Lease(token) => was_due.leased.extend(self.end_lease(token)),
                Due::Delay(id, name) => {
                    let mut entry = self.entry(&name);
                    if let Some(mut message) = entry.queue.delayed.remove(&(at, id)) {
                        entry.unschedule(&message);
                        entry.free_delay();
                        message.position = message.position.at(clock.next_moment());
                        entry.put(message, false);
                    }
                    was_due.promoted += 1;
                }
                Due::Expiry(position, id, name) => {
                    let mut entry = self.entry(&name);
                    if let Some(message) = entry.queue.remove((position, id)) {
                        entry.queue.reserved_count += 1;
                        let was_delayed = entry.undelay(&message);
                        was_due.expired.push(entry.reserved(message, was_delayed));
                    }
                }
            }
        }
        was_due
    }
}

impl Queues {
    /// Promotes the messages whose delay is over, requeues those whose lease has expired, and makes dead
    /// letters of those that have expired. Then waits until something more is due, or `is_stopped` after
    /// [`Queues::wake_timer`].
    pub(crate) fn wait_until_due(&self, is_stopped: impl Fn() -> bool) {
        let (mut leases, mut messages) = (0, 0);
        while let was_due = self.do_what_is_due()
            && was_due.count() > 0
        {
            leases += was_due.leased.len();
            messages += was_due.expired.len();
            for leased in was_due.leased {
                self.requeue(leased, LEASE_EXPIRED);
            }
            for expired in was_due.expired {
                self.expire(expired);
            }
            if is_stopped() {
                break;
            }
        }
        if leases > 0 {
            log::info!("Expired leases: {leases}");
        }
        if messages > 0 {
            log::info!("Expired messages: {messages}");
        }
        let mut state = self.shared.lock();
        let due = state.common.schedule.sleep();
        let now = self.shared.clock.now();
        let wait = due.map(|due| Duration::from_micros(due.saturating_sub(now)));
        if !is_stopped() && wait != Some(Duration::ZERO) {
            state.wait_until_due(wait);
        }
    }

    fn do_what_is_due(&self) -> WasDue {
        let clock = &self.shared.clock;
        let mut state = self.shared.lock();
        state.pop_due(clock.now(), clock, DUE_MAX)
    }

    /// Ends the present [`Queues::wait_until_due`].
    pub(crate) fn wake_timer(&self) {
        // Under the lock, because the timer would miss it between its check and its wait.
        self.shared.lock().common.schedule.wake();
    }
}
