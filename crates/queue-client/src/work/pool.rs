//! What the threads of a worker know of each other: what each of them does, and whether they end.
//!
//! They end together, in one of three ways:
//! - Nothing is left to do. With `--wait` that is when no message has come for that long since the
//!   last job ended. With `--drain` it is when the queue is empty, no job runs (it might send more),
//!   and none is to be retried: a thread that finds nothing waits for the others, and while a job runs
//!   it asks the server again and again, each time for a moment only.
//! - They stop, because of a signal or because one of them failed: waits for messages are aborted,
//!   jobs run to their end.
//! - They abort, because of a second signal: the jobs are ended too.

use std::collections::{BTreeMap, HashSet};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use proto::queue::MessageId;

use crate::{AbortHandle, DeadLetters};

/// The longest wait of a thread that drains a queue, for a message or for another thread.
const PIECE: Duration = Duration::from_millis(200);

/// How late a retry may be. After that, another worker must have it.
const RETRY_LATE: Duration = Duration::from_secs(2);

/// How many retries are known by their messages.
const RETRIES_MAX: usize = 10_000;

/// The threads of a worker.
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stage: Stage,
    threads: Vec<Activity>,
    /// When the last job ended, if none runs.
    idle_since: Instant,
    /// Messages that this worker has released with a delay, and when it no longer waits for them.
    retries: BTreeMap<MessageId, Instant>,
    /// The same for all beyond [`RETRIES_MAX`] together: whether they have come is not known.
    retries_beyond: Option<Instant>,
    /// Messages of a queue of dead letters that have failed once more.
    skipped: HashSet<MessageId>,
    dead_letters: DeadLetters,
    /// Guardians that stay behind, with what their commands have left behind.
    left: Vec<Child>,
}

/// How far the worker is; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Working,
    Finished,
    Stopping,
    Aborting,
}

/// What a thread does.
pub(super) enum Activity {
    /// It has no connection.
    Away,
    /// It has a connection, and neither asks nor runs a job.
    Connected,
    /// It asks for a message; the handle aborts its wait.
    Asking(Option<AbortHandle>),
    /// It runs a job; the socket is that to the job's guardian.
    Running(Option<Arc<UnixStream>>),
}

/// What a thread does next that has found nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It ends: there is nothing left to do.
    End,
    /// It asks the server again, for this long.
    Ask(Duration),
    /// It looks again, because the worker may stop by now.
    Look,
}

impl State {
    fn is_stopping(&self) -> bool {
        self.stage >= Stage::Stopping
    }

    fn any(&self, is_meant: impl Fn(&Activity) -> bool) -> bool {
        self.threads.iter().any(is_meant)
    }

    fn is_running(&self) -> bool {
        self.any(|activity| matches!(activity, Activity::Running(_)))
    }

    fn left_of(&self, wait: Duration) -> Duration {
        if self.is_running() {
            wait
        } else {
            wait.saturating_sub(self.idle_since.elapsed())
        }
    }

