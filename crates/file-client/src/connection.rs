//! Requests and replies over one kept-alive HTTP connection.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::escape::{Escaped, EscapedBytes};
use cli::exit::with_causes;
use cli::{Endpoint, ServerStream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use proto::http::request::{host_field, put_head};
use proto::http::{Body, ResponseHead, TARGET_BYTES_MAX, basic};

use crate::Error;
use crate::escaped::escaped;
use crate::peek::{has_answered, is_open};
use crate::progress::above_bars;
use crate::source::Content;

/// How much of a reply's body is read for its first line, in bytes.
const SENTENCE_READ_MAX: u64 = 4096;

/// The longest sentence of a server that is shown, in bytes.
const SENTENCE_BYTES_MAX: usize = 200;

/// The bytes of a path that are percent-encoded in a request target: all but the unreserved ones (RFC
/// 3986 section 2.3) and the slash.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// A request to be sent.
pub(crate) struct Request<'a> {
    method: &'static str,
    target: String,
    /// What errors name.
    path: &'a OsStr,
    fields: Vec<(&'static str, String)>,
    content: Option<Content<'a>>,
    /// Whether it can be sent again when it is not known whether the first one was handled.
    can_repeat: bool,
}

impl<'a> Request<'a> {
    /// A request for `path` on the server, without fields of its own.
    pub(crate) fn new(method: &'static str, path: &'a OsStr) -> Self {
        Self {
            method,
            target: target(path),
            path,
            fields: Vec::new(),
            content: None,
            can_repeat: true,
        }
    }

    /// Goes to another target, which is in origin-form. Errors still name the path.
    pub(crate) fn at(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Is sent once, even if a kept connection turns out to be lost.
    pub(crate) fn once(mut self) -> Self {
        self.can_repeat = false;
        self
    }

    /// Adds fields.
    pub(crate) fn with_all(mut self, fields: Vec<(&'static str, String)>) -> Self {
        self.fields.extend(fields);
        self
    }

    /// Adds content, and its length.
    pub(crate) fn with_content(self, content: Content<'a>) -> Self {
        let length = content.bytes().to_string();
        let mut with_length = self.with("Content-Length", length);
        with_length.content = Some(content);
        with_length
    }
}

/// A reply whose body has not been read.
pub(crate) struct Reply {
    pub(crate) head: ResponseHead,
    pub(crate) stream: BufReader<ServerStream>,
}

impl Reply {
    /// Its body.
    pub(crate) fn body(&mut self) -> Body<&mut BufReader<ServerStream>> {
        Body::new(&mut self.stream, self.head.body)
    }
}

/// A connection to one server. It is made when it is first needed, and again after the server has
/// closed it.
pub(crate) struct Connection {
    server: Endpoint,
    stream: Option<BufReader<ServerStream>>,
}

impl Connection {
    /// To a server, which gets the account with each request, if there is one.
    pub(crate) fn new(server: Endpoint) -> Self {
        let stream = None;
        Self { server, stream }
    }

    /// The server.
    pub(crate) fn server(&self) -> &Endpoint {
        &self.server
    }

    /// Sends a request and reads the head of its reply.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        if request.target.len() > TARGET_BYTES_MAX {
            return Err(Error::PathTooLong {
                path: escaped(request.path).to_string(),
                bytes_max: TARGET_BYTES_MAX,
            });
        }
        let (host, port) = self.server.address.host_and_port();
        let host = host_field(host, port);
        let account = self.server.security.account()?;
        let authorization = account.map(|a| basic::authorization(a.user(), a.password()));
        let mut fields = vec![("User-Agent", crate::args::APP.name)];
        fields.extend(authorization.iter().map(|a| ("Authorization", a.as_str())));
        fields.extend(request.fields.iter().map(|(name, value)| (*name, &**value)));
        let mut head = Vec::new();
        put_head(&mut head, request.method, &request.target, &host, &fields);

        if let Some(mut stream) = self.stream.take().filter(|s| is_open(s.get_ref())) {
            match exchange(&mut stream, request, &head) {
                // The server closed it while the request was sent. Most requests can be sent again: a
                // second upload replaces the first.
                Err(error) if request.can_repeat && error.is_loss() && !error.is_timeout() => {
                    above_bars(|| log::debug!("Connecting again: {}", with_causes(&error)));
                }
                Ok(head) => return Ok(Reply { head, stream }),
                Err(error) => return Err(error),
            }
        }
        let mut stream = BufReader::new(self.server.connect()?);
        let head = exchange(&mut stream, request, &head)?;
        Ok(Reply { head, stream })
    }

    /// Keeps the connection of a reply for the next request, if that is possible.
    pub(crate) fn keep(&mut self, reply: Reply, body_is_read: bool) {
        let is_at_end = body_is_read && reply.stream.buffer().is_empty();
        if reply.head.keep_alive && is_at_end {
            self.stream = Some(reply.stream);
        }
    }

    /// Why a server refuses, from the body of its reply.
    pub(crate) fn refusal(&mut self, path: &OsStr, reply: Reply) -> Error {
        let status = reply.head.status;
        let phrase = Escaped(&reply.head.phrase).to_string();
        Error::Refused {
            path: escaped(path).to_string(),
            status,
            phrase,
            sentence: self.sentence(reply),
            is_anonymous: !self.server.security.has_account(),
        }
    }

    /// The first line of a reply's body, safe to stand in a line.
    pub(crate) fn sentence(&mut self, mut reply: Reply) -> String {
        let mut text = Vec::new();
        let mut body = reply.body().take(SENTENCE_READ_MAX);
        // What was read before an error may still say what is wrong.
        let _ = body.read_to_end(&mut text);
        let is_whole = body.get_ref().is_done();
        self.keep(reply, is_whole);
        let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
        let sentence = EscapedBytes {
            bytes: line.trim_ascii(),
            bytes_max: SENTENCE_BYTES_MAX,
        };
        sentence.to_string()
    }
}

/// The request target of a path as a person writes it.
pub(crate) fn target(path: &OsStr) -> String {
    let path = path.as_bytes();
    let path = path.strip_prefix(b"/").unwrap_or(path);
    format!("/{}", percent_encode(path, PATH_ESCAPES))
}

/// Sends a request and reads the head of its reply, over one connection.
fn exchange(
    stream: &mut BufReader<ServerStream>,
    request: &Request,
    head: &[u8],
) -> Result<ResponseHead, Error> {
    let path = escaped(request.path);
    stream.get_mut().reset_timeout(Duration::ZERO);
    let sent = match send(stream.get_mut(), request, head) {
        Err(error @ (Error::Read { .. } | Error::Changed(_))) => return Err(error),
        // Waiting for an answer now would be waiting twice.
        Err(error) if error.is_timeout() && !has_answered(stream.get_ref()) => return Err(error),
        other => other,
    };
    // A server that refuses a file does not wait for the end of it, and may close the connection while
    // the client still writes. Its reply tells more than the broken pipe does.
    stream.get_mut().reset_timeout(Duration::ZERO);
    let mut head = match ResponseHead::read(stream, request.method) {
        Ok(head) => head,
        Err(error) => return Err(sent.err().unwrap_or_else(|| Error::no_reply(path)(error))),
    };
    if !matches!(sent, Ok(true)) {
        // A success without all of the request is not about this request.
        if head.status < 300 {
            return Err(unexpected(request.path, head.status));
        }
        head.keep_alive = false;
    }
    Ok(head)
}

/// Sends a request. `false` if the server answered before it was sent whole.
fn send(stream: &mut ServerStream, request: &Request, head: &[u8]) -> Result<bool, Error> {
    let lost = |cause: io::Error| Error::lost(escaped(request.path))(cause);
    stream.write_all(head).map_err(lost)?;
    match &request.content {
        None => Ok(true),
        Some(content) => content.send(stream, lost),
    }
}

/// The status of a reply does not fit the request for this path.
pub(crate) fn unexpected(path: &OsStr, status: u16) -> Error {
    Error::Unexpected {
        path: escaped(path).to_string(),
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_target(path: &[u8], want: &str) {
        assert_eq!(target(OsStr::from_bytes(path)), want);
    }

    #[test]
    fn a_path_is_encoded_name_by_name() {
        check_target(b"a/b.txt", "/a/b.txt");
        check_target(b"/a/b.txt", "/a/b.txt");
        check_target(b"", "/");
        check_target(b"/", "/");
        check_target(b"a/", "/a/");
        check_target(b"//a", "//a");
        check_target(b"a b?c#d", "/a%20b%3Fc%23d");
        check_target(b"100%.txt", "/100%25.txt");
        check_target("ä".as_bytes(), "/%C3%A4");
        check_target(b"\xff\n\r\0", "/%FF%0A%0D%00");
        check_target(b"a-b_c~d", "/a-b_c~d");
        check_target(b"..", "/..");
    }
}
