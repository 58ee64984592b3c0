//! A client of the queue server: one method a request.

use std::time::Duration;

use cli::Endpoint;
use proto::queue::{
    BODY_BYTES_MAX, DURATION_MAX, MessageId, Properties, QueueName, QueueNames, Reply, Request,
};

use crate::Error;
use crate::link::{Link, Socket, Transport, unexpected};
use crate::tcp::AbortHandle;

mod done;
mod queues;
mod reserve;

pub(crate) use done::Done;
pub use queues::Stats;

/// A connection to a queue server.
///
/// Each method waits for the server's reply, at most [`Endpoint::timeout`]. Durations are sent in
/// whole milliseconds; one that exceeds [`DURATION_MAX`] is refused.
///
/// Where an error says that the server was lost, the request may or may not have been executed. A TCP
/// connection has ended then, and the server has requeued what was reserved over it: connect again.
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
    /// At least one, and at most as many as one request may name.
    pub(crate) queues: Vec<String>,
    pub(crate) done: Done,
    /// Over which connection the last message was reserved, and in which epoch of the server.
    reserved_over: (u64, Option<u64>),
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
        Ok(Self {
            link: Link::new(server, transport)?,
            queues: vec![QueueName::DEFAULT.as_str().to_owned()],
            done: Done::default(),
            reserved_over: (0, None),
        })
    }

    /// Chooses the queue for all further requests.
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
        self.set_queues(&queue.into());
    }

    /// Chooses several queues. A message is received from the first of them that has one; all other
    /// requests are about the first alone.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// use proto::queue::{QueueName, QueueNames};
    ///
    /// let names = ["urgent", "default"].map(|name| QueueName::new(name).expect("a good name"));
    /// client.set_queues(&QueueNames::new(names).expect("not too many"));
    /// if let Some(message) = client.receive()? {
    ///     println!("from {}", message.queue);
    ///     client.ack(&message)?;
    /// }
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn set_queues(&mut self, queues: &QueueNames) {
        let owned = |queue: QueueName| queue.as_str().to_owned();
        let queues: Vec<_> = queues.iter().map(owned).collect();
        if self.queues != queues {
            // What was handed out over a lost connection is of other queues, and goes back there.
            let _ = self.link.session.take_lost_receive();
        }
        self.queues = queues;
    }

    /// Continues over the connection of another client, in the same session.
    pub(crate) fn continue_over(&mut self, other: Self) {
        self.link.continue_over(other.link);
    }

    /// A handle that ends this client's waits from another thread. `None` over UDP.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// let handle = client.abort_handle().expect("over TCP");
    /// std::thread::spawn(move || handle.abort());
    /// client.receive_wait(std::time::Duration::from_secs(60))?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    pub fn abort_handle(&self) -> Option<AbortHandle> {
        match &self.link.socket {
            Socket::Tcp(connection) => Some(connection.abort_handle()),
            Socket::Udp(_) => None,
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

    /// Puts a message at the end of the queue after a delay of at most 49 days.
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
        let delay_millis = millis(delay)?;
        self.send_with(body, &Properties::delayed(delay_millis))
    }

    /// Puts a message at the end of the queue, with a priority, an expiry or what else it may have.
    ///
    /// ```no_run
    /// # let server = cli::Endpoint::new("127.0.0.1", 55556);
    /// # let mut client = queue_client::Client::connect(&server, queue_client::Transport::Tcp)?;
    /// use proto::queue::{Priority, Properties};
    ///
    /// let urgent = Properties {
    ///     priority: Priority::new(9).expect("0 to 9"),
    ///     ..Properties::default()
    /// };
    /// client.send_with(b"now", &urgent)?;
    /// # Ok::<(), queue_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn send_with(&mut self, body: &[u8], properties: &Properties) -> Result<MessageId, Error> {
        let request = send_request(name(&self.queues[0]), body, properties)?;
        match self.link.ask_again(&request)? {
            Reply::Stored { id } => Ok(id),
            Reply::StoredBefore { id } => {
                log::info!("Message {id} was stored before with this key");
                Ok(id)
            }
            other => Err(unexpected(&other)),
        }
    }
}

pub(crate) fn name(queue: &str) -> QueueName<'_> {
    QueueName::new(queue).expect("it is made of a name")
}

/// The request that puts a message into the queue. No server takes a body that exceeds
/// [`BODY_BYTES_MAX`].
pub(crate) fn send_request<'r>(
    queue: QueueName<'r>,
    body: &'r [u8],
    properties: &Properties<'r>,
) -> Result<Request<'r>, Error> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::BodyTooLong(body.len()));
    }
    for time in [properties.delay_millis, properties.expiry_millis] {
        millis(Duration::from_millis(time.into()))?;
    }
    Ok(Request::Send {
        queue,
        properties: *properties,
        body,
    })
}

/// A duration in milliseconds, as requests carry it.
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
    use proto::frame::{self, Message};
    use proto::queue::Claim;

    use super::*;

    #[test]
    fn what_was_lost_of_one_queue_is_not_asked_for_in_the_name_of_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client =
            Client::connect(&Endpoint::new("127.0.0.1", port), Transport::Tcp).unwrap();
        client.link.session.lose_receive(7);
        client.set_queue(QueueName::DEFAULT);
        assert_eq!(client.link.session.take_lost_receive(), Some(7));
        client.link.session.lose_receive(7);
        client.set_queue(QueueName::new("other").unwrap());
        assert_eq!(client.link.session.take_lost_receive(), None);
    }

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
            "Release { claim: Reserved(7), retry: Counted { delay_millis: 0 }, reason: Reason(\"\") }",
        ];
        assert_eq!(server.join().unwrap(), want);
    }
}