    /// Aborts what is to be aborted by now. An error means that it has ended.
    fn enforce(&self) {
        for activity in &self.threads {
            match activity {
                Activity::Asking(Some(handle)) if self.is_stopping() => handle.abort_wait(),
                // Its guardian ends the command, and can still report how that has ended.
                Activity::Running(Some(guardian)) if self.stage == Stage::Aborting => {
                    let _ = guardian.shutdown(Shutdown::Write);
                }
                Activity::Away
                | Activity::Connected
                | Activity::Asking(_)
                | Activity::Running(_) => {}
            }
        }
    }
}

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::Working,
                threads: (0..threads).map(|_| Activity::Away).collect(),
                idle_since: Instant::now(),
                retries: BTreeMap::new(),
                retries_beyond: None,
                skipped: HashSet::new(),
                dead_letters: DeadLetters::default(),
                left: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of one thread, counted from 0.
    pub(super) fn member(&self, number: usize) -> Member<'_> {
        Member { pool: self, number }
    }

    /// Aborts the waits for messages; jobs run to their end.
    pub(super) fn stop(&self) {
        self.advance(Stage::Stopping);
    }

    /// Ends the jobs that run, too.
    pub(super) fn abort(&self) {
        self.advance(Stage::Aborting);
    }

    fn advance(&self, stage: Stage) {
        let mut state = self.lock();
        state.stage = state.stage.max(stage);
        state.enforce();
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().is_stopping()
    }

    pub(super) fn is_aborting(&self) -> bool {
        self.lock().stage == Stage::Aborting
    }

    /// Whether a thread that has no connection needs none any more.
    pub(super) fn is_over(&self) -> bool {
        self.lock().stage != Stage::Working
    }

    /// Whether any thread has a connection.
    pub(super) fn has_connected(&self) -> bool {
        let state = self.lock();
        state.any(|activity| !matches!(activity, Activity::Away))
    }

    /// Waits for `pause`, or less if the worker stops.
    pub(super) fn pause(&self, pause: Duration) {
        let state = self.lock();
        let is_working = |state: &mut State| !state.is_stopping();
        drop(self.changed.wait_timeout_while(state, pause, is_working));
    }

    /// Notes that a message was released with a delay, so that a drain waits for it.
    pub(super) fn retries(&self, id: MessageId, delay: Duration) {
        let until = delay
            .checked_add(RETRY_LATE)
            .and_then(|wait| Instant::now().checked_add(wait));
        let mut state = self.lock();
        if state.retries.len() < RETRIES_MAX {
            state.retries.extend(until.map(|until| (id, until)));
        } else {
            state.retries_beyond = state.retries_beyond.max(until);
        }
    }

    /// Notes that a message has become a dead letter, in this queue.
    pub(super) fn died(&self, id: MessageId, queue: String) {
        self.lock().dead_letters.add(id, queue);
    }

    /// The messages that have become dead letters.
    pub(super) fn dead_letters(&self) -> DeadLetters {
        self.lock().dead_letters.clone()
    }

    /// Leaves a guardian behind, which may outlive the worker.
    pub(super) fn leave(&self, guardian: Child) {
        self.lock().left.push(guardian);
        // It may have ended before it was one of them.
        self.reap();
    }

    /// Waits for the guardians that were left behind and have ended, so that none stays as a zombie.
    pub(super) fn reap(&self) {
        let is_running = |left: &mut Child| matches!(left.try_wait(), Ok(None));
        self.lock().left.retain_mut(is_running);
    }

    /// Notes that a dead letter has failed once more, and stays where it is.
    pub(super) fn skip(&self, id: MessageId) {
        self.lock().skipped.insert(id);
    }

    /// Whether a dead letter has failed once more. Then all in front of it were tried, too.
    pub(super) fn is_skipped(&self, id: MessageId) -> bool {
        self.lock().skipped.contains(&id)
    }

    /// What is left of a wait that began when the last job ended.
    pub(super) fn left_of(&self, wait: Duration) -> Duration {
        self.lock().left_of(wait)
    }

    /// What a thread does next that ends when no message came within `wait`.
    pub(super) fn next_within(&self, wait: Duration) -> Next {
        let mut state = self.lock();
        let left = state.left_of(wait);
        if left.is_zero() {
            state.stage = state.stage.max(Stage::Finished);
            return Next::End;
        }
        Next::Ask(left)
    }

    /// What a thread does next that drains the queue, and has found nothing, or only what is skipped.
    /// Waits for the others, at most [`PIECE`].
    pub(super) fn next_of_drain(&self, is_skipping: bool) -> Next {
        let mut state = self.lock();
        let now = Instant::now();
        state.retries.retain(|_, until| *until > now);
        state.retries_beyond.take_if(|until| *until <= now);
        let is_asking = state.any(|activity| matches!(activity, Activity::Asking(_)));
        if !state.is_running() && !is_asking {
            return match state.retries.values().chain(&state.retries_beyond).max() {
                Some(until) => Next::Ask(*until - now),
                None => {
                    state.stage = state.stage.max(Stage::Finished);
                    Next::End
                }
            };
        }
        if state.is_running() && !is_skipping {
            return Next::Ask(PIECE);
        }
        drop(self.changed.wait_timeout(state, PIECE));
        Next::Look
    }
}

/// One thread of a [`Pool`]. When it is dropped, the thread is away; by a panic, all others stop.
#[must_use]
pub(super) struct Member<'p> {
    pub(super) pool: &'p Pool,
    number: usize,
}

