//! The HTTP connection loop that the code and the file service share: read a head, look who asks
//! (`visitors`), let the service handle it, write the reply, and go on while both sides want to.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::http::response::{self, CHUNK_END, Field, LAST_CHUNK, Persistence};
use proto::http::{Refusal, RequestHead, Status, request};

use rustix::time::{ClockId, clock_gettime};

use crate::{Connection, Cutter, Deadline, Deferred, Service};

mod incoming;
mod visitors;

pub use incoming::BODY_STALL;
pub use visitors::Hosts;

use incoming::Incoming;

/// A head must be whole this long after its first byte.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);

/// A service that speaks HTTP. [`Http`] makes a [`Service`] of it.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of a peer. A body that is not read to its end closes the connection after
    /// the reply. Errors of `body` turn into refusals with [`body_refusal`].
    ///
    /// # Errors
    /// A refusal, which [`Handler::refuse`] puts into words.
    fn handle(
        &self,
        peer: SocketAddr,
        request: &RequestHead<'_>,
        body: &mut dyn RequestBody,
    ) -> Result<Handled, Refusal>;

    /// The reply that tells a client why its request was refused.
    fn refuse(&self, refusal: &Refusal) -> Response;

    /// Called when a reply was sent, unless another thread gives it: for a log of who asked for what.
    /// The head is as it came, and empty if none came; `bytes` is the length of the reply's body.
    fn replied(&self, _peer: SocketAddr, _head: &[u8], _status: Status, _bytes: u64) {}

    /// How long a connection may be idle, by how many are open.
    fn idle_timeout(&self, open_connections: usize) -> Duration;

    /// How long the sender of a body may be silent.
    fn body_timeout(&self) -> Duration {
        BODY_STALL
    }
}

/// The body of a request, and what goes with waiting for it.
pub trait RequestBody: Read {
    /// Sends an interim response (RFC 9110 section 15.2) before the one that ends the request.
    ///
    /// # Errors
    /// Those of the stream.
    fn inform(&mut self, _status: Status, _fields: &[Field]) -> io::Result<()> {
        Ok(())
    }

    /// What ends the request from another thread, so that whoever reads its body gets an error.
    fn cutter(&mut self) -> Cutter {
        Cutter::default()
    }
}

/// A body at hand.
impl RequestBody for &[u8] {}

/// What comes of a request.
pub enum Handled {
    /// A reply.
    Now(Response),
    /// A reply that another thread gives. This is called at once, and sees to it that it does.
    Later(Box<dyn FnOnce(Replier)>),
}

/// Gives the reply to a request from another thread. Dropping it ends the connection.
#[must_use = "the peer waits for its reply"]
pub struct Replier {
    deferred: Deferred,
    is_head: bool,
    persistence: Persistence,
    date: Date,
}

impl Replier {
    /// Gives the reply, whose head and body have [`DEFERRED_BYTES_MAX`](crate::DEFERRED_BYTES_MAX) at
    /// the most; neither a file nor a stream can be given so. This never waits for the peer.
    pub fn reply(mut self, response: &Response) {
        let persistence = match self.deferred.is_stopping() {
            true => Persistence::Close,
            false => self.persistence,
        };
        let mut out = Vec::new();
        put(
            &mut out,
            response,
            self.is_head,
            persistence,
            self.date.now(),
        );
        self.deferred.reply(&out);
    }
}

/// A reply.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: Status,
    /// Its fields, without those of the connection: `Date`, `Content-Length` and `Connection` are
    /// added when it is sent.
    pub fields: Vec<Field>,
    /// Its body.
    pub body: Content,
}

/// The body of a reply.
#[derive(Debug)]
pub enum Content {
    /// None, and no length of one either, as 204 and 304 have it.
    None,
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// A part of a file.
    File {
        /// The file.
        file: File,
        /// Where the part starts.
        start: u64,
        /// How long it is.
        bytes: u64,
    },
    /// What was made ready for many replies.
    Ready(Arc<Ready>),
    /// What is made while it is sent, of a length that nobody knows before.
    Stream(Stream),
    /// Bytes that are sent without any head, and close the connection: not HTTP, but what the
    /// original clients of the code service expect.
    Bare(Vec<u8>),
}

/// Most of a reply, made once and sent often.
#[derive(Debug)]
pub struct Ready {
    /// The fields of its head, `Content-Length` among them, as [`response::put_fields`] writes them.
    pub fields: Vec<u8>,
    /// Its body.
    pub body: ReadyBody,
}

/// The body of a reply that was made ready.
#[derive(Debug)]
pub enum ReadyBody {
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// A whole file, and how long it is.
    File(File, u64),
}

impl ReadyBody {
    /// How long it is, in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, bytes) => *bytes,
        }
    }
}

