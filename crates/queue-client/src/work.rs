//! `work`: a command for each message.
//!
//! A message is held by the worker's connection while its command runs, so it goes back to the
//! queue when the worker dies. It is acknowledged when the command has succeeded, and released when
//! it has not. What was never begun, or was ended because the worker stops, is given back as if it
//! had not been handed out.

mod end;
mod guardian;
mod init;
mod job;
mod lookup;

use std::ffi::OsString;
use std::io;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::receive::LONG_WAIT;
use crate::reconnect::Losses;
use crate::stop::{Stop, StopOnPanic, StopOnSignals};
use crate::{Client, Config, Error, Received, Released};

use end::{Busy, End, Next};

/// How many commands may run at once.
pub const JOBS_MAX: usize = 256;

/// The pause of a thread that the server has no place for, while it has one for others.
const NO_PLACE_PAUSE: Duration = Duration::from_secs(1);

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
        // Before anything is taken: a worker that can do nothing must not use up the attempts of
        // messages that another one could work on.
        lookup::find(&self.command).map_err(|cause| self.cannot_start(cause))?;
        let stop = Arc::new(Stop::default());
        let _signals = StopOnSignals::new(Arc::clone(&stop)).map_err(Error::Setup)?;
        let end = End::new();
        self.run_threads(config, &stop, &end)?;
        if stop.is_cut_short() {
            return Err(Error::CutShort);
        }
        match end.dead() {
            0 => Ok(()),
            messages => Err(Error::Died { messages }),
        }
    }

    fn run_threads(&self, config: &Config, stop: &Stop, end: &End) -> Result<(), Error> {
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..self.jobs {
                let worker = move || {
                    let _guard = StopOnPanic(stop);
                    let worked = Worker {
                        work: self,
                        config,
                        stop,
                        end,
                    }
                    .work();
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
    end: &'w End,
}

/// A message to run the command for, and the note that this is done.
type Job<'w> = (Received, Busy<'w>);

impl<'w> Worker<'w> {
    fn work(&self) -> Result<(), Error> {
        let mut losses = Losses::default();
        while let Some(mut client) = self.connect()? {
            let asked = Instant::now();
            let connected = self.end.connected();
            let served = self.serve(&mut client);
            drop(connected);
            match served {
                Err(error) if self.stop.is_stopping() && error.is_server_away() => break,
                Err(error) => {
                    let pause = losses.pause_before_next(self.config, asked, &error);
                    let may_wait = error.is_server_away() && self.has_others();
                    match pause.or_else(|| may_wait.then_some(NO_PLACE_PAUSE)) {
                        Some(pause) => self.stop.pause(pause),
                        None => return Err(error),
                    }
                }
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Connects; `None` when there is no more to do.
    fn connect(&self) -> Result<Option<Client>, Error> {
        let is_over = || self.stop.is_stopping() || self.end.is_over();
        while !is_over() {
            let connected = self.config.connect_while(|pause| {
                self.stop.pause(pause);
                !is_over()
            });
            match connected {
                Err(error) if error.is_server_away() && (is_over() || self.has_others()) => {}
                connected => return connected.map(Some),
            }
        }
        Ok(None)
    }

    /// Whether another thread has a connection. Then the server is there, but may have none left for
    /// this one, and the others do its work.
    fn has_others(&self) -> bool {
        self.config.waits_for_server() && self.end.has_connected()
    }

    /// Takes messages over one connection and runs the command for each.
    fn serve(&self, client: &mut Client) -> Result<(), Error> {
        while let Some((message, _running)) = self.take(client)? {
            if self.stop.is_stopping() {
                // It was handed out in that very moment.
                return client.unreserve(&message);
            }
            self.execute(client, &message)?;
            if self.work.once {
                return Ok(());
            }
        }
        match self.work.once && !self.stop.is_stopping() {
            true => Err(Error::Empty),
            false => Ok(()),
        }
    }

    /// The next message; `None` when there is none for as long as it was to be waited for, or the
    /// workers are to stop.
    fn take(&self, client: &mut Client) -> Result<Option<Job<'w>>, Error> {
        let mut wait = match (self.work.drain, self.work.wait) {
            (true, _) => Duration::ZERO,
            (false, Some(wait)) => self.end.left_of(wait),
            (false, None) => LONG_WAIT,
        };
        loop {
            let mut busy = self.end.asking();
            let is_passing_over = match self.ask(client, wait)? {
                Some(message) if !self.end.is_passed_over(message.id) => {
                    busy.runs(message.id);
                    return Ok(Some((message, busy)));
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
                let next = match (self.work.drain, self.work.wait) {
                    (true, _) => self.end.next_of_drain(is_passing_over),
                    // An older server says that there is nothing too early when it is told to stop.
                    (false, Some(wait)) => self.end.next_within(wait),
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

    /// Asks for a message; a wait for that ends when the workers are to stop.
    fn ask(&self, client: &mut Client, wait: Duration) -> Result<Option<Received>, Error> {
        let _waiting = self.stop.waiting(client.closer());
        // Who is to do what there is, is told that there is a pause; others wait for its end, too.
        let asked = match self.work.drain || self.work.once {
            true => client.receive_wait(wait),
            false => client.receive_patiently(wait),
        };
        match asked {
            // Whatever came instead of a message, it was we who ended the wait.
            Err(_) if self.stop.is_stopping() => Ok(None),
            asked => asked,
        }
    }

    /// Runs the command for a message, and says what became of that.
    fn execute(&self, client: &mut Client, message: &Received) -> Result<(), Error> {
        let id = message.id;
        let status = match job::run(self.work, &self.config.queue, message, self.stop) {
            Ok(status) => status,
            Err(cause) => {
                client.unreserve_or_warn(message);
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
                self.end.died();
            }
        } else {
            log::warn!("Message {id} is given back, for its command failed ({status})");
        }
        if stays_dead && self.work.drain {
            self.end.pass_over(id);
        } else if stays_dead && !self.work.once {
            self.stop.pause(DEAD_PAUSE);
        } else if released == Released::Queued && !self.work.retry_delay.is_zero() {
            self.end.retries(id, self.work.retry_delay);
        }
    }
}
