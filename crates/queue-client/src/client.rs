//! A client of the queue server: requests and replies over TCP or UDP.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cli::Endpoint;
use proto::frame::{self, Message, PAYLOAD_BYTES_MAX};
use proto::queue::{Claim, Delivery, MessageId, QueueName, Reply, Request, Token, Totals};

use crate::udp::Datagrams;
use crate::{Error, Transport};

/// Over UDP there is no connection that could hold a message; it is leased for so long instead.
const UDP_LEASE: Duration = Duration::from_secs(60);

/// A connection to a queue server.
///
/// All methods wait for the server's answer, [`Endpoint::timeout`] at the most. Where an error says
/// that the server was lost, what was asked for may or may not be done.
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
    link: Link,
    timeout: Duration,
    queue: Arc<str>,
    /// What is to be written: one request, or the requests of a [`Batch`].
    output: Vec<u8>,
    payload: Vec<u8>,
}

enum Link {
    Tcp(BufReader<Shared>),
    Udp(Datagrams),
}

/// A stream that a [`Closer`] has too.
struct Shared(Arc<TcpStream>);

impl Read for Shared {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(out)
    }
}

/// Ends a client's connection from another thread.
#[derive(Debug, Clone)]
pub struct Closer(Arc<TcpStream>);

impl Closer {
    /// Makes whatever the client waits for, now or later, end with an error.
    pub fn close(&self) {
        // An error means that it has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a message returns to its queue unless it is acknowledged"]
pub struct Received {
    /// What the server calls it.
    pub id: MessageId,
    /// How often it was handed out, this time included.
    pub attempt: u32,
    /// What was sent.
    pub body: Vec<u8>,
    /// What it is acknowledged by.
    pub claim: Claim,
}

impl From<&Received> for Claim {
    fn from(message: &Received) -> Self {
        message.claim
    }
}

/// A message that was looked at and stays in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// What the server calls it.
    pub id: MessageId,
    /// How often it was handed out.
    pub attempts: u32,
    /// What was sent.
    pub body: Vec<u8>,
}

/// How a server and its queues are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Over all queues, since the server started.
    pub totals: Totals,
    /// One by one, by name.
    pub queues: Vec<QueueStats>,
}

/// One queue; see [`proto::queue::QueueStats`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Messages that can be received.
    pub ready: u64,
    /// Messages that somebody holds or has leased.
    pub held: u64,
    /// Messages that are kept back.
    pub delayed: u64,
    /// Messages in the queue of its dead.
    pub dead: u64,
    /// Receivers that wait for a message.
    pub waiting: u64,
    /// How long the message at the front has been in the queue, in milliseconds.
    pub oldest_millis: u64,
    /// Whether it hands out nothing.
    pub is_paused: bool,
}

