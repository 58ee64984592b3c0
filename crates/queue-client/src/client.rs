//! A client of the queue server: requests and replies over TCP or UDP.

use std::sync::Arc;
use std::time::Duration;

use cli::Endpoint;
use proto::ErrorCode;
use proto::frame::{self, Message};
use proto::queue::{
    BODY_BYTES_MAX, Claim, DURATION_MAX, Delivery, MessageId, QueueName, Reply, Request, Token,
};

use crate::message::{Peeked, Received, Released};
use crate::stats::{QueueStats, Stats};
use crate::tcp::{Closer, Connection};
use crate::udp::Datagrams;
use crate::{Batch, Error, Transport};

/// Over UDP there is no connection that could hold a message; it is leased for so long instead.
const UDP_LEASE: Duration = Duration::from_secs(60);

/// A connection to a queue server.
///
/// All methods wait for the server's answer, [`Endpoint::timeout`] at the most. Durations are sent
/// in whole milliseconds; one that is longer than [`DURATION_MAX`] is refused.
///
/// Where an error says that the server was lost, what was asked for may or may not be done. A TCP
/// connection is ended then, and what it held goes back to its queue: connect anew.
///
/// ```no_run
/// use cli::Endpoint;
/// use queue_client::{Client, Transport};
///
/// let server = Endpoint::new("127.0.0.1", 55556);
/// let mut client = Client::connect(&server, Transport::Tcp)?;
/// client.send(b"hello")?;
/// if let Some(message) = client.receive()? {
///     println!("{}", String::from_utf8_lossy(&message.body));
///     client.ack(&message)?;
/// }
/// # Ok::<(), queue_client::Error>(())
/// ```
pub struct Client {
    pub(crate) link: Link,
    pub(crate) queue: Arc<str>,
    output: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) enum Link {
    Tcp(Connection),
    Udp(Datagrams),
}

impl Client {
    /// Connects to a server; the queue is the default one.
    ///
    /// ```no_run
    /// use queue_client::{Client, Endpoint, Transport};
    ///
    /// let client = Client::connect(&Endpoint::new("127.0.0.1", 55556), Transport::Udp)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(server: &Endpoint, transport: Transport) -> Result<Self, Error> {
        let link = match transport {
            Transport::Tcp => Link::Tcp(Connection::new(server)?),
            Transport::Udp => Link::Udp(Datagrams::new(server)?),
        };
        Ok(Self {
            link,
            queue: QueueName::DEFAULT.as_str().into(),
            output: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Chooses the queue that everything from now on is about.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let jobs = proto::queue::QueueName::new("jobs").expect("a good name");
    /// client.set_queue(jobs);
    /// client.send(b"a job")?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn set_queue(&mut self, queue: QueueName) {
        self.queue = queue.as_str().into();
    }

    /// A handle that ends this client's waits from another thread. `None` over UDP.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let closer = client.closer();
    /// std::thread::spawn(move || closer.inspect(|closer| closer.close()));
    /// client.receive_wait(std::time::Duration::from_secs(60))?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn closer(&self) -> Option<Closer> {
        match &self.link {
            Link::Tcp(connection) => Some(connection.closer()),
            Link::Udp(_) => None,
        }
    }