/// Makes the body of a reply, piece by piece.
pub trait Pieces: Send {
    /// Appends the next piece, when the one before it is sent; returns whether there is another behind
    /// it.
    ///
    /// # Errors
    /// If the rest cannot be made. Then the connection is closed, so that the peer does not take what
    /// it has for all of it.
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool>;
}

/// A body that is made while it is sent: in chunks, or to an HTTP/1.0 client up to the end of the
/// connection.
pub struct Stream {
    pieces: Box<dyn Pieces>,
    /// What was made so far, in bytes.
    made_bytes: u64,
}

impl Stream {
    /// A body of these pieces.
    pub fn new(pieces: impl Pieces + 'static) -> Self {
        Self {
            pieces: Box::new(pieces),
            made_bytes: 0,
        }
    }

    /// Sends all of it.
    fn send(&mut self, connection: &mut Connection, is_chunked: bool) -> io::Result<()> {
        let mut piece = Vec::new();
        let mut has_more = true;
        while has_more {
            piece.clear();
            has_more = self.pieces.next(&mut piece)?;
            self.made_bytes += piece.len() as u64;
            // An empty chunk would be the last.
            let is_chunk = is_chunked && !piece.is_empty();
            if is_chunk {
                response::put_chunk_head(connection.output(), piece.len());
            }
            connection.send_behind(&piece)?;
            if is_chunk {
                connection.output().extend_from_slice(CHUNK_END);
            }
        }
        if is_chunked {
            connection.output().extend_from_slice(LAST_CHUNK);
        }
        Ok(())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({} bytes so far)", self.made_bytes)
    }
}

impl Content {
    /// How long it is, in bytes; of a stream, what was made of it so far.
    fn bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) | Self::Bare(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
            Self::Ready(ready) => ready.body.bytes(),
            Self::Stream(stream) => stream.made_bytes,
        }
    }
}

impl From<Arc<Ready>> for Response {
    fn from(ready: Arc<Ready>) -> Self {
        Self {
            status: Status::Ok,
            fields: Vec::new(),
            body: Content::Ready(ready),
        }
    }
}

impl Response {
    /// A reply with a body of the given type.
    pub fn new(status: Status, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            fields: vec![("Content-Type", Cow::Borrowed(content_type))],
            body: Content::Bytes(body.into()),
        }
    }

    /// The same reply with one more field; `value` must be free of line breaks.
    pub fn with_field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// What an error of a request's body means for the reply.
pub fn body_refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            Refusal::new(Status::RequestTimeout, "the body did not arrive in time")
        }
        io::ErrorKind::FileTooLarge => Refusal::new(Status::ContentTooLarge, error.to_string()),
        _ => Refusal::new(Status::BadRequest, error.to_string()),
    }
}

/// Makes a [`Service`] of a [`Handler`].
pub struct Http<H> {
    /// What answers the requests.
    pub handler: H,
    /// For which hosts.
    pub hosts: Hosts,
}

impl<H: Handler> Service for Http<H> {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        let mut head = Vec::new();
        let mut date = Date::default();
        loop {
            let idle = self.handler.idle_timeout(connection.open_connections());
            if connection.next_request(Some(idle))?.is_none() {
                return Ok(());
            }
            let (mut exchange, handled) = match self.exchange(connection, &mut head)? {
                None => return Ok(()),
                Some((exchange, Ok(handled))) => (exchange, handled),
                Some((exchange, Err(refusal))) => {
                    log::debug!("Refused: {refusal}");
                    (exchange, Handled::Now(self.handler.refuse(&refusal)))
                }
            };
            if connection.is_stopping() {
                exchange.persistence = Persistence::Close;
            }
            let Exchange {
                is_head,
                persistence,
                ..
            } = exchange;
            let mut response = match handled {
                Handled::Now(response) => response,
                Handled::Later(begin) => {
                    // So that it is not formatted anew for each of them.
                    date.now();
                    begin(Replier {
                        deferred: connection.defer(),
                        is_head,
                        persistence,
                        date: date.clone(),
                    });
                    if persistence == Persistence::Close {
                        return Ok(());
                    }
                    continue;
                }
            };
            let goes_on = send(connection, &mut response, &exchange, date.now());
            let bytes = if is_head { 0 } else { response.body.bytes() };
            let (peer, status) = (connection.peer(), response.status);
            self.handler.replied(peer, &head, status, bytes);
            if !goes_on? {
                return Ok(());
            }
        }
    }

    fn busy_reply(&self, _first_byte: Option<u8>) -> Vec<u8> {
        let refusal = Refusal::new(
            Status::ServiceUnavailable,
            "the server has as many connections as it accepts; try again later",
        );
        let response = self.handler.refuse(&refusal);
        let mut out = Vec::new();
        put(
            &mut out,
            &response,
            false,
            Persistence::Close,
            Date::default().now(),
        );
        out
    }
}

