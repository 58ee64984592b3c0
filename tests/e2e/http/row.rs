//! One row of the table, and how it is played against a server.

use std::fmt::Write as _;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::reply::Reply;
use crate::harness::{Address, Server, Stream, connect};

/// What is posted, where nothing else is said: 48 bytes, 30 in hexadecimal. It is a request for a
/// code; a file may hold anything.
pub const BODY: &str = r#"{"uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8"}"#;

/// A row is wrong if a server is silent for so long.
const SILENCE: Duration = Duration::from_secs(5);

/// A server, and what the placeholders in a request stand for: `$TARGET` is a target that can be
/// posted to, `$BODY` is [`BODY`], `$GOOD` is a whole request that is answered with 200, and
/// `$ETAG` the entity tag of `/digits.txt`.
pub struct Host {
    _server: Server,
    addr: Address,
    target: &'static str,
    good: String,
    etag: String,
}

impl Host {
    pub fn new(server: Server, target: &'static str, good: &str) -> Self {
        Self {
            addr: server.addr(),
            _server: server,
            target,
            good: good.replace("$BODY", BODY),
            etag: String::new(),
        }
    }

    pub fn with_etag_of(mut self, target: &str) -> Self {
        let mut peer = Peer::to(self.addr);
        let request = format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        peer.send(request.as_bytes()).unwrap();
        let reply = Reply::read(&mut peer.0, true).unwrap();
        self.etag = reply.field("ETag").unwrap().to_owned();
        self
    }

    fn fill_in(&self, request: &[u8]) -> Vec<u8> {
        let mut filled = Vec::with_capacity(request.len());
        let mut rest = request;
        while let Some(at) = rest.iter().position(|b| *b == b'$') {
            filled.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            let value = [
                ("$GOOD", self.good.as_str()),
                ("$TARGET", self.target),
                ("$BODY", BODY),
                ("$ETAG", &self.etag),
            ];
            let value = value
                .iter()
                .find(|(placeholder, _)| rest.starts_with(placeholder.as_bytes()));
            let (placeholder, value) = value.unwrap_or(&("$", "$"));
            filled.extend_from_slice(value.as_bytes());
            rest = &rest[placeholder.len()..];
        }
        filled.extend_from_slice(rest);
        filled
    }
}

/// The rows of one section, or of one idea of it.
pub type Section = fn() -> Vec<Row>;

/// One connection: what is said on it and heard, in order, and how it ends.
pub struct Row {
    name: String,
    is_for_files: bool,
    is_for_codes: bool,
    steps: Vec<Step>,
    end: End,
    /// The last two replies have the same fields.
    are_alike: bool,
}

enum Step {
    Send(Vec<u8>),
    /// Ends our half of the connection.
    Finish,
    Hear(Want),
}

/// What a reply must be.
#[derive(Default)]
struct Want {
    statuses: Vec<u16>,
    is_to_head: bool,
    has: Vec<String>,
    lacks: Vec<&'static str>,
    body: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The connection goes on: another request is answered on it.
    Open,
    /// The server says that it closes, and does, whatever else was sent.
    Closed,
    /// One of the two, but it must do what it says.
    Either,
    /// The server closes because we have ended our half, so that it need not say so.
    Finished,
}

/// A row for both servers.
pub fn both(name: impl Into<String>) -> Row {
    Row {
        name: name.into(),
        is_for_files: true,
        is_for_codes: true,
        steps: Vec::new(),
        end: End::Open,
        are_alike: false,
    }
}

/// A row about files.
pub fn file(name: impl Into<String>) -> Row {
    Row {
        is_for_codes: false,
        ..both(name)
    }
}

/// A row about codes.
pub fn code(name: impl Into<String>) -> Row {
    Row {
        is_for_files: false,
        ..both(name)
    }
}

/// A head: its first line, and its fields, if any, with CR LF between them.
pub fn head(line: impl AsRef<[u8]>, fields: impl AsRef<[u8]>) -> Vec<u8> {
    let (line, fields) = (line.as_ref(), fields.as_ref());
    let last_end: &[u8] = if fields.is_empty() { b"" } else { b"\r\n" };
    [line, b"\r\n", fields, last_end, b"\r\n"].concat()
}

/// A post of [`BODY`] that differs from a plain one by this first line.
pub fn post_with_line(line: impl AsRef<[u8]>) -> Vec<u8> {
    let head = head(line, "Host: h\r\nContent-Length: 48");
    [&head, BODY.as_bytes()].concat()
}

/// A post of [`BODY`] that has these fields, and its length.
pub fn post_with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    let fields = [fields.as_ref(), b"\r\nContent-Length: 48"].concat();
    let head = head("POST $TARGET HTTP/1.1", fields);
    [&head, BODY.as_bytes()].concat()
}

/// The request is accepted, and the connection goes on.
pub fn accepted(name: &str, request: impl AsRef<[u8]>) -> Row {
    both(name).send(request).hears(200)
}

/// The request is refused, and what comes behind it is not taken for another one.
pub fn refused(name: &str, status: u16, request: impl AsRef<[u8]>) -> Row {
    both(name)
        .send(request)
        .send("$GOOD")
        .hears(status)
        .closes()
}

