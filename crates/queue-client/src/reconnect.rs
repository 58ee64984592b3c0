//! `--wait-for-server`: what a client does while its server is away.

use std::time::{Duration, Instant};

use cli::{Losses, pause};

use crate::{Client, Config, Endpoint, Error, MessageState, Received, Transport};

/// The pause after a server has ended a wait too early.
const TOO_EARLY_PAUSE: Duration = Duration::from_millis(50);

impl Config {
    /// Connects and does one thing. While it is certain that the server did not execute it, tries again
    /// for as long as `--wait-for-server` says; what changes something is asked again also if it is not.
    pub(crate) fn ask<T>(
        &self,
        request: impl FnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let was_not_done = |error: &Error| error.is_server_away() && !error.is_loss();
        self.retry(self.wait_at_first, pause, was_not_done, request)
            .map(|(_, answer)| answer)
    }

    /// Connects for the first time, and tries again for as long as `--wait-for-server` says.
    pub(crate) fn connect(&self) -> Result<Client, Error> {
        self.connect_within(self.wait_at_first, pause)
    }

    /// Connects, and tries again for this long. `pause` is called between two tries, and ends them by returning
    /// false.
    pub(crate) fn connect_within(
        &self,
        wait: Duration,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<Client, Error> {
        // A server at its connection limit, or one that shuts down or stands by, accepts a connection to say so.
        let is_probed = !wait.is_zero() && self.transport == Transport::Tcp;
        let probe = |client: &mut Client| {
            if is_probed {
                client.peek_after(MessageState::Ready, u64::MAX).map(drop)
            } else {
                Ok(())
            }
        };
        let connected = self.retry(wait, pause, Error::is_server_away, probe);
        connected.map(|(client, ())| client)
    }

    fn retry<T>(
        &self,
        wait: Duration,
        pause: impl Fn(Duration) -> bool,
        may_pass: impl Fn(&Error) -> bool,
        mut act: impl FnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<(Client, T), Error> {
        let endpoint = Endpoint {
            wait_for_server: wait,
            ..self.endpoint.clone()
        };
        endpoint.retry(may_pass, pause, |server| {
            let mut client = Client::connect(server, self.transport)?;
            // It is the attempt that does not wait, and not what follows.
            client.link.server = self.endpoint.clone();
            client.set_queues(&self.queues());
            let done = act(&mut client)?;
            Ok((client, done))
        })
    }

    /// Whether the client may connect again after a loss.
    pub(crate) fn waits_for_server(&self) -> bool {
        !self.endpoint.wait_for_server.is_zero()
    }

    /// Waits for a message with `receive`, which is told how long. If the server goes away meanwhile and
    /// `--wait-for-server` allows it, waits for the rest of the time over a new connection.
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
                // An older server replies too early when it shuts down.
                Ok(None) if start.elapsed() < wait => {
                    pause(TOO_EARLY_PAUSE);
                }
                Err(error) if !wait.is_zero() => {
                    match self.pause_before_next(&mut losses, asked, &error) {
                        Some(length) => pause(length),
                        None => return Err(error),
                    };
                    let wait = self.endpoint.wait_for_server;
                    client.continue_over(self.connect_within(wait, pause)?);
                }
                received => return received,
            }
        }
    }

    /// How long to pause before connecting again after this error, as [`Losses::pause_before_next`] says;
    /// `None` also if the server is not away.
    pub(crate) fn pause_before_next(
        &self,
        losses: &mut Losses,
        asked: Instant,
        error: &Error,
    ) -> Option<Duration> {
        if error.is_server_away() {
            losses.pause_before_next(&self.endpoint, asked, error)
        } else {
            None
        }
    }
}
