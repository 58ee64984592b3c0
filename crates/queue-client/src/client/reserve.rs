//! Receiving: reserving the oldest message, and what becomes of one that is reserved.

use std::sync::Arc;
use std::time::Duration;

use proto::ErrorCode;
use proto::queue::{Claim, Delivery, Reply, Request, Token};

use super::{Client, Link, UDP_LEASE, millis, name, unexpected};
use crate::Error;
use crate::message::{Received, Released};

impl Client {
    /// Takes the oldest message; `None` if there is none. It returns to the queue unless it is
    /// acknowledged: over TCP when the connection ends, over UDP after a minute.
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
        match self.link {
            Link::Tcp(_) => self.take(Delivery::AtLeastOnce, Duration::ZERO),
            Link::Udp(_) => self.lease(UDP_LEASE, Duration::ZERO),
        }
    }

    /// Takes the oldest message as [`Client::receive`] does, and waits for one if there is none,
    /// 49 days at the most. Only over TCP.
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
        self.take(Delivery::AtLeastOnce, wait)
    }

    /// Takes the oldest message as [`Client::receive_wait`] does, for who asks again and again: also a
    /// pause is waited for, and `None` says that nothing was handed out for so long.
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

    /// Takes the oldest message and has the server forget it as it is sent.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let message = client.receive_and_forget()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost; then a message may be lost too.
    pub fn receive_and_forget(&mut self) -> Result<Option<Received>, Error> {
        self.take(Delivery::AtMostOnce, Duration::ZERO)
    }

    /// Takes the oldest message for a time, 49 days at the most. Its claim is a token, with which
    /// any client may acknowledge or release it; when the time is over it returns to the queue.
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
        self.take(Delivery::Lease { lease_millis }, wait)
    }

    fn take(&mut self, delivery: Delivery, wait: Duration) -> Result<Option<Received>, Error> {
        let queue = Arc::clone(&self.queue);
        let request = Request::Receive {
            queue: name(&queue),
            wait_millis: millis(wait)?,
            delivery,
        };
        // So much more than the usual time may pass until the reply comes.
        let received = match self.ask_and_wait(&request, wait)? {
            Reply::Empty => None,
            Reply::Message { id, attempt, body } => Some(Received {
                id,
                attempt,
                body: body.to_vec(),
                claim: Claim::Reserved(id),
            }),
            Reply::Leased {
                token,
                id,
                attempt,
                body,
            } => Some(Received {
                id,
                attempt,
                body: body.to_vec(),
                claim: Claim::Leased(token),
            }),
            other => return Err(unexpected(&other)),
        };
        Ok(received)
    }

    /// Has the server forget a message.
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
        self.ask_done(&Request::Ack { claim }).map(drop)
    }

    /// Gives a message back: it goes to the end of its queue, after a delay, or to the dead if it
    /// was handed out too often.
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
        let claim = claim.into();
        let delay_millis = millis(delay)?;
        let request = Request::Release {
            claim,
            delay_millis,
        };
        match self.ask_done(&request)? {
            0 => Ok(Released::Dead),
            1.. => Ok(Released::Queued),
        }
    }

    /// Gives a message back as if it had not been handed out: it goes to its old place, and the
    /// attempt does not count. A server of version 0.1.0 may not know this, and is then asked to
    /// release the message, which counts.
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
        match self.ask_done(&Request::Unreserve { claim }) {
            Err(Error::Refused {
                code: ErrorCode::Unsupported,
                ..
            }) => {
                log::warn!("The server is an older one, and counts this as an attempt");
                self.release(claim, Duration::ZERO).map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Unreserves a message because of another error, which matters more than one of this. The message
    /// goes back in any case, when the connection ends or the lease runs out.
    pub(crate) fn unreserve_or_warn(&mut self, message: &Received) {
        if let Err(error) = self.unreserve(message) {
            let cause = cli::exit::with_causes(&error);
            log::warn!(
                "Message {} goes back later, and this attempt counts: {cause}",
                message.id
            );
        }
    }

    /// Makes a lease run out so long from now.
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
        self.ask_done(&request).map(drop)
    }
}
