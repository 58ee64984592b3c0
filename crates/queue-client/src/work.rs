//! `work`: a command for each message.
//!
//! The worker's connection keeps a message reserved while its command runs, so the server requeues it
//! when the worker dies. It is acknowledged when the command has succeeded, and released when it has
//! failed, with the reason: how it ended, and what it said last. What was never begun, or was ended because
//! the worker stops, is unreserved: that attempt does not count.

mod backoff;
mod guardian;
mod init;
mod job;
mod lookup;
mod pool;
mod signals;
mod stderr;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cli::Losses;
use proto::queue::{QueueName, Reason, Retry};

use crate::client::{Done, millis};
use crate::receive::LONG_WAIT;
use crate::{Client, Config, Error, Received, Released};

use job::Ended;
use pool::{Activity, Member, Next, Pool};
use signals::StopOnSignals;

pub use backoff::Backoff;

/// The most commands that run at once.
pub const JOBS_MAX: usize = 256;

/// The pause of a thread that the server has no connection left for, while it has one for others.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The pause of a thread whose command has failed for a dead letter. Without it the thread would run
/// the same command again and again.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

/// What to run, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// How many commands run at once.
    pub jobs: usize,
    /// Whether to end after one message.
    pub once: bool,
    /// Whether to end when the queue is empty, no command runs, and none is to be retried.
    pub drain: bool,
    /// How long without a message until the worker ends; `None` is for ever.
    pub wait: Option<Duration>,
    /// How long a message is delayed when its command has failed.
    pub backoff: Backoff,
    /// The exit codes after which a message is not tried again.
    pub dead_on: Vec<u8>,
    /// The exit codes after which an attempt does not count.
    pub uncounted_on: Vec<u8>,
    /// How long a command may run.
    pub time_limit: Option<Duration>,
    /// The command.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Guards a command, if a worker has started this program for that; else `None`. A program that calls
/// [`run`](crate::run) must call this before anything else, with its arguments.
pub fn guard(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if args.nth(1)? != guardian::ARG {
        return None;
    }
    let worker = guardian::worker()?;
    Some(guardian::guard(worker, args))
}

impl Work {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        if init::is_needed() {
            match init::run().map_err(Error::Setup)? {}
        }
        // Before anything is reserved: a worker that can do nothing must not use up the attempts of
        // messages that another one could work on.
        lookup::find(&self.command).map_err(|cause| self.cannot_start(cause))?;
        let pool = Arc::new(Pool::new(self.jobs));
        let _signals = StopOnSignals::new(Arc::clone(&pool)).map_err(Error::Setup)?;
        self.run_threads(config, &pool)?;
        if pool.is_aborting() {
            return Err(Error::Aborted);
        }
        let dead_letters = pool.dead_letters();
        match dead_letters.count {
            0 => Ok(()),
            1.. => Err(Error::DeadLetters(dead_letters)),
        }
    }

    fn run_threads(&self, config: &Config, pool: &Arc<Pool>) -> Result<(), Error> {
        let done = Done::default();
        thread::scope(|scope| {
            let spawn = |number| {
                let worker = Worker {
                    work: self,
                    config,
                    member: pool.member(number),
                    pool,
                    done: done.clone(),
                };
                let work = move || worker.work().inspect_err(|_| pool.stop());
                let named = thread::Builder::new().name(format!("worker {number}"));
                named.spawn_scoped(scope, work)
            };
            let threads: io::Result<Vec<_>> = (0..self.jobs).map(spawn).collect();
            let threads = threads.map_err(Error::Setup).inspect_err(|_| pool.stop())?;
            let panicked = |_| Err(Error::Setup(io::Error::other("a worker panicked")));
            let ended = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(panicked));
            // All are waited for, also when one has failed.
            ended.fold(Ok(()), Result::and)
        })
    }

    fn cannot_start(&self, cause: io::Error) -> Error {
        Error::Start {
            command: self.command.clone(),
            cause,
        }
    }
}

/// One thread of a [`Work`].
struct Worker<'w> {
    work: &'w Work,
    config: &'w Config,
    member: Member<'w>,
    pool: &'w Arc<Pool>,
    /// What any of the threads has done.
    done: Done,
}

