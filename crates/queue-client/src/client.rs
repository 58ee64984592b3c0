//! A client of the queue server: requests and replies over TCP or UDP.

use std::sync::Arc;
use std::time::Duration;

use cli::{ClientError, Endpoint};
use proto::frame::{self, Message};
use proto::queue::{BODY_BYTES_MAX, DURATION_MAX, MessageId, QueueName, Reply, Request};

use crate::tcp::{Closer, Connection};
use crate::udp::Datagrams;
use crate::{Batch, Error, Transport};

mod reserve;
mod whole;

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
/// use cli::{ClientError, Endpoint};
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
        _ => ClientError::Unexpected.into(),
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

    use proto::ErrorCode;
    use proto::ErrorReply;
    use proto::queue::Claim;

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
        client.unreserve(Claim::Reserved(7)).unwrap();
        drop(client);
        let want = [
            "Unreserve { claim: Reserved(7) }",
            "Release { claim: Reserved(7), delay_millis: 0 }",
        ];
        assert_eq!(server.join().unwrap(), want);
    }
}