impl Member<'_> {
    /// Says what the thread does from now on. What is to be aborted by now, is aborted at once.
    pub(super) fn set(&self, activity: Activity) {
        let mut state = self.pool.lock();
        let was_running = matches!(state.threads[self.number], Activity::Running(_));
        if was_running && !matches!(activity, Activity::Running(_)) {
            state.idle_since = Instant::now();
        }
        state.threads[self.number] = activity;
        state.enforce();
        self.pool.changed.notify_all();
    }

    /// Says that the thread runs the job of a message from now on.
    pub(super) fn runs(&self, id: MessageId) {
        self.set(Activity::Running(None));
        self.pool.lock().retries.remove(&id);
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.set(Activity::Away);
        if thread::panicking() {
            self.pool.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(pool: &Pool, number: usize) -> Member<'_> {
        let member = pool.member(number);
        member.set(Activity::Asking(None));
        member
    }

    #[test]
    fn a_drain_is_over_when_nobody_can_find_anything_more() {
        let pool = Pool::new(2);
        let first = asking(&pool, 0);
        let second = asking(&pool, 1);
        first.runs(1);
        drop(second);
        assert_eq!(pool.next_of_drain(false), Next::Ask(PIECE));
        assert_eq!(pool.next_of_drain(true), Next::Look);
        drop(first);
        assert_eq!(pool.next_of_drain(false), Next::End);
        assert_eq!(pool.next_of_drain(true), Next::End);
        let asking = asking(&pool, 0);
        // It may be handed one in this very moment.
        assert_eq!(pool.next_of_drain(false), Next::Look);
        drop(asking);
        assert_eq!(pool.next_of_drain(false), Next::End);
    }

    #[test]
    fn a_wait_begins_when_the_last_job_has_ended() {
        const LONG: Duration = Duration::from_secs(3600);
        let pool = Pool::new(1);
        let asking = asking(&pool, 0);
        assert_ne!(pool.next_within(LONG), Next::End);
        asking.runs(1);
        assert_eq!(
            pool.next_within(Duration::from_nanos(1)),
            Next::Ask(Duration::from_nanos(1))
        );
        assert!(!pool.is_over());
        drop(asking);
        assert_eq!(pool.next_within(Duration::ZERO), Next::End);
        assert!(pool.is_over());
    }

    #[test]
    fn a_retry_is_waited_for_until_it_is_there() {
        let pool = Pool::new(1);
        const LONG: Duration = Duration::from_secs(3600);
        pool.retries(7, LONG);
        let Next::Ask(wait) = pool.next_of_drain(false) else {
            panic!("it is not waited for")
        };
        assert!(wait > LONG && wait <= LONG + RETRY_LATE, "{wait:?}");
        let asking = asking(&pool, 0);
        asking.runs(7);
        drop(asking);
        assert_eq!(pool.next_of_drain(false), Next::End);
    }

    #[test]
    fn retries_without_end_take_no_memory_without_end_and_are_waited_for() {
        const LONG: Duration = Duration::from_secs(3600);
        let pool = Pool::new(1);
        let count = RETRIES_MAX as u64;
        (0..count).for_each(|id| pool.retries(id, Duration::ZERO));
        pool.retries(count, LONG);
        pool.retries(count + 1, Duration::ZERO);
        let member = pool.member(0);
        (0..count).for_each(|id| member.runs(id));
        drop(member);
        assert!(pool.lock().retries.is_empty());
        let Next::Ask(wait) = pool.next_of_drain(false) else {
            panic!("it is not waited for")
        };
        assert!(wait > LONG, "{wait:?}");
    }

    #[test]
    fn a_stop_ends_a_pause() {
        let pool = Pool::new(1);
        thread::scope(|scope| {
            scope.spawn(|| pool.pause(Duration::MAX));
            pool.stop();
        });
        assert!(pool.is_stopping());
    }

    #[test]
    fn a_panic_stops_the_others() {
        let pool = Pool::new(1);
        let panicked = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let _guard = pool.member(0);
                panic!("on purpose");
            });
            worker.join()
        });
        panicked.unwrap_err();
        assert!(pool.is_stopping());
    }
}
