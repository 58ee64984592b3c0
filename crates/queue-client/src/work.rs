//! `work`: a command for each message.
//!
//! A message is held by the worker's connection while its command runs, so it goes back to the
//! queue when the worker dies. It is acknowledged when the command has succeeded, and released when
//! it has not.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cli::Endpoint;

use crate::receive::LONG_WAIT;
use crate::stop::{Stop, StopOnPanic, StopOnSignals};
use crate::{Client, Config, Error, Received};

/// How many commands may run at once.
pub const JOBS_MAX: usize = 256;

/// The pause between two tries to reach a server that is gone.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What to run, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// How many commands run at once.
    pub jobs: usize,
    /// Whether to end after one message.
    pub once: bool,
    /// End when no message came for so long; `None` is never.
    pub wait: Option<Duration>,
    /// How long a message whose command failed is kept back.
    pub retry_delay: Duration,
    /// The command.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Work {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let stop = Arc::new(Stop::default());
        let _signals = StopOnSignals::new(Arc::clone(&stop)).map_err(Error::Setup)?;
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..self.jobs {
                let stop = &*stop;
                let worker = move || {
                    let _guard = StopOnPanic(stop);
                    let worked = Worker {
                        work: self,
                        config,
                        stop,
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
}

/// One thread of a [`Work`].
struct Worker<'w> {
    work: &'w Work,
    config: &'w Config,
    stop: &'w Stop,
}

impl Worker<'_> {
    fn work(&self) -> Result<(), Error> {
        while let Some(mut client) = self.connect()? {
            match self.serve(&mut client) {
                Err(Error::Lost(_)) if self.stop.is_stopping() => break,
                Err(Error::Lost(cause)) if !self.config.endpoint.wait_for_server.is_zero() => {
                    log::warn!("The connection to the server was lost, trying again: {cause}");
                    // A server that takes connections only to end them is not to be flooded.
                    self.stop.pause(RETRY_PAUSE);
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    /// Connects, and tries again for as long as `--wait-for-server` says; `None` when the workers
    /// are to stop.
    fn connect(&self) -> Result<Option<Client>, Error> {
        let deadline = Instant::now() + self.config.endpoint.wait_for_server;
        let endpoint = Endpoint {
            wait_for_server: Duration::ZERO,
            ..self.config.endpoint.clone()
        };
        while !self.stop.is_stopping() {
            match Client::connect(&endpoint, self.config.transport) {
                Ok(mut client) => {
                    client.set_queue(self.config.queue());
                    return Ok(Some(client));
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => self.stop.pause(RETRY_PAUSE),
            }
        }
        Ok(None)
    }

    /// Takes messages over one connection and runs the command for each.
    fn serve(&self, client: &mut Client) -> Result<(), Error> {
        while let Some(message) = self.take(client)? {
            if self.stop.is_stopping() {
                // It was handed out in that very moment. It goes back as the connection ends.
                return Ok(());
            }
            let status = match self.execute(&message) {
                Ok(status) => status,
                Err(cause) => {
                    if let Err(error) = client.release(&message, Duration::ZERO) {
                        // It goes back all the same, as the connection ends.
                        log::debug!("Message {} was not released: {error}", message.id);
                    }
                    let command = self.work.command.clone();
                    return Err(Error::Start { command, cause });
                }
            };
            if status.success() {
                client.ack(&message)?;
            } else {
                client.release(&message, self.work.retry_delay)?;
                if self.work.once {
                    return Err(Error::JobFailed(status));
                }
                log::warn!(
                    "Message {} is given back, for its command failed ({status})",
                    message.id
                );
            }
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
    fn take(&self, client: &mut Client) -> Result<Option<Received>, Error> {
        let _waiting = self.stop.waiting(client.closer());
        loop {
            let taken = match self.work.wait {
                Some(Duration::ZERO) => client.receive()?,
                Some(wait) => client.receive_wait(wait)?,
                None => client.receive_patiently(LONG_WAIT)?,
            };
            if taken.is_some() || self.work.wait.is_some() {
                return Ok(taken);
            }
        }
    }

    /// Runs the command with the message on its standard input.
    fn execute(&self, message: &Received) -> io::Result<ExitStatus> {
        let mut child = Command::new(&self.work.command)
            .args(&self.work.args)
            .env("QUEUE_NAME", &self.config.queue)
            .env("QUEUE_MESSAGE_ID", message.id.to_string())
            .env("QUEUE_ATTEMPT", message.attempt.to_string())
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command need not read it.
            if let Err(error) = stdin.write_all(&message.body) {
                log::debug!("Message {} was not read to its end: {error}", message.id);
            }
        }
        child.wait()
    }
}
