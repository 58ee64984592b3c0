//! `work`: a command for each message.
//!
//! A message is held by the worker's connection while its command runs, so it goes back to the
//! queue when the worker dies. It is acknowledged when the command has succeeded, and released when
//! it has not. What was never begun, or was ended because the worker stops, is given back as if it
//! had not been handed out.

mod drain;
mod guardian;
mod init;
mod job;
mod lookup;

use std::ffi::OsString;
use std::io;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::receive::LONG_WAIT;
use crate::reconnect::RETRY_PAUSE;
use crate::stop::{Stop, StopOnPanic, StopOnSignals};
use crate::{Client, Config, Error, Received, Released};

use drain::{Busy, Drain, Next};

/// How many commands may run at once.
pub const JOBS_MAX: usize = 256;

/// How long a thread rests whose command has failed for a message that is dead already: nothing
/// else would keep it from running the same one again and again.
const DEAD_PAUSE: Duration = Duration::from_secs(1);

/// What to run, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// How many commands run at once.
    pub jobs: usize,
    /// Whether to end after one message.
    pub once: bool,
    /// Whether to end when the queue is empty, no command runs, and none is to be retried.
    pub drain: bool,
    /// End when no message came for so long; `None` is never.
    pub wait: Option<Duration>,
    /// How long a message whose command failed is kept back.
    pub retry_delay: Duration,
    /// The command.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Guards a command, if the program was started by a worker to do that; else `None`. To be called
/// before anything else by every program that calls [`run`](crate::run), with its arguments.
pub fn guard(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    (args.nth(1)? == guardian::ARG).then(|| guardian::guard(args))
}

impl Work {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        if init::is_needed() {
            match init::run().map_err(Error::Setup)? {}
        }
        // Looked for before anything is taken: a worker that can do nothing must not use up the
        // attempts of what others could do.
        lookup::find(&self.command).map_err(|cause| self.cannot_start(cause))?;
        let stop = Arc::new(Stop::default());
        let _signals = StopOnSignals::new(Arc::clone(&stop)).map_err(Error::Setup)?;
        let drain = Drain::default();
        let connected = AtomicUsize::new(0);
        self.run_threads(config, &stop, &drain, &connected)?;
        if stop.is_cut_short() {
            return Err(Error::CutShort);
        }
        match drain.dead() {
            0 => Ok(()),
            messages => Err(Error::Died { messages }),
        }
    }

    fn run_threads(
        &self,
        config: &Config,
        stop: &Stop,
        drain: &Drain,
        connected: &AtomicUsize,
    ) -> Result<(), Error> {
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..self.jobs {
                let worker = move || {
                    let _guard = StopOnPanic(stop);
                    let mut worker = Worker {
                        work: self,
                        config,
                        stop,
                        drain,
                        connected,
                        idle_since: Instant::now(),
                    };
                    let worked = worker.work();
                    if worked.is_err() {
                        stop.stop();
                    }
                    worked
                };
                let named = thread::Builder::new().name(format!("worker {number}"));
                match named.spawn_scoped(scope, worker) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        stop.stop();
                        return Err(Error::Setup(error));
                    }
                }
            }
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
    stop: &'w Stop,
    drain: &'w Drain,
    /// How many of the threads have a connection.
    connected: &'w AtomicUsize,
    /// Since when there was no message; also over several connections.
    idle_since: Instant,
}

/// A message to run the command for, and the note that this is done.
type Job<'w> = (Received, Option<Busy<'w>>);