impl Row {
    pub fn send(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Send(bytes.as_ref().to_vec()));
        self
    }

    /// Ends our half of the connection.
    pub fn finish(mut self) -> Self {
        self.steps.push(Step::Finish);
        self.end = End::Finished;
        self
    }

    /// A reply with this status comes next.
    pub fn hears(self, status: u16) -> Self {
        self.hears_one_of(&[status])
    }

    pub fn hears_one_of(mut self, statuses: &[u16]) -> Self {
        self.steps.push(Step::Hear(Want {
            statuses: statuses.to_vec(),
            ..Want::default()
        }));
        self
    }

    /// A reply to `HEAD`: it has no body, whatever its fields say.
    pub fn hears_head(mut self, status: u16) -> Self {
        self = self.hears(status);
        self.last().is_to_head = true;
        self
    }

    /// The last reply has this field.
    pub fn has(mut self, field: impl Into<String>) -> Self {
        self.last().has.push(field.into());
        self
    }

    /// The last reply has no field of this name.
    pub fn lacks(mut self, name: &'static str) -> Self {
        self.last().lacks.push(name);
        self
    }

    /// The last reply has this body.
    pub fn body(mut self, body: &'static str) -> Self {
        self.last().body = Some(body);
        self
    }

    pub fn closes(mut self) -> Self {
        self.end = End::Closed;
        self
    }

    pub fn closes_or_not(mut self) -> Self {
        self.end = End::Either;
        self
    }

    /// The last two replies have the same fields.
    pub fn alike(mut self) -> Self {
        self.are_alike = true;
        self
    }

    fn last(&mut self) -> &mut Want {
        match self.steps.last_mut() {
            Some(Step::Hear(want)) => want,
            _ => panic!("{}: no reply to say this of", self.name),
        }
    }

    pub fn is_for_files(&self) -> bool {
        self.is_for_files
    }

    pub fn is_for_codes(&self) -> bool {
        self.is_for_codes
    }

    /// Plays the row. An error says all there is to know of it.
    pub fn run(&self, host: &Host) -> Result<(), String> {
        let mut talk = String::new();
        self.play(host, &mut talk)
            .map_err(|why| format!("{}\n{talk}    WRONG: {why}", self.name))
    }

    fn play(&self, host: &Host, talk: &mut String) -> Result<(), String> {
        let mut peer = Peer::to(host.addr);
        let mut replies: Vec<Reply> = Vec::new();
        for step in &self.steps {
            if let Some(last) = replies.last()
                && last.says_close()
            {
                return Err("the reply says close, but another one is due".to_owned());
            }
            match step {
                Step::Send(bytes) => {
                    let bytes = host.fill_in(bytes);
                    let _ = writeln!(talk, "    > {}", shown(&bytes));
                    peer.send(&bytes)?;
                }
                Step::Finish => peer.finish()?,
                Step::Hear(want) => {
                    let _ = writeln!(talk, "    wanted: {:?}", want.statuses);
                    let reply = Reply::read(&mut peer.0, want.is_to_head)?;
                    let _ = writeln!(talk, "    < {}", shown(reply.bytes()));
                    want.check(&reply, &host.etag)?;
                    replies.push(reply);
                }
            }
        }
        if let [.., one, other] = replies.as_slice()
            && self.are_alike
        {
            one.check_alike(other)?;
        }
        let says_close = replies.last().is_some_and(Reply::says_close);
        match (self.end, says_close) {
            (End::Open, true) => Err("the reply says close, but should not".to_owned()),
            (End::Closed, false) => Err("the reply does not say close".to_owned()),
            (End::Finished, _) | (_, true) => peer.expect_end(),
            (_, false) => peer.expect_another(host),
        }
    }
}

impl Want {
    fn check(&self, reply: &Reply, etag: &str) -> Result<(), String> {
        if !self.statuses.contains(&reply.status) {
            return Err(format!("status {}", reply.status));
        }
        for field in &self.has {
            let field = field.replace("$ETAG", etag);
            let (name, value) = field.split_once(": ").unwrap();
            if reply.field(name) != Some(value) {
                return Err(format!("{name} is {:?}, not {value}", reply.field(name)));
            }
        }
        for name in &self.lacks {
            if let Some(value) = reply.field(name) {
                return Err(format!("there is a field {name}: {value}"));
            }
        }
        match self.body {
            Some(body) if reply.body() != body.as_bytes() => Err(format!("not the body {body:?}")),
            _ => Ok(()),
        }
    }
}

/// Our end of a connection.
struct Peer(BufReader<Stream>);

impl Peer {
    fn to(addr: Address) -> Self {
        let stream = connect(addr);
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.0.get_ref().write_all(bytes);
        sent.map_err(|error| format!("cannot send it all: {error}"))
    }

    fn finish(&mut self) -> Result<(), String> {
        let finished = self.0.get_ref().shutdown(Shutdown::Write);
        finished.map_err(|error| format!("cannot end our half: {error}"))
    }

    /// A reset is not an end: it may destroy the reply on its way.
    fn expect_end(&mut self) -> Result<(), String> {
        use std::io::Read;
        let mut more = Vec::new();
        match self.0.read_to_end(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(format!("more comes after the close: {}", shown(&more))),
            Err(error) => Err(format!("it is not closed: {error}")),
        }
    }

    fn expect_another(&mut self, host: &Host) -> Result<(), String> {
        self.send(&host.fill_in(b"$GOOD"))?;
        let reply = Reply::read(&mut self.0, false)
            .map_err(|error| format!("the next request is not answered: {error}"))?;
        match (reply.status, reply.says_close()) {
            (200, false) => Ok(()),
            _ => Err(format!(
                "the next request is answered {}",
                shown(reply.bytes())
            )),
        }
    }
}

/// Bytes in one line, and not too many of them.
fn shown(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 400;
    match bytes.len() {
        0..=BYTES_MAX => bytes.escape_ascii().to_string(),
        length => format!("{}... ({length} bytes)", bytes[..BYTES_MAX].escape_ascii()),
    }
}
