//! Request heads (RFC 9112 sections 2 to 6): reading one from a stream, and every check that does not
//! depend on the resource. An ambiguous head is refused.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};
use std::iter::zip;

use httparse::Header;
use memchr::memchr;

use super::body::BodyLength;
use super::head::{self, FIELDS_MAX, HEAD_BYTES_MAX, Progress, TARGET_BYTES_MAX};
use super::response::Persistence;
use super::status::Status;
use super::target::{self, is_host, split_port};
use crate::digits;

/// How many fields there is room for at first. Room for [`FIELDS_MAX`] is made only when this is too
/// little, because clearing it takes as long as parsing the few fields of a usual request.
const FIELDS_USUAL: usize = 16;

/// The head of a request, checked. Borrows from the bytes it was parsed from.
#[derive(Debug, Clone)]
pub struct RequestHead<'a> {
    /// The minor version of HTTP/1: 0 or 1.
    pub minor_version: u8,
    /// The method, as it was sent; methods are case-sensitive.
    pub method: &'a str,
    /// The path of the target, still percent-encoded, starting with `/`; or `*` (for `OPTIONS`).
    pub path: &'a str,
    /// What follows the target's `?`, still percent-encoded.
    pub query: Option<&'a str>,
    /// The host and port that the client means: those of the target if it names any, else the `Host`
    /// field; empty without one.
    pub host: &'a [u8],
    /// How the body that follows ends.
    pub body: BodyLength,
    /// Whether the client may send another request on this connection, and whether the reply must say
    /// so.
    pub persistence: Persistence,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    fields: Vec<Header<'a>>,
}

/// A request that is refused: with which status, and why, in one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the reply.
    pub status: Status,
    /// What was wrong and what would be right.
    pub sentence: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(status: Status, sentence: impl Into<Cow<'static, str>>) -> Self {
        let sentence = sentence.into();
        Self { status, sentence }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.sentence)
    }
}

/// Reads the bytes of one request head, up to and including its empty line, into `head`. `false` is the
/// end of the stream before a request.
///
/// # Errors
/// Those of the stream, [`io::ErrorKind::UnexpectedEof`] if it ends inside the head; and inside `Ok`, a
/// [`Refusal`] if the head exceeds a limit.
pub fn read_head(
    input: &mut impl BufRead,
    head: &mut Vec<u8>,
) -> io::Result<Result<bool, Refusal>> {
    Ok(match head::read_head(input, head)? {
        Progress::Whole => Ok(true),
        Progress::End => Ok(false),
        // RFC 9112 section 3: a method longer than any other is an unknown one.
        Progress::TooLong if is_unknown_method(head) => Err(unknown_method()),
        Progress::TooLong if !head.is_empty() && !head.contains(&b'\n') => Err(target_too_long()),
        Progress::TooLong => Err(Refusal::new(
            Status::HeaderFieldsTooLarge,
            format!("the head of the request exceeds {HEAD_BYTES_MAX} bytes"),
        )),
    })
}

