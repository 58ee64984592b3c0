//! When a worker ends by itself. All of its threads end together: a job that runs may send more,
//! and then there is something to do for all of them.
//!
//! With `--wait`, that is when no message came for so long since the last job ended. With `--drain`,
//! it is when the queue is empty, no job runs, and none waits for its retry: a thread that finds
//! nothing waits for the others, and while a job runs it asks the server again and again, each time
//! for so long as nobody is kept waiting by it when the last job has ended.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::queue::MessageId;

/// How long a thread without a job waits at once, be it for a message or for another thread.
const PIECE: Duration = Duration::from_millis(200);

/// How late a retry may be, after which it must be another worker that has it.
const RETRY_LATE: Duration = Duration::from_secs(2);

/// What the threads of a worker know of each other.
pub(super) struct End {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Threads that have a connection.
    connected: usize,
    /// Threads whose job runs.
    running: usize,
    /// Threads that ask the server for a message.
    asking: usize,
    /// Since when no job runs.
    idle_since: Instant,
    /// Whether a thread has found that this is the end.
    is_over: bool,
    /// Messages that this worker has released with a delay, and until when they are waited for.
    retries: BTreeMap<MessageId, Instant>,
    /// Messages of a queue of dead that have failed once more.
    passed_over: HashSet<MessageId>,
    died: u64,
}

/// What a thread does that has found nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is no more to do.
    End,
    /// Ask the server once more, for so long.
    Ask(Duration),
    /// Look once more; by now the workers may be told to stop.
    Look,
}

impl State {
    fn left_of(&self, wait: Duration) -> Duration {
        match self.running {
            0 => wait.saturating_sub(self.idle_since.elapsed()),
            1.. => wait,
        }
    }
}

impl End {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                connected: 0,
                running: 0,
                asking: 0,
                idle_since: Instant::now(),
                is_over: false,
                retries: BTreeMap::new(),
                passed_over: HashSet::new(),
                died: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a thread has a connection, until the guard is dropped.
    pub(super) fn connected(&self) -> Connected<'_> {
        self.lock().connected += 1;
        Connected(self)
    }

    /// Whether any thread has a connection.
    pub(super) fn has_connected(&self) -> bool {
        self.lock().connected > 0
    }

    /// Notes that a thread asks the server, until the guard is dropped.
    pub(super) fn asking(&self) -> Busy<'_> {
        self.lock().asking += 1;
        Busy {
            end: self,
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

    /// Whether there is no more to do.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// What is left of a wait that began when the last job ended.
    pub(super) fn left_of(&self, wait: Duration) -> Duration {
        self.lock().left_of(wait)
    }

    /// What a thread does that ends when no message came for `wait`.
    pub(super) fn next_within(&self, wait: Duration) -> Next {
        let mut state = self.lock();
        let left = state.left_of(wait);
        if left.is_zero() {
            state.is_over = true;
            return Next::End;
        }
        Next::Ask(left)
    }

    /// What a thread does that drains the queue, and has found nothing, or only what is passed over.
    /// Waits for the others, but never longer than [`PIECE`].
    pub(super) fn next_of_drain(&self, is_passing_over: bool) -> Next {
        let mut state = self.lock();
        let now = Instant::now();
        state.retries.retain(|_, until| *until > now);
        if state.running == 0 && state.asking == 0 {
            return match state.retries.values().max() {
                Some(until) => Next::Ask(*until - now),
                None => {
                    state.is_over = true;
                    Next::End
                }
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

/// A thread that has a connection.
#[must_use]
pub(super) struct Connected<'e>(&'e End);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.lock().connected -= 1;
    }
}

/// A thread that asks for a message, and then runs its job.
#[must_use]
pub(super) struct Busy<'e> {
    end: &'e End,
    is_running: bool,
}

impl Busy<'_> {
    /// From now on a job runs.
    pub(super) fn runs(&mut self, id: MessageId) {
        let mut state = self.end.lock();
        state.asking -= 1;
        state.running += 1;
        state.retries.remove(&id);
        self.is_running = true;
        self.end.changed.notify_all();
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.end.lock();
        if self.is_running {
            state.running -= 1;
            state.idle_since = Instant::now();
        } else {
            state.asking -= 1;
        }
        self.end.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_over_when_nobody_can_find_anything_more() {
        let end = End::new();
        let mut first = end.asking();
        let second = end.asking();
        first.runs(1);
        drop(second);
        assert_eq!(end.next_of_drain(false), Next::Ask(PIECE));
        assert_eq!(end.next_of_drain(true), Next::Look);
        drop(first);
        assert_eq!(end.next_of_drain(false), Next::End);
        assert_eq!(end.next_of_drain(true), Next::End);
        let asking = end.asking();
        // It may be handed one in this very moment.
        assert_eq!(end.next_of_drain(false), Next::Look);
        drop(asking);
        assert_eq!(end.next_of_drain(false), Next::End);
    }

    #[test]
    fn a_wait_begins_when_the_last_job_has_ended() {
        const LONG: Duration = Duration::from_secs(3600);
        let end = End::new();
        let mut asking = end.asking();
        assert_ne!(end.next_within(LONG), Next::End);
        asking.runs(1);
        assert_eq!(
            end.next_within(Duration::from_nanos(1)),
            Next::Ask(Duration::from_nanos(1))
        );
        assert!(!end.is_over());
        drop(asking);
        assert_eq!(end.next_within(Duration::ZERO), Next::End);
        assert!(end.is_over());
    }

    #[test]
    fn a_retry_is_waited_for_until_it_is_there() {
        let end = End::new();
        const LONG: Duration = Duration::from_secs(3600);
        end.retries(7, LONG);
        let Next::Ask(wait) = end.next_of_drain(false) else {
            panic!("it is not waited for")
        };
        assert!(wait > LONG && wait <= LONG + RETRY_LATE, "{wait:?}");
        let mut asking = end.asking();
        asking.runs(7);
        drop(asking);
        assert_eq!(end.next_of_drain(false), Next::End);
    }
}
