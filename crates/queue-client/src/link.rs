//! A server at the other end of a [`Connection`] or of [`Datagrams`]: where TCP and UDP differ, the
//! difference ends here.
//!
//! A request that changes something is asked again after a loss, for as long as
//! [`Endpoint::wait_for_server`] says, in the same [`Session`] and with the same number.

use std::io;
use std::mem;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use cli::{ClientError, Endpoint, Losses};
use proto::ErrorCode;
use proto::frame::{HEADER_BYTES, Message};
use proto::queue::{Reply, Request};

use crate::Error;
use crate::servers;
use crate::session::Session;
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

/// The longest single wait for a message, if there are other servers to go to. A server that hangs, or whose
/// machine is cut off, is noticed when this and the timeout are over.
const WAIT_MAX: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);

/// What is done between two tries; it ends them by returning false.
pub(crate) type Pause = Box<dyn Fn(Duration) -> bool + Send>;

/// The way to a server, and the memory for one request and one reply.
pub(crate) struct Link {
    pub(crate) server: Endpoint,
    pub(crate) socket: Socket,
    pub(crate) session: Session,
    /// The number that the server gives the next request of this connection, if it was told the session.
    expected: Option<u64>,
    /// How many connections there were.
    pub(crate) connections: u64,
    /// Whose the ids are that the server gives, if it was told the session: in another epoch an id is that of
    /// another message.
    pub(crate) epoch: Option<u64>,
    pub(crate) pause: Pause,
    request: Vec<u8>,
    payload: Vec<u8>,
}

pub(crate) enum Socket {
    Tcp(Connection),
    Udp(Datagrams),
}

impl Socket {
    fn new(server: &Endpoint, transport: Transport) -> Result<Self, Error> {
        Ok(match transport {
            Transport::Tcp => Self::Tcp(servers::connect(server)?),
            Transport::Udp => Self::Udp(Datagrams::new(server)?),
        })
    }

    fn transport(&self) -> Transport {
        match self {
            Self::Tcp(_) => Transport::Tcp,
            Self::Udp(_) => Transport::Udp,
        }
    }
}

impl Link {
    pub(crate) fn new(server: &Endpoint, transport: Transport) -> Result<Self, Error> {
        Ok(Self {
            server: server.clone(),
            socket: Socket::new(server, transport)?,
            session: Session::new(),
            expected: None,
            connections: 1,
            epoch: None,
            pause: Box::new(cli::pause),
            request: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Continues over the connection of another link.
    pub(crate) fn continue_over(&mut self, other: Self) {
        self.socket = other.socket;
        self.expected = None;
        self.connections += 1;
    }

    /// How long one request may have the server wait for a message: as long as the timeout, 1 to 10 s, if there is
    /// another server that may be active instead.
    pub(crate) fn longest_wait(&self) -> Duration {
        if self.server.others.is_empty() {
            Duration::MAX
        } else {
            self.server
                .timeout
                .clamp(*WAIT_MAX.start(), *WAIT_MAX.end())
        }
    }

    /// Sends a request that may wait for its reply `wait` longer than usual. A loss is the caller's: only it
    /// knows how long there is to wait.
    pub(crate) fn ask(&mut self, request: &Request, wait: Duration) -> Result<Reply<'_>, Error> {
        let is_receive = matches!(request, Request::Receive { .. });
        if is_receive && let Some(mut number) = self.session.take_lost_receive() {
            // What was handed out then may be over by now.
            let asked = self.exchange_one(request, wait, &mut number);
            let is_over = |kind: &u8| is_not_found(*kind, &self.payload);
            if !asked.as_ref().is_ok_and(is_over) {
                return self.received(asked, number);
            }
        }
        let mut number = self.session.take(1);
        let asked = self.exchange_one(request, wait, &mut number);
        if is_receive {
            self.received(asked, number)
        } else {
            decode(asked?, &self.payload)
        }
    }

    /// The reply to a receive, of which the next one has the number if it is lost.
    fn received(&mut self, asked: Result<u8, Error>, number: u64) -> Result<Reply<'_>, Error> {
        let away = |kind| Error::away(kind, &self.payload).filter(Error::is_loss);
        match asked.and_then(|kind| away(kind).map_or(Ok(kind), Err)) {
            Ok(kind) => decode(kind, &self.payload),
            Err(error) => {
                if error.is_server_away() {
                    self.session.lose_receive(number);
                }
                Err(error)
            }
        }
    }

    /// Sends a request, and asks it again after a loss.
    pub(crate) fn ask_again(&mut self, request: &Request) -> Result<Reply<'_>, Error> {
        let number = self.session.take(1);
        let mut losses = Losses::default();
        loop {
            let asked = Instant::now();
            let exchanged = self.exchange_one(request, Duration::ZERO, &mut number.clone());
            let exchanged = exchanged.and_then(|kind| match Error::away(kind, &self.payload) {
                Some(error) if self.may_repeat() => Err(error),
                Some(_) | None => Ok(kind),
            });
            match exchanged {
                Ok(kind) => return decode(kind, &self.payload),
                Err(error) => self.reconnect(&mut losses, asked, error)?,
            }
        }
    }