/// Appends the head of a request with these fields. `target` is in origin-form, and `host` is the value of
/// the `Host` field.
pub fn put_head(
    out: &mut Vec<u8>,
    method: &str,
    target: &str,
    host: &str,
    fields: &[(&str, &str)],
) {
    for part in [method, " ", target, " HTTP/1.1\r\nHost: ", host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in fields {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The value of the `Host` field of a request to this server. An IPv6 address stands in brackets, without
/// its zone, which has a meaning on this machine alone (RFC 9844 section 6).
pub fn host_field(host: &str, port: u16) -> String {
    if !host.contains(':') {
        return format!("{host}:{port}");
    }
    let address = host.split('%').next().unwrap_or(host);
    format!("[{address}]:{port}")
}

fn target_too_long() -> Refusal {
    let sentence = format!("the target of the request exceeds {TARGET_BYTES_MAX} bytes");
    Refusal::new(Status::UriTooLong, sentence)
}

pub(crate) fn bad(sentence: &'static str) -> Refusal {
    Refusal::new(Status::BadRequest, sentence)
}

impl<'a> RequestHead<'a> {
    /// Parses one whole head, as [`read_head`] leaves it.
    ///
    /// # Errors
    /// If the head is not exactly what RFC 9112 allows. Then nobody knows where the next request starts,
    /// and the connection must be closed.
    pub fn parse(head: &'a [u8]) -> Result<Self, Refusal> {
        if has_bare_lf(head) {
            return Err(bad("lines end in CR LF"));
        }
        let (line, fields) = head.split_at(memchr(b'\r', head).unwrap_or(head.len()));
        let fields = fields
            .strip_prefix(b"\r\n")
            .ok_or(bad("the request line does not end in CR LF"))?;
        let (method, target, minor_version) = parse_request_line(line)?;
        let fields = parse_fields(fields)?;
        let mut request = Self {
            minor_version,
            method,
            path: "",
            query: None,
            host: b"",
            body: BodyLength::None,
            persistence: Persistence::Close,
            expects_continue: false,
            fields,
        };
        let host = request.check_host(minor_version)?;
        check_method(method)?;
        let target = target::parse(method, target)?;
        (request.path, request.query) = (target.path, target.query);
        // RFC 9112 section 3.2.2.
        request.host = target.host.unwrap_or(host);
        request.body = request.body_length(minor_version)?;
        request.persistence = request.wanted_persistence(minor_version);
        request.expects_continue = request.check_expect(minor_version)?;
        Ok(request)
    }

    /// The values of every field with this name, in order; names ignore case.
    pub fn fields<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.fields
            .iter()
            // Most clients spell a name as the standard does, and equality is the quicker test.
            .filter(move |field| field.name == name || field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// The value of the field with this name, if there is exactly one. Several may contradict each other,
    /// so none of them counts.
    pub fn single(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.fields(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether there is a field with this name.
    pub fn has(&self, name: &str) -> bool {
        self.fields(name).next().is_some()
    }

    /// The host that the client means, without the port; empty if the request names none.
    pub fn host_name(&self) -> &'a [u8] {
        split_port(self.host).0
    }

    /// Whether a field may make the request conditional (RFC 9110 section 13.1): the names of those
    /// fields, and no others, start with `If-`.
    pub fn has_conditions(&self) -> bool {
        let mut names = self.fields.iter().map(|field| field.name.as_bytes());
        names.any(|name| matches!(name, [b'I' | b'i', b'F' | b'f', b'-', ..]))
    }

    fn check_host(&self, minor_version: u8) -> Result<&'a [u8], Refusal> {
        match self.single("Host") {
            Some(host) if is_host(host) => Ok(host),
            Some(_) => Err(bad("the Host field is not a host and a port")),
            None if self.has("Host") => Err(bad("a request has one Host field, not several")),
            None if minor_version == 0 => Ok(b""),
            None => Err(bad("an HTTP/1.1 request needs a Host field")),
        }
    }

    fn body_length(&self, minor_version: u8) -> Result<BodyLength, Refusal> {
        let length = self.single("Content-Length");
        match (length, self.has("Transfer-Encoding")) {
            (None, _) if self.has("Content-Length") => {
                Err(bad("a request has one Content-Length field, not several"))
            }
            (None, false) => Ok(BodyLength::None),
            (Some(length), false) => digits::parse(length)
                .map(BodyLength::Bytes)
                .map_err(|_| bad("the Content-Length is not a number")),
            (Some(_), true) => Err(bad(
                "a request has a Content-Length or a Transfer-Encoding, not both",
            )),
            (None, true) if minor_version == 0 => Err(bad("HTTP/1.0 knows no Transfer-Encoding")),
            (None, true) => self.check_codings().map(|()| BodyLength::Chunked),
        }
    }

    /// Only `chunked` says where a body ends, so it must be the last coding, and there must be one
    /// (RFC 9112 sections 6.1 and 6.3). This server knows no other coding.
    fn check_codings(&self) -> Result<(), Refusal> {
        let codings = self.fields("Transfer-Encoding");
        let codings: Vec<_> = codings.flat_map(head::list_members).collect();
        let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
        match codings.iter().position(is_chunked) {
            Some(0) if codings.len() == 1 => Ok(()),
            Some(first) if first + 1 == codings.len() => Err(Refusal::new(
                Status::NotImplemented,
                "the only transfer coding known here is chunked",
            )),
            _ => Err(bad("the Transfer-Encoding does not end in one 'chunked'")),
        }
    }

    fn wanted_persistence(&self, minor_version: u8) -> Persistence {
        let has = |option: &[u8]| {
            self.fields("Connection")
                .flat_map(head::list_members)
                .any(|member| member.eq_ignore_ascii_case(option))
        };
        match minor_version {
            _ if has(b"close") => Persistence::Close,
            1.. => Persistence::Default,
            0 if has(b"keep-alive") => Persistence::KeepAlive,
            0 => Persistence::Close,
        }
    }

    fn check_expect(&self, minor_version: u8) -> Result<bool, Refusal> {
        let mut expects_continue = false;
        for expectation in self.fields("Expect").flat_map(head::list_members) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(
                    Status::ExpectationFailed,
                    "the only expectation that can be met here is 100-continue",
                ));
            }
            expects_continue = true;
        }
        // An HTTP/1.0 client does not know the interim reply (RFC 9110 section 10.1.1).
        Ok(minor_version >= 1 && expects_continue)
    }
}

/// Whether a line feed lacks its carriage return. The loop looks at the whole head, because without an
/// early end the compiler makes it compare many bytes at a time.
fn has_bare_lf(head: &[u8]) -> bool {
    let pairs = zip(head, head.get(1..).unwrap_or_default());
    let is_bare = |(before, byte): (&u8, &u8)| (*before != b'\r') & (*byte == b'\n');
    head.starts_with(b"\n") || pairs.fold(false, |found, pair| found | is_bare(pair))
}

/// `METHOD SP target SP HTTP/1.x`, with single spaces (RFC 9112 section 3).
fn parse_request_line(line: &[u8]) -> Result<(&str, &[u8], u8), Refusal> {
    const SHAPE: Refusal = Refusal {
        status: Status::BadRequest,
        sentence: Cow::Borrowed("a request line is METHOD, target and HTTP/1.1, one space between"),
    };
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(SHAPE);
    };
    if method.is_empty() || !method.iter().all(|b| head::is_token_byte(*b)) {
        return Err(bad("the method is not a token"));
    }
    let minor_version = match version {
        b"HTTP/1.0" => 0,
        // A higher minor version is read as 1.1 (RFC 9110 section 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => 1,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            let sentence = "this server speaks HTTP/1.1 and HTTP/1.0";
            return Err(Refusal::new(Status::HttpVersionNotSupported, sentence));
        }
        _ => return Err(SHAPE),
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(target_too_long());
    }
    let method = std::str::from_utf8(method).map_err(|_| bad("the method is not a token"))?;
    Ok((method, target, minor_version))
}

