//! `--wait-for-server`: what a client does while its server is away.

use std::thread;
use std::time::{Duration, Instant};

use cli::Endpoint;

use crate::{Client, Config, Error, Received, Transport};

/// The pause between two tries to reach a server that is gone.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Config {
    /// Connects to the server, and chooses the queue.
    pub(crate) fn connect(&self) -> Result<Client, Error> {
        self.connect_while(|pause| {
            // There is no event to wait for: nobody tells us that a server came up.
            thread::park_timeout(pause);
            true
        })
    }

    /// Connects, and tries again for as long as `--wait-for-server` says, and `pause` does not say
    /// no, which it is called with between two tries.
    pub(crate) fn connect_while(&self, pause: impl Fn(Duration) -> bool) -> Result<Client, Error> {
        let deadline = Instant::now().checked_add(self.endpoint.wait_for_server);
        loop {
            let error = match self.connect_once() {
                Err(error) if error.is_server_away() => error,
                connected => return connected,
            };
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over || !pause(RETRY_PAUSE) {
                return Err(error);
            }
        }
    }

    fn connect_once(&self) -> Result<Client, Error> {
        let endpoint = Endpoint {
            wait_for_server: Duration::ZERO,
            ..self.endpoint.clone()
        };
        let mut client = Client::connect(&endpoint, self.transport)?;
        client.set_queue(self.queue());
        if self.waits_for_server() && self.transport == Transport::Tcp {
            // A server that has enough connections, or is ending, takes one more only to say so.
            client.peek_after(u64::MAX)?;
        }
        Ok(client)
    }

    /// Whether a connection that is lost may be made again.
    pub(crate) fn waits_for_server(&self) -> bool {
        !self.endpoint.wait_for_server.is_zero()
    }

    /// Waits for a message with `take`, which is told how long. Where the server goes away in the
    /// meantime, and `--wait-for-server` allows it, waits on for the rest of the time over a new
    /// connection.
    pub(crate) fn wait_for_message(
        &self,
        client: &mut Client,
        wait: Duration,
        mut take: impl FnMut(&mut Client, Duration) -> Result<Option<Received>, Error>,
    ) -> Result<Option<Received>, Error> {
        let start = Instant::now();
        loop {
            let left = wait.saturating_sub(start.elapsed());
            match take(client, left) {
                // An older server says so too early when it is told to stop.
                Ok(None) if start.elapsed() < wait => {}
                Err(error) if !wait.is_zero() && self.may_reconnect(&error) => {
                    *client = self.connect()?;
                }
                taken => return taken,
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