impl Client {
    /// Connects to a server; the queue is the default one.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(server: &Endpoint, transport: Transport) -> Result<Self, Error> {
        let link = match transport {
            Transport::Tcp => {
                let stream = Shared(Arc::new(server.connect()?));
                Link::Tcp(BufReader::new(stream))
            }
            Transport::Udp => Link::Udp(Datagrams::new(server)?),
        };
        Ok(Self {
            link,
            timeout: server.timeout,
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
            Link::Tcp(stream) => Some(Closer(Arc::clone(&stream.get_ref().0))),
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
        let queue = Arc::clone(&self.queue);
        let request = Request::Send {
            queue: name(&queue),
            delay_millis: millis(delay),
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
        Batch {
            delay_millis: millis(delay),
            client: self,
            unanswered: 0,
            stored: 0,
        }
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
        let millis = millis(lease);
        self.take(Delivery::Lease { millis }, wait)
    }

    fn take(&mut self, delivery: Delivery, wait: Duration) -> Result<Option<Received>, Error> {
        let queue = Arc::clone(&self.queue);
        let request = Request::Receive {
            queue: name(&queue),
            wait_millis: millis(wait),
            delivery,
        };
        if !wait.is_zero() {
            self.set_patience(wait)?;
        }
        let received = match self.ask(&request)? {
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
        if !wait.is_zero() {
            self.set_patience(Duration::ZERO)?;
        }
        Ok(received)
    }

    /// Waits so much longer for a reply than usual.
    fn set_patience(&mut self, wait: Duration) -> Result<(), Error> {
        if let Link::Tcp(stream) = &self.link {
            let stream = &stream.get_ref().0;
            stream.set_read_timeout(Some(self.timeout + wait))?;
        }
        Ok(())
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

    /// Gives a message back: it goes to the end of its queue, after a delay.
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
    pub fn release(&mut self, claim: impl Into<Claim>, delay: Duration) -> Result<(), Error> {
        let claim = claim.into();
        let delay_millis = millis(delay);
        let request = Request::Release {
            claim,
            delay_millis,
        };
        self.ask_done(&request).map(drop)
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
        let lease_millis = millis(lease);
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
        let queue = Arc::clone(&self.queue);
        let queue = name(&queue);
        let mut after = 0;
        let mut messages = Vec::new();
        for _ in 0..messages_max {
            match self.ask(&Request::Peek { queue, after })? {
                Reply::Empty => break,
                Reply::Peeked {
                    place,
                    id,
                    attempts,
                    body,
                } => {
                    after = place;
                    messages.push(Peeked {
                        id,
                        attempts,
                        body: body.to_vec(),
                    });
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(messages)
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

    fn ask(&mut self, request: &Request) -> Result<Reply<'_>, Error> {
        self.output.clear();
        if let Link::Udp(datagrams) = &mut self.link {
            let kind = datagrams.ask(request, &mut self.payload)?;
            return decode(kind, &self.payload);
        }
        request.encode(&mut self.output);
        // A server that refuses a long message may close while we still write it; its reply tells
        // more than the broken pipe does.
        let written = self.write();
        match self.read() {
            Ok(kind) => decode(kind, &self.payload),
            Err(error) => Err(written.map_or_else(Error::from, |()| error)),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        match &self.link {
            Link::Tcp(stream) => (&*stream.get_ref().0).write_all(&self.output),
            Link::Udp(_) => Ok(()),
        }
    }

    /// Reads one reply over TCP: returns its kind, and leaves the rest in `payload`.
    fn read(&mut self) -> Result<u8, Error> {
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match &mut self.link {
            Link::Tcp(stream) => {
                let kind = frame::read(stream, PAYLOAD_BYTES_MAX, &mut self.payload)?;
                Ok(kind.ok_or_else(gone)?)
            }
            Link::Udp(_) => Err(gone().into()),
        }
    }
}

/// How many requests a [`Batch`] writes before it reads the replies, and how many bytes of them.
/// The replies to so many fit into a socket's buffer, so the server can always write them.
const UNANSWERED_MAX: u64 = 512;
const UNANSWERED_BYTES_MAX: usize = 256 * 1024;

/// Messages that are sent one behind the other. What is dropped before [`Batch::finish`] may not be
/// sent.
#[must_use = "a batch is sent when it is finished"]
pub struct Batch<'c> {
    client: &'c mut Client,
    delay_millis: u32,
    unanswered: u64,
    stored: u64,
}

impl Batch<'_> {
    /// Sends one more message, now or a little later.
    ///
    /// # Errors
    /// [`Error::BatchRefused`], if one of the messages so far was refused; or the server is lost.
    pub fn send(&mut self, body: &[u8]) -> Result<(), Error> {
        let queue = Arc::clone(&self.client.queue);
        let request = Request::Send {
            queue: name(&queue),
            delay_millis: self.delay_millis,
            body,
        };
        if let Link::Udp(_) = self.client.link {
            let answer = self.client.ask(&request).map(|reply| stored(&reply))?;
            return self.count([answer]);
        }
        request.encode(&mut self.client.output);
        self.unanswered += 1;
        match self.unanswered >= UNANSWERED_MAX || self.client.output.len() >= UNANSWERED_BYTES_MAX
        {
            true => self.settle(),
            false => Ok(()),
        }
    }

    /// Sends what is not sent yet; returns how many messages are in the queue.
    ///
    /// # Errors
    /// As [`Batch::send`].
    pub fn finish(mut self) -> Result<u64, Error> {
        self.settle()?;
        Ok(self.stored)
    }

    fn settle(&mut self) -> Result<(), Error> {
        let written = self.client.write();
        self.client.output.clear();
        let mut answers = Vec::new();
        for _ in 0..std::mem::take(&mut self.unanswered) {
            let kind = match self.client.read() {
                Ok(kind) => kind,
                Err(error) => {
                    self.count(answers)?;
                    return Err(written.map_or_else(Error::from, |()| error));
                }
            };
            answers.push(stored(&decode(kind, &self.client.payload)?));
        }
        self.count(answers)
    }

    /// Counts the messages that are stored, and reports the first that is not.
    fn count(&mut self, answers: impl IntoIterator<Item = Result<(), Error>>) -> Result<(), Error> {
        let mut refused = None;
        let mut number = self.stored;
        for answer in answers {
            number += 1;
            match answer {
                Ok(()) => self.stored += 1,
                Err(error) if refused.is_none() => refused = Some((number, error)),
                Err(_) => {}
            }
        }
        match refused {
            None => Ok(()),
            Some((number, error)) => Err(Error::BatchRefused {
                number,
                stored: self.stored,
                cause: Box::new(error),
            }),
        }
    }
}

fn stored(reply: &Reply) -> Result<(), Error> {
    match reply {
        Reply::Stored { .. } => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Reply<'_>, Error> {
    let reply = Reply::decode(kind, payload);
    Ok(reply.map_err(frame::FrameError::from)?)
}

fn unexpected(reply: &Reply) -> Error {
    match reply {
        Reply::Error(error) => Error::Refused {
            code: error.code,
            sentence: error.sentence.to_owned(),
        },
        _ => Error::Unexpected,
    }
}

fn name(queue: &str) -> QueueName<'_> {
    QueueName::new(queue).expect("it was a name when it was chosen")
}

/// A duration as it stands in a request; 49 days are the most that it can say.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl From<&proto::queue::QueueStats<'_>> for QueueStats {
    fn from(queue: &proto::queue::QueueStats) -> Self {
        Self {
            name: queue.name.to_owned(),
            ready: queue.ready,
            held: queue.held,
            delayed: queue.delayed,
            dead: queue.dead,
            waiting: queue.waiting,
            oldest_millis: queue.oldest_millis,
            is_paused: queue.is_paused,
        }
    }
}
