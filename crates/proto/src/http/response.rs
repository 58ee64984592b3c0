//! Response heads (RFC 9112 section 4): writing one, and reading one as a client.

use std::borrow::Cow;
use std::io::{self, BufRead, Write as _};

use super::body::BodyLength;
use super::head::{self, FIELDS_MAX, HEAD_BYTES_MAX, Progress};
use super::status::Status;
use crate::digits;

/// The most interim responses that a client skips before one final response.
pub const INTERIM_MAX: usize = 100;

/// A field of a response: its name and its value, which holds no line breaks.
pub type Field = (&'static str, Cow<'static, str>);

/// Appends a response head. `date` is an HTTP date (RFC 9110 section 5.6.7). `lines` are further fields,
/// as [`put_fields`] writes them. `body_bytes` becomes `Content-Length`; it is `None` for a status that
/// never has a body.
pub fn put_head(
    out: &mut Vec<u8>,
    status: Status,
    date: &str,
    fields: &[Field],
    lines: &[u8],
    body_bytes: Option<u64>,
    persistence: Persistence,
) {
    for part in [status.line(), "Date: ", date, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    put_fields(out, fields);
    out.extend_from_slice(lines);
    if let Some(bytes) = body_bytes {
        // Writing to a vector never fails.
        let _ = write!(out, "Content-Length: {bytes}\r\n");
    }
    out.extend_from_slice(match persistence {
        Persistence::Close => b"Connection: close\r\n\r\n",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Persistence::Default => b"\r\n",
    });
}

/// What follows the bytes of a chunk (RFC 9112 section 7.1).
pub const CHUNK_END: &[u8] = b"\r\n";

/// The chunk that ends a body, without a trailer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the first line of a chunk of `bytes` bytes, at least one.
pub fn put_chunk_head(out: &mut Vec<u8>, bytes: usize) {
    debug_assert_ne!(bytes, 0, "that would be the last chunk");
    out.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
}

/// Appends an interim response: one with a status 1xx, which another response follows (RFC 9110 section
/// 15.2).
pub fn put_interim(out: &mut Vec<u8>, status: Status, fields: &[Field]) {
    out.extend_from_slice(status.line().as_bytes());
    put_fields(out, fields);
    out.extend_from_slice(b"\r\n");
}

/// Appends fields.
pub fn put_fields(out: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        debug_assert!(!value.contains(['\r', '\n']), "{name}: {value:?}");
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// What a response says about the connection (RFC 9112 section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It stays open, which is the default of HTTP/1.1.
    Default,
    /// It stays open, which an HTTP/1.0 client must be told.
    KeepAlive,
    /// It is closed after this response.
    Close,
}

/// The head of a response, as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub phrase: String,
    /// How the body that follows ends.
    pub body: BodyLength,
    /// Whether the server keeps the connection open for the next request.
    pub keep_alive: bool,
    fields: Vec<(String, String)>,
}

/// Why no response could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The stream failed or ended inside the head.
    #[error("{0}")]
    Io(io::Error),
    /// The server closed the connection instead of replying.
    #[error("the server closed the connection without a reply")]
    Closed,
    /// The bytes are not an HTTP response; the sentence says why.
    #[error("the reply is not HTTP: {0}")]
    NotHttp(&'static str),
}

