//! A connection that waits for something else than its peer: a message in a queue, say.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::Connection;
use crate::eviction::{SLOW_MILLIS, State};
use crate::shares::Scarce;
use crate::wakeup::{Polled, Wakeup};

/// How long a connection waits until it may owe a message.
const ARRIVAL_WAIT: Duration = Duration::from_secs(10);

/// What a connection needs that waits for other threads.
#[derive(Default)]
pub(super) struct Waiting {
    /// Made when it is first needed.
    pub(super) wakeup: Option<Arc<Wakeup>>,
    /// Whether the connection counts among those that may wait for something else than their peer.
    is_counted: bool,
}

/// Why a wait for something else than the peer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The connection was woken.
    Woken,
    /// The deadline has come.
    TimedOut,
    /// The peer has ended the connection, or its half of it.
    HungUp,
    /// The server is shutting down.
    Stopping,
}

impl Connection<'_> {
    /// Waits for something else than the peer's next request: until [`Connection::wakeup`] is woken.
    /// Everything written so far is sent before the wait. No reply may be pending: see
    /// [`Connection::wait_for_replies`].
    ///
    /// # Errors
    /// Those of the stream; also if there are no more descriptors.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Waited> {
        // Pending replies wake the same eventfd, and a wait for them would take a wakeup that is meant
        // for this one. So the caller waits for them before anyone may wake it.
        debug_assert!(!self.has_open_reply(), "replies are pending");
        self.flush()?;
        self.shrink();
        let wakeup = self.wakeup()?;
        let eviction = &self.entry().eviction;
        eviction.set(State::Waiting);
        let socket = (self.stream.socket(), PollFlags::RDHUP);
        let polled = match self.is_stopping() {
            true => Ok(Polled::Socket),
            false => wakeup.wait(Some(socket), Some(deadline)),
        };
        self.meter.arrived();
        // Only its own thread ends this wait.
        eviction.set(State::Busy);
        Ok(match polled? {
            Polled::Woken => Waited::Woken,
            Polled::TimedOut => Waited::TimedOut,
            // The thread that stops the server ends the input, as the peer may too.
            Polled::Socket if self.is_stopping() => Waited::Stopping,
            Polled::Socket => Waited::HungUp,
        })
    }

    /// Counts this connection among those that are not evicted because they wait, or have something
    /// reserved or owed. To be called before either; once is enough.
    ///
    /// # Errors
    /// If there are too many of them, or too many from that address, and none is idle.
    pub fn become_waiter(&mut self) -> io::Result<()> {
        if !self.waiting.is_counted {
            self.registration().become_waiter()?;
            self.waiting.is_counted = true;
        }
        Ok(())
    }

    /// Says that what is sent from now on has no end. A stop of the server ends the connection then, also in
    /// the middle of that, if the peer does not read.
    pub fn send_without_end(&mut self) {
        self.entry().is_endless.store(true, Ordering::Relaxed);
    }

    /// Keeps this connection from being evicted while it sends, until [`Connection::has_arrived`] or the
    /// wait for the next request. To be called before something is taken that would be lost with its reply.
    /// The number of such connections is limited, too: if there are too many, this sends what is gathered,
    /// and waits for at most [`ARRIVAL_WAIT`].
    ///
    /// # Errors
    /// If there are still too many then: [`io::ErrorKind::QuotaExceeded`]; else those of the stream. A
    /// connection that was aborted while it waited takes nothing more: [`io::ErrorKind::ConnectionAborted`].
    pub fn must_arrive(&mut self) -> io::Result<()> {
        let (registration, entry) = (self.registration(), self.entry());
        if entry.must_arrive.load(Ordering::SeqCst) {
            return Ok(());
        }
        if !self.waiting.is_counted && registration.acquire(Scarce::Kept).is_err() {
            self.flush()?;
            let from = registration.registry.millis() + SLOW_MILLIS;
            entry.eviction.set(State::Slow(from));
            let acquired = registration.wait_to_acquire(Scarce::Kept, ARRIVAL_WAIT);
            if !self.resume()? || entry.is_lost() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            acquired?;
        }
        entry.must_arrive.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Ends that if every reply so far is sent.
    pub fn has_arrived(&self) {
        let is_pending = self
            .pending
            .as_ref()
            .is_some_and(|replies| !replies.is_empty());
        if self.output.bytes.is_empty() && !is_pending {
            self.registration().has_arrived();
        }
    }

    /// What wakes this connection's thread in [`Connection::wait`].
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn wakeup(&mut self) -> io::Result<Arc<Wakeup>> {
        let wakeup = match self.waiting.wakeup.take() {
            Some(wakeup) => wakeup,
            None => Arc::new(Wakeup::new()?),
        };
        Ok(Arc::clone(self.waiting.wakeup.insert(wakeup)))
    }
}
