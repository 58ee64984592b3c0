//! A client of the code server: one persistent HTTP connection to each of its two ports.

use std::io::{self, BufReader, Read, Write};
use std::time::Duration;

use cli::escape::EscapedBytes;
use cli::{Account, ClientError, Endpoint, ServerStream};
use proto::code::{CodeRequest, MessageRequest, Reply};
use proto::http::request::{host_field, put_head};
use proto::http::{Body, ResponseHead, basic};
use uuid::Uuid;

use crate::Error;

/// The longest reply that is read, in bytes.
const REPLY_BYTES_MAX: u64 = 64 * 1024;

/// The longest sentence of a server that is shown, in bytes.
const SENTENCE_BYTES_MAX: usize = 200;

/// The status of a request whose account is missing or wrong.
const UNAUTHORIZED: u16 = 401;

/// Talks to one code server. It connects when the first request needs it.
///
/// ```no_run
/// use cli::Endpoint;
/// use code_client::Client;
/// use uuid::Uuid;
///
/// let server = Endpoint::new("127.0.0.1", 8000);
/// let mut client = Client::new(server.clone(), server.with_port(8001));
/// let uuid = Uuid::new_v4();
/// let code = client.request(uuid)?;
/// client.send(uuid, &code.to_string(), "hello")?;
/// # Ok::<(), code_client::Error>(())
/// ```
pub struct Client {
    codes: Link,
    messages: Link,
}

struct Link {
    server: Endpoint,
    stream: Option<BufReader<ServerStream>>,
}

impl Client {
    /// A client of the server at these two ports.
    pub fn new(codes: Endpoint, messages: Endpoint) -> Self {
        let link = |server| Link {
            server,
            stream: None,
        };
        Self {
            codes: link(codes),
            messages: link(messages),
        }
    }

    /// Asks for the code of a UUID.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn request(&mut self, uuid: Uuid) -> Result<Uuid, Error> {
        match self.codes.ask(&CodeRequest { uuid }.encode())? {
            Reply::Code(code) => Ok(code),
            other => Err(unexpected(other)),
        }
    }

    /// Leaves a message.
    ///
    /// # Errors
    /// If the server refuses or is lost. If it is lost, the message may or may not be stored.
    pub fn send(&mut self, uuid: Uuid, code: &str, text: &str) -> Result<(), Error> {
        let request = MessageRequest {
            uuid,
            unique: code.to_owned(),
            text: text.to_owned(),
        };
        match self.messages.ask(&request.encode())? {
            Reply::Logged => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused(sentence) => Error::Refused(sentence),
        Reply::Code(_) | Reply::Logged => ClientError::Unexpected.into(),
    }
}

impl Link {
    fn ask(&mut self, body: &str) -> Result<Reply, Error> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(self.server.connect()?),
        };
        let account = self.server.security.account()?;
        let exchanged = self.exchange(stream, body, account.as_ref());
        let (status, reply) = exchanged.map_err(ClientError::lost)?;
        match Reply::decode(&reply) {
            Ok(Reply::Refused(sentence)) if status == UNAUTHORIZED => {
                Err(Error::Unauthorized(sentence))
            }
            Ok(reply) => Ok(reply),
            // What the front door refuses has not reached the service, and is told in plain text.
            Err(_) if status == UNAUTHORIZED => Err(Error::Unauthorized(first_line(&reply))),
            Err(_) if status >= 400 => Err(Error::Refused(first_line(&reply))),
            Err(error) => Err(ClientError::malformed(error).into()),
        }
    }

    /// Sends a request and reads the status and the body of its reply. Keeps the connection if the
    /// server does.
    fn exchange(
        &mut self,
        mut stream: BufReader<ServerStream>,
        body: &str,
        account: Option<&Account>,
    ) -> io::Result<(u16, Vec<u8>)> {
        let (host, port) = self.server.address.host_and_port();
        let host = host_field(host, port);
        let length = body.len().to_string();
        let authorization = account.map(|a| basic::authorization(a.user(), a.password()));
        let mut fields = vec![
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
        ];
        fields.extend(authorization.iter().map(|a| ("Authorization", a.as_str())));
        let mut request = Vec::new();
        put_head(&mut request, "POST", "/", &host, &fields);
        request.extend_from_slice(body.as_bytes());
        stream.get_mut().reset_timeout(Duration::ZERO);
        let sent = stream.get_mut().write_all(&request);
        stream.get_mut().reset_timeout(Duration::ZERO);
        // A server that refuses before it has read everything may close the connection while the request
        // is still being written. Its reply says more than the broken pipe.
        let head = match ResponseHead::read(&mut stream, "POST") {
            Ok(head) => head,
            Err(error) => return Err(sent.err().unwrap_or_else(|| error.into())),
        };
        let mut reply = Vec::new();
        let mut body = Body::new(&mut stream, head.body).take(REPLY_BYTES_MAX);
        body.read_to_end(&mut reply)?;
        if !body.get_ref().is_done() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if head.keep_alive {
            self.stream = Some(stream);
        }
        Ok((head.status, reply))
    }
}

/// The first line of a reply in plain text, safe to stand in a line.
fn first_line(reply: &[u8]) -> String {
    let line = reply.split(|b| *b == b'\n').next().unwrap_or_default();
    let sentence = EscapedBytes {
        bytes: line.trim_ascii(),
        bytes_max: SENTENCE_BYTES_MAX,
    };
    sentence.to_string()
}
