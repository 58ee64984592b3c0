//! Compression: lists and texts are sent compressed to the clients that accept that (RFC 9110 section
//! 8.4.1.3).
//!
//! There is one coding, gzip, because every client knows it. A compressed body is another representation of
//! the same file: it has an entity tag of its own, and ranges and digests are of the plain one alone. What
//! is compressed already, such as a picture, is sent as it is.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use daemon::http::{Content, PieceStream, Pieces, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use proto::http::RequestHead;
use proto::http::negotiation::accepts_gzip;
use proto::http::response::Field;

use crate::access::add_value;
use crate::permits::Permit;
use crate::service::FileService;

/// The shortest body that is compressed, in bytes. A shorter one fits into one packet anyhow.
pub(crate) const PLAIN_BYTES_MIN: u64 = 1024;

/// The most files that are compressed while they are sent. One more is sent plain.
pub(crate) const STREAMS_MAX: usize = 8;

/// A file is read in pieces of this size, in bytes.
const PIECE_BYTES: u64 = 64 * 1024;

/// The level of compression. A higher one takes twice the time for a twentieth less, and the processor is for
/// other requests too. There is one for all, because a tag stands for one sequence of bytes.
const LEVEL: Compression = Compression::new(3);

/// What says that a body is compressed.
pub(crate) const ENCODING: Field = ("Content-Encoding", Cow::Borrowed("gzip"));

/// What says that not every client gets this body.
pub(crate) const VARY: (&str, &str) = ("Vary", "Accept-Encoding");

/// The types besides `text/...` that are text.
const TEXT_TYPES: [&str; 5] = [
    "application/javascript",
    "application/json",
    "application/x-javascript",
    "application/xml",
    "application/xml-dtd",
];

/// Whether what has this type is text, and so becomes much shorter.
pub(crate) fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || TEXT_TYPES.contains(&kind)
}

/// Compresses bytes at hand.
///
/// # Errors
/// Those of the encoder.
pub(crate) fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
    encoder.write_all(plain)?;
    encoder.finish()
}

impl FileService {
    /// Whether the reply to this request may be compressed.
    pub(crate) fn may_compress(&self, request: &RequestHead) -> bool {
        self.config.has_compression && accepts_gzip(request)
    }

    /// The same reply with a list, compressed if its client accepts that.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(crate) fn compressed(
        &self,
        request: &RequestHead,
        mut list: Response,
    ) -> io::Result<Response> {
        if !self.config.has_compression {
            return Ok(list);
        }
        let (name, value) = VARY;
        add_value(&mut list.fields, name, value);
        if !accepts_gzip(request) {
            return Ok(list);
        }
        list.body = match list.body {
            Content::Bytes(plain) if plain.len() as u64 >= PLAIN_BYTES_MIN => {
                Content::Bytes(compress(&plain)?)
            }
            Content::Stream(plain) => Content::Stream(PieceStream::new(Gzip::new(plain))),
            plain => {
                list.body = plain;
                return Ok(list);
            }
        };
        list.fields.push(ENCODING);
        Ok(list)
    }
}

/// Compresses the pieces of a body.
pub(crate) struct Gzip<P> {
    pieces: P,
    /// A piece before it is compressed.
    plain: Vec<u8>,
    encoder: GzEncoder<Vec<u8>>,
}

impl<P> Gzip<P> {
    /// Compresses these pieces.
    pub(crate) fn new(pieces: P) -> Self {
        Self {
            pieces,
            plain: Vec::new(),
            encoder: GzEncoder::new(Vec::new(), LEVEL),
        }
    }
}

impl<P: Pieces> Pieces for Gzip<P> {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        self.plain.clear();
        let has_more = self.pieces.next(&mut self.plain)?;
        self.encoder.write_all(&self.plain)?;
        if !has_more {
            self.encoder.try_finish()?;
        }
        out.append(self.encoder.get_mut());
        Ok(has_more)
    }
}

/// The contents of a file, piece by piece.
pub(crate) struct FilePieces {
    file: Arc<File>,
    /// Where the next piece starts, in bytes.
    at: u64,
    bytes: u64,
    _permit: Permit,
}

impl FilePieces {
    /// The first `bytes` of a file.
    pub(crate) fn new(file: Arc<File>, bytes: u64, permit: Permit) -> Self {
        Self {
            file,
            at: 0,
            bytes,
            _permit: permit,
        }
    }
}

impl Pieces for FilePieces {
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let piece_bytes = (self.bytes - self.at).min(PIECE_BYTES);
        out.resize(piece_bytes as usize, 0);
        // A file that has become shorter leaves the reply incomplete, which only an abort can say.
        self.file.read_exact_at(out, self.at)?;
        self.at += piece_bytes;
        Ok(self.at < self.bytes)
    }
}