impl From<io::Error> for ResponseError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ResponseError> for io::Error {
    fn from(error: ResponseError) -> Self {
        let kind = match error {
            ResponseError::Io(error) => return error,
            ResponseError::Closed => io::ErrorKind::UnexpectedEof,
            ResponseError::NotHttp(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl ResponseHead {
    /// Reads the head of the response to a request with this method. Skips at most [`INTERIM_MAX`] interim
    /// (1xx) responses.
    ///
    /// # Errors
    /// If the stream fails or holds anything else.
    pub fn read(input: &mut impl BufRead, method: &str) -> Result<Self, ResponseError> {
        let mut head = Vec::new();
        for _ in 0..=INTERIM_MAX {
            match head::read_head(input, &mut head)? {
                Progress::Whole => {}
                Progress::End => return Err(ResponseError::Closed),
                Progress::TooLong => {
                    return Err(ResponseError::NotHttp("its head exceeds 16 KiB"));
                }
            }
            let response = Self::parse(&head, method)?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
        Err(ResponseError::NotHttp(
            "it begins with more than 100 interim responses",
        ))
    }

    /// The first value of the field with this name; names ignore case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = move |(field, _): &(&str, &str)| field.eq_ignore_ascii_case(name);
        self.fields().filter(found).map(|(_, value)| value)
    }

    /// All fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    fn parse(head: &[u8], method: &str) -> Result<Self, ResponseError> {
        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut slots);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => {
                return Err(ResponseError::NotHttp("its head cannot be read"));
            }
        }
        let field = |field: &httparse::Header| {
            let value = String::from_utf8_lossy(field.value).into_owned();
            (field.name.to_owned(), value)
        };
        let mut response = Self {
            status: parsed.code.unwrap_or_default(),
            phrase: parsed.reason.unwrap_or_default().to_owned(),
            body: BodyLength::None,
            keep_alive: false,
            fields: parsed.headers.iter().map(field).collect(),
        };
        response.body = response.body_length(method)?;
        let connection = response.field("connection").unwrap_or_default();
        let has = |option: &[u8]| {
            head::list_members(connection.as_bytes()).any(|o| o.eq_ignore_ascii_case(option))
        };
        response.keep_alive = match parsed.version {
            Some(1) => !has(b"close"),
            _ => has(b"keep-alive"),
        } && match response.body {
            BodyLength::None | BodyLength::Bytes(_) => true,
            BodyLength::UntilClose => false,
            // A proxy on the way may have found another end.
            BodyLength::Chunked => {
                parsed.version == Some(1) && response.field("content-length").is_none()
            }
        };
        Ok(response)
    }

    /// RFC 9112 section 6.3.
    fn body_length(&self, method: &str) -> Result<BodyLength, ResponseError> {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(BodyLength::None);
        }
        let codings: Vec<_> = self.values("transfer-encoding").collect();
        let lengths: Vec<_> = self.values("content-length").collect();
        match (&codings[..], &lengths[..]) {
            ([], []) => Ok(BodyLength::UntilClose),
            ([coding], _) if coding.trim().eq_ignore_ascii_case("chunked") => {
                Ok(BodyLength::Chunked)
            }
            ([_, ..], _) => Err(ResponseError::NotHttp("its transfer coding is not known")),
            ([], [length, others @ ..]) if others.iter().all(|other| other == length) => {
                digits::parse(length.as_bytes())
                    .map(BodyLength::Bytes)
                    .map_err(|_| ResponseError::NotHttp("its Content-Length is not a number"))
            }
            ([], _) => Err(ResponseError::NotHttp("it has several Content-Lengths")),
        }
    }
}

const _: () = assert!(
    HEAD_BYTES_MAX == 16 * 1024,
    "the sentence above says 16 KiB"
);

const _: () = assert!(INTERIM_MAX == 100, "the sentence above says 100");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_written_can_be_read() {
        let mut out = Vec::new();
        let fields: [Field; 1] = [("Content-Type", "text/plain".into())];
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        put_head(
            &mut out,
            Status::NotFound,
            date,
            &fields,
            b"",
            Some(5),
            Persistence::Close,
        );
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        );
        let head = ResponseHead::read(&mut out.as_slice(), "GET").unwrap();
        assert_eq!((head.status, head.phrase.as_str()), (404, "Not Found"));
        assert_eq!(head.body, BodyLength::Bytes(5));
        assert_eq!(head.field("content-type"), Some("text/plain"));
        assert!(!head.keep_alive);
    }

    #[test]
    fn interim_responses_come_to_an_end() {
        let read = |interim: usize| {
            let head = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(interim);
            let head = format!("{head}HTTP/1.1 204 No Content\r\n\r\n");
            ResponseHead::read(&mut head.as_bytes(), "GET").map(|head| head.status)
        };
        assert_eq!(read(INTERIM_MAX).unwrap(), 204);
        let error = read(INTERIM_MAX + 1).unwrap_err();
        assert!(matches!(error, ResponseError::NotHttp(_)));
    }

    #[track_caller]
    fn check_body(method: &str, head: &str, want: BodyLength) {
        let head = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {head}\r\n\r\n");
        let head = ResponseHead::read(&mut head.as_bytes(), method).unwrap();
        assert_eq!(head.body, want);
    }

    #[test]
    fn where_the_body_ends() {
        check_body("GET", "200 OK\r\nContent-Length: 7", BodyLength::Bytes(7));
        check_body("HEAD", "200 OK\r\nContent-Length: 7", BodyLength::None);
        check_body(
            "GET",
            "304 Not Modified\r\nContent-Length: 7",
            BodyLength::None,
        );
        check_body(
            "GET",
            "200\r\nTransfer-Encoding: chunked",
            BodyLength::Chunked,
        );
        check_body("GET", "200 OK", BodyLength::UntilClose);
        let twice = "200 OK\r\nContent-Length: 7\r\nContent-Length: 7";
        check_body("GET", twice, BodyLength::Bytes(7));
    }

    #[test]
    fn a_connection_on_which_others_may_see_another_end_is_not_kept() {
        for (head, want) in [
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked",
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5",
                true,
            ),
        ] {
            let read = ResponseHead::read(&mut format!("{head}\r\n\r\n").as_bytes(), "GET");
            assert_eq!(read.unwrap().keep_alive, want, "{head}");
        }
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for bad in [
            "{'success': True}\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "",
        ] {
            ResponseHead::read(&mut bad.as_bytes(), "GET").unwrap_err();
        }
    }
}
