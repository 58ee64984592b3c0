//! Requests and replies over one kept-alive HTTP connection.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::escape::{Escaped, EscapedBytes};
use cli::{Endpoint, ServerStream, is_timeout};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use proto::http::request::{host_field, put_head};
use proto::http::{Body, ResponseHead};

use crate::Error;
use crate::auth::Credentials;
use crate::progress::above_bars;
use crate::source::Content;
use crate::transfer::shown;
use crate::unread::{has_answered, is_open};

/// So much of a reply's body is read for its first line, in bytes, if it is not a file.
const SENTENCE_READ_MAX: u64 = 4096;

/// The longest sentence of a server that is shown, in bytes.
const SENTENCE_BYTES_MAX: usize = 200;

/// Every byte of a path that does not stand for itself in a target (RFC 3986 section 2.3), but for
/// the slash.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// A request that is to be made.
pub(crate) struct Request<'a> {
    method: &'static str,
    target: String,
    /// What the errors name.
    path: &'a OsStr,
    fields: Vec<(&'static str, String)>,
    content: Option<Content<'a>>,
    /// Whether it can be made a second time when nobody knows what became of the first.
    can_repeat: bool,
}

impl<'a> Request<'a> {
    /// A request for what stands at `path` on the server, without fields of its own.
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

    /// The same for another target, which is in origin-form already. Errors still name the path.
    pub(crate) fn at(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// With one more field.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// To be made once, even if a kept connection turns out to be lost.
    pub(crate) fn once(mut self) -> Self {
        self.can_repeat = false;
        self
    }

    /// With more fields.
    pub(crate) fn with_all(mut self, fields: Vec<(&'static str, String)>) -> Self {
        self.fields.extend(fields);
        self
    }

    /// With content, and how long it is.
    pub(crate) fn with_content(self, content: Content<'a>) -> Self {
        let length = content.bytes().to_string();
        let mut with_length = self.with("Content-Length", length);
        with_length.content = Some(content);
        with_length
    }
}

/// A reply whose body is not read yet.
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

/// A connection to one server, made when it is first needed, and again when the server has closed
/// it.
pub(crate) struct Connection {
    server: Endpoint,
    credentials: Option<Credentials>,
    stream: Option<BufReader<ServerStream>>,
}

impl Connection {
    /// With a server that is told who asks, if it is to know.
    pub(crate) fn new(server: Endpoint, credentials: Option<Credentials>) -> Self {
        Self {
            server,
            credentials,
            stream: None,
        }
    }

    /// The server.
    pub(crate) fn server(&self) -> &Endpoint {
        &self.server
    }

    /// Sends a request and reads the head of its reply.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        let host = host_field(&self.server.host, self.server.port);
        let mut fields = vec![("User-Agent", crate::args::APP.name)];
        let credentials = self.credentials.as_ref();
        fields.extend(credentials.map(|c| ("Authorization", c.field())));
        fields.extend(request.fields.iter().map(|(name, value)| (*name, &**value)));
        let mut head = Vec::new();
        put_head(&mut head, request.method, &request.target, &host, &fields);

        if let Some(mut stream) = self.stream.take().filter(|s| is_open(s.get_ref())) {
            match exchange(&mut stream, request, &head) {
                // The server closed it as we wrote to it. Most requests can be made twice: a second
                // upload would replace the first.
                Err(Error::Lost { cause, .. }) if request.can_repeat && !is_timeout(&cause) => {
                    above_bars(|| log::debug!("Connecting again: {cause}"));
                }
                Ok(head) => return Ok(Reply { head, stream }),
                Err(error) => return Err(error),
            }
        }
        let mut stream = BufReader::new(self.server.connect()?);
        let head = exchange(&mut stream, request, &head)?;
        Ok(Reply { head, stream })
    }

    /// Keeps the connection of a reply for the next request, if it can be.
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
            path: shown(path).to_string(),
            status,
            phrase,
            sentence: self.sentence(reply),
            is_anonymous: self.credentials.is_none(),
        }
    }

    /// The first line of a reply's body, safe to stand in a line.
    pub(crate) fn sentence(&mut self, mut reply: Reply) -> String {
        let mut text = Vec::new();
        let mut body = reply.body().take(SENTENCE_READ_MAX);
        // What came before an error may still say what is wrong.
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

/// A path as a person writes it, as a target.
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
    let path = shown(request.path);
    stream.get_mut().reset_timeout(Duration::ZERO);
    let sent = match send(stream.get_mut(), request, head) {
        Err(error @ (Error::Read { .. } | Error::Changed(_))) => return Err(error),
        // To wait for an answer now would be to wait twice.
        Err(Error::Lost { cause, .. }) if is_timeout(&cause) && !has_answered(stream.get_ref()) => {
            return Err(Error::lost(path)(cause));
        }
        other => other,
    };
    // A server that refuses a file does not wait for the end of it, and may close while we still
    // write. Its reply tells more than the broken pipe does.
    stream.get_mut().reset_timeout(Duration::ZERO);
    let mut head = match ResponseHead::read(stream, request.method) {
        Ok(head) => head,
        Err(error) => return Err(sent.err().unwrap_or_else(|| Error::no_reply(path)(error))),
    };
    if !matches!(sent, Ok(true)) {
        // Whoever agrees without having seen all of it does not mean us.
        if head.status < 300 {
            return Err(unexpected(request.path, head.status));
        }
        head.keep_alive = false;
    }
    Ok(head)
}

/// Sends a request; returns whether it is whole, or the server answered before it was.
fn send(stream: &mut ServerStream, request: &Request, head: &[u8]) -> Result<bool, Error> {
    let lost = |cause: io::Error| Error::lost(shown(request.path))(cause);
    stream.write_all(head).map_err(lost)?;
    match &request.content {
        None => Ok(true),
        Some(content) => content.send(stream, lost),
    }
}

/// For a path, the status does not go with what was asked.
pub(crate) fn unexpected(path: &OsStr, status: u16) -> Error {
    Error::Unexpected {
        path: shown(path).to_string(),
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
