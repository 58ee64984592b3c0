//! When a queue is drained: when it is empty, no job of this worker runs (it may send more), and
//! none waits for its retry.
//!
//! A thread that finds nothing waits for the others. While a job runs, it asks the server again and
//! again, each time for so long as nobody is kept waiting by it when the last job has ended.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::queue::MessageId;

/// How long a thread without a job waits at once, be it for a message or for another thread.
const PIECE: Duration = Duration::from_millis(200);

/// How late a retry may be, after which it must be another worker that has it.
const RETRY_LATE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Drain {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads whose job runs.
    running: usize,
    /// Threads that ask the server for a message.
    asking: usize,
    /// Messages that this worker has released with a delay, and until when they are waited for.
    retries: BTreeMap<MessageId, Instant>,
    /// Messages of a queue of dead that have failed once more.
    passed_over: HashSet<MessageId>,
    died: u64,
}

/// What a thread does that has found nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The queue is drained.
    End,
    /// Ask the server once more, for so long.
    Ask(Duration),
    /// Look once more; by now the workers may be told to stop.
    Look,
}

impl Drain {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a thread asks the server, until the guard is dropped.
    pub(super) fn asking(&self) -> Busy<'_> {
        self.lock().asking += 1;
        Busy {
            drain: self,
            is_running: false,
        }
    }

    /// Notes that a message was released with a delay.
    pub(super) fn retries(&self, id: MessageId, delay: Duration) {
        let until = delay
            .checked_add(RETRY_LATE)
            .and_then(|wait| Instant::now().checked_add(wait));
        if let Some(until) = until {
            self.lock().retries.insert(id, until);
        }
    }

    /// Notes that a message is among the dead.
    pub(super) fn died(&self) {
        self.lock().died += 1;
    }

    /// Notes that a message of a queue of dead stays there.
    pub(super) fn pass_over(&self, id: MessageId) {
        self.lock().passed_over.insert(id);
    }

    /// Whether a message was passed over: then all that were in front of it have had their turn.
    pub(super) fn is_passed_over(&self, id: MessageId) -> bool {
        self.lock().passed_over.contains(&id)
    }

    /// How many messages have died.
    pub(super) fn dead(&self) -> u64 {
        self.lock().died
    }

    /// What is to be done by a thread that has found nothing, or only what is passed over. Waits for
    /// the others, but never longer than [`PIECE`].
    pub(super) fn next(&self, is_passing_over: bool) -> Next {
        let mut state = self.lock();
        let now = Instant::now();
        state.retries.retain(|_, until| *until > now);
        if state.running == 0 && state.asking == 0 {
            return match state.retries.values().max() {
                None => Next::End,
                Some(until) => Next::Ask(*until - now),
            };
        }
        if state.running > 0 && !is_passing_over {
            return Next::Ask(PIECE);
        }
        let changed = self.changed.wait_timeout(state, PIECE);
        drop(changed);
        Next::Look
    }
}

/// A thread that asks for a message, and then runs its job.
#[must_use]
pub(super) struct Busy<'d> {
    drain: &'d Drain,
    is_running: bool,
}

impl Busy<'_> {
    /// From now on a job runs.
    pub(super) fn runs(&mut self, id: MessageId) {
        let mut state = self.drain.lock();
        state.asking -= 1;
        state.running += 1;
        state.retries.remove(&id);
        self.is_running = true;
        self.drain.changed.notify_all();
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.drain.lock();
        match self.is_running {
            true => state.running -= 1,
            false => state.asking -= 1,
        }
        self.drain.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_over_when_nobody_can_find_anything_more() {
        let drain = Drain::default();
        let mut first = drain.asking();
        let second = drain.asking();
        first.runs(1);
        drop(second);
        assert_eq!(drain.next(false), Next::Ask(PIECE));
        assert_eq!(drain.next(true), Next::Look);
        drop(first);
        assert_eq!(drain.next(false), Next::End);
        assert_eq!(drain.next(true), Next::End);
        let asking = drain.asking();
        // It may be handed one in this very moment.
        assert_eq!(drain.next(false), Next::Look);
        drop(asking);
        assert_eq!(drain.next(false), Next::End);
    }

    #[test]
    fn a_retry_is_waited_for_until_it_is_there() {
        let drain = Drain::default();
        const LONG: Duration = Duration::from_secs(3600);
        drain.retries(7, LONG);
        let Next::Ask(wait) = drain.next(false) else {
            panic!("it is not waited for")
        };
        assert!(wait > LONG && wait <= LONG + RETRY_LATE, "{wait:?}");
        let mut asking = drain.asking();
        asking.runs(7);
        drop(asking);
        assert_eq!(drain.next(false), Next::End);
    }
}
