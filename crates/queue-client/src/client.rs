//! A client of the queue server: requests and replies over TCP or UDP.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;

use cli::Endpoint;
use proto::frame::{self, Message, PAYLOAD_BYTES_MAX};
use proto::queue::{Delivery, MessageId, Reply, Request};

use crate::udp::Datagrams;
use crate::{Error, Transport};

/// A connection to a queue server.
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
    request: Vec<u8>,
    payload: Vec<u8>,
}

enum Link {
    Tcp(BufReader<TcpStream>),
    Udp(Datagrams),
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a message received over TCP returns to the queue unless it is acknowledged"]
pub struct Received {
    /// What the server calls it.
    pub id: MessageId,
    /// What was sent.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(server: &Endpoint, transport: Transport) -> Result<Self, Error> {
        let link = match transport {
            Transport::Tcp => Link::Tcp(BufReader::new(server.connect()?)),
            Transport::Udp => Link::Udp(Datagrams::new(server)?),
        };
        Ok(Self {
            link,
            request: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Puts a message into the queue.
    ///
    /// # Errors
    /// If the server refuses or is lost; then the message may or may not be in the queue.
    pub fn send(&mut self, body: &[u8]) -> Result<MessageId, Error> {
        match self.ask(&Request::Send { body })? {
            Reply::Stored { id } => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the oldest message; `None` if there is none. Over TCP it returns to the queue unless
    /// it is acknowledged; over UDP the server has forgotten it.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn receive(&mut self) -> Result<Option<Received>, Error> {
        self.take(Delivery::HoldUntilAcked)
    }

    /// Takes the oldest message and has the server forget it as it is sent.
    ///
    /// # Errors
    /// If the server refuses or is lost; then a message may be lost too.
    pub fn receive_and_forget(&mut self) -> Result<Option<Received>, Error> {
        self.take(Delivery::ForgetWhenSent)
    }

    fn take(&mut self, delivery: Delivery) -> Result<Option<Received>, Error> {
        match self.ask(&Request::Receive { delivery })? {
            Reply::Message { id, body } => Ok(Some(Received {
                id,
                body: body.to_vec(),
            })),
            Reply::Empty => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the server forget a message. Over UDP it has already, and nothing is sent.
    ///
    /// # Errors
    /// If the server refuses or is lost; then the message may be delivered once more.
    pub fn ack(&mut self, message: &Received) -> Result<(), Error> {
        if let Link::Udp(_) = self.link {
            return Ok(());
        }
        match self.ask(&Request::Ack { id: message.id })? {
            Reply::Acked => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply<'_>, Error> {
        let kind = match &mut self.link {
            Link::Tcp(stream) => {
                self.request.clear();
                request.encode(&mut self.request);
                // A server that refuses a long message may close while we still write it; its
                // reply tells more than the broken pipe does.
                let sent = stream.get_ref().write_all(&self.request);
                let kind = match frame::read(stream, PAYLOAD_BYTES_MAX, &mut self.payload) {
                    Ok(kind) => kind,
                    Err(error) => return Err(sent.map_or_else(Error::from, |()| error.into())),
                };
                kind.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?
            }
            Link::Udp(datagrams) => datagrams.ask(request, &mut self.payload)?,
        };
        let reply = Reply::decode(kind, &self.payload);
        Ok(reply.map_err(frame::FrameError::from)?)
    }
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
