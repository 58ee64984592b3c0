//! A reply: what a service says, and how that is sent to a client.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use proto::http::Status;
use proto::http::response::{self, CHUNK_END, Field, LAST_CHUNK, Persistence};

use crate::connection::Connection;
use crate::pending_reply::SharedBytes;

/// A reply.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: Status,
    /// Its fields, without those of the connection: `Date`, `Content-Length` and `Connection` are
    /// added when it is sent.
    pub fields: Vec<Field>,
    /// Further fields that many replies share, as [`response::put_fields`] writes them.
    pub shared_fields: Option<Arc<[u8]>>,
    /// Its body.
    pub body: Content,
}

/// The body of a reply.
pub enum Content {
    /// None, and no length of one either, as 204 and 304 have it.
    None,
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// Bytes at hand that many replies share.
    Shared(Arc<[u8]>),
    /// Bytes that stay where they are, however many replies share them.
    Kept(SharedBytes),
    /// A part of a file.
    File {
        /// The file, which many replies may share.
        file: Arc<File>,
        /// Where the part starts.
        start: u64,
        /// Its length, in bytes.
        bytes: u64,
    },
    /// A body that is made while it is sent, of a length that is not known before.
    Stream(PieceStream),
    /// A body that lasts as long as the peer wants more of it.
    Live(Live),
    /// Bytes that are sent without any head, and close the connection: not HTTP, but what the
    /// original clients of the code service expect.
    Bare(Vec<u8>),
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
/// connection. That is reset if it ends early, so that the client does not take a part for all of it.
pub struct PieceStream {
    pieces: Box<dyn Pieces>,
    /// What was made so far, in bytes.
    made_bytes: u64,
}

impl PieceStream {
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

impl Pieces for PieceStream {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        self.pieces.next(out)
    }
}

impl fmt::Debug for PieceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PieceStream({} bytes so far)", self.made_bytes)
    }
}

/// A body that is written when there is something to say, and ends with the connection. In between the
/// connection waits, and counts among the waiters; if there is no room for another, the reply is 503.
pub struct Live(Box<WriteBody>);

/// What writes the body. It is all that the connection's thread does then.
type WriteBody = dyn Fn(&mut Connection) -> io::Result<()> + Send;

impl Live {
    /// A body that this writes. The head of the reply is sent before.
    pub fn new(write: impl Fn(&mut Connection) -> io::Result<()> + Send + 'static) -> Self {
        Self(Box::new(write))
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.bytes())
    }
}

impl Content {
    /// How long it is, in bytes; of a stream, what was made of it so far.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) | Self::Bare(bytes) => bytes.len() as u64,
            Self::Shared(bytes) => bytes.len() as u64,
            Self::Kept(bytes) => (**bytes).as_ref().len() as u64,
            Self::File { bytes, .. } => *bytes,
            Self::Stream(stream) => stream.made_bytes,
            // Nobody counts.
            Self::Live(_) => 0,
        }
    }
}

impl Response {
    /// A reply without a body.
    pub fn empty(status: Status) -> Self {
        Self {
            status,
            fields: Vec::new(),
            shared_fields: None,
            body: Content::None,
        }
    }

    /// A reply with a body of the given type.
    pub fn new(status: Status, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            fields: vec![("Content-Type", Cow::Borrowed(content_type))],
            shared_fields: None,
            body: Content::Bytes(body.into()),
        }
    }

    /// The same reply with one more field; `value` must be free of line breaks.
    pub fn with_field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// What the head of a request, or its absence, means for the reply.
#[derive(Clone, Copy)]
pub(super) struct Exchange {
    pub(super) is_head: bool,
    /// Whether the client knows chunks, which HTTP/1.0 did not have.
    pub(super) can_chunk: bool,
    pub(super) persistence: Persistence,
}

/// What says that a body comes in chunks.
const CHUNKED: Field = ("Transfer-Encoding", Cow::Borrowed("chunked"));

/// Sends a reply; returns whether the connection continues.
pub(super) fn send(
    connection: &mut Connection,
    response: &mut Response,
    exchange: &Exchange,
    date: &str,
) -> io::Result<bool> {
    let (is_head, can_chunk) = (exchange.is_head, exchange.can_chunk);
    let mut persistence = exchange.persistence;
    match response.body {
        Content::Stream(_) if can_chunk => response.fields.push(CHUNKED),
        // Nothing else says where it ends.
        Content::Stream(_) | Content::Live(_) => persistence = Persistence::Close,
        Content::None | Content::Bytes(_) | Content::Shared(_) | Content::Kept(_) => {}
        Content::File { .. } | Content::Bare(_) => {}
    }
    put(connection.output(), response, is_head, persistence, date);
    match &mut response.body {
        Content::Bare(_) => return Ok(false),
        Content::Stream(stream) if !is_head && can_chunk => stream.send(connection, true)?,
        Content::Stream(stream) if !is_head => {
            connection.reset_if_it_ends(true)?;
            stream.send(connection, false)?;
            connection.reset_if_it_ends(false)?;
        }
        Content::Live(Live(write)) if !is_head => {
            connection.flush()?;
            write(connection)?;
        }
        Content::File { file, start, bytes } if !is_head => {
            // A file that shrinks while it is sent leaves the reply incomplete; closing is the only way
            // left to say so.
            if connection.send_file(file, *start, *bytes)? < *bytes {
                return Ok(false);
            }
        }
        Content::Kept(bytes) if !is_head => connection.send_behind((**bytes).as_ref())?,
        Content::Stream(_) | Content::Live(_) | Content::File { .. } | Content::Kept(_) => {}
        Content::Bytes(_) | Content::Shared(_) | Content::None => {}
    }
    connection.flush_if_large()?;
    Ok(persistence != Persistence::Close)
}

/// Gathers a reply, up to the file or the bytes elsewhere that may be its body.
pub(super) fn put(
    out: &mut Vec<u8>,
    response: &Response,
    is_head: bool,
    persistence: Persistence,
    date: &str,
) {
    let bytes = match &response.body {
        Content::Bare(bytes) => return out.extend_from_slice(bytes),
        Content::Bytes(bytes) => bytes.as_slice(),
        Content::Shared(bytes) => bytes,
        Content::None | Content::Kept(_) | Content::File { .. } => &[],
        Content::Stream(_) | Content::Live(_) => &[],
    };
    let has_length = !matches!(
        response.body,
        Content::None | Content::Stream(_) | Content::Live(_)
    );
    let length = has_length.then(|| response.body.bytes());
    let (status, fields) = (response.status, &response.fields);
    let shared_fields = response.shared_fields.as_deref().unwrap_or_default();
    response::put_head(
        out,
        status,
        date,
        fields,
        shared_fields,
        length,
        persistence,
    );
    if !is_head {
        out.extend_from_slice(bytes);
    }
}