    /// Puts a message at the end of the queue.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.send(b"hello")?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn send(&mut self, body: &[u8]) -> Result<MessageId, Error> {
        self.send_delayed(body, Duration::ZERO)
    }

    /// Puts a message at the end of the queue after a delay, 49 days at the most.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.send_delayed(b"in a minute", std::time::Duration::from_secs(60))?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn send_delayed(&mut self, body: &[u8], delay: Duration) -> Result<MessageId, Error> {
        check_body(body)?;
        let queue = Arc::clone(&self.queue);
        let request = Request::Send {
            queue: name(&queue),
            delay_millis: millis(delay)?,
            body,
        };
        match self.ask(&request)? {
            Reply::Stored { id } => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins to send many messages, without waiting for the reply to each.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let mut batch = client.batch(std::time::Duration::ZERO);
    /// for n in 0..10_000 {
    ///     batch.send(format!("job {n}").as_bytes())?;
    /// }
    /// let stored = batch.finish()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn batch(&mut self, delay: Duration) -> Batch<'_> {
        Batch::new(self, delay)
    }

    /// Sends many messages, without waiting for the reply to each: over TCP up to 512, or 256 KiB,
    /// are on their way at once. Over UDP they go one after the other. Returns how many there
    /// were.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let jobs = (0..10_000).map(|n| format!("job {n}"));
    /// let stored = client.send_all(jobs, std::time::Duration::ZERO)?;
    /// assert_eq!(stored, 10_000);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BatchRefused`] names the first message that was refused, counted from 1. Those
    /// that were on their way behind it may be stored, and are counted; no more are sent.
    /// [`Error::BatchLost`] if the server is lost.
    pub fn send_all<B: AsRef<[u8]>>(
        &mut self,
        bodies: impl IntoIterator<Item = B>,
        delay: Duration,
    ) -> Result<u64, Error> {
        let mut batch = self.batch(delay);
        for body in bodies {
            batch.send(body.as_ref())?;
        }
        batch.finish()
    }

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
            Link::Tcp(_) => self.take(Delivery::Hold, Duration::ZERO),
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
        self.take(Delivery::Hold, wait)
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
        self.take(Delivery::Forget, Duration::ZERO)
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
        let millis = millis(lease)?;
        self.take(Delivery::Lease { millis }, wait)
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
                claim: Claim::Held(id),
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

    /// Looks at the messages at the front of the queue, so many at the most.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// for message in client.peek(10)? {
    ///     println!("{}: {} bytes", message.id, message.body.len());
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn peek(&mut self, messages_max: u64) -> Result<Vec<Peeked>, Error> {
        let mut after = 0;
        let mut messages = Vec::new();
        for _ in 0..messages_max {
            let Some(message) = self.peek_after(after)? else {
                break;
            };
            after = message.place;
            messages.push(message);
        }
        Ok(messages)
    }

    /// Looks at the first message whose [`Peeked::place`] is behind `after`; 0 is in front of all.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let first = client.peek_after(0)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn peek_after(&mut self, after: u64) -> Result<Option<Peeked>, Error> {
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        match self.ask(&Request::Peek { queue, after })? {
            Reply::Empty => Ok(None),
            Reply::Peeked {
                place,
                id,
                attempts,
                body,
            } => Ok(Some(Peeked {
                place,
                id,
                attempts,
                body: body.to_vec(),
            })),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks how the server and its queues are.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// for queue in client.stats()?.queues {
    ///     println!("{}: {} ready, {} held", queue.name, queue.ready, queue.held);
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        match self.ask(&Request::Stats)? {
            Reply::Stats { totals, queues } => Ok(Stats {
                totals,
                queues: queues.iter().map(QueueStats::from).collect(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Forgets all messages of the queue that nobody holds; returns how many there were.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// println!("{} messages are gone", client.purge()?);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn purge(&mut self) -> Result<u64, Error> {
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Purge { queue })
    }

    /// Has the queue hand out nothing.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.pause()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn pause(&mut self) -> Result<(), Error> {
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Pause { queue }).map(drop)
    }

    /// Ends a pause.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.resume()?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn resume(&mut self) -> Result<(), Error> {
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Resume { queue }).map(drop)
    }

    /// Moves the queue's dead messages back to its end; returns how many there were.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// println!("{} messages get another chance", client.kick()?);
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn kick(&mut self) -> Result<u64, Error> {
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        self.ask_done(&Request::Kick { queue })
    }

    /// Has the server take no new messages, or take them again.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// client.drain(true)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn drain(&mut self, on: bool) -> Result<(), Error> {
        self.ask_done(&Request::Drain { on }).map(drop)
    }

    fn ask_done(&mut self, request: &Request) -> Result<u64, Error> {
        match self.ask(request)? {
            Reply::Done { messages } => Ok(messages),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply<'_>, Error> {
        self.ask_and_wait(request, Duration::ZERO)
    }

    fn ask_and_wait(&mut self, request: &Request, wait: Duration) -> Result<Reply<'_>, Error> {
        let kind = match &mut self.link {
            Link::Tcp(connection) => {
                self.output.clear();
                request.encode(&mut self.output);
                connection.ask(&self.output, wait, &mut self.payload)?
            }
            Link::Udp(datagrams) => datagrams.ask(request, &mut self.payload)?,
        };
        decode(kind, &self.payload)
    }
}

pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<Reply<'_>, Error> {
    let reply = Reply::decode(kind, payload);
    Ok(reply.map_err(frame::FrameError::from)?)
}

/// The error that a reply is which is not to what was asked.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    match reply {
        Reply::Error(error) => Error::Refused {
            code: error.code,
            sentence: error.sentence.to_owned(),
        },
        _ => Error::Unexpected,
    }
}

pub(crate) fn name(queue: &str) -> QueueName<'_> {
    QueueName::new(queue).expect("it was a name when it was chosen")
}

/// Whether a body fits into a frame, whatever the server's limit is.
pub(crate) fn check_body(body: &[u8]) -> Result<(), Error> {
    match body.len() {
        ..=BODY_BYTES_MAX => Ok(()),
        bytes => Err(Error::BodyTooLong(bytes)),
    }
}

/// A duration as it stands in a request.
pub(crate) fn millis(duration: Duration) -> Result<u32, Error> {
    let millis = u32::try_from(duration.as_millis()).ok();
    millis
        .filter(|_| duration <= DURATION_MAX)
        .ok_or(Error::DurationTooLong(duration))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use proto::error::ErrorReply;

    use super::*;

    #[test]
    fn an_older_server_is_asked_to_release_what_it_cannot_unreserve() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut input = BufReader::new(&stream);
            let mut payload = Vec::new();
            let mut requests = Vec::new();
            while let Ok(Some(kind)) =
                frame::read(&mut input, frame::PAYLOAD_BYTES_MAX, &mut payload)
            {
                let request = Request::decode(kind, &payload).unwrap();
                let reply = match request {
                    Request::Unreserve { .. } => Reply::Error(ErrorReply {
                        code: ErrorCode::Unsupported,
                        sentence: "no message has the kind 0x0d",
                    }),
                    _ => Reply::Done { messages: 1 },
                };
                requests.push(format!("{request:?}"));
                let mut out = Vec::new();
                reply.encode(&mut out);
                (&stream).write_all(&out).unwrap();
            }
            requests
        });
        let endpoint = Endpoint::new("127.0.0.1", port);
        let mut client = Client::connect(&endpoint, Transport::Tcp).unwrap();
        client.unreserve(Claim::Held(7)).unwrap();
        drop(client);
        let want = [
            "Unreserve { claim: Held(7) }",
            "Release { claim: Held(7), delay_millis: 0 }",
        ];
        assert_eq!(server.join().unwrap(), want);
    }
}