fn parse_fields(lines: &[u8]) -> Result<Vec<Header<'_>>, Refusal> {
    let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_USUAL];
    let mut parsed = httparse::parse_headers(lines, &mut fields);
    if parsed == Err(httparse::Error::TooManyHeaders) {
        fields.resize(FIELDS_MAX, httparse::EMPTY_HEADER);
        parsed = httparse::parse_headers(lines, &mut fields);
    }
    match parsed {
        Ok(httparse::Status::Complete((bytes, parsed))) if bytes == lines.len() => {
            let count = parsed.len();
            fields.truncate(count);
            Ok(fields)
        }
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::new(
            Status::HeaderFieldsTooLarge,
            format!("the request has more than {FIELDS_MAX} fields"),
        )),
        Ok(_) => Err(bad("the head is not a list of fields")),
        Err(httparse::Error::HeaderName) => Err(bad(
            "a field starts with its name and a colon, no space between or in front",
        )),
        Err(_) => Err(bad("a field holds a byte that may not stand there")),
    }
}

/// The methods of RFC 9110 section 9.3 and RFC 5789, but for `CONNECT`, which is for proxies, and those of
/// RFC 4918 that create and rename folders. Each service says which of them a resource has.
pub(super) const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "MKCOL", "MOVE",
];

fn check_method(method: &str) -> Result<(), Refusal> {
    if METHODS.contains(&method) {
        Ok(())
    } else {
        Err(unknown_method())
    }
}

fn unknown_method() -> Refusal {
    let sentence = "this method is not known here; methods are in capitals";
    Refusal::new(Status::NotImplemented, sentence)
}

/// Whether the beginning of a request line holds nothing but a method.
fn is_unknown_method(beginning: &[u8]) -> bool {
    !beginning.is_empty() && beginning.iter().all(|b| head::is_token_byte(*b))
}

#[cfg(test)]
mod tests;