impl Worker<'_> {
    fn work(&self) -> Result<(), Error> {
        let mut losses = Losses::default();
        let mut wait = self.config.wait_at_first;
        while let Some(mut client) = self.connect(wait)? {
            wait = self.config.endpoint.wait_for_server;
            client.done = self.done.clone();
            let pool = Arc::clone(self.pool);
            client.link.pause = Box::new(move |length| {
                pool.pause(length);
                !pool.is_stopping()
            });
            let connected_at = Instant::now();
            self.member.set(Activity::Connected);
            let served = self.serve(&mut client);
            if served.is_ok() {
                client.ack_requeued();
            }
            self.member.set(Activity::Away);
            match served {
                Err(error) if self.member.pool.is_stopping() && error.is_server_away() => break,
                Err(error) => {
                    let pause = self
                        .config
                        .pause_before_next(&mut losses, connected_at, &error);
                    let may_wait = error.is_server_away() && self.has_others();
                    match pause.or_else(|| may_wait.then_some(BUSY_PAUSE)) {
                        Some(pause) => self.member.pool.pause(pause),
                        None => return Err(error),
                    }
                }
                Ok(()) => break,
            }
        }
        Ok(())
    }

    /// Connects; `None` when nothing is left to do.
    fn connect(&self, wait: Duration) -> Result<Option<Client>, Error> {
        while !self.member.pool.is_over() {
            let connected = self.config.connect_within(wait, |pause| {
                self.member.pool.pause(pause);
                !self.member.pool.is_over()
            });
            match connected {
                Err(error)
                    if error.is_server_away()
                        && (self.member.pool.is_over() || self.has_others()) => {}
                connected => return connected.map(Some),
            }
        }
        Ok(None)
    }

    /// Whether another thread has a connection. Then the server is there, but may have none left for
    /// this one, and the others do its work.
    fn has_others(&self) -> bool {
        self.config.waits_for_server() && self.member.pool.has_connected()
    }

    /// Receives messages over one connection, and runs the command for each.
    fn serve(&self, client: &mut Client) -> Result<(), Error> {
        while let Some(message) = self.next(client)? {
            if self.member.pool.is_stopping() {
                // It was handed out at that moment.
                return unless_gone(client.unreserve(&message), &message);
            }
            self.execute(client, &message)?;
            if self.work.once {
                return Ok(());
            }
            self.member.set(Activity::Connected);
        }
        if self.work.once && !self.member.pool.is_stopping() {
            Err(Error::Empty)
        } else {
            Ok(())
        }
    }

    /// The next message; `None` when there is none for as long as it is to be waited for, or the
    /// worker stops.
    fn next(&self, client: &mut Client) -> Result<Option<Received>, Error> {
        let mut wait = match (self.work.drain, self.work.wait) {
            (true, _) => Duration::ZERO,
            (false, Some(wait)) => self.member.pool.left_of(wait),
            (false, None) => LONG_WAIT,
        };
        loop {
            let is_skipping = match self.ask(client, wait)? {
                Some(message) if !self.member.pool.is_skipped(message.id) => {
                    self.member.runs(message.id);
                    return Ok(Some(message));
                }
                Some(message) => {
                    unless_gone(client.unreserve(&message), &message)?;
                    true
                }
                None => false,
            };
            self.member.set(Activity::Connected);
            wait = loop {
                if self.member.pool.is_stopping() {
                    return Ok(None);
                }
                let next = match (self.work.drain, self.work.wait) {
                    (true, _) => self.member.pool.next_of_drain(is_skipping),
                    // An older server replies too early when it shuts down.
                    (false, Some(wait)) => self.member.pool.next_within(wait),
                    (false, None) => Next::Ask(LONG_WAIT),
                };
                match next {
                    Next::End => return Ok(None),
                    Next::Ask(wait) => break wait,
                    Next::Look => {}
                }
            };
        }
    }

    /// Asks for a message; the wait for it ends when the worker stops.
    fn ask(&self, client: &mut Client, wait: Duration) -> Result<Option<Received>, Error> {
        self.member.set(Activity::Asking(client.abort_handle()));
        // A worker with a limit is told that the queue is paused; others wait until it is resumed.
        let asked = if self.work.drain || self.work.once {
            client.receive_wait(wait)
        } else {
            client.receive_patiently(wait)
        };
        self.member.set(Activity::Asking(None));
        match asked {
            // The stop has aborted the wait.
            Err(_) if self.member.pool.is_stopping() => Ok(None),
            asked => asked,
        }
    }

    /// Runs the command for a message, and acknowledges, releases or unreserves it.
    fn execute(&self, client: &mut Client, message: &Received) -> Result<(), Error> {
        let id = message.id;
        let ended = match job::run(self.work, message, &self.member) {
            Ok(ended) => ended,
            Err(cause) => {
                client.unreserve_or_warn(message);
                return Err(self.work.cannot_start(cause));
            }
        };
        if ended.status.success() && !ended.is_over_time() {
            return unless_gone(client.ack_done(message), message);
        }
        if ended.was_stopped() {
            self.member.pool.pause(job::SIGNALS_APART);
        }
        let is_stopped = self.member.pool.is_stopping() && ended.was_stopped();
        if is_stopped || self.member.pool.is_aborting() {
            unless_gone(client.unreserve(message), message)?;
            if self.work.once {
                return Err(Error::JobStopped(ended.to_string()));
            }
            log::info!("Message {id} is unreserved because its command was stopped ({ended})");
            return Ok(());
        }
        let retry = self.retry(message, &ended)?;
        let released = client.release_with(message, retry, Reason::new(&ended.reason()));
        let released = match released {
            Err(error) if error.is_not_found() => return unless_gone(Err(error), message),
            released => released?,
        };
        self.note_failure(message, &ended, retry, released);
        match released {
            Released::Queued if self.work.once => Err(Error::JobFailed(ended.to_string())),
            Released::Dead if self.work.once => Err(Error::JobDied(ended.to_string())),
            Released::Queued | Released::Dead => Ok(()),
        }
    }

    /// What becomes of a message whose command has failed.
    fn retry(&self, message: &Received, ended: &Ended) -> Result<Retry, Error> {
        // A dead letter stays where it can be seen.
        let delay = if is_dead_letter(message) {
            Duration::ZERO
        } else {
            self.work.backoff.delay(message.attempt)
        };
        let delay_millis = millis(delay)?;
        let is_among = |codes: &[u8]| ended.code().is_some_and(|code| codes.contains(&code));
        Ok(if is_among(&self.work.dead_on) {
            Retry::Never
        } else if is_among(&self.work.uncounted_on) {
            Retry::Uncounted { delay_millis }
        } else {
            Retry::Counted { delay_millis }
        })
    }

    fn note_failure(&self, message: &Received, ended: &Ended, retry: Retry, released: Released) {
        let id = message.id;
        let attempt = message.attempt;
        let stays_dead = is_dead_letter(message);
        if released == Released::Dead || (stays_dead && self.work.drain) {
            log::error!(
                "Message {id} is a dead letter: its command failed ({ended}) at attempt {attempt}"
            );
            let suffix = if stays_dead {
                ""
            } else {
                QueueName::DEAD_SUFFIX
            };
            let queue = format!("{}{suffix}", message.queue);
            self.member.pool.died(id, queue);
        } else {
            let uncounted = match retry {
                Retry::Uncounted { .. } => "; this attempt does not count",
                Retry::Counted { .. } | Retry::Never => "",
            };
            log::warn!("Message {id} is released because its command failed ({ended}){uncounted}");
        }
        if stays_dead && self.work.drain {
            self.member.pool.skip(id);
        } else if stays_dead && !self.work.once {
            self.member.pool.pause(DEAD_LETTER_PAUSE);
        } else if self.work.drain
            && released == Released::Queued
            && let Retry::Counted { delay_millis } | Retry::Uncounted { delay_millis } = retry
            && delay_millis > 0
        {
            let delay = Duration::from_millis(delay_millis.into());
            self.member.pool.retries(id, delay);
        }
    }
}

/// An operator may have deleted, moved or released the message while its command ran. Then nothing is left to do for it.
fn unless_gone(done: Result<(), Error>, message: &Received) -> Result<(), Error> {
    match done {
        Err(error) if error.is_not_found() => {
            log::warn!("Message {}: {error}", message.id);
            Ok(())
        }
        done => done,
    }
}

fn is_dead_letter(message: &Received) -> bool {
    QueueName::new(&message.queue).is_ok_and(QueueName::is_dead)
}
