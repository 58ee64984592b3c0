//! A server at the other end of a [`Connection`] or of [`Datagrams`]: where TCP and UDP differ, the
//! difference ends here.

use std::time::Duration;

use cli::{ClientError, Endpoint};
use proto::frame::Message;
use proto::queue::{Reply, Request};

use crate::Error;
use crate::tcp::Connection;
use crate::udp::Datagrams;

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP.
    Tcp,
    /// Over UDP.
    Udp,
}

/// The way to a server, and the memory for one request and one reply.
pub(crate) struct Link {
    pub(crate) socket: Socket,
    request: Vec<u8>,
    payload: Vec<u8>,
}

pub(crate) enum Socket {
    Tcp(Connection),
    Udp(Datagrams),
}

impl Link {
    pub(crate) fn new(server: &Endpoint, transport: Transport) -> Result<Self, Error> {
        Ok(Self {
            socket: match transport {
                Transport::Tcp => Socket::Tcp(Connection::new(server)?),
                Transport::Udp => Socket::Udp(Datagrams::new(server)?),
            },
            request: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Sends a request, and waits `wait` longer than usual for its reply.
    pub(crate) fn ask(&mut self, request: &Request, wait: Duration) -> Result<Reply<'_>, Error> {
        let payload = &mut self.payload;
        let kind = match &mut self.socket {
            Socket::Tcp(connection) => {
                self.request.clear();
                request.encode(&mut self.request);
                connection.exchange(&self.request, |connection| connection.read(wait, payload))?
            }
            Socket::Udp(datagrams) => datagrams.ask(request, payload)?,
        };
        decode(kind, payload)
    }

    /// Sends a request whose reply is [`Reply::Done`]; returns how many messages it was done to.
    pub(crate) fn ask_done(&mut self, request: &Request) -> Result<u64, Error> {
        match self.ask(request, Duration::ZERO)? {
            Reply::Done { messages } => Ok(messages),
            other => Err(unexpected(&other)),
        }
    }
}

pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<Reply<'_>, Error> {
    Ok(Reply::decode(kind, payload).map_err(ClientError::malformed)?)
}

/// The error for a reply that does not match the request.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    match reply {
        Reply::Error(error) => Error::Refused {
            code: error.code,
            sentence: error.sentence.to_owned(),
        },
        Reply::Stored { .. }
        | Reply::Message { .. }
        | Reply::Leased { .. }
        | Reply::Empty
        | Reply::Done { .. }
        | Reply::Peeked { .. }
        | Reply::Stats { .. } => ClientError::Unexpected.into(),
    }
}
