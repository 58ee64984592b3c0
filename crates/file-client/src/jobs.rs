//! Threads that do the same work at once: the lines of a batch, the files of a folder.

use std::num::NonZeroUsize;
use std::panic;
use std::thread;

use crate::progress::above_bars;

/// Does this work on N threads, `job-1` and so on, and returns what each of them returns. One job runs
/// on this thread. If the system gives fewer threads, a warning says so.
pub(crate) fn run<R: Send>(jobs: NonZeroUsize, work: impl Fn() -> R + Sync) -> Vec<R> {
    if jobs.get() == 1 {
        return vec![work()];
    }
    thread::scope(|scope| {
        let start = |job| {
            let thread = thread::Builder::new().name(format!("job-{job}"));
            thread.spawn_scoped(scope, &work)
        };
        let start = |job| {
            let only = |error| above_bars(|| log::warn!("Only {} jobs at once: {error}", job - 1));
            start(job).map_err(only).ok()
        };
        let threads: Vec<_> = (1..=jobs.get()).map_while(start).collect();
        if threads.is_empty() {
            return vec![work()];
        }
        let join = |thread: thread::ScopedJoinHandle<R>| {
            let joined = thread.join();
            joined.unwrap_or_else(|cause| panic::resume_unwind(cause))
        };
        threads.into_iter().map(join).collect()
    })
}
