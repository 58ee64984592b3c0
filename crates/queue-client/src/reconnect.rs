//! `--wait-for-server`: what a client does while its server is away.

use std::time::{Duration, Instant};

use cli::pause;

use crate::{Client, Config, Error, Received, Transport};

/// A connection that has lasted for so long is not one of those that are lost at once.
const LASTING: Duration = Duration::from_secs(1);

/// The pause before a connection that was lost is made again: a server that takes connections only to
/// end them is not to be flooded. It grows to the longest while that goes on.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The pause after a server said too early that there is no message.
const TOO_EARLY_PAUSE: Duration = Duration::from_millis(50);

impl Config {
    /// Connects and does one thing, and tries again for as long as `--wait-for-server` says while it
    /// is certain that the server did not do it.
    pub(crate) fn ask<T>(
        &self,
        request: impl FnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let was_not_done = |error: &Error| error.is_server_away() && !error.is_loss();
        self.retry(pause, was_not_done, request)
            .map(|(_, answer)| answer)
    }

    /// Connects, and tries again for as long as `--wait-for-server` says.
    pub(crate) fn connect(&self) -> Result<Client, Error> {
        self.connect_while(pause)
    }

    /// The same, as long as `pause` does not say no, which it is called with between two tries.
    pub(crate) fn connect_while(&self, pause: impl Fn(Duration) -> bool) -> Result<Client, Error> {
        // A server that has enough connections, or is ending, takes one more only to say so.
        let is_probed = self.waits_for_server() && self.transport == Transport::Tcp;
        let probe = |client: &mut Client| match is_probed {
            true => client.peek_after(u64::MAX).map(drop),
            false => Ok(()),
        };
        let connected = self.retry(pause, Error::is_server_away, probe);
        connected.map(|(client, ())| client)
    }

    fn retry<T>(
        &self,
        pause: impl Fn(Duration) -> bool,
        may_pass: impl Fn(&Error) -> bool,
        mut act: impl FnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<(Client, T), Error> {
        self.endpoint.patiently(may_pass, pause, |server| {
            let mut client = Client::connect(server, self.transport)?;
            client.set_queue(self.queue());
            let done = act(&mut client)?;
            Ok((client, done))
        })
    }

    /// Whether a connection that is lost may be made again.
    pub(crate) fn waits_for_server(&self) -> bool {
        !self.endpoint.wait_for_server.is_zero()
    }

    /// Waits for a message with `receive`, which is told how long. Where the server goes away in the
    /// meantime, and `--wait-for-server` allows it, waits on for the rest of the time over a new
    /// connection.
    pub(crate) fn wait_for_message(
        &self,
        client: &mut Client,
        wait: Duration,
        mut receive: impl FnMut(&mut Client, Duration) -> Result<Option<Received>, Error>,
    ) -> Result<Option<Received>, Error> {
        let start = Instant::now();
        let mut losses = Losses::default();
        loop {
            let asked = Instant::now();
            let left = wait.saturating_sub(start.elapsed());
            match receive(client, left) {
                // An older server says so too early when it is told to stop.
                Ok(None) if start.elapsed() < wait => {
                    pause(TOO_EARLY_PAUSE);
                }
                Err(error) if !wait.is_zero() => {
                    match losses.pause_before_next(self, asked, &error) {
                        Some(length) => pause(length),
                        None => return Err(error),
                    };
                    *client = self.connect()?;
                }
                received => return received,
            }
        }
    }

    /// Whether an error of a connection is one after which it is made again; says so if it is.
    pub(crate) fn may_reconnect(&self, error: &Error) -> bool {
        let mut losses = Losses::default();
        let pause = losses.pause_before_next(self, Instant::now(), error);
        pause.is_some()
    }
}

/// Connections that were lost one after another, each soon after it was made: the server ends, or has no
/// place for one more that waits.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    first: Option<Instant>,
}

impl Losses {
    /// How long to wait before a connection is made again that was lost by this error; `asked` is when
    /// it was last well. Says so, once. `None` if it is not made again: `--wait-for-server` does not
    /// allow it, or not for so long.
    pub(crate) fn pause_before_next(
        &mut self,
        config: &Config,
        asked: Instant,
        error: &Error,
    ) -> Option<Duration> {
        if !config.waits_for_server() || !error.is_server_away() {
            return None;
        }
        if asked.elapsed() >= LASTING {
            self.first = None;
        }
        let first = *self.first.get_or_insert_with(|| {
            log::warn!("Trying again: {}", cli::exit::with_causes(error));
            Instant::now()
        });
        let since = first.elapsed();
        let may_go_on = since < config.endpoint.wait_for_server;
        may_go_on.then_some(since.clamp(RECONNECT_PAUSE, RECONNECT_PAUSE_MAX))
    }
}
