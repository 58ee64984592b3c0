//! `--wait-for-server`: what a client does while its server is away.

use std::time::{Duration, Instant};

use cli::pause;

use crate::{Client, Config, Error, Received, Transport};

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
        loop {
            let left = wait.saturating_sub(start.elapsed());
            match receive(client, left) {
                // An older server says so too early when it is told to stop.
                Ok(None) if start.elapsed() < wait => {
                    pause(TOO_EARLY_PAUSE);
                }
                Err(error) if !wait.is_zero() && self.may_reconnect(&error) => {
                    *client = self.connect()?;
                }
                received => return received,
            }
        }
    }

    /// Whether an error of a connection is one after which it is made again; says so if it is.
    pub(crate) fn may_reconnect(&self, error: &Error) -> bool {
        let may = self.waits_for_server() && error.is_server_away();
        if may {
            let cause = cli::exit::with_causes(error);
            log::warn!("The server is away, trying again: {cause}");
        }
        may
    }
}