/// What the head of a request, or its absence, means for the reply.
#[derive(Clone, Copy)]
struct Exchange {
    is_head: bool,
    /// Whether the client knows chunks, which HTTP/1.0 did not have.
    can_chunk: bool,
    persistence: Persistence,
}

impl<H: Handler> Http<H> {
    /// Reads one request and has it handled. `None` is the end of the connection.
    fn exchange(
        &self,
        connection: &mut Connection,
        head: &mut Vec<u8>,
    ) -> io::Result<Option<(Exchange, Result<Handled, Refusal>)>> {
        let mut exchange = Exchange {
            is_head: false,
            can_chunk: false,
            persistence: Persistence::Close,
        };
        connection.set_deadline(Deadline::Within(HEAD_WAIT));
        let whole = match request::read_head(connection, head) {
            Ok(whole) => whole,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let sentence = "the head of the request did not arrive within 10 s";
                Err(Refusal::new(Status::RequestTimeout, sentence))
            }
            Err(error) => return Err(error),
        };
        let request = match whole {
            Ok(true) => RequestHead::parse(head),
            Ok(false) => return Ok(None),
            Err(refusal) => Err(refusal),
        };
        // Also what is refused before it is understood gets no body it did not ask for.
        exchange.is_head = head.starts_with(b"HEAD ");
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return Ok(Some((exchange, Err(refusal)))),
        };
        exchange.can_chunk = request.minor_version > 0;
        log::debug!("{} {}", request.method, request.path);
        if let Err(refusal) = self.hosts.check(&request) {
            return Ok(Some((exchange, Err(refusal))));
        }
        let peer = connection.peer();
        let stall = self.handler.body_timeout();
        let mut body = Incoming::new(connection, &request, stall);
        let handled = self.handler.handle(peer, &request, &mut body);
        if body.is_done() {
            exchange.persistence = request.persistence;
        }
        Ok(Some((exchange, handled)))
    }
}

/// What says that a body comes in chunks.
const CHUNKED: Field = ("Transfer-Encoding", Cow::Borrowed("chunked"));

/// Sends a reply; returns whether the connection goes on.
fn send(
    connection: &mut Connection,
    response: &mut Response,
    exchange: &Exchange,
    date: &str,
) -> io::Result<bool> {
    let (is_head, can_chunk) = (exchange.is_head, exchange.can_chunk);
    let mut persistence = exchange.persistence;
    if let Content::Stream(_) = response.body {
        match can_chunk {
            true => response.fields.push(CHUNKED),
            // Nothing else says where it ends.
            false => persistence = Persistence::Close,
        }
    }
    put(connection.output(), response, is_head, persistence, date);
    let file = match &mut response.body {
        Content::Bare(_) => return Ok(false),
        Content::Stream(stream) => {
            if !is_head {
                stream.send(connection, can_chunk)?;
            }
            None
        }
        Content::File { file, start, bytes } => Some((&*file, *start, *bytes)),
        Content::Ready(ready) => match &ready.body {
            ReadyBody::File(file, bytes) => Some((file, 0, *bytes)),
            ReadyBody::Bytes(_) => None,
        },
        Content::Bytes(_) | Content::None => None,
    };
    match file {
        // A file that shrinks while it is sent leaves the reply incomplete; closing is the only way
        // left to say so.
        Some((file, start, bytes)) if !is_head => {
            if connection.send_file(file, start, bytes)? < bytes {
                return Ok(false);
            }
        }
        Some(_) | None => connection.flush_if_large()?,
    }
    Ok(persistence != Persistence::Close)
}

/// Gathers a reply, up to the file that may be its body.
fn put(
    out: &mut Vec<u8>,
    response: &Response,
    is_head: bool,
    persistence: Persistence,
    date: &str,
) {
    let (lines, bytes) = match &response.body {
        Content::Bare(bytes) => return out.extend_from_slice(bytes),
        Content::Bytes(bytes) => (&[][..], bytes.as_slice()),
        Content::None | Content::File { .. } | Content::Stream(_) => (&[][..], &[][..]),
        Content::Ready(ready) => match &ready.body {
            ReadyBody::Bytes(bytes) => (ready.fields.as_slice(), bytes.as_slice()),
            ReadyBody::File(..) => (ready.fields.as_slice(), &[][..]),
        },
    };
    let (status, fields) = (response.status, &response.fields);
    let length = match response.body {
        Content::None | Content::Ready(_) | Content::Stream(_) => None,
        Content::Bytes(_) | Content::File { .. } | Content::Bare(_) => Some(response.body.bytes()),
    };
    response::put_head(out, status, date, fields, lines, length, persistence);
    if !is_head {
        out.extend_from_slice(bytes);
    }
}

/// The value of the `Date` field, formatted anew only when the second has changed.
#[derive(Clone, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let second = u64::try_from(now.tv_sec).unwrap_or(0);
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = proto::http::date::format(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests;
