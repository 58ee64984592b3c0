//! `--wait-for-server` after a loss: how a client that has lost its server connects again.

use std::time::{Duration, Instant};

use crate::Endpoint;
use crate::exit::{Failure, with_causes};

/// A connection that has lasted this long was not lost at once.
const LASTING: Duration = Duration::from_secs(1);

/// The pause before a client connects again, because a server that accepts connections only to end them
/// must not be flooded. It grows up to the longest while that continues.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Connections that were lost one after another, each soon after it was made: the server shuts down, or
/// has too many that wait.
#[derive(Debug, Default)]
pub struct Losses {
    first: Option<Instant>,
}

impl Losses {
    /// How long to pause before connecting again after this error, which says that the server is away;
    /// `None` if `--wait-for-server` does not allow it, or no longer. `asked` is when the connection last
    /// worked. Logs the first loss.
    pub fn pause_before_next(
        &mut self,
        server: &Endpoint,
        asked: Instant,
        error: &impl Failure,
    ) -> Option<Duration> {
        if server.wait_for_server.is_zero() {
            return None;
        }
        if asked.elapsed() >= LASTING {
            self.first = None;
        }
        let first = *self.first.get_or_insert_with(|| {
            log::warn!("Trying again: {}", with_causes(error));
            Instant::now()
        });
        let since = first.elapsed();
        let may_continue = since < server.wait_for_server;
        may_continue.then_some(since.clamp(RECONNECT_PAUSE, RECONNECT_PAUSE_MAX))
    }
}