impl<'w> Worker<'w> {
    fn work(&mut self) -> Result<(), Error> {
        while let Some(mut client) = self.connect()? {
            self.connected.fetch_add(1, Ordering::Relaxed);
            let served = self.serve(&mut client);
            self.connected.fetch_sub(1, Ordering::Relaxed);
            match served {
                Err(error) if self.stop.is_stopping() && error.is_server_away() => break,
                Err(error) if self.config.may_reconnect(&error) => {
                    // A server that takes connections only to end them is not to be flooded.
                    self.stop.pause(RETRY_PAUSE);
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    /// Connects; `None` when the workers are to stop.
    fn connect(&self) -> Result<Option<Client>, Error> {
        while !self.stop.is_stopping() {
            let connected = self.config.connect_while(|pause| {
                self.stop.pause(pause);
                !self.stop.is_stopping()
            });
            match connected {
                Err(_) if self.stop.is_stopping() => {}
                // It may have no connection left for this thread; then the others do the work.
                Err(error) if error.is_server_away() && self.has_others() => {}
                connected => return connected.map(Some),
            }
        }
        Ok(None)
    }

    /// Whether another thread has a connection, and may have one that is lost again.
    fn has_others(&self) -> bool {
        self.config.waits_for_server() && self.connected.load(Ordering::Relaxed) > 0
    }

    /// Takes messages over one connection and runs the command for each.
    fn serve(&mut self, client: &mut Client) -> Result<(), Error> {
        while let Some((message, _running)) = self.take(client)? {
            if self.stop.is_stopping() {
                // It was handed out in that very moment.
                return client.unreserve(&message);
            }
            self.execute(client, &message)?;
            if self.work.once {
                return Ok(());
            }
            self.idle_since = Instant::now();
        }
        match self.work.once && !self.stop.is_stopping() {
            true => Err(Error::Empty),
            false => Ok(()),
        }
    }

    /// The next message; `None` when there is none for as long as it was to be waited for, or the
    /// workers are to stop.
    fn take(&self, client: &mut Client) -> Result<Option<Job<'w>>, Error> {
        if self.work.drain {
            return self.take_for_drain(client);
        }
        loop {
            let taken = match self.work.wait {
                Some(wait) => {
                    let left = wait.saturating_sub(self.idle_since.elapsed());
                    self.ask(client, |client| client.receive_wait(left))?
                }
                None => self.ask(client, |client| client.receive_patiently(LONG_WAIT))?,
            };
            if let Some(message) = taken {
                return Ok(Some((message, None)));
            }
            // An older server says that there is nothing too early when it is told to stop.
            let is_over = |wait| self.idle_since.elapsed() >= wait;
            if self.work.wait.is_some_and(is_over) || self.stop.is_stopping() {
                return Ok(None);
            }
        }
    }

    fn take_for_drain(&self, client: &mut Client) -> Result<Option<Job<'w>>, Error> {
        let mut wait = Duration::ZERO;
        loop {
            let mut busy = self.drain.asking();
            let taken = self.ask(client, |client| client.receive_wait(wait))?;
            let is_passing_over = match taken {
                Some(message) if !self.drain.is_passed_over(message.id) => {
                    busy.runs(message.id);
                    return Ok(Some((message, Some(busy))));
                }
                Some(message) => {
                    client.unreserve(&message)?;
                    true
                }
                None => false,
            };
            drop(busy);
            wait = loop {
                if self.stop.is_stopping() {
                    return Ok(None);
                }
                match self.drain.next(is_passing_over) {
                    Next::End => return Ok(None),
                    Next::Ask(wait) => break wait,
                    Next::Look => {}
                }
            };
        }
    }

    /// Asks for a message; a wait for that ends when the workers are to stop.
    fn ask(
        &self,
        client: &mut Client,
        receive: impl FnOnce(&mut Client) -> Result<Option<Received>, Error>,
    ) -> Result<Option<Received>, Error> {
        let _waiting = self.stop.waiting(client.closer());
        receive(client)
    }

    /// Runs the command for a message, and says what became of that.
    fn execute(&self, client: &mut Client, message: &Received) -> Result<(), Error> {
        let id = message.id;
        let status = match job::run(self.work, &self.config.queue, message, self.stop) {
            Ok(status) => status,
            Err(cause) => {
                if let Err(error) = client.unreserve(message) {
                    // It goes back all the same, as the connection ends.
                    log::warn!("Message {id} was not given back without counting: {error}");
                }
                return Err(self.work.cannot_start(cause));
            }
        };
        if status.success() {
            return client.ack(message);
        }
        if job::was_stopped(status) {
            self.stop.pause(job::SIGNALS_APART);
        }
        let is_stopped = self.stop.is_stopping() && job::was_stopped(status);
        if is_stopped || self.stop.is_cut_short() {
            client.unreserve(message)?;
            if self.work.once {
                return Err(Error::JobStopped(status));
            }
            log::info!("Message {id} is given back, for its command was stopped ({status})");
            return Ok(());
        }
        let released = client.release(message, self.work.retry_delay)?;
        self.note_failure(message, status, released);
        if !self.work.once {
            return Ok(());
        }
        Err(match released {
            Released::Queued => Error::JobFailed(status),
            Released::Dead => Error::JobDied(status),
        })
    }

    fn note_failure(&self, message: &Received, status: ExitStatus, released: Released) {
        let id = message.id;
        let attempt = message.attempt;
        let stays_dead = self.config.queue().is_dead();
        if released == Released::Dead || (stays_dead && self.work.drain) {
            log::error!("Message {id} is dead: its command failed ({status}) at attempt {attempt}");
            if self.work.drain {
                self.drain.died();
            }
        } else {
            log::warn!("Message {id} is given back, for its command failed ({status})");
        }
        if stays_dead && self.work.drain {
            self.drain.pass_over(id);
        } else if stays_dead && !self.work.once {
            self.stop.pause(DEAD_PAUSE);
        } else if released == Released::Queued && !self.work.retry_delay.is_zero() {
            self.drain.retries(id, self.work.retry_delay);
        }
    }
}