    /// Sends a request whose reply is [`Reply::Done`], and asks it again after a loss; returns how many
    /// messages it was done to.
    pub(crate) fn ask_done(&mut self, request: &Request) -> Result<u64, Error> {
        match self.ask_again(request)? {
            Reply::Done { messages } => Ok(messages),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends many requests at once, over TCP, and has `each` told the replies. After a loss, those without
    /// one are asked again.
    pub(crate) fn ask_all(
        &mut self,
        mut frames: &[u8],
        mut each: impl FnMut(u8, &[u8]),
    ) -> Result<(), Error> {
        let count = frame_lengths(frames).count();
        let mut number = self.session.take(count as u64);
        let may_repeat = self.may_repeat();
        let mut losses = Losses::default();
        while !frames.is_empty() {
            let asked = Instant::now();
            let mut answered = 0;
            let lengths: Vec<_> = frame_lengths(frames).collect();
            let exchanged = self.exchange(frames, number, Duration::ZERO, |kind, payload| {
                let away = Error::away(kind, payload);
                if let Some(error) = away.filter(|error| may_repeat || error.is_loss()) {
                    return Err(error);
                }
                each(kind, payload);
                answered += 1;
                Ok(())
            });
            frames = &frames[lengths[..answered].iter().sum()..];
            number += answered as u64;
            if let Err(error) = exchanged {
                if answered > 0 {
                    losses = Losses::default();
                }
                self.reconnect(&mut losses, asked, error)?;
            }
        }
        Ok(())
    }

    fn exchange_one(
        &mut self,
        request: &Request,
        wait: Duration,
        number: &mut u64,
    ) -> Result<u8, Error> {
        if let Socket::Udp(datagrams) = &mut self.socket {
            return datagrams.ask(request, &mut self.session, number, &mut self.payload);
        }
        let mut frame = mem::take(&mut self.request);
        frame.clear();
        request.encode(&mut frame);
        let mut payload = mem::take(&mut self.payload);
        let mut replied = 0;
        let exchanged = self.exchange(&frame, *number, wait, |kind, reply| {
            replied = kind;
            reply.clone_into(&mut payload);
            Ok(())
        });
        (self.request, self.payload) = (frame, payload);
        exchanged.map(|()| replied)
    }

    /// Sends requests over TCP, of which the first has this number, and reads their replies.
    fn exchange(
        &mut self,
        frames: &[u8],
        number: u64,
        wait: Duration,
        mut each: impl FnMut(u8, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let is_in_session = self.may_repeat();
        let Socket::Tcp(connection) = &mut self.socket else {
            return Err(io::Error::from(io::ErrorKind::Unsupported).into());
        };
        let mut begun = Vec::new();
        let says_session = is_in_session && self.expected != Some(number);
        if says_session {
            let id = self.session.request(number);
            let session = Request::Session {
                id: id.session,
                next: id.number,
            };
            session.encode(&mut begun);
            begun.extend_from_slice(frames);
        }
        let requests = if says_session { &begun } else { frames };
        self.expected = None;
        let epoch = &mut self.epoch;
        let count = frame_lengths(frames).count();
        let mut payload = Vec::new();
        let read = connection.exchange(requests, |connection| {
            if says_session {
                let kind = connection.read(Duration::ZERO, &mut payload)?;
                match decode(kind, &payload) {
                    Ok(Reply::Session { epoch: told }) => *epoch = Some(told),
                    Ok(other) => return Ok(Err(unexpected(&other))),
                    Err(error) => return Ok(Err(error)),
                }
            }
            for _ in 0..count {
                let kind = connection.read(wait, &mut payload)?;
                if let Err(error) = each(kind, &payload) {
                    connection.lose();
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        });
        read??;
        self.expected = is_in_session.then_some(number + count as u64);
        Ok(())
    }

    /// Whether what has no reply is asked again. Otherwise nothing needs a session.
    fn may_repeat(&self) -> bool {
        !self.server.wait_for_server.is_zero()
    }

    /// Connects again after a loss.
    ///
    /// # Errors
    /// The loss, if it may not; why it could not, if it has tried for as long as it may.
    fn reconnect(
        &mut self,
        losses: &mut Losses,
        asked: Instant,
        error: Error,
    ) -> Result<(), Error> {
        if !error.is_server_away() {
            return Err(error);
        }
        match losses.pause_before_next(&self.server, asked, &error) {
            Some(length) if (self.pause)(length) => {}
            Some(_) | None => return Err(error),
        }
        let transport = self.socket.transport();
        let connect = |server: &Endpoint| Socket::new(server, transport);
        self.socket = self
            .server
            .retry(Error::is_server_away, &self.pause, connect)?;
        self.expected = None;
        self.connections += 1;
        Ok(())
    }
}

fn is_not_found(kind: u8, payload: &[u8]) -> bool {
    match Reply::decode(kind, payload) {
        Ok(Reply::Error(error)) => error.code == ErrorCode::NotFound,
        Ok(_) | Err(_) => false,
    }
}

/// The lengths of some frames, one behind the other.
fn frame_lengths(mut frames: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let head = frames.first_chunk()?;
        // The first byte is 0, and the length counts the kind.
        let length = u32::from_be_bytes(*head) as usize + HEADER_BYTES - 1;
        frames = frames.get(length..)?;
        Some(length)
    })
}

pub(crate) fn decode(kind: u8, payload: &[u8]) -> Result<Reply<'_>, Error> {
    Ok(Reply::decode(kind, payload).map_err(ClientError::malformed)?)
}

/// The error for a reply that does not match the request.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    match reply {
        Reply::Error(error) => Error::refused(error),
        Reply::Stored { .. }
        | Reply::StoredBefore { .. }
        | Reply::Message { .. }
        | Reply::Leased { .. }
        | Reply::Empty
        | Reply::Done { .. }
        | Reply::Peeked { .. }
        | Reply::Stats { .. }
        | Reply::Session { .. } => ClientError::Unexpected.into(),
    }
}
