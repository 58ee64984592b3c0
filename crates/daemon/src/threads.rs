//! The threads of a server: all of them run, or none does.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use crate::peer::Source;
use crate::{STACK_BYTES, lock};

/// What a thread is to do, and its name.
pub(crate) type Job = (String, Box<dyn FnOnce() + Send>);

/// Starts a thread for each job. None begins before all are started; if one cannot be, the others end
/// without having done anything.
pub(crate) fn start_all(jobs: Vec<Job>) -> io::Result<Vec<JoinHandle<()>>> {
    start_all_with(jobs, |(name, run)| spawn(name, run))
}

fn start_all_with(
    jobs: Vec<Job>,
    mut spawn: impl FnMut(Job) -> io::Result<JoinHandle<()>>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let may_begin = Arc::new(OnceLock::new());
    let mut threads = Vec::new();
    for (name, run) in jobs {
        let all_are_there = Arc::clone(&may_begin);
        let gated = move || {
            if *all_are_there.wait() {
                run();
            }
        };
        match spawn((name, Box::new(gated))) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                let _ = may_begin.set(false);
                join_all(threads);
                return Err(error);
            }
        }
    }
    let _ = may_begin.set(true);
    Ok(threads)
}

/// Waits until they have ended.
pub(crate) fn join_all(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            log::error!("the thread '{name}' panicked");
        }
    }
}

/// How many threads of one kind there may be. A quarter of them is the share of one source.
pub(crate) struct Permits {
    threads_max: usize,
    by_source: Mutex<HashMap<Source, usize>>,
}

/// Dropping it gives it back.
#[must_use = "the thread counts as long as this lives"]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    from: Source,
}

impl Permits {
    pub(crate) fn new(threads_max: usize) -> Arc<Self> {
        Arc::new(Self {
            threads_max,
            by_source: Mutex::default(),
        })
    }

    /// A permit for one thread that works for a source, if there is one left for that.
    pub(crate) fn acquire(self: &Arc<Self>, from: Source) -> Option<Permit> {
        let mut by_source = lock(&self.by_source);
        let all: usize = by_source.values().sum();
        let of_one = by_source.get(&from).copied().unwrap_or(0);
        if all >= self.threads_max || of_one >= self.threads_max / 4 {
            return None;
        }
        by_source.insert(from, of_one + 1);
        let permits = Arc::clone(self);
        Some(Permit { permits, from })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut by_source = lock(&self.permits.by_source);
        if let Some(of_one) = by_source.get_mut(&self.from) {
            *of_one -= 1;
            if *of_one == 0 {
                by_source.remove(&self.from);
            }
        }
    }
}

/// Starts one thread, with a small stack.
pub(crate) fn spawn(
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name);
    builder.stack_size(STACK_BYTES).spawn(run)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How many of three jobs run if a thread can be started so often.
    fn run(startable: usize) -> (io::Result<()>, usize) {
        let ran = Arc::new(AtomicUsize::new(0));
        let job = |n| -> Job {
            let ran = Arc::clone(&ran);
            let run = move || {
                ran.fetch_add(1, Ordering::SeqCst);
            };
            (format!("job {n}"), Box::new(run))
        };
        let mut left = startable;
        let threads = start_all_with((0..3).map(job).collect(), |(name, run)| {
            left = left.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
            spawn(name, run)
        });
        let started = threads.map(join_all);
        (started, ran.load(Ordering::SeqCst))
    }

    #[test]
    fn all_threads_run_or_none() {
        assert!(matches!(run(3), (Ok(()), 3)));
        for startable in 0..3 {
            let (started, ran) = run(startable);
            assert_eq!(started.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(ran, 0, "{startable}");
        }
    }

    #[test]
    fn no_source_has_more_than_a_quarter_of_the_permits() {
        let permits = Permits::new(8);
        let acquire = |user| permits.acquire(Source::User(user));
        let held: Vec<_> = [1, 1, 2, 2, 3, 3, 4].into_iter().map(acquire).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(acquire(1).is_none());
        let last = acquire(4);
        assert!(last.is_some() && acquire(5).is_none());
        drop(held);
        assert!(acquire(5).is_some());
        drop(last);
        assert!(lock(&permits.by_source).is_empty());
    }
}
