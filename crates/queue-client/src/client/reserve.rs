//! Requests about single messages: reserving or leasing the oldest one, and ending that.

use std::time::{Duration, Instant};

use cli::ClientError;
use proto::ErrorCode;
use proto::queue::{Claim, Delivery, QueueNames, Reason, Reply, Request, Retry, Token};

use super::{Client, millis, name};
use crate::Error;
use crate::link::{Socket, unexpected};
use crate::message::{Received, Released};

/// Over UDP no connection can hold a reservation, so a message is leased for this long instead.
const UDP_LEASE: Duration = Duration::from_secs(60);

impl Client {
    /// Receives the oldest message; `None` if there is none. Unless it is acknowledged, it is
    /// requeued: over TCP when the connection ends, over UDP after a minute.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// while let Some(message) = client.receive()? {
    ///     println!("{}, attempt {}", message.id, message.attempt);
    ///     client.ack(&message)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn receive(&mut self) -> Result<Option<Received>, Error> {
        match self.link.socket {
            Socket::Tcp(_) => self.receive_wait(Duration::ZERO),
            Socket::Udp(_) => self.lease(UDP_LEASE, Duration::ZERO),
        }
    }

    /// Receives the oldest message as [`Client::receive`] does, and waits for one if there is none,
    /// at most 49 days. Only over TCP.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// while let Some(message) = client.receive_wait(std::time::Duration::from_secs(60))? {
    ///     println!("{} bytes", message.body.len());
    ///     client.ack(&message)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn receive_wait(&mut self, wait: Duration) -> Result<Option<Received>, Error> {
        self.reserve(Delivery::AtLeastOnce, wait)
    }

    /// Receives the oldest message as [`Client::receive_wait`] does, but waits in a paused queue too
    /// instead of failing. `None` means that no message came within `wait`.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// loop {
    ///     if let Some(message) = client.receive_patiently(std::time::Duration::from_secs(60))? {
    ///         println!("{} bytes", message.body.len());
    ///         client.ack(&message)?;
    ///     }
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn receive_patiently(&mut self, wait: Duration) -> Result<Option<Received>, Error> {
        match self.receive_wait(wait) {
            Err(Error::Refused {
                code: ErrorCode::Paused,
                ..
            }) => Ok(None),
            received => received,
        }
    }

    /// Receives the oldest message at most once: the server deletes it when it sends it.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let message = client.receive_at_most_once()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost; then a message may be lost too.
    pub fn receive_at_most_once(&mut self) -> Result<Option<Received>, Error> {
        self.reserve(Delivery::AtMostOnce, Duration::ZERO)
    }

    /// Leases the oldest message for at most 49 days, and waits for one if there is none. Its claim is
    /// a token with which any client may acknowledge, release or extend it. It is requeued when the
    /// lease expires.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// use proto::queue::Claim;
    /// use std::time::Duration;
    ///
    /// let hour = Duration::from_secs(3600);
    /// if let Some(message) = client.lease(hour, Duration::ZERO)?
    ///     && let Claim::Leased(token) = message.claim
    /// {
    ///     client.extend(token, 2 * hour)?;
    ///     client.ack(token)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn lease(&mut self, lease: Duration, wait: Duration) -> Result<Option<Received>, Error> {
        let lease_millis = millis(lease)?;
        self.reserve(Delivery::Lease { lease_millis }, wait)
    }

    fn reserve(&mut self, delivery: Delivery, wait: Duration) -> Result<Option<Received>, Error> {
        // It is refused as it was said, and not as what is left of it.
        millis(wait)?;
        let start = Instant::now();
        loop {
            let asked = Instant::now();
            let left = wait.saturating_sub(start.elapsed());
            let piece = left.min(self.link.longest_wait());
            let reserved = self.reserve_next(delivery, piece);
            let is_answered_in_time = piece < left && asked.elapsed() >= piece;
            match reserved {
                // What is to be done for it is done.
                Ok(Some(message)) if self.done.remove(self.link.epoch, message.id) => {
                    self.ack(&message)?;
                }
                // The server is there, and has nothing yet.
                Ok(None) if is_answered_in_time => {}
                Err(Error::Refused {
                    code: ErrorCode::Paused,
                    ..
                }) if is_answered_in_time => {}
                reserved => return reserved,
            }
        }
    }

    fn reserve_next(
        &mut self,
        delivery: Delivery,
        wait: Duration,
    ) -> Result<Option<Received>, Error> {
        let names = self.queues.iter().map(|queue| name(queue));
        let request = Request::Receive {
            queues: QueueNames::new(names).expect("they were one"),
            wait_millis: millis(wait)?,
            delivery,
        };
        let (id, queue_index, attempt, body, claim) = match self.link.ask(&request, wait)? {
            Reply::Empty => return Ok(None),
            Reply::Message {
                id,
                queue_index,
                attempt,
                body,
            } => (id, queue_index, attempt, body, Claim::Reserved(id)),
            Reply::Leased {
                token,
                id,
                queue_index,
                attempt,
                body,
            } => (id, queue_index, attempt, body, Claim::Leased(token)),
            other => return Err(unexpected(&other)),
        };
        let body = body.to_vec();
        self.reserved_over = (self.link.connections, self.link.epoch);
        let queue = self.queues.get(usize::from(queue_index));
        Ok(Some(Received {
            id,
            queue: queue.ok_or(ClientError::Unexpected)?.clone(),
            attempt,
            body,
            claim,
        }))
    }

    /// Acknowledges a message: the server deletes it.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// if let Some(message) = client.receive()? {
    ///     client.ack(&message)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost; then the message may be delivered once more.
    pub fn ack(&mut self, claim: impl Into<Claim>) -> Result<(), Error> {
        let claim = claim.into();
        self.link.ask_done(&Request::Ack { claim }).map(drop)
    }

    /// Acknowledges a message for which all is done. If its reservation has ended with its connection, it
    /// comes again, and is acknowledged then; unless it has ended with a server that had it in memory alone.
    pub(crate) fn ack_done(&mut self, message: &Received) -> Result<(), Error> {
        let id = message.id;
        let (connection, epoch) = self.reserved_over;
        match self.ack(message) {
            Err(error) if !error.is_not_found() || connection == self.link.connections => {
                Err(error)
            }
            Err(_) if epoch != self.link.epoch => {
                log::warn!(
                    "Message {id} is gone with the server; what was to be done for it is done"
                );
                Ok(())
            }
            Err(_) => {
                log::warn!(
                    "Message {id} was requeued before it was acknowledged; it is when it comes again"
                );
                self.done.insert(epoch, id);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Acknowledges what is done and has come again, before the client ends and nobody knows that it is done.
    pub(crate) fn ack_requeued(&mut self) {
        if self.done.is_empty() {
            return;
        }
        match self.receive() {
            Ok(Some(other)) => self.unreserve_or_warn(&other),
            Ok(None) => {}
            Err(error) => log::warn!("Messages that are done may come again: {error}"),
        }
    }

    /// Releases a message: after a delay it goes to the end of its queue, or to the dead letters if
    /// it was handed out too often.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// if let Some(message) = client.receive()? {
    ///     client.release(&message, std::time::Duration::from_secs(5))?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn release(&mut self, claim: impl Into<Claim>, delay: Duration) -> Result<Released, Error> {
        let delay_millis = millis(delay)?;
        self.release_with(claim, Retry::Counted { delay_millis }, Reason::default())
    }

    /// Releases a message, and says whether it is tried again and why it was not done. The reason is kept with the message.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// use proto::queue::{Reason, Retry};
    ///
    /// if let Some(message) = client.receive()? {
    ///     client.release_with(&message, Retry::Never, Reason::new("no such customer"))?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn release_with(
        &mut self,
        claim: impl Into<Claim>,
        retry: Retry,
        reason: Reason,
    ) -> Result<Released, Error> {
        let claim = claim.into();
        let release = Request::Release {
            claim,
            retry,
            reason,
        };
        self.link.ask_done(&release).map(Released::of)
    }

    /// Undoes the delivery of a message: it keeps its position, and the attempt does not count. A
    /// server that does not support this is asked to release the message, which counts.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// if let Some(message) = client.receive()? {
    ///     client.unreserve(&message)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn unreserve(&mut self, claim: impl Into<Claim>) -> Result<(), Error> {
        let claim = claim.into();
        match self.link.ask_done(&Request::Unreserve { claim }) {
            Err(Error::Refused {
                code: ErrorCode::Unsupported,
                ..
            }) => {
                log::warn!("The server cannot unreserve a message, so this attempt counts");
                self.release(claim, Duration::ZERO).map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Unreserves a message because of another error, which is the one to report. If this fails too, the
    /// message is requeued when the connection ends or the lease expires.
    pub(crate) fn unreserve_or_warn(&mut self, message: &Received) {
        if let Err(error) = self.unreserve(message) {
            let cause = cli::exit::with_causes(&error);
            log::warn!(
                "Message {} is requeued later, and this attempt counts: {cause}",
                message.id
            );
        }
    }

    /// Sets the end of a lease to `lease` from now.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let token = "0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f".parse().expect("a token");
    /// client.extend(token, std::time::Duration::from_secs(3600))?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses, because there is no such lease, or is lost.
    pub fn extend(&mut self, token: Token, lease: Duration) -> Result<(), Error> {
        let lease_millis = millis(lease)?;
        let request = Request::Extend {
            token,
            lease_millis,
        };
        self.link.ask_done(&request).map(drop)
    }
}
